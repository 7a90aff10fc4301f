"""A client runs only if it was built from the present sources and stubs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lmchat_dev import polyglot


@pytest.fixture(name="go")
def go_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a client in Go, which `true` builds."""
    monkeypatch.setattr(polyglot, "ROOT", tmp_path)
    monkeypatch.setattr(polyglot, "CLIENTS", tmp_path / "clients")
    monkeypatch.setattr(polyglot, "GENERATED", tmp_path / "generated")
    monkeypatch.setattr(polyglot, "BUILT", {"go": polyglot.Client("go", [("true",)], ("target/client",))})
    for folder in ("clients", "generated"):
        (tmp_path / folder / "go").mkdir(parents=True)
        (tmp_path / folder / "go" / "main.go").write_text("package main")
    return tmp_path / "clients" / "go"


def test_built(go: Path) -> None:
    assert polyglot.command("go") is None
    polyglot.build("go")
    assert polyglot.command("go") == ["target/client"]
    (go / "target" / "client").write_text("built")
    assert polyglot.command("go") == ["target/client"]


@pytest.mark.parametrize("folder", ["clients", "generated"])
def test_stale(go: Path, folder: str) -> None:
    polyglot.build("go")
    (go.parents[1] / folder / "go" / "main.go").write_text("package main // changed")
    assert polyglot.command("go") is None


def test_failed_build(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polyglot.build("go")
    monkeypatch.setattr(polyglot, "BUILT", {"go": polyglot.BUILT["go"]._replace(build=[("false",)])})
    with pytest.raises(subprocess.CalledProcessError):
        polyglot.build("go")
    assert polyglot.command("go") is None
