"""The lower bound of a worker's cost: a bare grpc.aio server with canned answers, behind lmchat's Envoy.

Its figures are the cost of Envoy and gRPC; what lmchat's figures have beyond them is lmchat's own code.
The model's name says what to send, as in `mock`; `single-N` is `fast-N` with one event a message, not ten.
"""

from __future__ import annotations

import argparse
import asyncio
from functools import lru_cache
from typing import Any

import grpc
import msgspec
import uvloop
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from lmchat.internal.v1 import rest_service_pb2_grpc
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc

from lmchat_dev.bench import dialect
from lmchat_dev.bench.mock import RequestFields

EVENTS_PER_MESSAGE = 10

Context = grpc.aio.ServicerContext[Any, Any]

_decode = msgspec.json.Decoder(RequestFields).decode


class Rest(rest_service_pb2_grpc.RestServicer):
    """The servicer of the REST API."""

    async def CreateChatCompletion(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        """Canned JSON, or canned events."""
        fields = _decode(request.data)
        if not fields.stream:
            await context.write(HttpBody(content_type="application/json", data=dialect.completion(20)))
            return
        for piece in _pieces(fields.model):
            await context.write(HttpBody(content_type="text/event-stream", data=piece))
        if fields.model == "held":
            await asyncio.Event().wait()

    async def CreateUnaryChatCompletion(self, request: HttpBody, context: Context) -> HttpBody:
        """Canned JSON; Envoy sends requests without `stream` here."""
        return HttpBody(content_type="application/json", data=dialect.completion(20))


class Chat(chat_service_pb2_grpc.ChatCompletionsServicer):
    """The servicer of the gRPC API."""

    async def CreateChatCompletion(self, request: pb.ChatCompletionRequest, context: Context) -> pb.ChatCompletion:
        """A canned completion."""
        answer = pb.ChatCompletion(id="chatcmpl-echo", model=request.model)
        choice = answer.choices.add(finish_reason=pb.FINISH_REASON_STOP)
        choice.message.content.add(text="".join(dialect.WORDS))
        return answer

    async def StreamChatCompletion(  # type: ignore[override]
        self, request: pb.ChatCompletionRequest, context: Context
    ) -> None:
        """Canned chunks."""
        for number in range(_tokens(request.model)):
            chunk = pb.ChatCompletionChunk(id="chatcmpl-echo", model=request.model)
            chunk.choices.add().delta.content = dialect.WORDS[number % len(dialect.WORDS)]
            await context.write(chunk)
        if request.model == "held":
            await asyncio.Event().wait()
        last = pb.ChatCompletionChunk(id="chatcmpl-echo", model=request.model)
        last.choices.add(finish_reason=pb.FINISH_REASON_STOP)
        await context.write(last)


def _tokens(model: str) -> int:
    return 1 if model == "held" else int(model.partition("-")[2] or 20)


@lru_cache(64)
def _pieces(model: str) -> list[bytes]:
    """The messages of a stream."""
    events = dialect.events(_tokens(model))
    if model == "held":
        return [b"".join(events[:2])]
    return dialect.grouped(events, 1 if model.startswith("single-") else EVENTS_PER_MESSAGE)


async def serve(address: str) -> None:
    """Listen at `address` until killed."""
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 * 1024 * 1024),))
    rest_service_pb2_grpc.add_RestServicer_to_server(Rest(), server)
    chat_service_pb2_grpc.add_ChatCompletionsServicer_to_server(Chat(), server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="host:port or unix:path")
    uvloop.run(serve(parser.parse_args().address))
