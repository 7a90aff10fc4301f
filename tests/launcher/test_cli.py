"""The `lmchat` command as the shell runs it: usage, version, and what its start costs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from server.cli import main

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
