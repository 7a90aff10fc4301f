"""What the stream decoders of all dialects share: from bytes to events to chunks, and how a stream may end.

A stream is OPEN until it is COMPLETE (the last chunk is out) or FAILED (an error was raised). How it ends:

    its choices are              end mark  end of bytes     break, error, unreadable event
    all FINISHED                 COMPLETE  COMPLETE         as if it had not come
    some DOUBTFUL                COMPLETE  COMPLETE         FAILED
    some WAITING, STREAMING,     COMPLETE  StreamTruncated  FAILED
    REOPENED or not yet begun

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

#: The most bytes that may come without completing an event; an image is in one event.
MAX_EVENT_BYTES = 64 * 1024 * 1024


class StreamState(enum.Enum):
    """See the table above."""

    OPEN = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()


_OPEN = StreamState.OPEN
_Event = TypeVar("_Event")


class ChunkDecoder(ABC, Generic[_Event]):
    """What the decoders share; see `base.StreamDecoder`. `expected` is the number of choices asked for."""

    #: No content follows a reason that came after content, but for providers that give one with every piece.
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
        """The provider's own word for why the first choice ended; empty until then."""
        return self._builder.native_finish_reason

    @property
    def finished(self) -> bool:
        """Everything was said: how the stream ends adds nothing but usage."""
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
        """The last chunks. Raises StreamTruncated if the provider had not finished."""
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
            torn = error.reason is Reason.UPSTREAM_INVALID_RESPONSE  # the end of an event is missing
            self._error = StreamTruncated() if torn else error
            raise self._error from None
        return chunks

    def _run(self, events: Iterator[_Event], chunks: list[pb.ChatCompletionChunk]) -> None:
        """Decode `events` up to an end mark. Events that cannot be decoded are skipped if everything was said."""
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
        """Raise `error`, unless everything was said before it, or it refuses content of which some is out."""
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
