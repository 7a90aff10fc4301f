"""`uv run generate`: everything under `generated/`, from `proto/`.

`generated/lmchat.binpb` is the descriptor set that Envoy's transcoder loads, with comments; each folder beside it
is a package of stubs that a team can depend on as it is. All is committed, so that callers and the gateway need no
protoc; `uv run check` regenerates and compares. Python's needs nothing but Python; a language whose toolchain is
missing is skipped, which is said.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import google.api
from grpc_tools import protoc

from lmchat_dev import ROOT, packages, plugins

PROTO = ROOT / "proto"
DESCRIPTOR = "lmchat.binpb"
#: Types of error details. Envoy renders google.rpc.Status, and drops details whose types it does not know.
ERROR_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


def includes() -> list[str]:
    """Import paths: googleapis' (in their Python package), ours and protoc's own."""
    googleapis = Path(next(iter(google.api.__path__))).parents[1]
    well_known = Path(protoc.__file__).parent / "_proto"
    return [f"-I{path}" for path in (googleapis, PROTO, well_known)]


def protos(folder: str = "lmchat") -> list[str]:
    """The project's protos below `folder` of `proto/`."""
    return sorted(str(path.relative_to(PROTO)) for path in (PROTO / folder).rglob("*.proto"))


def run(*arguments: str) -> None:
    """Run protoc."""
    if protoc.main(["protoc", *includes(), *arguments]):
        raise SystemExit("protoc failed; its message is above")


def generate(out: Path) -> list[str]:
    """Write the generated tree to `out`, replacing what is there; what was made, as names in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = out / DESCRIPTOR
    run(
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={descriptor}",
        *protos(),
        *ERROR_DETAILS,
    )
    _python(_emptied(out / "python"))
    made = [DESCRIPTOR, "python"]
    for name, language in plugins.LANGUAGES.items():
        try:
            tools = language.install()
        except plugins.MissingToolError as error:
            sys.stdout.write(f"skipped {name}: {error}\n")
            continue
        language.generate(tools, _emptied(out / name), descriptor, protos("lmchat/v1"))
        made.append(name)
    for name in made[1:]:
        packages.write(name, out / name)
    return made


def _python(out: Path) -> None:
    run(
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos(),
    )
    package = out / "lmchat"
    for directory in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (directory / "__init__.py").touch()
    (package / "py.typed").touch()


def _emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "generated", help="default: generated/")
    sys.stdout.write(f"generated {', '.join(generate(parser.parse_args().out))}\n")
