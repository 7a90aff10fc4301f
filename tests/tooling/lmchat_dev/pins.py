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
# What `uv run lmchat up` installs, with the hashes of every file that was there for these versions. Made by
# `uv run supply-chain pin` from pyproject.toml. Installs a gateway with its model, every file checked:
#   pip install --require-hashes --no-deps -r requirements.txt && pip install --no-deps .
""",
    TOOLS: """\
# What the development tools need beside ../../requirements.txt. Made by `uv run supply-chain pin`.
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
    found = [*_different(), *_unpinned()]
    return found or [*_mismatched()]


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


def _different() -> Iterator[str]:
    for file, text in requirements(hashes=False).items():
        name = str(file.relative_to(ROOT))
        kept = _without_hashes(file.read_text(encoding="utf-8")) if file.exists() else ""
        if kept != text:
            yield f"{name} is not what `uv run supply-chain pin` makes:"
            yield from difflib.unified_diff(kept.splitlines(), text.splitlines(), name, "made", n=0, lineterm="")


def _unpinned() -> Iterator[str]:
    """Packages that pyproject.toml does not pin: another day they would have another version."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = {*project["project"]["dependencies"]}
    groups = {pinned for group in project["dependency-groups"].values() for pinned in group if "==" in pinned}
    constraints = {*project["tool"]["uv"]["constraint-dependencies"]}
    for groups_of, pinned, where in (
        ((), dependencies, "dependencies"),
        (("dev",), dependencies | groups | constraints, "[tool.uv] constraint-dependencies"),
    ):
        needed = {entry.partition(" ;")[0].strip() for entry in _export(groups_of, hashes=False).values()}
        yield from (f"{one} is installed but not in {where} of pyproject.toml" for one in sorted(needed - pinned))
        yield from (f"{one} is in pyproject.toml but not installed" for one in sorted(pinned - needed))


def _mismatched() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch) / "env"
        uv("venv", "--quiet", str(python))
        try:
            uv("pip", "sync", "--quiet", "--python", str(python), "--require-hashes", *map(str, GROUPS))
            build = ("--build-constraints", str(TOOLS), "--require-build-hashes")
            uv("pip", "install", "--quiet", "--python", str(python), "--no-deps", *build, str(ROOT))
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
