"""The calls of a soak: every kind that callers make, well and badly, and what each may come to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from lmchat.v1 import chat_service_pb2_grpc as chat_grpc

from lmchat_dev.bench import http1, jobs, rpc
from lmchat_dev.bench.jobs import Door

PATIENCE = 60.0
"""Seconds after which a call counts as hung."""

_EARLY = 0.03
"""Seconds after which a caller leaves that does not wait for the first token."""

_LOOK = 0.01
"""Seconds between two looks at whether the first token has come."""

ANSWER, HUNG_UP, ERROR_EVENT = "answer", "hung up", "error event"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of call. `weight` is its share of the mix, `expected` what it may come to.

    Outcomes are `answer` (whole and right), an HTTP status or a gRPC code,
    `error event`, and `hung up`, which the caller itself did.
    """

    name: str
    weight: int
    expected: frozenset[str]
    door: Door = "rest"
    model: str = "mock/unary"
    stream: bool = False
    turns: int = 1
    fresh: bool = False
    """Over a connection of its own."""
    leave: str = ""
    """When the caller hangs up: `before` the first token or in the `middle`."""
    raw: bytes = b""
    """The body, where it is no request."""


def _kinds() -> Iterator[Kind]:
    answer = frozenset({ANSWER})
    yield Kind(name="REST", weight=220, expected=answer)
    yield Kind(name="REST, fresh connection", weight=50, expected=answer, fresh=True)
    yield Kind(name="REST stream", weight=150, expected=answer, model="mock/fast-50", stream=True)
    yield Kind(
        name="REST stream, fresh", weight=40, expected=answer, model="mock/fast-50", stream=True, fresh=True
    )
    yield Kind(name="REST, 100 KB", weight=25, expected=answer, turns=200)
    yield Kind(name="REST, 1 MB", weight=5, expected=answer, turns=2000)
    yield Kind(name="gRPC", weight=150, expected=answer, door="grpc")
    yield Kind(name="gRPC stream", weight=100, expected=answer, door="grpc", model="mock/fast-50", stream=True)
    for door, name in _DOORS:
        left = frozenset({HUNG_UP})
        yield Kind(
            name=f"{name} left before the first token", weight=40, expected=left, door=door,
            model="mock/slow-500", stream=True, leave="before",
        )  # fmt: skip
        yield Kind(
            name=f"{name} left in mid-stream", weight=40, expected=left, door=door,
            model="mock/paced-100", stream=True, leave="middle",
        )  # fmt: skip
        yield Kind(
            name=f"{name} left before the answer", weight=15, expected=left, door=door,
            model="mock/slow-500", leave="before",
        )  # fmt: skip
    # A failing endpoint's circuit opens; what it is then called by is its last resort, or refused.
    yield Kind(name="REST, unknown model", weight=15, expected=frozenset({"404"}), model="nothing")
    yield Kind(name="REST, bad JSON", weight=15, expected=frozenset({"400"}), raw=b'{"model": ')
    yield Kind(name="REST, upstream 500", weight=15, expected=frozenset({"502", "503"}), model="mock/status-500")
    yield Kind(name="REST, upstream 429", weight=15, expected=frozenset({"429", "503"}), model="mock/status-429")
    yield Kind(
        name="REST stream cut", weight=15, expected=frozenset({ERROR_EVENT}), model="mock/cut-5", stream=True
    )
    # An error that comes in one read with the first tokens is still before the answer.
    yield Kind(
        name="REST stream broken", weight=15, expected=frozenset({ERROR_EVENT, "502"}),
        model="mock/broken-5", stream=True,
    )  # fmt: skip
    yield Kind(
        name="gRPC, unknown model", weight=10, expected=frozenset({"NOT_FOUND"}), door="grpc", model="nothing"
    )
    yield Kind(
        name="gRPC stream cut", weight=10, expected=frozenset({"ABORTED"}), door="grpc",
        model="mock/cut-5", stream=True,
    )  # fmt: skip


_DOORS: tuple[tuple[Door, str], ...] = (("rest", "REST"), ("grpc", "gRPC"))

KINDS = tuple(_kinds())


def sequence(count: int, seed: int) -> list[Kind]:
    """`count` kinds in the shares of their weights, shuffled; the same for the same seed."""
    # Not for secrets: the mix must be the same in every run.
    return random.Random(seed).choices(KINDS, [kind.weight for kind in KINDS], k=count)


class Caller:
    """Makes calls, one after the other: REST on a kept-alive connection, gRPC on a channel of its own.

    A channel that all share would cancel more calls than HTTP/2 servers bear: Envoy's nghttp2 takes 1,000
    resets on a connection, and 33 a second from then on, and beyond that hangs up on every call of it.
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
        """One call; its outcome. What should not be is said as it is."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await (self._rest(kind) if kind.door == "rest" else self._grpc(kind))
        except TimeoutError:
            return f"no answer in {PATIENCE:g} s"
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
        connection = await http1.Connection.open(self._port) if kind.fresh else await self._kept()
        try:
            exchange = http1.Exchange()
            asking = asyncio.ensure_future(connection.ask(request, exchange, stream=kind.stream))
            if kind.leave and await _left(asking, kind.leave, exchange):
                return HUNG_UP
            await asking
        finally:
            if kind.fresh:
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
        asking = asyncio.ensure_future(call)
        if kind.leave and await _left(asking, kind.leave, exchange):
            return HUNG_UP
        await asking
        code = exchange.problem.partition(":")[0] or ANSWER
        return code if code in kind.expected else exchange.problem


async def _left(asking: asyncio.Future[None], when: str, exchange: http1.Exchange) -> bool:
    """Hang up a call under way; False when it was over before the moment came."""
    try:
        if when == "before":
            await asyncio.wait((asking,), timeout=_EARLY)
        else:
            while not exchange.content and not asking.done():
                await asyncio.wait((asking,), timeout=_LOOK)
        if asking.done():
            return False
    finally:  # out of patience, too: no call goes on when its caller has turned to the next
        asking.cancel()
        await asyncio.wait((asking,))
    return True


def _rest_outcome(exchange: http1.Exchange, kind: Kind) -> str:
    if str(exchange.status) in kind.expected:
        return str(exchange.status)
    if kind.stream and b'"finish_reason":"error"' in exchange.body and b"[DONE]" not in exchange.body:
        return ERROR_EVENT
    exchange.check(stream=kind.stream)
    return exchange.problem or ANSWER
