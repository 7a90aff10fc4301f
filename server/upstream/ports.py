"""The protocols of a caller of endpoints: implemented by `client.Upstream` and the emulations that wrap it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion
from server.chat.request import ChatRequest
from server.dialects import choices
from server.dialects.base import Endpoint
from server.errors import detached

T = TypeVar("T")

Chunks = list[pb.ChatCompletionChunk]


class Stream(Protocol):
    """A streamed completion: `open` it, iterate `batches`, and always close it."""

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason; empty until the end."""
        ...

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of parameters that the translation dropped; known once the stream is open."""
        ...

    async def open(self, limit: float) -> Chunks:
        """All chunks up to and including the first content, within `limit` seconds. Raises ProviderError."""
        ...

    def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks, a list for each read, until `deadline`, a time of the event loop's clock.

        Raises ProviderError.
        """
        ...

    async def aclose(self) -> None:
        """Release every connection."""
        ...


class Caller(Protocol):
    """One call of an endpoint, unary or streamed."""

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """The completion, within `limit` seconds. Raises ProviderError, or InvalidRequest before any call."""
        ...

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """A stream, not yet opened. This or `open` raises InvalidRequest."""
        ...


def has_content(chunk: pb.ChatCompletionChunk) -> bool:
    """Whether a chunk has more than a role. The first such chunk commits a stream to its endpoint."""
    return any(choice.finish_reason or choices.has_content(choice) for choice in chunk.choices)


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. A failure cancels the other calls and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failed:
        # The group holds the error, which must not hold the group.
        raise detached(failed.exceptions[0]) from None
    return [task.result() for task in tasks]
