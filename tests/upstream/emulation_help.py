"""Helpers of the tests of emulation: real calls to a scripted provider, and streams read to their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import httpx
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat import openai_json
from server.config.model import Timeouts
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import InvalidRequest
from server.upstream.client import Upstream
from server.upstream.emulation.emulation import Emulation
from server.upstream.ports import Chunks, Stream
from tests.routing import routing_help
from tests.support.sending import MockSender
from tests.support.typed import TypedCaller

#: Request JSON and number of the call -> response. In a body a number is a wait in seconds of the loop's time, an
#: exception breaks it off.
Script = Callable[[dict[str, Any], int], "Response"]
FOR_EVER = 1e6


class Response:
    """A status and the pieces of a body."""

    def __init__(self, *pieces: bytes | float | Exception, status: int = 200, wait: float = 0.0) -> None:
        self.pieces = pieces
        self.status = status
        self.wait = wait


class Body(httpx.AsyncByteStream):
    """A response body that records whether it was closed."""

    def __init__(self, pieces: tuple[bytes | float | Exception, ...]) -> None:
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                await asyncio.sleep(piece)

    async def aclose(self) -> None:
        self.closed = True


class _NoKeys:
    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        return {}


async def _no_fetch(url: str) -> tuple[str, bytes]:
    raise InvalidRequest("nothing is fetched here")


class Provider:
    """A provider that answers with `script`, behind real calls and emulation. `calls` are the request bodies."""

    def __init__(self, script: Script, fetch: Callable[[str], Awaitable[tuple[str, bytes]]] = _no_fetch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.bodies: list[Body] = []
        self._script = script
        upstream = Upstream(MockSender(self._serve), {"openai": OpenAITranslator()}, {"a": _NoKeys()})
        self.emulation = TypedCaller(Emulation(upstream, fetch))

    async def _serve(self, sent: httpx.Request) -> httpx.Response:
        request = json.loads(sent.content)
        self.calls.append(request)
        response = self._script(request, len(self.calls) - 1)
        await asyncio.sleep(response.wait)
        body = Body(response.pieces)
        self.bodies.append(body)
        kind = "text/event-stream" if request.get("stream") and response.status == 200 else "application/json"
        return httpx.Response(response.status, headers={"content-type": kind}, stream=body)

    def check_closed(self) -> None:
        """Assert that all bodies were closed."""
        assert all(body.closed for body in self.bodies)


def endpoint(*emulates: str, native_n: int = 1, dialect: str = "openai") -> Endpoint:
    """An endpoint that emulates these features."""
    base = routing_help.endpoint()
    limits = Timeouts(first_token=10.0, idle=10.0, total=100.0)
    return replace(base, emulates=frozenset(emulates), native_n=native_n, timeouts=limits, dialect=dialect)


def request(**fields: Any) -> pb.ChatCompletionRequest:
    """A request from OpenAI's JSON, with a default model and message."""
    plain = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    return openai_json.parse(json.dumps({**plain, **fields}).encode()).request


def completion(content: str | None, finish: str = "stop", tokens: int = 5, **message: Any) -> dict[str, Any]:
    """An answer of one choice, as JSON."""
    return {
        "id": "chatcmpl-up",
        "created": 5,
        "model": "up",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens},
    }


def whole(body: dict[str, Any], **more: Any) -> Response:
    """A unary response."""
    return Response(json.dumps(body).encode(), **more)


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event({"id": "chatcmpl-up", "created": 5, "model": "up", "choices": [choice]})


def usage(prompt: int, tokens: int) -> bytes:
    """The last event of a stream."""
    counted = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return event({"id": "chatcmpl-up", "created": 5, "model": "up", "choices": [], "usage": counted})


DONE = b"data: [DONE]\n\n"


async def read(stream: Stream) -> list[Chunks]:
    """Open the stream and read every batch; closes it."""
    now = asyncio.get_running_loop().time
    try:
        batches = [await stream.open(100.0)]
        async with aclosing(stream.batches(now() + 100.0)) as rest:
            batches += [batch async for batch in rest]
    finally:
        await stream.aclose()
    return batches


def texts(batches: list[Chunks]) -> dict[int, str]:
    """The text of each choice, by its index."""
    found: dict[int, str] = {}
    for batch in batches:
        for one in batch:
            for choice in one.choices:
                found[choice.index] = found.get(choice.index, "") + choice.delta.content
    return found
