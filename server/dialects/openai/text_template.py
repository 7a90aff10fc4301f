"""Templates: text events of the OpenAI dialect decoded without parsing their JSON.

Most events of a stream differ in nothing but the text. A template is learned from one event: the bytes before the
text, the bytes after it, and the chunk. An event with the same bytes before and after, and between them text
without escapes, decodes to the same chunk with its text; any other event is parsed. Whether the bytes between are
the chunk's text is proven, when a template is learned, by parsing the event with another text in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, Self

from lmchat.v1 import chat_pb2 as pb

#: JSON string content without quotes, escapes and control characters.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*').fullmatch
#: The other text.
_WORD = "text"

Field = Literal["content", "reasoning_content"]
#: Finds where the strings of a field begin.
_VALUES: dict[Field, Callable[[bytes], Iterator[re.Match[bytes]]]] = {
    "content": re.compile(rb'"content"\s*:\s*"').finditer,
    "reasoning_content": re.compile(rb'"reasoning_content"\s*:\s*"').finditer,
}


class TextTemplate:
    """Decodes events that differ only in their text from the one it was learned from."""

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
        """The template of an event with one choice, without a finish reason; None if there is none.

        `chunk` is the event's. `parse` decodes such an event without regard to what came before it.
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
        """The chunk of an event; None if the event does not match."""
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
