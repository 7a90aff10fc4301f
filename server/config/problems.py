"""What is wrong with a configuration, in words for the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One problem. `line` counts from 1, 0 where there is none; `field` is empty for the file as a whole."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)  # keys may be anything


class ConfigError(Exception):
    """A configuration that cannot be used, with all its problems, a line each in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))


def suggest(word: str, options: Collection[str]) -> str:
    """The end of a message about an unknown `word`: the nearest of `options`, or all of them if few."""
    near = difflib.get_close_matches(word, options, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known: {', '.join(sorted(options))}" if 0 < len(options) <= 12 else ""
