"""Every command and example of the README, run as it is written against the running gateway."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.config.load import load
from server.routing.catalog import Catalog
from tests.e2e.conftest import UpProcess
from tests.support import needs

README = (needs.ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [body for kind, body in BLOCKS if kind == "sh"]
#: Commands of which the whole suite, .ci/run and tests/bench are the test.
ELSEWHERE = {f"uv run {name}" for name in ("lmchat up", "pytest", "check", "generate", "bench")} | {
    "pip install uv"
}


def run(gateway: UpProcess, *command: str | Path, cwd: Path = needs.ROOT, text: str | None = None) -> str:
    """The output of a command, with this gateway's address in place of the README's."""
    environ = {**os.environ, "LMCHAT_API_KEY": gateway.key, "LMCHAT_URL": gateway.url}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env=environ, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(gateway: UpProcess, body: str) -> str:
    return body.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}")


def test_there_are_examples() -> None:
    assert {kind for kind, _ in BLOCKS} >= {"sh", "python", "js", "yaml", "json"}


@pytest.mark.parametrize("body", [body for body in SHELL if body.startswith("curl")])
def test_curl(gateway: UpProcess, body: str) -> None:
    needs.curl()
    printed = run(gateway, "bash", "-euc", here(gateway, body))
    assert '"finish_reason":"stop"' in printed
    if "-N" in body:
        assert printed.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("body", [body for kind, body in BLOCKS if kind == "python"])
def test_python(gateway: UpProcess, body: str) -> None:
    assert run(gateway, sys.executable, "-c", here(gateway, body)).strip()


@pytest.mark.parametrize("body", [body for kind, body in BLOCKS if kind == "js"])
def test_node(gateway: UpProcess, body: str) -> None:
    assert run(gateway, needs.node(), "--input-type=module", "-e", here(gateway, body), cwd=needs.NODE).strip()


@pytest.mark.parametrize(
    "line", [line for body in SHELL for line in body.splitlines() if line.startswith(("uv run", "pip"))]
)
def test_commands(gateway: UpProcess, line: str) -> None:
    if line in ELSEWHERE:
        return
    assert run(gateway, "bash", "-euc", line.removeprefix("uv run ")).strip()


def test_configuration(tmp_path: Path) -> None:
    body, providers = [body for kind, body in BLOCKS if kind == "yaml"]
    file = tmp_path / "lmchat.yaml"
    file.write_text(body)
    environ = {"LMCHAT_API_KEY": "k", "LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1:1/v1"}
    catalog = Catalog(load(file, environ), environ)
    assert [endpoint.name for endpoint in catalog.resolve("fast").endpoints] == ["rack", "cloud"]
    file.write_text(providers)
    keys = {"ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "AZURE_OPENAI_API_KEY": "k"}
    catalog = Catalog(load(file, keys), keys)
    claude = catalog.resolve("anthropic/claude")
    assert [endpoint.dialect for endpoint in claude.endpoints] == ["anthropic", "bedrock", "anthropic"]
