"""`uv run polyglot`: builds the clients of `tests/polyglot`, with each language's tools and pinned libraries.

A client is built inside its folder, under names that git ignores. Tests run it only if it was built from the
present sources and stubs, and never build it, so that they need no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lmchat_dev import ROOT

CLIENTS = ROOT / "tests" / "polyglot"
GENERATED = ROOT / "generated"

#: Folders that hold no sources.
_BUILT = frozenset({"node_modules", "target"})
#: In a client's `target`: the digest of the sources that it was built from.
_STAMP = "sources.sha256"


class Client(NamedTuple):
    """How a language's client is built and run; commands run in the client's folder."""

    #: The program that builds it, on PATH.
    tool: str
    build: Sequence[Sequence[str]]
    run: Sequence[str]
    variables: Mapping[str, str] = {}


_JAVA = ("-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(["target/classes", "target/dependency/*"]))
_MVN = ("-q", "-B")
_NPM = ("--silent", "--no-audit", "--no-fund", "--no-package-lock")

BUILT: Mapping[str, Client] = {
    "typescript": Client(
        "npm",
        [
            # npm keeps what it has installed of the same version.
            ("rm", "-rf", "node_modules/lmchat-client"),
            # A copy of the stubs, as from a registry: modules behind a link do not find the client's libraries.
            ("npm", "install", *_NPM, "--install-links"),
            ("npm", "run", "--silent", "build"),
        ],
        ("node", "target/main.js"),
    ),
    "go": Client(
        "go",
        [("go", "vet", "."), ("go", "build", "-o", "target/client", ".")],
        ("target/client",),
        {"CGO_ENABLED": "0"},
    ),
    "java": Client(
        "mvn",
        [("mvn", *_MVN, "-f", str(GENERATED / "java"), "install"), ("mvn", *_MVN, "package")],
        ("java", *_JAVA, "polyglot.Main"),
    ),
    "rust": Client("cargo", [("cargo", "build", "--quiet")], ("target/debug/polyglot",)),
}
LANGUAGES = ("python", *BUILT)


def command(language: str) -> list[str] | None:
    """The command that runs a client, without its address; None if it is not built, or from other sources."""
    if language == "python":
        return [sys.executable, "-m", "tests.polyglot.python"]
    stamp = CLIENTS / language / "target" / _STAMP
    if not stamp.is_file() or stamp.read_text() != _digest(language):
        return None
    return list(BUILT[language].run)


def folder(language: str) -> Path:
    """Where the command of a client runs."""
    return ROOT if language == "python" else CLIENTS / language


def build(language: str) -> None:
    """Build a client. Raises CalledProcessError; the tool's output goes to standard error."""
    client, out = BUILT[language], folder(language) / "target"
    out.mkdir(exist_ok=True)
    (out / _STAMP).unlink(missing_ok=True)
    digest = _digest(language)
    for line in client.build:
        environment = os.environ | client.variables
        subprocess.run(line, cwd=folder(language), env=environment, check=True, stdout=sys.stderr)
    (out / _STAMP).write_text(digest)


def _digest(language: str) -> str:
    """A digest of the sources of a client and its stubs."""
    whole = hashlib.sha256()
    for path in sorted([*_sources(CLIENTS / language), *_sources(GENERATED / language)]):
        whole.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _sources(top: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in _BUILT]
        yield from (Path(directory, name) for name in files if not name.endswith(".lock"))


def _megabytes(top: Path) -> float:
    return sum(path.lstat().st_size for path in top.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    failed = []
    for language in BUILT:
        if shutil.which(BUILT[language].tool) is None:
            sys.stdout.write(f"skipped {language}: there is no {BUILT[language].tool}\n")
            continue
        begun = time.monotonic()
        try:
            build(language)
        except subprocess.CalledProcessError as error:
            failed.append(language)
            sys.stdout.write(f"{language}: {error.cmd[0]} failed; its message is above\n")
            continue
        sizes = ", ".join(
            f"{name} {_megabytes(folder(language) / name):.1f} MB"
            for name in sorted(_BUILT)
            if (folder(language) / name).is_dir()
        )
        sys.stdout.write(f"{language}: {time.monotonic() - begun:.1f} s, {sizes}\n")
        sys.stdout.flush()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
