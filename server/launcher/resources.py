"""The files that Envoy needs: beside the code in an installed wheel, else in the source tree."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent


def envoy_template() -> Path:
    """envoy.yaml. Raises FileNotFoundError."""
    return _first("envoy.yaml", "envoy.yaml")


def descriptor() -> Path:
    """The descriptor set of the contract, which Envoy's transcoder loads. Raises FileNotFoundError."""
    return _first("lmchat.binpb", "generated/lmchat.binpb")


def _first(bundled: str, source: str) -> Path:
    for path in (_HERE / "_bundled" / bundled, _HERE.parent / source):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{bundled} is neither in the lmchat package nor in its source tree")
