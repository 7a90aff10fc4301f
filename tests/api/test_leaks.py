"""Calls with every outcome release their tasks, sockets and streams."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.api.call import Call
from server.chat.large import LARGE_BYTES
from server.errors import LmchatError
from server.routing.stream import RoutedStream
from server.upstream.stream import UpstreamStream
from server.wire.exchange import Exchange
from tests.support import faults
from tests.support.faults import FaultServer, answer, fault_server
from tests.support.gateway import AUTH, Gateway, ask, run_gateway

CONFIGURATION = """
circuit: {{min_requests: 1000000}}
providers: {{up: {{type: openai, base_url: "{base_url}"}}}}
models: {{"*": {{endpoints: [{{provider: up, model: "*"}}]}}}}
"""


@pytest.fixture(name="upstream")
async def upstream_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        server.script("fine", answer("Hi", " there"))
        server.script("down", faults.failure(500))
        server.script("cut", faults.cut("one"))
        server.script("broken", faults.broken("one"))
        server.script("silent", faults.silence)
        server.script("stalled", faults.stall("one"))
        yield server


@pytest.fixture(name="gateway")
async def gateway_fixture(upstream: FaultServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with run_gateway(tmp_path, CONFIGURATION.format(base_url=upstream.base_url)) as gateway:
        yield gateway


async def cancel_after(call: Any, *, after: int) -> None:
    """Cancel a stream after `after` messages; with 0 once the provider has received the call."""
    for _ in range(after):
        await call.read()
    call.cancel()


async def calls_of_each_kind(gateway: Gateway, upstream: FaultServer) -> None:
    """One call of each kind, at once."""
    typed = pb.ChatCompletionRequest(model="fine")
    typed.messages.add(role=pb.ROLE_USER).content.add(text="hello")
    silent = gateway.open(ask("silent", stream=True))
    await asyncio.gather(
        *(
            gateway.post(ask(model, stream=stream))
            for model in ("fine", "down", "cut")
            for stream in (False, True)
        ),
        gateway.post(ask("broken", stream=True)),
        gateway.post(b"{"),
        cancel_after(gateway.open(ask("fine", stream=True)), after=1),
        cancel_after(gateway.open(ask("stalled", stream=True)), after=1),
        gateway.chat.CreateChatCompletion(typed, metadata=AUTH),
        cancel_after(gateway.chat.StreamChatCompletion(typed, metadata=AUTH), after=1),
        return_exceptions=True,
    )
    silent.cancel()


def resources() -> Counter[str]:
    """Current tasks by their coroutine, file descriptors, and streams."""
    gc.collect()
    found: Counter[str] = Counter(
        getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks() if not task.done()
    )
    for task in list(found):
        if task.startswith(("FaultServer.", "Call.")):  # of connections the gateway may keep
            del found[task]
    found.update(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, _OF_A_CALL))
    return found


_OF_A_CALL = (UpstreamStream, RoutedStream, Exchange, grpc.aio.ServicerContext)


async def settled_resources(expected: Counter[str]) -> Counter[str]:
    """`held()` once it equals `expected`, or after two seconds."""
    for _ in range(40):
        if resources() == expected:
            break
        await asyncio.sleep(0.05)
    return resources()


def descriptors() -> int:
    """Open file descriptors of this process; 0 where the system has no /proc."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def ten_of_each_kind(gateway: Gateway, upstream: FaultServer) -> None:
    """Ten calls of each kind at once."""
    await asyncio.gather(*(calls_of_each_kind(gateway, upstream) for _ in range(10)))


async def test_calls_release_all_resources(gateway: Gateway, upstream: FaultServer) -> None:
    before = resources()
    await ten_of_each_kind(gateway, upstream)
    assert await settled_resources(before) == before
    open_then = descriptors()
    for _ in range(3):
        await ten_of_each_kind(gateway, upstream)
    assert await settled_resources(before) == before
    assert descriptors() <= open_then + 20  # the pool keeps as many connections as were needed at once


@pytest.mark.parametrize("model", ["down", "cut", "refused", "unreadable", "unknown-key"])
@pytest.mark.parametrize("text", ["hello", "x" * 2 * LARGE_BYTES], ids=["ordinary", "large"])
async def test_failed_calls_are_freed_at_once(
    gateway: Gateway, upstream: FaultServer, model: str, text: str
) -> None:
    """Without the garbage collector: a cycle of an error and its frames would keep the call's memory."""
    upstream.script("refused", faults.failure(400, "x" * 1000))
    upstream.script("unreadable", faults.reply(200, b"{"))
    typed = pb.ChatCompletionRequest(model=model)
    typed.messages.add(role=pb.ROLE_USER).content.add(text=text)
    metadata = () if model == "unknown-key" else AUTH
    gc.collect()
    before = call_objects()
    gc.disable()
    try:
        for stream in (False, True):
            assert (await gateway.post(ask(model, stream=stream, user=text), metadata=metadata)).code is not None
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.chat.CreateChatCompletion(typed, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in gateway.chat.StreamChatCompletion(typed, metadata=metadata):
                pass
        for _ in range(40):  # the server's task of the last call may still be ending
            if not call_objects() - before:
                break
            await asyncio.sleep(0.05)
        assert call_objects() - before == Counter()
    finally:
        gc.enable()


def call_objects() -> Counter[str]:
    """Existing calls and their errors, whether they can be collected or not."""
    kinds = (Call, LmchatError, httpx.TransportError)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))
