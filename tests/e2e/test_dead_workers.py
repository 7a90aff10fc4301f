"""Workers that have died, and that Envoy does not yet know to be dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import grpc
import httpx
import pytest
from lmchat.v1 import chat_pb2, chat_service_pb2_grpc

from tests.e2e.envoy_fixture import DEADLINE, Envoy, Worker, running, until

CALLERS = 16


def unhurried(template: str) -> str:
    """Health checks so seldom that none finds out what has died."""
    assert template.count("          interval: 1s\n") == 1
    return template.replace("          interval: 1s\n", "          interval: 600s\n")


@pytest.fixture(name="envoy", scope="module")
def envoy_fixture() -> Iterator[Envoy]:
    with running(unhurried) as envoy:
        yield envoy


@pytest.fixture(name="survivor")
async def survivor_fixture(envoy: Envoy) -> AsyncIterator[None]:
    """Four workers, three of which are dead."""
    addresses = [envoy.address() for _ in range(4)]

    async def known() -> bool:
        return (await envoy.healthy()) == len(addresses)

    async with AsyncExitStack() as alive, AsyncExitStack() as dying:
        for stack, address in zip((alive, dying, dying, dying), addresses, strict=True):
            await stack.enter_async_context(Worker.serving(address))
        envoy.workers(*addresses)
        await until(known, "Envoy has found all workers healthy")
        await dying.aclose()
        yield
        envoy.workers()


async def callers(call: Callable[[], Awaitable[bool]], calls: int) -> int:
    """How many calls of many callers succeed. Those in flight make the worker that lives the last choice."""

    async def caller() -> int:
        return sum([await call() for _ in range(calls)])

    return sum(await asyncio.gather(*(caller() for _ in range(CALLERS))))


BODIES = pytest.mark.parametrize(("size", "calls"), [(0, 20), (100_000, 5), (10_000_000, 1)])


@BODIES
@pytest.mark.usefixtures("survivor")
async def test_rest_calls_reach_the_worker_that_lives(envoy: Envoy, size: int, calls: int) -> None:
    async with httpx.AsyncClient(base_url=envoy.url, timeout=DEADLINE) as client:

        async def call() -> bool:
            reply = await client.post("/api/v1/chat/completions", json={"messages": "x" * size})
            return reply.status_code == 200

        assert await callers(call, calls) == CALLERS * calls


@BODIES
@pytest.mark.usefixtures("survivor")
async def test_grpc_calls_reach_the_worker_that_lives(envoy: Envoy, size: int, calls: int) -> None:
    request = chat_pb2.ChatCompletionRequest(user="x" * size)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.port}") as channel:
        stub = chat_service_pb2_grpc.ChatCompletionsStub(channel)

        async def call() -> bool:
            try:
                return bool(await stub.CreateChatCompletion(request))
            except grpc.aio.AioRpcError:
                return False

        assert await callers(call, calls) == CALLERS * calls
