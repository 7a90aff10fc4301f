"""Extracts JSON from a model's text: from code fences, or between other text. Pure, in linear time.

Ambiguous text has no result: two objects, or an invalid object with a valid one inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from server.chat.limits import TooMuchJsonError, check_json

_THINKING = "<think>", "</think>"
#: Words in braces or brackets, as in prose and templates, or JSON without strings and nesting.
_FLAT = {"{": re.compile(r"\{[^{}\"]*+\}"), "[": re.compile(r"\[[^\[\]\"]*+\]")}


class Found(NamedTuple):
    """JSON as the model wrote it, and its value."""

    text: str
    value: Any


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def unwrap(text: str, opener: str) -> Found | None:
    """The one JSON value in `text`; None where there is none, more than one, or more than an answer may have.

    `opener` is `{` or `[`, how JSON among other text begins; empty for not looking there.
    """
    text = _without_thinking(text).strip().removeprefix("\ufeff")
    try:
        check_json(text.encode(errors="replace"))
    except TooMuchJsonError:
        return None
    found = _whole(text)
    if found is None and text.startswith("```") and text.endswith("```"):
        found = _whole(text.partition("\n")[2][:-3].strip())
    if found is not None:
        return found
    fenced = [one for block in _fenced(text) if (one := _whole(block.strip()))]
    if fenced:
        return fenced[0] if len(fenced) == 1 else None
    return _within(text, opener) if opener else None


def _without_thinking(text: str) -> str:
    start, end = _THINKING
    if not text.lstrip().startswith(start):
        return text
    _, found, rest = text.partition(end)
    return rest if found else text


def _whole(text: str) -> Found | None:
    try:
        return Found(text, _decoder.decode(text))
    except (ValueError, RecursionError):
        return None


def _fenced(text: str) -> Iterator[str]:
    """The content of the fences with the language JSON or none."""
    block: list[str] | None = None
    language = ""
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if block is None:
            if mark.startswith("```"):
                block, language = [], mark[3:].strip().lower()
        elif mark == "```":
            if language in ("", "json"):
                yield "".join(block)
            block = None
        else:
            block.append(line)


def _within(text: str, opener: str) -> Found | None:
    """The one value that begins with `opener`."""
    found: Found | None = None
    at = text.find(opener)
    while at >= 0:
        flat = _FLAT[opener].match(text, at)
        if flat is not None:
            # Decoded by itself: an error counts all lines before it, which for many errors in a long text adds up.
            value, end = _whole(flat[0]), flat.end()
        else:
            try:
                decoded, end = _decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                return None
            value = Found(text[at:end], decoded)
        if value is not None:
            if found is not None:
                return None
            found = value
        at = text.find(opener, end)
    return found
