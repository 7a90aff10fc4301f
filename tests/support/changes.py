"""Changes of one field of a request in OpenAI's JSON: for tests of the translation of each field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

#: Objects that are one value: JSON Schemas.
_WHOLE = frozenset({"parameters", "schema"})


def dotted(path: Path) -> str:
    """`messages[0].name`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def pattern(path: Path) -> str:
    """`messages[].name`."""
    return dotted(tuple(-1 if isinstance(step, int) else step for step in path)).replace("[-1]", "[]")


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values in `value` that are not empty, with their paths; lists of scalars are one value."""
    if value is None or value == "" or value == [] or value == {}:
        return
    if isinstance(value, dict) and not (path and path[-1] in _WHOLE):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def without(body: Any, path: Path) -> Any:
    """`body` without the value at `path`. Raises LookupError where there is none."""
    changed = copy.deepcopy(body)
    del at(changed, path[:-1])[path[-1]]
    return changed


def replaced(body: Any, path: Path) -> Any:
    """`body` with another value of the same kind at `path`."""
    changed = copy.deepcopy(body)
    at(changed, path[:-1])[path[-1]] = _other(at(body, path))
    return changed


def at(body: Any, path: Path) -> Any:
    """The value at `path`. Raises LookupError."""
    for step in path:
        body = body[step]
    return body


def parse_path(text: str) -> Path:
    """The inverse of `dotted`."""
    steps: list[str | int] = []
    for part in text.replace("[", ".[").split("."):
        if part.startswith("["):
            steps.append(int(part[1:-1]))
        elif part:
            steps.append(part)
    return tuple(steps)


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*value, *value[:1]]
    return {**value, "title": "x"}
