"""`uv run supply-chain pin | sbom | audit`: what is installed, from where it can be checked.

`pin` writes the requirements files with hashes and THIRD_PARTY.md, after a change of a version in pyproject.toml.
`sbom` writes a CycloneDX document. `audit` asks OSV, the database of vulnerabilities. All three use uv, which is
there already and knows what it resolved: no further tool is needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lmchat_dev import ROOT, licenses, pins

SBOM = ROOT / "dist" / "lmchat.cdx.json"

#: Exit codes of `uv audit`: without findings, and after a failure; 1 is with findings.
_CLEAN, _FAILED = 0, 2
#: What it says of a service that does not answer.
_UNREACHABLE = "error sending request"


def sbom(file: Path) -> None:
    """Write what a gateway is installed with as CycloneDX 1.5, with the hashes and licences of every package."""
    groups = [argument for group in pins.GROUPS[pins.GATEWAY] for argument in ("--group", group)]
    text = pins.uv("export", "--quiet", "--format", "cyclonedx1.5", "--no-default-groups", *groups)
    document: dict[str, Any] = json.loads(text)
    for component in document["components"]:
        component["licenses"] = [{"expression": licenses.license_of(component["name"])}]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def audit() -> bool:
    """Print the known vulnerabilities of all that is pinned; False where there are any.

    Says so and returns True where the database cannot be reached: then nothing is known.
    """
    done = pins.run_uv("audit", "--preview-features", "audit-command")
    if done.returncode == _FAILED and _UNREACHABLE in done.stderr:
        sys.stdout.write("NOT AUDITED: the database of vulnerabilities cannot be reached from here\n")
        return True
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode == _CLEAN


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pin", help="write requirements.txt, tests/tooling/requirements.txt and THIRD_PARTY.md")
    commands.add_parser("sbom", help="write a CycloneDX document").add_argument(
        "file", nargs="?", type=Path, default=SBOM, help="default: %(default)s"
    )
    commands.add_parser("audit", help="look up known vulnerabilities")
    options = parser.parse_args()
    try:
        if options.command == "pin":
            pins.pin()
            licenses.PAGE.write_text(licenses.page(), encoding="utf-8")
        elif options.command == "sbom":
            sbom(options.file)
            sys.stdout.write(f"{options.file}\n")
        else:
            raise SystemExit(not audit())
    except subprocess.CalledProcessError as error:
        raise SystemExit(str(error.stderr)) from None
