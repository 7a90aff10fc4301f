"""Streamed answers of streamGenerateContent, sans-I/O: server-sent events in, chunks out.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lmchat.v1 import chat_pb2 as pb

from server.dialects.decoding import ChunkDecoder
from server.dialects.gemini.response import Answer, classify, find_error
from server.dialects.reading import read_error_body
from server.wire.sse import Event, SSEDecoder


class GeminiDecoder(ChunkDecoder[Event]):
    """See `base.StreamDecoder`. There is no end mark but the end of the bytes.

    `names` maps tool names that were changed for Gemini to the caller's.
    """

    #: Gemini 1.5 and some proxies say STOP with every piece.
    _reasons_are_final = False

    def __init__(self, names: Mapping[str, str] = {}) -> None:
        super().__init__()
        self._sse = SSEDecoder()
        self._answer = Answer(names)
        self._stray: list[bytes] = []  # what came since the last event

    def _split(self, data: bytes) -> list[Event]:
        events = self._sse.feed(data)
        self._stray.append(data)
        if events:
            read = b"".join(self._stray)
            blank = max(read.rfind(end) for end in (b"\n\n", b"\n\r\n", b"\r\r"))
            self._stray = [read[blank + 1 :]] if blank >= 0 else []
        return events

    def _rest(self) -> Iterator[Event]:
        self._raise_stray()
        yield from self._sse.close()

    def _decode(self, event: Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        if not event.data:
            return
        chunk = self._answer.read(event.data)
        self._builder.identify(self._answer.id, self._answer.created, self._answer.model)
        self._builder.service_tier = self._answer.service_tier
        self._answer.fill_usage(self._builder.usage)
        self._builder.usage.extra_json = self._answer.extra_json
        self._builder.add(chunk, chunks)
        for choice in chunk.choices:
            self._builder.set_native(choice.index, self._answer.candidates[choice.index].native)

    def _raise_stray(self) -> None:
        """Google writes an error in the middle of a stream as bare JSON, which is no event.

        https://github.com/googleapis/python-genai/issues/1162
        """
        stray = b"".join(self._stray)
        start = re.search(rb"^[ \t]*[\[{]", stray, re.MULTILINE)
        error = find_error(read_error_body(stray[start.start() :])) if start is not None else None
        if error is not None:
            raise classify(200, error, None)
