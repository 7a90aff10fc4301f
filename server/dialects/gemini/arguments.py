"""Arguments of a call that Gemini streams piece by piece, each with the JSONPath of the value it belongs to.

https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling (streamFunctionCallArguments)
"""

from __future__ import annotations

import itertools
import re
from typing import Any

#: One step of a JSONPath: `.name`, `[0]`, `['name']` or `["name"]`.
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\[(['"])((?:[^'"\\]|\\.)*)\3\]""")
#: The keys under which a piece has its value.
_VALUES = ("numberValue", "boolValue", "structValue", "listValue")


class PartialArguments:
    """The pieces so far; `value()` is the arguments."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}  # JSONPath -> the pieces of a text
        self._values: dict[str, Any] = {}  # JSONPath -> a value that came whole

    def add(self, piece: dict[str, Any]) -> int:
        """Add an item of `partialArgs`; returns the characters it takes. Raises TypeError or KeyError."""
        path = piece["jsonPath"]
        text = piece.get("stringValue")
        if text is not None:
            self._pieces.setdefault(path, []).append(text)
            return len(path) + len(text)
        found = next((piece[key] for key in _VALUES if key in piece), None)  # else a `nullValue`
        self._values[path] = found
        return len(path) + len(str(found))

    def value(self) -> dict[str, Any]:
        """The arguments. Raises ValueError for a path that cannot be followed."""
        root: dict[str, Any] = {}
        for path, pieces in self._pieces.items():
            _set(root, path, "".join(pieces))
        for path, value in self._values.items():
            _set(root, path, value)
        return root


def _set(root: dict[str, Any], path: str, value: Any) -> None:
    steps = _steps(path)
    target: Any = root
    for step, following in itertools.pairwise(steps):
        target = _enter(target, step, [] if isinstance(following, int) else {})
    _enter(target, steps[-1], value)


def _steps(path: str) -> list[str | int]:
    """The names and indices of a path. Raises ValueError."""
    rest = path.removeprefix("$")
    if not rest.startswith((".", "[")):
        rest = f".{rest}"
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            raise ValueError(f"not a JSONPath: {path[:100]!r}")
        name, index, _, quoted = found.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name if name is not None else re.sub(r"\\(.)", r"\1", quoted))
        at = found.end()
    return steps


def _enter(target: Any, step: str | int, value: Any) -> Any:
    """The value at `step` of an object or a list, set to `value` if there is none; lists grow item by item."""
    if isinstance(step, str):
        if not isinstance(target, dict):
            raise ValueError(f"{step!r} of what is no object")
        return target.setdefault(step, value)
    if not isinstance(target, list) or step > len(target):
        raise ValueError(f"item {step} of what is no list, or of a shorter one")
    if step == len(target):
        target.append(value)
    return target[step]
