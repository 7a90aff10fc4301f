"""A router over scripted endpoints: real catalogue, translators and calls, and no network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any, NamedTuple

import httpx
from lmchat.v1 import chat_pb2 as pb

from server.chat.request import ChatRequest, ProtoRequest
from server.config.model import Circuit, Config, EndpointSettings, ModelSettings, ProviderSettings, Retry, Timeouts
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import InvalidRequest
from server.routing.catalog import Catalog
from server.routing.report import Report
from server.routing.router import Ids, Router
from server.routing.shared_stats import SharedStats
from server.routing.stats import EndpointStats
from server.routing.stream import RoutedStream
from server.upstream.client import Upstream
from tests.routing.routing_help import request
from tests.support.sending import MockSender

#: A scripted response to a call.
Behaviour = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


class Body(httpx.AsyncByteStream):
    """A body played from a script: bytes are sent, numbers are seconds of silence, exceptions are raised."""

    def __init__(self, script: Sequence[bytes | float | Exception]) -> None:
        self._script = script
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                yield step
            else:
                await asyncio.sleep(step)

    async def aclose(self) -> None:
        self.closed = True


RESET = httpx.ReadError("connection reset")
FOR_EVER = 1e6


def sends(*script: bytes | float | Exception, status: int = 200, **headers: str) -> Behaviour:
    """A response with this body."""

    async def behave(body: dict[str, Any]) -> httpx.Response:
        response_headers = {"content-type": "text/event-stream" if body.get("stream") else "application/json"}
        response_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, headers=response_headers, stream=Body(script))

    return behave


def event(obj: Any) -> bytes:
    return b"data: " + (obj if isinstance(obj, bytes) else json.dumps(obj).encode()) + b"\n\n"


def chunk(finish_reason: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-up", "created": 5, "model": "up", "choices": [choice]})


ROLE = chunk(role="assistant", content="")
STOP = chunk("stop")
DONE = event(b"[DONE]")
USAGE = event({"id": "chatcmpl-up", "created": 5, "choices": [], "usage": {"completion_tokens": 40}})


def answer(text: str, seconds: float = 0.0) -> Behaviour:
    """A complete answer, unary or streamed word by word, which takes `seconds`."""
    message = {"role": "assistant", "content": text}
    whole = {
        "id": "chatcmpl-up", "created": 5, "model": "up", "usage": {"completion_tokens": 40},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }  # fmt: skip

    async def behave(body: dict[str, Any]) -> httpx.Response:
        if not body.get("stream"):
            return await sends(seconds, json.dumps(whole).encode())(body)
        words = [chunk(content=word) for word in text.split(" ")]
        return await sends(ROLE, *words, seconds, STOP, USAGE, DONE)(body)

    return behave


def status(code: int, **headers: str) -> Behaviour:
    """An error of OpenAI's shape."""
    return sends(json.dumps({"error": {"message": f"it said {code}"}}).encode(), status=code, **headers)


async def refuses(body: dict[str, Any]) -> httpx.Response:
    """No connection."""
    raise httpx.ConnectError("connection refused")


async def silent(body: dict[str, Any]) -> httpx.Response:
    """A connection without a response."""
    await asyncio.sleep(FOR_EVER)
    raise AssertionError


class _NoKeys:
    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        return {}


class _Mute(OpenAITranslator):
    """A dialect that refuses every request."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        raise InvalidRequest("There is no word for it.", "stop")


class Answer(NamedTuple):
    """See `server.routing.router.Routed`."""

    completion: pb.ChatCompletion
    report: Report
    upstream_seconds: float


class Rig:
    """A router over one endpoint for each script, whose last behaviour is repeated; model `m` has them all.

    Model `second` has the endpoint `z`, `w/*` the endpoint `a`. Needs a running event loop.
    """

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Behaviour]],
        *,
        timeouts: Timeouts | None = None,
        circuit: Circuit | None = None,
        own: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.now = now = asyncio.get_running_loop().time

        def uptime() -> float:
            return now() + 1000.0

        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.bodies: list[Body] = []
        self._scripts = {name: list(script) for name, script in scripts.items()}
        limits = timeouts or Timeouts(first_token=10.0, idle=10.0, total=100.0)
        entries = {
            name: EndpointSettings(**{"name": name, "provider": name, "model": "up", "timeouts": limits, **more})
            for name in scripts
            for more in [(own or {}).get(name, {})]
        }
        models = [ModelSettings(id="m", endpoints=tuple(e for name, e in entries.items() if name != "z"))]
        if "z" in entries:
            models.append(ModelSettings(id="second", endpoints=(entries["z"],)))
        wild = EndpointSettings(name="a", provider="a", model="*", timeouts=limits)
        models.append(ModelSettings(id="w/*", endpoints=(wild,)))
        providers = {
            name: ProviderSettings(key=name, type="openai", base_url=f"https://{name}.test/v1") for name in scripts
        }
        catalog = Catalog(
            Config(providers=providers, models={model.id: model for model in models}, aliases={"alias": "m"}), {}
        )
        numbers = count(1)
        ids = Ids(lambda: f"chatcmpl-own{next(numbers)}", lambda: 1.75e9, uptime, lambda: 0.5)
        translators = {"openai": OpenAITranslator(), "gemini": _Mute()}
        upstream = Upstream(MockSender(self._serve), translators, dict.fromkeys(providers, _NoKeys()))
        self.health = EndpointStats(circuit or Circuit(), SharedStats.private(uptime))
        self.router = Router(catalog, upstream, self.health, ids, Retry())

    async def _serve(self, http: httpx.Request) -> httpx.Response:
        name = http.url.host.partition(".")[0]
        body = json.loads(http.content)
        self.calls.append((name, self.now(), body))
        script = self._scripts[name]
        response = await (script.pop(0) if len(script) > 1 else script[0])(body)
        if isinstance(response.stream, Body):
            self.bodies.append(response.stream)
        return response

    def names(self) -> str:
        """The names of the called endpoints, in order."""
        return "".join(name for name, _, _ in self.calls)

    def is_open(self, name: str) -> bool:
        """The circuit of an endpoint."""
        return self.health.is_open(f"{name}/{name}/up")

    async def complete(
        self, chat_request: pb.ChatCompletionRequest | None = None, timeout: float | None = None
    ) -> Answer:
        """A whole answer."""
        routed = await self.router.complete(ProtoRequest(chat_request or request()), timeout)
        return Answer(routed.completion.to_proto(), routed.report, routed.upstream_seconds)

    async def open(
        self, chat_request: pb.ChatCompletionRequest | None = None, timeout: float | None = None
    ) -> RoutedStream:
        """A stream whose first content has arrived."""
        return await self.router.stream(ProtoRequest(chat_request or request()), timeout)

    async def stream(
        self, chat_request: pb.ChatCompletionRequest | None = None, timeout: float | None = None
    ) -> list[pb.ChatCompletionChunk]:
        """All chunks of a stream."""
        routed = await self.open(chat_request, timeout)
        chunks: list[pb.ChatCompletionChunk] = []
        await drain(routed, chunks)
        return chunks

    def check_closed(self) -> None:
        """Assert that all responses were closed."""
        assert all(body.closed for body in self.bodies)


async def drain(routed: RoutedStream, into: list[pb.ChatCompletionChunk]) -> None:
    """Read to the end."""
    async with aclosing(routed.batches()) as batches:
        async for batch in batches:
            into += batch


def text(chunks: Sequence[pb.ChatCompletionChunk]) -> str:
    return " ".join(choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content)


def attempts(report: pb.RoutingReport) -> list[tuple[str, int, str]]:
    return [(attempt.provider, attempt.status, attempt.reason) for attempt in report.attempts]
