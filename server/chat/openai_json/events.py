"""Chunks as server-sent events, optimised for chunks that differ from the previous one only in text."""

from __future__ import annotations

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.legacy import rewrite as rewrite_legacy
from server.chat.openai_json.response import dump_chunk

_encode = msgspec.json.Encoder().encode
#: Upper bound of the templates for one stream.
_MAX_TEMPLATES = 4
#: A placeholder for the text, used to find the bytes around it; its escaped form cannot occur in a field.
_PLACEHOLDER = "\x00text\x00"


class EventWriter:
    """Writes the chunks of one stream. `include_usage`: see `dump_chunk`; `legacy`: for callers of `functions`."""

    def __init__(self, *, include_usage: bool, legacy: bool) -> None:
        self._include_usage = include_usage
        self._legacy = legacy
        #: The template chunk, its delta, and the bytes around its text.
        self._template = pb.ChatCompletionChunk()
        self._delta = pb.Delta()
        self._before = self._after = b""
        self._templates = 0

    def events(self, chunks: list[pb.ChatCompletionChunk]) -> bytes:
        """The events of `chunks`, one each."""
        return b"".join([self._event(chunk) for chunk in chunks])

    def _event(self, chunk: pb.ChatCompletionChunk) -> bytes:
        choices = chunk.choices
        text = choices[0].delta.content if len(choices) == 1 else ""
        if text and (self._matches_template(chunk, text) or self._set_template(chunk)):
            return b"%b%b%b" % (self._before, _encode(text), self._after)
        return self._whole(chunk)

    def _matches_template(self, chunk: pb.ChatCompletionChunk, text: str) -> bool:
        """Whether the chunk differs from the template only in text."""
        self._delta.content = text
        return chunk == self._template

    def _set_template(self, chunk: pb.ChatCompletionChunk) -> bool:
        """Make `chunk` the template. The number of tries is limited: in some streams no two chunks match."""
        if self._templates >= _MAX_TEMPLATES:
            return False
        self._templates += 1
        self._template = pb.ChatCompletionChunk()
        self._template.CopyFrom(chunk)
        self._delta = self._template.choices[0].delta
        self._delta.content = _PLACEHOLDER
        self._before, _, self._after = self._whole(self._template).partition(_encode(_PLACEHOLDER))
        return True

    def _whole(self, chunk: pb.ChatCompletionChunk) -> bytes:
        obj = dump_chunk(chunk, include_usage=self._include_usage)
        if self._legacy:
            rewrite_legacy(obj)
        return b"data: %b\n\n" % _encode(obj)
