"""The calls of a soak: kinds of valid, invalid and abandoned calls, and the expected outcomes of each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from lmchat.v1 import chat_service_pb2_grpc as chat_grpc

from lmchat_dev.bench import http1, jobs, rpc
from lmchat_dev.bench.jobs import Api

CALL_TIMEOUT = 60.0
"""Seconds after which a call counts as hung."""

_HANG_UP_DELAY = 0.03
"""Seconds after which a caller hangs up that does not wait for the first token."""

_POLL_INTERVAL = 0.01
"""Seconds between two checks for the first token."""

ANSWER, HUNG_UP, ERROR_EVENT = "answer", "hung up", "error event"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of call. `weight` is its share of the mix, `expected` its expected outcomes.

    Outcomes are `answer` (complete and correct), an HTTP status or a gRPC code,
    `error event`, and `hung up`, by the caller itself.
    """

    name: str
    weight: int
    expected: frozenset[str]
    api: Api = "rest"
    model: str = "mock/unary"
    stream: bool = False
    turns: int = 1
    new_connection: bool = False
    """On a new connection."""
    hang_up: str = ""
    """When the caller hangs up: `before` the first token or in the `middle`."""
    raw: bytes = b""
    """The body, where it is not a valid request."""


def _kinds() -> Iterator[Kind]:
    answer = frozenset({ANSWER})
    yield Kind(name="REST", weight=220, expected=answer)
    yield Kind(name="REST, fresh connection", weight=50, expected=answer, new_connection=True)
    yield Kind(name="REST stream", weight=150, expected=answer, model="mock/fast-50", stream=True)
    yield Kind(
        name="REST stream, fresh",
        weight=40,
        expected=answer,
        model="mock/fast-50",
        stream=True,
        new_connection=True,
    )
    yield Kind(name="REST, 100 KB", weight=25, expected=answer, turns=200)
    yield Kind(name="REST, 1 MB", weight=5, expected=answer, turns=2000)
    yield Kind(name="gRPC", weight=150, expected=answer, api="grpc")
    yield Kind(name="gRPC stream", weight=100, expected=answer, api="grpc", model="mock/fast-50", stream=True)
    for api, name in _APIS:
        left = frozenset({HUNG_UP})
        yield Kind(
            name=f"{name} left before the first token", weight=40, expected=left, api=api,
            model="mock/slow-500", stream=True, hang_up="before",
        )  # fmt: skip
        yield Kind(
            name=f"{name} left in mid-stream", weight=40, expected=left, api=api,
            model="mock/paced-100", stream=True, hang_up="middle",
        )  # fmt: skip
        yield Kind(
            name=f"{name} left before the answer", weight=15, expected=left, api=api,
            model="mock/slow-500", hang_up="before",
        )  # fmt: skip
    # A failing endpoint's circuit opens; further calls are refused, or sent as a last resort.
    yield Kind(name="REST, unknown model", weight=15, expected=frozenset({"404"}), model="nothing")
    yield Kind(name="REST, bad JSON", weight=15, expected=frozenset({"400"}), raw=b'{"model": ')
    yield Kind(name="REST, upstream 500", weight=15, expected=frozenset({"502", "503"}), model="mock/status-500")
    yield Kind(name="REST, upstream 429", weight=15, expected=frozenset({"429", "503"}), model="mock/status-429")
    yield Kind(
        name="REST stream cut", weight=15, expected=frozenset({ERROR_EVENT}), model="mock/cut-5", stream=True
    )
    # An error in the same read as the first tokens is still an error before the response.
    yield Kind(
        name="REST stream broken", weight=15, expected=frozenset({ERROR_EVENT, "502"}),
        model="mock/broken-5", stream=True,
    )  # fmt: skip
    yield Kind(
        name="gRPC, unknown model", weight=10, expected=frozenset({"NOT_FOUND"}), api="grpc", model="nothing"
    )
    yield Kind(
        name="gRPC stream cut", weight=10, expected=frozenset({"ABORTED"}), api="grpc",
        model="mock/cut-5", stream=True,
    )  # fmt: skip


_APIS: tuple[tuple[Api, str], ...] = (("rest", "REST"), ("grpc", "gRPC"))

KINDS = tuple(_kinds())


def sequence(count: int, seed: int) -> list[Kind]:
    """`count` kinds in the shares of their weights, shuffled; the same for the same seed."""
    # Not for secrets: the mix must be the same in every run.
    return random.Random(seed).choices(KINDS, [kind.weight for kind in KINDS], k=count)


class Caller:
    """Makes calls, one after the other: REST on a kept-alive connection, gRPC on a private channel.

    On a shared channel cancelled calls would exceed the limit of HTTP/2 servers: Envoy's nghttp2 accepts 1,000
    resets on a connection, then 33 a second, and closes the connection beyond that.
    """

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._headers = {"authorization": f"Bearer {key}"}
        self._metadata = tuple(self._headers.items())
        self._stub: Any = chat_grpc.ChatCompletionsStub(self._channel)
        self._connection: http1.Connection | None = None

    async def make(self, kind: Kind) -> str:
        """Make one call; returns its outcome, the error text where it is none of those of Kind."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return await (self._rest(kind) if kind.api == "rest" else self._grpc(kind))
        except TimeoutError:
            return f"no answer in {CALL_TIMEOUT:g} s"
        except OSError as error:
            return f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        await self._channel.close()

    async def _rest(self, kind: Kind) -> str:
        body = kind.raw or jobs.body(kind.model, stream=kind.stream, turns=kind.turns)
        request = http1.request("/api/v1/chat/completions", self._headers, body)
        connection = await http1.Connection.open(self._port) if kind.new_connection else await self._kept()
        try:
            exchange = http1.Exchange()
            call_task = asyncio.ensure_future(connection.call(request, exchange, stream=kind.stream))
            if kind.hang_up and await _hang_up(call_task, kind.hang_up, exchange):
                return HUNG_UP
            await call_task
        finally:
            if kind.new_connection:
                connection.close()
        return _rest_outcome(exchange, kind)

    async def _kept(self) -> http1.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await http1.Connection.open(self._port)
        return self._connection

    async def _grpc(self, kind: Kind) -> str:
        exchange = http1.Exchange()
        call = rpc.call(
            self._stub, rpc.request(kind.model, kind.turns), self._metadata, exchange, stream=kind.stream
        )
        call_task = asyncio.ensure_future(call)
        if kind.hang_up and await _hang_up(call_task, kind.hang_up, exchange):
            return HUNG_UP
        await call_task
        code = exchange.problem.partition(":")[0] or ANSWER
        return code if code in kind.expected else exchange.problem


async def _hang_up(call_task: asyncio.Future[None], when: str, exchange: http1.Exchange) -> bool:
    """Cancel a call in progress `before` its first token or in the `middle`; False where it ended earlier."""
    try:
        if when == "before":
            await asyncio.wait((call_task,), timeout=_HANG_UP_DELAY)
        else:
            while not exchange.content and not call_task.done():
                await asyncio.wait((call_task,), timeout=_POLL_INTERVAL)
        if call_task.done():
            return False
    finally:  # after a timeout too, so that no call is still in progress when its caller makes the next
        call_task.cancel()
        await asyncio.wait((call_task,))
    return True


def _rest_outcome(exchange: http1.Exchange, kind: Kind) -> str:
    if str(exchange.status) in kind.expected:
        return str(exchange.status)
    if kind.stream and b'"finish_reason":"error"' in exchange.body and b"[DONE]" not in exchange.body:
        return ERROR_EVENT
    exchange.check(stream=kind.stream)
    return exchange.problem or ANSWER
