"""Callers of the gRPC API: grpc.aio with the generated stubs."""

from __future__ import annotations

from typing import Any

import grpc
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc as chat_grpc

from lmchat_dev.bench.http1 import Exchange, now
from lmchat_dev.bench.jobs import Job, conversation

CALLERS_PER_CHANNEL = 100
"""Calls that share a connection, under the limit of streams that Envoy allows on one."""

Metadata = tuple[tuple[str, str], ...]

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


class GrpcCaller:
    """One caller; several share a channel."""

    def __init__(self, channel: grpc.aio.Channel, job: Job) -> None:
        self._channel = channel
        self._stub: Any = chat_grpc.ChatCompletionsStub(channel)
        self._job = job
        self._request = request(job.model, job.turns)
        self._metadata = tuple(job.headers.items())

    async def connect(self) -> None:
        """Open the channel, if no other caller has. Raises OSError."""
        try:
            await self._channel.channel_ready()
        except grpc.RpcError as error:
            raise ConnectionError(str(error)) from None

    async def call(self, exchange: Exchange) -> None:
        """One call, to its end."""
        await call(self._stub, self._request, self._metadata, exchange, stream=self._job.stream)
        if not exchange.problem and exchange.events < self._job.min_events:
            exchange.problem = f"{exchange.events} chunks instead of {self._job.min_events}"

    async def close(self) -> None:
        """Close the channel that this caller shares."""
        await self._channel.close()


async def call(
    stub: Any, request: pb.ChatCompletionRequest, metadata: Metadata, exchange: Exchange, *, stream: bool
) -> None:
    """One call, to its end. An error is written to `exchange.problem` as `<code>: <message>`."""
    exchange.sent = now()
    try:
        if stream:
            await _streamed(stub.StreamChatCompletion(request, metadata=metadata), exchange)
        else:
            await _whole(stub.CreateChatCompletion(request, metadata=metadata), exchange)
    except grpc.aio.AioRpcError as error:
        exchange.problem = f"{error.code().name}: {error.details()}"


async def _whole(answer: Any, exchange: Exchange) -> None:
    reply: pb.ChatCompletion = await answer
    exchange.ended = exchange.first = now()
    if not any(part.text for choice in reply.choices for part in choice.message.content):
        exchange.problem = "no content"


async def _streamed(answer: Any, exchange: Exchange) -> None:
    finished = False
    chunk: pb.ChatCompletionChunk
    async for chunk in answer:
        received_at = now()
        exchange.events += 1
        exchange.arrivals.append((received_at, 1))
        for choice in chunk.choices:
            finished = finished or choice.finish_reason != pb.FINISH_REASON_UNSPECIFIED
            if not exchange.content and choice.delta.content:
                exchange.content, exchange.first = True, received_at
    exchange.ended = now()
    if not exchange.content or not finished:
        exchange.problem = "no content" if finished else "the stream ended without a finish reason"


def callers(job: Job) -> list[GrpcCaller]:
    """All callers of a job; CALLERS_PER_CHANNEL share a channel."""
    # Without private subchannel pools, channels to one address would share one connection.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{job.port}", options=options)
        for _ in range(-(-job.concurrency // CALLERS_PER_CHANNEL))
    ]
    return [GrpcCaller(channels[number // CALLERS_PER_CHANNEL], job) for number in range(job.concurrency)]


def request(model: str, turns: int = 1) -> pb.ChatCompletionRequest:
    """The request of `jobs.body` as a protobuf message."""
    messages = [
        pb.Message(role=_ROLES[role], content=[pb.ContentPart(text=text)]) for role, text in conversation(turns)
    ]
    return pb.ChatCompletionRequest(model=model, messages=messages, temperature=0.7)
