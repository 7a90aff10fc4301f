"""What `uv run supply-chain` and the checks of pins and licences make of what uv prints. uv does not run here."""

from __future__ import annotations

import json
import re
from email.message import Message
from importlib.metadata import PackageMetadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import cast

import pytest
from lmchat_dev import licenses, pins, supply_chain

HASH = "sha256:" + "a" * 64
EXPORT = f"""\
alpha==1.0 ; sys_platform == 'linux' \\
    --hash={HASH} \\
    --hash={HASH}
beta==2.0 \\
    --hash={HASH}
"""


def entries(file: Path) -> list[str]:
    return re.findall(r"^[A-Za-z0-9].*\n(?:    .*\n)*", file.read_text(), re.MULTILINE)


ENTRY = re.compile(
    r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [A-Za-z0-9_ .='<>()!]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


@pytest.mark.parametrize("file", [pins.GATEWAY, pins.TOOLS], ids=lambda file: file.parent.name)
def test_every_entry_has_a_version_and_hashes_and_no_address(file: Path) -> None:
    assert len(entries(file)) > 40
    assert [entry for entry in entries(file) if not ENTRY.fullmatch(entry)] == []
    assert "://" not in file.read_text()


def test_the_files_share_no_package() -> None:
    gateway, tools = ({entry.partition("==")[0] for entry in entries(file)} for file in pins.GROUPS)
    assert gateway.isdisjoint(tools)
    assert {"grpcio", "xllamacpp"} < gateway
    assert {"pytest", "hatchling"} < tools


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = {"model": EXPORT, "dev": EXPORT.replace("alpha", "gamma")}
    monkeypatch.setattr(pins, "uv", lambda *arguments: exported["dev" if "dev" in arguments else "model"])
    generated = pins.requirements(hashes=True)
    assert generated[pins.GATEWAY].endswith(f"pip install --no-deps .\n{EXPORT}")
    assert generated[pins.TOOLS].count("==1.0") == 1
    assert "gamma==1.0 ; sys_platform == 'linux' \\\n" in generated[pins.TOOLS]
    assert "beta" not in generated[pins.TOOLS]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License-Expression": "MIT AND Apache-2.0", "License": "other"}, "MIT AND Apache-2.0"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "Some License\n with its text"}, "Some License"),
        ({}, "unknown"),
    ],
)
def test_expression(fields: dict[str, str], expected: str) -> None:
    message = Message()
    for name, value in fields.items():
        message[name] = value
    assert licenses.expression(cast("PackageMetadata", message)) == expected


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("GPL-3.0 OR MIT", True),
        ("GPL-3.0", False),
        ("MIT AND GPL-3.0", False),
        ("unknown", False),
    ],
)
def test_accepted(licence: str, expected: bool) -> None:
    assert licenses.accepted(licence) is expected


def test_the_page_names_every_package_and_all_are_accepted() -> None:
    assert licenses.problems() == []
    rows = re.findall(r"^\| (\S+) \| (\S+) \|", licenses.PAGE.read_text(), re.MULTILINE)
    assert rows[2:] == [*licenses.packages()]


def test_sbom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = {"bomFormat": "CycloneDX", "components": [{"name": "grpcio"}, {"name": "uvloop"}]}
    monkeypatch.setattr(pins, "uv", lambda *_: json.dumps(document))
    file = tmp_path / "generated" / "s.json"
    supply_chain.sbom(file)
    found = [component["licenses"] for component in json.loads(file.read_text())["components"]]
    assert found == [[{"expression": "Apache-2.0"}], [{"expression": "Apache-2.0 OR MIT"}]]


@pytest.mark.parametrize(
    ("code", "stderr", "fine", "shown"),
    [
        (0, "Found no known vulnerabilities", True, "Found no known"),
        (1, "alpha 1.0 has 1 known vulnerability", False, "alpha 1.0 has"),
        (2, "error: Request failed\n  cause: error sending request for url", True, "NOT AUDITED"),
        (2, "error: unexpected argument", False, "unexpected argument"),
        (1, "alpha: error sending request", False, "alpha"),
    ],
)
def test_audit(
    code: int,
    stderr: str,
    fine: bool,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pins, "run_uv", lambda *_: CompletedProcess([], code, "", stderr))
    assert supply_chain.audit() is fine
    assert shown in capsys.readouterr().out
