"""Streamed answers of streamGenerateContent, sans-I/O: server-sent events in, chunks out.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

import re

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import decode_json
from server.dialects.gemini.response import Answer, classify, find_error
from server.errors import ProviderError, Reason, StreamTruncated
from server.wire.sse import Event, SSEDecoder


class GeminiDecoder:
    """See `base.StreamDecoder`."""

    def __init__(self) -> None:
        self._sse = SSEDecoder()
        self._answer = Answer()
        self._stray: list[bytes] = []
        self._closed = False

    @property
    def native_finish_reason(self) -> str:
        """The first candidate's own word; empty until it has ended."""
        return self._answer.native_finish_reason

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        events = self._sse.feed(data)
        self._stray.append(data)
        if events:  # what stands before the last blank line was an event
            read = b"".join(self._stray)
            blank = max(read.rfind(end) for end in (b"\n\n", b"\n\r\n", b"\r\r"))
            self._stray = [read[blank + 1 :]] if blank >= 0 else []
        return self._decode(events)

    def close(self) -> list[pb.ChatCompletionChunk]:
        """The last chunks, with usage where Google gave it."""
        if self._closed:
            return []
        self._closed = True
        self._raise_stray()
        try:
            chunks = self._decode(self._sse.close())
        except ProviderError as error:
            if error.reason is Reason.UPSTREAM_INVALID_RESPONSE:  # the torn end of an event
                raise StreamTruncated from None
            raise
        return chunks + self._answer.end()

    def _decode(self, events: list[Event]) -> list[pb.ChatCompletionChunk]:
        chunks: list[pb.ChatCompletionChunk] = []
        for event in events:
            try:
                chunk = self._answer.read(event.data) if event.data else None
            except ProviderError as error:
                error.decoded = chunks
                raise
            if chunk is not None and chunk.choices:
                chunks.append(chunk)
        return chunks

    def _raise_stray(self) -> None:
        """Google writes an error in the middle of a stream as bare JSON, which is no event.

        https://github.com/googleapis/python-genai/issues/1162
        """
        stray = b"".join(self._stray)
        start = re.search(rb"^[ \t]*[\[{]", stray, re.MULTILINE)
        if start is None:
            return
        try:
            error = find_error(decode_json(stray[start.start() :]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if error is not None:
            raise classify(200, error, None)
