"""Regular expressions that callers wrote, matched in time linear in the text. Pure.

Python's own matcher goes back and tries again: `(a+)+$` on thirty characters
would hold up every call of a worker for minutes. Here all ways to match go
forward together (https://swtch.com/~rsc/regexp/regexp2.html), which leaves out
look-around and back-references, as RE2 and the providers' own structured outputs do.

Python's parser reads the syntax; what it means is ECMA-262's, as JSON Schema
has it: `$` is the very end, `\\d` and `\\w` are ASCII.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from re import _constants as c  # type: ignore[attr-defined]  # typeshed lacks it
from re import _parser  # type: ignore[attr-defined]  # and this
from typing import Any

#: Instructions of one pattern.
_MOST = 2_000
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")

#: Whether a character fits; whether the place before text[at] does.
_Test = Callable[[str], bool]
_Place = Callable[[str, int], bool]
#: Consume a character, be at a place, or go on at each of the targets; None: it matched.
_Instruction = tuple[str, Any]


class PatternError(ValueError):
    """A pattern that is none, or that cannot be matched in linear time; the message says which."""


class Pattern:
    """A compiled pattern; `size` times the length of a text is what a search costs at most."""

    def __init__(self, code: list[_Instruction]) -> None:
        self._code = code
        self.size = len(code)

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in `text`."""
        waiting: list[int] = []  # instructions that take the next character
        for at in range(len(text) + 1):
            todo, seen = [*waiting, 0], set[int]()
            waiting = []
            while todo:
                here = todo.pop()
                if here in seen:
                    continue
                seen.add(here)
                what, argument = self._code[here]
                if what == "go":
                    todo += argument
                elif what == "take":
                    if at < len(text) and argument(text[at]):
                        waiting.append(here + 1)
                elif what == "place":
                    if argument(text, at):
                        todo.append(here + 1)
                else:
                    return True
        return False


@lru_cache(1024)
def compiled(pattern: str) -> Pattern:
    """`pattern`, ready to search. Raises PatternError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Python's syntax, which this is not
            tree = _parser.parse(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"is not understood: {error}") from None
    if tree.state.flags & ~re.UNICODE.value:
        raise PatternError("sets flags")
    code: list[_Instruction] = []
    _sequence(code, tree)
    _emit(code, "match", None)
    return Pattern(code)


def _emit(code: list[_Instruction], what: str, argument: Any) -> int:
    """The place of the new instruction."""
    if len(code) >= _MOST:
        raise PatternError("is too large")
    code.append((what, argument))
    return len(code) - 1


def _sequence(code: list[_Instruction], items: Any) -> None:
    for kind, value in items:
        if kind is c.BRANCH:
            _branch(code, value[1])
        elif kind is c.SUBPATTERN:
            _, flags_on, flags_off, inner = value
            if flags_on or flags_off:
                raise PatternError("sets flags")
            _sequence(code, inner)
        elif kind is c.MAX_REPEAT or kind is c.MIN_REPEAT:  # whichever matches, it matches
            _repeat(code, *value)
        elif kind is c.AT:
            _emit(code, "place", _PLACES[value])
        elif kind in (c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN):
            _emit(code, "take", _test(kind, value))
        else:
            raise PatternError("uses look-around, back-references or the like")


def _branch(code: list[_Instruction], options: Any) -> None:
    fork = _emit(code, "go", ())
    starts, ends = [], []
    for option in options:
        starts.append(len(code))
        _sequence(code, option)
        ends.append(_emit(code, "go", ()))
    code[fork] = ("go", tuple(starts))
    for end in ends:
        code[end] = ("go", (len(code),))


def _repeat(code: list[_Instruction], least: int, most: int, inner: Any) -> None:
    for _ in range(least):
        _emit(code, "go", (len(code) + 1,))  # so that repeating nothing counts as well
        _sequence(code, inner)
    if most is c.MAXREPEAT:
        fork = _emit(code, "go", ())
        _sequence(code, inner)
        _emit(code, "go", (fork,))
        code[fork] = ("go", (fork + 1, len(code)))
        return
    forks = []
    for _ in range(most - least):
        forks.append(_emit(code, "go", ()))
        _sequence(code, inner)
    for fork in forks:
        code[fork] = ("go", (fork + 1, len(code)))


def _test(kind: Any, value: Any) -> _Test:
    """Whether a character fits one element."""
    if kind is c.LITERAL:
        return chr(value).__eq__
    if kind is c.NOT_LITERAL:
        return chr(value).__ne__
    if kind is c.ANY:
        return lambda char: char not in "\n\r\u2028\u2029"
    if kind is c.RANGE:
        low, high = map(chr, value)
        return lambda char: low <= char <= high
    if kind is c.CATEGORY:
        return _CATEGORIES[value]
    negated = value[0][0] is c.NEGATE
    tests = [_test(*item) for item in value[negated:]]
    return lambda char: any(test(char) for test in tests) is not negated


def _is_space(char: str) -> bool:
    return (char.isspace() and char not in "\x1c\x1d\x1e\x1f\x85") or char == "\ufeff"


_CATEGORIES: dict[Any, _Test] = {
    c.CATEGORY_DIGIT: lambda char: char in "0123456789",
    c.CATEGORY_NOT_DIGIT: lambda char: char not in "0123456789",
    c.CATEGORY_WORD: lambda char: char in _WORD,
    c.CATEGORY_NOT_WORD: lambda char: char not in _WORD,
    c.CATEGORY_SPACE: _is_space,
    c.CATEGORY_NOT_SPACE: lambda char: not _is_space(char),
}


def _is_boundary(text: str, at: int) -> bool:
    return (at > 0 and text[at - 1] in _WORD) is not (at < len(text) and text[at] in _WORD)


_PLACES: dict[Any, _Place] = {
    c.AT_BEGINNING: lambda text, at: at == 0,
    c.AT_BEGINNING_STRING: lambda text, at: at == 0,
    c.AT_END: lambda text, at: at == len(text),
    c.AT_END_STRING: lambda text, at: at == len(text),
    c.AT_BOUNDARY: _is_boundary,
    c.AT_NON_BOUNDARY: lambda text, at: not _is_boundary(text, at),
}
