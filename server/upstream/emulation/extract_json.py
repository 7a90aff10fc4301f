"""JSON out of what a model wrote around it: code fences, a word before, a word after. Pure.

What is ambiguous is not guessed at: two objects, or a broken one with a whole
one inside, are no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_THINKING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
#: A word in braces or brackets, as in prose and templates.
_PLACEHOLDERS = {"{": re.compile(r"\{[^{}\"]*\}"), "[": re.compile(r"\[[^\[\]\"]*\]")}


class Found(NamedTuple):
    """JSON as the model wrote it, and its value."""

    text: str
    value: Any


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def unwrap(text: str, opener: str) -> Found | None:
    """The one JSON value in `text`; None where there is none, or no one.

    `opener` is `{` or `[`, how the JSON begins that is looked for among other text; empty to look for none there.
    """
    thinking = _THINKING.match(text)
    text = text[thinking.end() if thinking else 0 :].strip().removeprefix("\ufeff")
    found = _whole(text)
    if found is None and text.startswith("```") and text.endswith("```"):
        found = _whole(text.partition("\n")[2][:-3].strip())
    if found is not None:
        return found
    fenced = [one for block in _fenced(text) if (one := _whole(block.strip()))]
    if fenced:
        return fenced[0] if len(fenced) == 1 else None
    return _within(text, opener) if opener else None


def _whole(text: str) -> Found | None:
    try:
        return Found(text, _decoder.decode(text))
    except (ValueError, RecursionError):
        return None


def _fenced(text: str) -> Iterator[str]:
    """What stands in fences that are of JSON, or do not say of what."""
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
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            placeholder = _PLACEHOLDERS[opener].match(text, at)
            if placeholder is None:
                return None
            end = placeholder.end()
        else:
            if found is not None:
                return None
            found = Found(text[at:end], value)
        at = text.find(opener, end)
    return found
