"""`uv run check`: all checks, one line each; every failure is shown.

Format, lint, types, import rules, proto lint and breaking changes, generated
files against the generator, pins and hashes of what is installed, licences,
known vulnerabilities, tests. `check lint types` runs those two.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lmchat_dev import ROOT, licenses, pins, supply_chain
from lmchat_dev.generate import DESCRIPTOR, PROTO, generate, protos, run

#: The branch whose contract must not be broken.
BASE = "main"


def _command(*arguments: str) -> bool:
    return subprocess.run(arguments, cwd=ROOT, check=False).returncode == 0


def _module(*arguments: str) -> bool:
    return _command(sys.executable, "-m", *arguments)


def _buf(*arguments: str) -> bool:
    return _command(str(Path(sys.executable).with_name("buf")), *arguments, "--config", str(PROTO / "buf.yaml"))


def _proto() -> bool:
    """Lint, and compare with the committed contract. buf gets descriptor sets, so it fetches nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        new, old = Path(scratch, "new.binpb"), Path(scratch, "old.binpb")
        run("--include_imports", "--include_source_info", f"--descriptor_set_out={new}", *protos())
        fine = _buf("lint", str(new))
        shown = subprocess.run(
            ["git", "show", f"{BASE}:generated/{DESCRIPTOR}"], cwd=ROOT, capture_output=True, check=False
        )
        if shown.returncode:  # a clone of another branch alone, or the first commit
            sys.stdout.write(f"no {DESCRIPTOR} of {BASE} here: breaking changes are not checked\n")
            return fine
        old.write_bytes(shown.stdout)
        return _buf("breaking", str(new), "--against", str(old)) and fine


def _generated() -> bool:
    """Regenerate and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        different = _differences(generate(Path(scratch)), Path(scratch), ROOT / "generated")
    for path in different:
        sys.stdout.write(f"generated/{path} is not what `uv run generate` makes\n")
    return not different


def _differences(names: Sequence[str], new: Path, committed: Path) -> list[str]:
    """The files that differ among `names`, files or folders of both."""
    files = {
        str(path.relative_to(root))
        for root in (new, committed)
        for name in names
        for path in (root / name, *(root / name).rglob("*"))
        if path.is_file() and not _IGNORED.intersection(path.parts)
    }
    _, mismatched, missing = filecmp.cmpfiles(new, committed, sorted(files), shallow=False)
    return sorted(mismatched + missing)


def _report(problems: list[str]) -> bool:
    """Print the problems; True where there are none."""
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return not problems


#: Folders that building a package leaves in it.
_IGNORED = frozenset({"__pycache__", "node_modules", "target"})


CHECKS: dict[str, Callable[[], bool]] = {
    "format": lambda: _module("ruff", "format", "--check", "."),
    "lint": lambda: _module("ruff", "check", "."),
    "types": lambda: _module("mypy"),
    "imports": lambda: _command(str(Path(sys.executable).with_name("lint-imports"))),
    "proto": _proto,
    "generated": _generated,
    "pins": lambda: _report(pins.problems()),
    "licenses": lambda: _report(licenses.problems()),
    "audit": supply_chain.audit,
    "tests": lambda: _module("pytest", "-q"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of: {', '.join(CHECKS)}; default: all")
    chosen = parser.parse_args().checks or list(CHECKS)
    if unknown := [name for name in chosen if name not in CHECKS]:
        parser.error(f"no check named {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    failed = []
    for name in chosen:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        begun = time.monotonic()
        fine = CHECKS[name]()
        failed += [] if fine else [name]
        sys.stdout.write(f"== {name}: {'ok' if fine else 'FAILED'} ({time.monotonic() - begun:.1f} s)\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
