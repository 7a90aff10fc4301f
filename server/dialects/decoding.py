"""The base of the dialects' stream decoders: bytes to events to chunks, and the states of a stream.

A stream is OPEN until it is COMPLETE (the last chunk was returned) or FAILED (an error was raised). How it ends:

    its choices are              end mark  end of bytes     break, error, unreadable event
    all FINISHED                 COMPLETE  COMPLETE         ignored
    some DOUBTFUL                COMPLETE  COMPLETE         FAILED
    some WAITING, STREAMING,     COMPLETE  StreamTruncated  FAILED
    REOPENED or without a chunk

The states of choices are those of `choices.ChoiceState`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from lmchat.v1 import chat_pb2 as pb

from server.dialects import errors as failures
from server.dialects.choices import ChunkBuilder
from server.dialects.reading import UNREADABLE, unreadable
from server.errors import ProviderError, Reason, StreamTruncated

#: The most bytes of one event; a generated image is one event.
MAX_EVENT_BYTES = 64 * 1024 * 1024


class StreamState(enum.Enum):
    """See the table above."""

    OPEN = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()


_OPEN = StreamState.OPEN
_Event = TypeVar("_Event")


class ChunkDecoder(ABC, Generic[_Event]):
    """The base of decoders; see `base.StreamDecoder`. `expected` is the number of requested choices."""

    #: Whether a finish reason after content is final; False where providers send one with every delta.
    _reasons_are_final = True

    def __init__(self, expected: int = 1) -> None:
        self._builder = ChunkBuilder(expected)
        self._state = _OPEN
        self._error: ProviderError | None = None
        self._pending = 0  # bytes since the last event

    @abstractmethod
    def _split(self, data: bytes) -> Iterable[_Event]:
        """The events that `data` completes. May raise ProviderError."""

    @abstractmethod
    def _rest(self) -> Iterable[_Event]:
        """The events that the end of the bytes completes."""

    @abstractmethod
    def _decode(self, event: _Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Append the chunks of one event, and call `_end` at an end mark. Raises ProviderError or UNREADABLE."""

    @property
    def native_finish_reason(self) -> str:
        """The first choice's untranslated finish reason; empty until it ends."""
        return self._builder.native_finish_reason

    @property
    def finished(self) -> bool:
        """Whether every choice has its final finish reason: only usage can follow."""
        return self._state is StreamState.COMPLETE or self._builder.finished

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        if self._error is not None:
            raise self._error
        chunks: list[pb.ChatCompletionChunk] = []
        self._pending += len(data)
        self._run(iter(self._split(data)), chunks)
        if self._pending > MAX_EVENT_BYTES:
            self._fail(failures.invalid_response(f"an event of more than {MAX_EVENT_BYTES} bytes"), chunks)
        return chunks

    def close(self) -> list[pb.ChatCompletionChunk]:
        """The last chunks. Raises StreamTruncated if the stream was incomplete."""
        if self._state is StreamState.COMPLETE:
            return []
        if self._error is not None:
            raise self._error
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            self._run(iter(self._rest()), chunks)
            if self._state is StreamState.OPEN:
                self._end(chunks, marked=False)
        except ProviderError as error:
            self._state = StreamState.FAILED
            truncated = error.reason is Reason.UPSTREAM_INVALID_RESPONSE  # the last event is incomplete
            self._error = StreamTruncated() if truncated else error
            raise self._error from None
        return chunks

    def _run(self, events: Iterator[_Event], chunks: list[pb.ChatCompletionChunk]) -> None:
        """Decode `events` up to an end mark. Undecodable events are skipped once the stream is `finished`."""
        while self._state is _OPEN:
            try:
                self._drain(events, chunks)
                return
            except ProviderError as error:
                self._fail(error, chunks)
            except UNREADABLE as error:
                self._fail(unreadable(error), chunks)

    def _drain(self, events: Iterator[_Event], chunks: list[pb.ChatCompletionChunk]) -> None:
        for event in events:
            self._pending = 0
            self._decode(event, chunks)
            if self._state is not _OPEN:
                break

    def _fail(self, error: ProviderError, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Raise `error`, unless the stream is `finished`; a refusal after content ends the choices instead."""
        if self._reasons_are_final and self.finished:
            return
        if error.reason is Reason.CONTENT_POLICY_VIOLATION and self._builder.has_content:
            self._builder.refuse(str(error.reason))
            self._end(chunks, marked=True)
            return
        self._state = StreamState.FAILED
        self._error = error
        error.decoded = chunks
        raise error

    def _end(self, chunks: list[pb.ChatCompletionChunk], *, marked: bool) -> None:
        """Append the last chunks; nothing is decoded after them."""
        self._builder.end(chunks, marked=marked)
        self._state = StreamState.COMPLETE
