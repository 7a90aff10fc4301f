"""A worker in front of failing providers: outcomes, the calls that providers receive, and times.

Every row of tests/support/fault_rows.py is called unary and streamed through REST and gRPC; further tests cover
sequences of calls.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lmchat.v1 import model_service_pb2

from server.chat import openai_json
from tests.support.fault_rows import (
    CALL_MODES,
    FAULTS,
    FINE,
    OK_A,
    OK_B,
    PAGE,
    POLICY,
    TOO_LONG,
    A,
    B,
    Outcome,
    get,
    most_in_three_seconds,
)
from tests.support.faults import (
    Behaviour,
    Call,
    FaultServer,
    answer,
    cut,
    failure,
    fault_server,
    headers_only,
    reply,
    reset,
    silence,
)
from tests.support.gateway import AUTH, Gateway, ask, run_gateway

CONFIGURATION = """
timeouts: {{connect: 2s, first_token: {silence}, idle: {silence}, total: {total}}}
circuit: {{min_requests: {min_requests}, cooldown: 400ms}}
stream: {{keep_alive: 100ms}}
providers:
  a: {{type: openai, base_url: "{base_url}", api_key: secret-a}}
  b: {{type: openai, base_url: "{base_url}", api_key: secret-b}}
models:
  m: {{endpoints: [{{provider: a, model: a}}, {{provider: b, model: b}}]}}
  alone: {{endpoints: [{{provider: a, model: a}}]}}
"""


def configuration(upstream: FaultServer, *, min_requests: int, silence: str = "300ms", total: str = "2s") -> str:
    """Two providers on the fault server; `silence` is the timeout of first tokens and gaps."""
    return CONFIGURATION.format(
        base_url=upstream.base_url, min_requests=min_requests, silence=silence, total=total
    )


ways = pytest.mark.parametrize(
    ("api", "stream"), CALL_MODES, ids=[f"{d}-{'stream' if s else 'whole'}" for d, s in CALL_MODES]
)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture(name="upstream")
async def upstream_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        server.script("b", answer("from", " b"))
        yield server


@pytest.fixture(name="gateway")
async def gateway_fixture(upstream: FaultServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose circuits stay closed: each row shows what one request does."""
    async with run_gateway(tmp_path, configuration(upstream, min_requests=10**6)) as gateway:
        yield gateway


@ways
@pytest.mark.parametrize(("script", "whole", "streamed", "within"), FAULTS)
async def test_one_provider_misbehaves(
    gateway: Gateway,
    upstream: FaultServer,
    api: str,
    stream: bool,
    script: list[Behaviour],
    whole: Outcome,
    streamed: Outcome,
    within: float,
) -> None:
    upstream.script("a", *script)
    expected = streamed if stream else whole
    began = now()
    outcome = await get(gateway, api, stream)
    assert outcome == expected
    assert now() - began < within
    assert Counter(call.body["model"] for call in upstream.calls) == Counter(a[0] for a in expected.attempts)
    assert most_in_three_seconds(upstream.of("a")) <= 4
    assert most_in_three_seconds(upstream.of("b")) <= 4


DOWN = [
    pytest.param([failure(503)], [failure(503)], "overloaded", "aab", id="503s"),
    pytest.param([reset], [reset], "upstream_error", "aab", id="resets"),
    pytest.param([silence], [silence], "timeout", "ab", id="timeouts"),
    pytest.param([failure(401)], [failure(403)], "upstream_authentication", "ab", id="no credentials"),
    pytest.param([failure(429)], [failure(429, retry_after="9")], "rate_limited", "ab", id="rate limits"),
    pytest.param([failure(429)], [failure(500)], "overloaded", "abb", id="different errors"),
    pytest.param([TOO_LONG], [TOO_LONG], "context_length_exceeded", "ab", id="context too long for both"),
    pytest.param(
        [reply(200, PAGE, "text/html")], [reply(200, b"{]")], "upstream_invalid_response", "ab", id="undecodable"
    ),
    pytest.param([cut()], [headers_only], "overloaded", "aab", id="cut and stall before content"),
]


@ways
@pytest.mark.parametrize(("a", "b", "reason", "called"), DOWN)
async def test_everything_is_down(
    gateway: Gateway,
    upstream: FaultServer,
    api: str,
    stream: bool,
    a: list[Behaviour],
    b: list[Behaviour],
    reason: str,
    called: str,
) -> None:
    upstream.script("a", *a)
    upstream.script("b", *b)
    began = now()
    outcome = await get(gateway, api, stream)
    assert now() - began < 2.5
    assert (outcome.text, outcome.reason) == ("", reason)
    assert "".join(call.body["model"] for call in upstream.calls) == called
    assert [attempt[0] for attempt in outcome.attempts] == list(called)


@ways
@pytest.mark.parametrize("behaviour", [failure(500), failure(503), reset, failure(429, retry_after="0.1"), cut()])
@pytest.mark.parametrize("model", ["alone", "m"])
async def test_no_hammering(
    gateway: Gateway, upstream: FaultServer, api: str, stream: bool, behaviour: Behaviour, model: str
) -> None:
    upstream.script("a", behaviour)
    upstream.script("b", behaviour)
    outcome = await get(gateway, api, stream, model, max_provider_tries=100, models=["alone", "m"])
    assert outcome.reason != "ok"
    assert most_in_three_seconds(upstream.of("a")) in (1, 2)
    assert most_in_three_seconds(upstream.of("b")) <= 2
    assert len(outcome.attempts) == len(upstream.calls) <= 4


@pytest.mark.parametrize("api", ["rest", "typed"])
@pytest.mark.parametrize(
    ("b", "text", "reason", "last"),
    [
        pytest.param(answer(" and", " two"), "one and two", "ok", OK_B, id="continues"),
        pytest.param(failure(400, "no prefill"), "one", "stream_truncated", "b 400 invalid_request", id="refuses"),
        pytest.param(silence, "one", "stream_truncated", "b 0 timeout", id="times out"),
    ],
)
async def test_a_broken_stream_is_resumed(
    gateway: Gateway, upstream: FaultServer, api: str, b: Behaviour, text: str, reason: str, last: str
) -> None:
    upstream.script("a", cut("one"))
    upstream.script("b", b)
    began = now()
    outcome = await get(gateway, api, stream=True, resume_streams=True)
    assert outcome == Outcome(text, reason, ["a 200 stream_truncated", last])
    assert now() - began < 2.5
    assert [call.body["model"] for call in upstream.calls] == ["a", "b"]
    assert upstream.calls[1].body["messages"][1] == {"role": "assistant", "content": "one"}


async def test_circuits_are_shown(upstream: FaultServer, tmp_path: Path) -> None:
    upstream.script("a", failure(503))
    async with run_gateway(tmp_path, configuration(upstream, min_requests=2)) as gateway:

        async def shown() -> list[tuple[str, bool]]:
            model_request = model_service_pb2.GetModelRequest(model="m")
            model = await gateway.models.GetModel(model_request, metadata=AUTH)
            return [(e.health.state, e.health.HasField("first_token_ms")) for e in model.lmchat.endpoints]

        assert await shown() == [("closed", False), ("closed", False)]
        await get(gateway, "rest", stream=True)
        assert await shown() == [("open", False), ("closed", True)]
        async with asyncio.timeout(5):
            while (await shown())[0][0] == "open":
                pass
        assert await shown() == [("half_open", False), ("closed", True)]
        upstream.script("a", FINE)
        await get(gateway, "rest", stream=True)
        assert await shown() == [("closed", True), ("closed", True)]
        listed = await gateway.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=AUTH)
        assert [e.health.state for model in listed.data for e in model.lmchat.endpoints] == ["closed"] * 3


@ways
@pytest.mark.parametrize("headers", [(), (("x-lmchat-debug", "routing"),)], ids=["silent", "debug"])
@pytest.mark.parametrize("behaviour", [FINE, POLICY], ids=["answered", "refused"])
async def test_the_debug_header(
    gateway: Gateway, upstream: FaultServer, api: str, stream: bool, behaviour: Behaviour, headers: tuple[Any, ...]
) -> None:
    """With the header, answers and errors list the skipped endpoints and the reasons."""
    upstream.script("a", behaviour)
    body = ask(stream=stream, lmchat={"routing": {"ignore": ["b"]}})
    report = await (rest_report if api == "rest" else typed_report)(gateway, body, (*AUTH, *headers))
    left_out = [{"provider": "b", "model": "m", "reason": "in `ignore`"}]
    assert report.get("skipped", []) == (left_out if headers else [])


async def rest_report(gateway: Gateway, body: dict[str, Any], metadata: Any) -> Any:
    reply = await gateway.post(body, metadata=metadata)
    parsed = reply.events()[-2] if body["stream"] and reply.status == 200 else reply.json()
    return parsed.get("error", parsed)["lmchat"]


async def typed_report(gateway: Gateway, body: dict[str, Any], metadata: Any) -> Any:
    request = openai_json.parse(json.dumps(body).encode()).request
    try:
        if body["stream"]:
            report = [c async for c in gateway.chat.StreamChatCompletion(request, metadata=metadata)][-1].lmchat
        else:
            report = (await gateway.chat.CreateChatCompletion(request, metadata=metadata)).lmchat
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        rpc_status.from_call(error).details[0].Unpack(info)  # type: ignore[arg-type]
        return {"skipped": json.loads(info.metadata.get("skipped", "[]"))}
    return {"skipped": [{"provider": s.provider, "model": s.model, "reason": s.reason} for s in report.skipped]}


async def test_an_unknown_debug_topic(gateway: Gateway) -> None:
    reply = await gateway.post(ask(lmchat={"debug": ["routing", "rooting"]}))
    error = reply.json()["error"]
    assert (reply.status, error["param"]) == (400, "lmchat.debug[1]")
    assert "'rooting'" in error["message"]


@ways
async def test_one_try_is_one_call(gateway: Gateway, upstream: FaultServer, api: str, stream: bool) -> None:
    upstream.script("a", failure(500))
    outcome = await get(gateway, api, stream, max_provider_tries=1)
    assert outcome == Outcome("", "upstream_error", ["a 500 upstream_error"])
    assert len(upstream.calls) == 1


@ways
async def test_no_fallbacks_is_one_endpoint(
    gateway: Gateway, upstream: FaultServer, api: str, stream: bool
) -> None:
    upstream.script("a", failure(401))
    outcome = await get(gateway, api, stream, allow_fallbacks=False)
    assert outcome == Outcome("", "upstream_authentication", ["a 401 upstream_authentication"])
    assert upstream.of("b") == []


@ways
async def test_a_flapping_primary(upstream: FaultServer, tmp_path: Path, api: str, stream: bool) -> None:
    """While it fails the fallback serves and the primary is not called; it is used again within a cooldown."""
    upstream.script("a", failure(503))
    async with run_gateway(tmp_path, configuration(upstream, min_requests=2)) as gateway:
        assert (await get(gateway, api, stream)).attempts == ["a 503 overloaded", "a 503 overloaded", OK_B]
        down = len(upstream.of("a"))
        opened = now()
        while now() - opened < 0.2:  # half of the cooldown
            assert await get(gateway, api, stream) == Outcome(B, "ok", [OK_B])
        assert len(upstream.of("a")) == down
        upstream.script("a", FINE)
        async with asyncio.timeout(5):
            while (outcome := await get(gateway, api, stream)).text != A:
                assert outcome == Outcome(B, "ok", [OK_B])
        assert now() - opened < 2
        assert await get(gateway, api, stream) == Outcome(A, "ok", [OK_A])
        assert len(upstream.of("a")) == down + 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("model", "behaviour"),
    [
        pytest.param("m", silence, id="while the provider is silent"),
        pytest.param("m", headers_only, id="between headers and content"),
        pytest.param("alone", failure(429, retry_after="1"), id="while waiting to try again"),
    ],
)
async def test_cancellation_ends_the_attempts(
    gateway: Gateway, upstream: FaultServer, model: str, behaviour: Behaviour, stream: bool
) -> None:
    upstream.script("a", behaviour)
    call = gateway.open(ask(model, stream=stream))
    reading = asyncio.ensure_future(call.read())
    provider = await upstream.arrived()
    if behaviour not in (silence, headers_only):
        await asyncio.wait_for(provider.answered.wait(), 5)
    call.cancel()
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await reading
    await gateway.worker.stop(5)  # when every handler has ended: nothing can start after it
    await asyncio.wait_for(provider.wait(), 1)
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("min_requests", [10**6, 5], ids=["closed circuits", "circuits"])
async def test_a_thousand_requests_over_a_provider_that_fails_half_of_the_time(
    upstream: FaultServer, tmp_path: Path, min_requests: int
) -> None:
    dice = random.Random(7)
    answered: Counter[str] = Counter()

    async def reliable(call: Call) -> None:
        question = call.body["messages"][0]["content"]
        await answer("re: ", question)(call)
        answered[question] += 1

    async def flaky(call: Call) -> None:
        bad = [failure(500), failure(503), failure(429), reset, cut(), headers_only, silence]
        await (dice.choice(bad) if dice.random() < 0.5 else reliable)(call)

    upstream.script("a", flaky)
    upstream.script("b", reliable)
    # Callers, gateway and providers share a loop here: 50 calls at once can hold it for more than 300 ms.
    patient = configuration(upstream, min_requests=min_requests, silence="2s", total="30s")
    async with run_gateway(tmp_path, patient) as gateway:
        turn = asyncio.Semaphore(50)

        async def one(number: int) -> Outcome:
            api, stream = CALL_MODES[number % len(CALL_MODES)]
            async with turn:
                return await get(gateway, api, stream, text=f"question {number}")

        began = now()
        outcomes = await asyncio.gather(*(one(number) for number in range(1000)))
    assert [(text, reason) for text, reason, _ in outcomes] == [(f"re: question {n}", "ok") for n in range(1000)]
    assert sum(answered.values()) == len(answered) == 1000
    assert len(upstream.calls) == sum(len(attempts) for _, _, attempts in outcomes)
    assert now() - began < 60
