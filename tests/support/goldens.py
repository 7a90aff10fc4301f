"""Golden files: JSON written so that people can review it, compared or, on demand, written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_WIDTH = 110


def pretty(value: Any, indent: int = 0, used: int = 0) -> str:
    """`value` as JSON; what fits into the rest of a line stands on one. `used`: columns taken before the value."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + max(used, indent) <= _WIDTH or not value or not isinstance(value, dict | list):
        return flat
    pad, inner = " " * indent, " " * (indent + 2)
    if isinstance(value, list):
        lines = [inner + pretty(item, indent + 2) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{pad}]"
    lines = []
    for key, item in value.items():
        head = f"{inner}{json.dumps(key, ensure_ascii=False)}: "
        lines.append(head + pretty(item, indent + 2, len(head)))
    return "{\n" + ",\n".join(lines) + f"\n{pad}}}"


def load(path: Path) -> Any:
    """The JSON in a file; fails the test where there is none."""
    if not path.is_file():
        pytest.fail(f"{path.name} of {path.parent.name} is missing; write it with --update-goldens and review it")
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: Any) -> None:
    """Write a golden."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pretty(value) + "\n", encoding="utf-8")


def check(path: Path, value: Any, *, update: bool) -> None:
    """Compare `value` with the golden at `path`, or make it the golden."""
    if update:
        write(path, value)
    else:
        assert value == load(path)
