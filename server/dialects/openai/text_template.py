"""A shortcut for what streams consist of: events of the OpenAI dialect in which nothing changes but the text.

Learned from one event, it knows the bytes before and after the text; an event that has the same bytes there, and
text between them that JSON writes as it is, decodes to the same chunk with that text. Whatever else comes goes the
long way. Whether the hole is where the text comes from is not guessed but tried: with another word in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, Self

from lmchat.v1 import chat_pb2 as pb

#: What ends a JSON string or stands for something else in it, and what may not be in one.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*').fullmatch
_WORD = "text"

Field = Literal["content", "reasoning_content"]
#: Where strings of these names begin.
_VALUES: dict[Field, Callable[[bytes], Iterator[re.Match[bytes]]]] = {
    "content": re.compile(rb'"content"\s*:\s*"').finditer,
    "reasoning_content": re.compile(rb'"reasoning_content"\s*:\s*"').finditer,
}


class TextTemplate:
    """Makes chunks of events that differ from the one it was learned from in their text only."""

    __slots__ = ("_after", "_before", "_chunk", "_field")

    def __init__(self, before: bytes, after: bytes, chunk: pb.ChatCompletionChunk, field: Field) -> None:
        self._before = before
        self._after = after
        self._chunk = chunk
        self._field = field

    @classmethod
    def learn(
        cls, data: bytes, chunk: pb.ChatCompletionChunk, parse: Callable[[bytes], pb.ChatCompletionChunk]
    ) -> Self | None:
        """The template of an event that has one choice, which it does not end; None where there is none.

        `chunk` is what became of it. `parse` makes a chunk of such an event without regard to what came before it.
        """
        delta = chunk.choices[0].delta
        field: Field = "content" if delta.content else "reasoning_content"
        text = getattr(delta, field).encode()
        if not text or not _PLAIN(text) or delta.tool_calls:
            return None
        found = [match.end() for match in _VALUES[field](data)]
        if len(found) != 1 or not data.startswith(b'%b"' % text, found[0]):
            return None
        before, after = data[: found[0]], data[found[0] + len(text) :]
        other = parse(before + _WORD.encode() + after)
        if getattr(other.choices[0].delta, field) != _WORD:
            return None
        setattr(other.choices[0].delta, field, getattr(delta, field))
        return cls(before, after, other, field) if other == chunk else None

    def chunk(self, data: bytes) -> pb.ChatCompletionChunk | None:
        """The chunk of an event; None if it takes the long way."""
        start, end = len(self._before), len(data) - len(self._after)
        if start > end or not data.startswith(self._before) or not data.endswith(self._after):
            return None
        text = data[start:end]
        if not _PLAIN(text):
            return None
        try:
            decoded = text.decode()
        except UnicodeDecodeError:
            return None
        chunk = pb.ChatCompletionChunk()
        chunk.CopyFrom(self._chunk)
        setattr(chunk.choices[0].delta, self._field, decoded)
        return chunk
