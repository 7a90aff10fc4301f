"""`uv run generate`: everything under `generated/`, from `proto/`.

`generated/python` holds messages and stubs with their types, `generated/lmchat.pb`
the descriptor set that Envoy's transcoder loads. Both are committed so that
callers and the gateway need no protoc; `uv run check` regenerates and compares.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import google.api
from grpc_tools import protoc

from lmchat_dev import ROOT

PROTO = ROOT / "proto"


def includes() -> list[str]:
    """Import paths: our protos, googleapis' (in their Python package) and protoc's own."""
    googleapis = Path(next(iter(google.api.__path__))).parents[1]
    well_known = Path(protoc.__file__).parent / "_proto"
    return [f"-I{path}" for path in (PROTO, googleapis, well_known)]


def run(*arguments: str, also: tuple[str, ...] = ()) -> None:
    """Run protoc over every proto of ours, `also` over some of others."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    if protoc.main(["protoc", *includes(), *arguments, *files, *also]):
        raise SystemExit("protoc failed; its message is above")


def generate(out: Path) -> None:
    """Write the generated tree to `out`, replacing what is there."""
    python = out / "python"
    shutil.rmtree(python, ignore_errors=True)
    python.mkdir(parents=True)
    run(
        f"--python_out={python}",
        f"--grpc_python_out={python}",
        f"--mypy_out=quiet:{python}",
        f"--mypy_grpc_out=quiet:{python}",
    )
    # Envoy renders google.rpc.Status, and drops details whose types it does not know.
    run("--include_imports", f"--descriptor_set_out={out / 'lmchat.pb'}", also=("google/rpc/error_details.proto",))
    package = python / "lmchat"
    for directory in (package, package / "v1"):
        (directory / "__init__.py").touch()
    (package / "py.typed").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "generated", help="default: generated/")
    generate(parser.parse_args().out)
    sys.stdout.write("generated\n")
