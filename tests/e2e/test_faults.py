"""The gateway as a whole, Envoy included, in front of providers that misbehave: every row of the fault table."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from lmchat.v1 import chat_service_pb2_grpc

from tests.e2e.conftest import READY, start, stop
from tests.support.fault_rows import CALL_MODES, FAULTS, Outcome, get, most_in_three_seconds
from tests.support.faults import Behaviour, FaultServer, answer, fault_server, headers_only, silence, stall
from tests.support.gateway import AUTH, KEY, RestReply

#: Longer timeouts than in the tests of a single worker, since all rows run at once on a busy machine.
CONFIGURATION = """
auth: {{keys: [{{name: test, key: "{key}"}}]}}
timeouts: {{connect: 5s, first_token: 1500ms, idle: 1500ms, total: 10s}}
providers:
  a: {{type: openai, base_url: "{base_url}"}}
  b: {{type: openai, base_url: "{base_url}"}}
models:
  "*": {{endpoints: [{{provider: a, model: "a*"}}, {{provider: b, model: "b*"}}]}}
"""
AT_ONCE = 8
#: Seconds that a row may take beyond its limit in the tests of a single worker.
LONGER = 5.0


class Edge:
    """The REST and gRPC APIs through Envoy."""

    def __init__(self, url: str, session: aiohttp.ClientSession, channel: grpc.aio.Channel) -> None:
        self._url = url
        self._session = session
        self.chat: Any = chat_service_pb2_grpc.ChatCompletionsStub(channel)

    async def post(self, body: Any) -> RestReply:
        """One REST call, to its end."""
        async with self._session.post(f"{self._url}/api/v1/chat/completions", json=body, headers=AUTH) as reply:
            data = await reply.read()
            assert reply.headers["x-request-id"]
            return RestReply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, data)


@pytest.fixture(name="provider")
async def provider_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        yield server


@pytest.fixture(name="edge")
async def edge_fixture(provider: FaultServer, tmp_path: Path) -> AsyncIterator[Edge]:
    """`lmchat up` with two workers."""
    file = tmp_path / "lmchat.yaml"
    file.write_text(CONFIGURATION.format(base_url=provider.base_url, key=KEY))
    gateway = start(tmp_path / "state", "--config", str(file), "--workers", "2", "--no-local-model")
    await asyncio.to_thread(gateway.ready.wait, READY)
    async with (
        aiohttp.ClientSession() as session,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        yield Edge(gateway.url, session, channel)
    assert await asyncio.to_thread(stop, gateway) == 0, "".join(gateway.output)


async def test_one_provider_misbehaves(edge: Edge, provider: FaultServer) -> None:
    """Each row has separate endpoints, so that circuits of one do not affect another."""
    turn = asyncio.Semaphore(AT_ONCE)
    wrong = await asyncio.gather(
        *(_ask(edge, provider, turn, row, way) for row in range(len(FAULTS)) for way in CALL_MODES)
    )
    assert not [line for line in wrong if line]


@pytest.mark.parametrize("behaviour", [silence, headers_only, stall("one")], ids=["silence", "headers", "stall"])
async def test_callers_who_leave(edge: Edge, provider: FaultServer, behaviour: Behaviour) -> None:
    """The provider's call is cancelled at once, and no other is made."""
    for number, (api, stream) in enumerate(CALL_MODES):
        provider.script(f"a{number}", behaviour)
        asking = asyncio.ensure_future(get(edge, api, stream, f"{number}"))
        called = await provider.arrived(number + 1)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.wait_for(called.wait(), 1)  # the first-token limit is half a second later
    assert [call.body["model"] for call in provider.calls] == ["a0", "a1", "a2", "a3"]


async def _ask(edge: Edge, provider: FaultServer, turn: asyncio.Semaphore, row: int, way: tuple[str, bool]) -> str:
    """The difference between a row's outcome and the expected one; empty where there is none."""
    api, stream = way
    script, whole, streamed, within = FAULTS[row].values
    model = f"{row}-{api}-{'stream' if stream else 'whole'}"
    a, b = f"a{model}", f"b{model}"
    provider.script(a, *script)
    provider.script(b, answer("from", " b"))
    expected: Outcome = streamed if stream else whole
    async with turn:
        began = asyncio.get_running_loop().time()
        outcome = await get(edge, api, stream, model)
        took = asyncio.get_running_loop().time() - began
    calls = Counter("a" * len(provider.of(a)) + "b" * len(provider.of(b)))
    most = max(most_in_three_seconds(provider.of(name)) for name in (a, b))
    fine = outcome == expected and calls == Counter(line[0] for line in expected.attempts) and most <= 4
    if fine and took < within + LONGER:
        return ""
    return f"{FAULTS[row].id}, {model}: {outcome}, not {expected}; {dict(calls)} calls, {took:.1f} s"
