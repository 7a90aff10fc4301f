"""Requirements of tests beyond Python: where one is missing the test is skipped, on CI it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from lmchat_dev import plugins

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests" / "e2e" / "node"
RECORDINGS = ROOT.parent / "shared" / "recordings"
SPECS = ROOT.parent / "shared" / "specs"


def missing(what: str) -> None:
    """Skip for lack of `what`; on CI, where everything is installed first, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and on CI nothing is skipped for that")
    pytest.skip(f"needs {what}")


def node() -> Path:
    """Node and the packages of tests/e2e/node; the path of `node`."""
    found = shutil.which("node")
    if found is None or not (NODE / "node_modules" / "openai").is_dir():
        missing("Node, and `npm install --no-package-lock --prefix tests/e2e/node`")
    return Path(found or "")


def curl() -> None:
    """curl on PATH."""
    if shutil.which("curl") is None:
        missing("curl")


def grpcurl() -> Path:
    """The path of grpcurl."""
    found = plugins.grpcurl()
    if found is None:
        missing("grpcurl: `uv run plugins` with Go")
    return found or Path()


def specs() -> Path:
    """The folder of the providers' published API descriptions."""
    if not SPECS.is_dir():
        missing("../shared/specs")
    return SPECS
