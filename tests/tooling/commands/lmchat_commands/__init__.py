"""Start a developer command in the development environment, `.venv-dev`, which is made and kept up to date for it.

uv installs one set of dependency groups, whatever command it runs. So that `uv run lmchat up` installs no
development tools and `uv run pytest` still works at once, its environment (`.venv`) has scripts with the names of
the tools, and the tools are in another. Two, since installing pytest beside this package would overwrite one
`pytest` script with the other, and removing it would remove both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
ENVIRONMENT = ROOT / ".venv-dev"


def command(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command line and environment that run the script `argv[0]`, by its name, with the development tools."""
    python = os.path.realpath(sys.executable)  # the same interpreter, where there are several of its version
    groups = ("--no-default-groups", "--group", "dev")
    run = (environ.get("UV") or "uv", "run", "--project", str(ROOT), "--python", python, *groups, "--")
    # uv warns where VIRTUAL_ENV names another environment than the project's.
    kept = {name: value for name, value in environ.items() if name != "VIRTUAL_ENV"}
    return [*run, Path(argv[0]).name, *argv[1:]], {**kept, "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT)}


def main() -> None:
    """Become the command."""
    line, environ = command(sys.argv, os.environ)
    try:
        os.execvpe(line[0], line, environ)  # no shell
    except OSError as error:
        raise SystemExit(f"cannot run {line[0]}: {error.strerror}; pip install uv") from None
