"""Whoever answers requests for endpoints: Upstream, and what wraps one to add to it; and what wrapping takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message as Proto
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json import ChatRequest
from server.dialects.base import Endpoint
from server.upstream.client import Answer, Chunks, PlainAnswer

T = TypeVar("T")


class Stream(Protocol):
    """A streamed answer. `open` it, iterate it, and close it in any case."""

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word for why it ended; empty until then."""
        ...

    async def open(self, limit: float) -> Chunks:
        """Everything up to and with the first content, within `limit` seconds."""
        ...

    def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The rest, until the loop's time is `deadline`."""
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
        ...


class Caller(Protocol):
    """One call of an endpoint, unary or streamed."""

    async def complete(self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float) -> Answer:
        """The whole answer, within `limit` seconds. Raises ProviderError, or InvalidRequest before any call."""
        ...

    def stream(self, endpoint: Endpoint, request: pb.ChatCompletionRequest) -> Stream:
        """A streamed answer, not yet opened; this or `open` raises InvalidRequest."""
        ...


class PlainCaller(Caller, Protocol):
    """A Caller that spares whoever writes JSON the translation of what is JSON already."""

    async def complete_plain(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Answer | PlainAnswer:
        """The whole answer, as `complete` has it or as the provider wrote it."""
        ...

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """See Caller."""
        ...


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. A failure cancels the other calls, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def copy(request: pb.ChatCompletionRequest) -> pb.ChatCompletionRequest:
    """A request of one's own to change."""
    own = pb.ChatCompletionRequest()
    own.CopyFrom(request)
    return own


def add_usage(total: pb.Usage, more: pb.Usage) -> None:
    """Count `more` in: what several calls of a provider are billed."""
    _add(total, more)


def _add(total: Proto, more: Proto) -> None:
    for field, value in more.ListFields():
        if field.name == "extra_json":
            mine = openai_json.decode_json(getattr(total, "extra_json") or "{}")  # noqa: B009
            both = _sum(mine, openai_json.decode_json(value))
            setattr(total, "extra_json", openai_json.encode_text(both))  # noqa: B010
        elif field.message_type is not None:
            getattr(total, field.name).SetInParent()
            _add(getattr(total, field.name), value)
        else:
            setattr(total, field.name, getattr(total, field.name) + value)


def _sum(one: Any, other: Any) -> Any:
    """Numbers added, inside objects too; of anything else, what came first."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**other, **{key: _sum(value, other[key]) if key in other else value for key, value in one.items()}}
    if isinstance(one, bool) or isinstance(other, bool):
        return one
    return one + other if isinstance(one, int | float) and isinstance(other, int | float) else one
