"""The REST and gRPC servicers of a real worker, in front of a scripted provider."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from lmchat.internal.v1 import operations_service_pb2 as operations
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import model_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from server.api import rest
from server.api.status_text import status_text
from server.config.model import Circuit
from server.errors import STATUS, Reason
from server.routing.report import Report
from server.routing.shared_stats import SharedStats
from server.routing.stats import EndpointStats
from server.worker.app import SERVICES
from tests.support import faults
from tests.support.faults import Behaviour, FaultServer, answer, failure, fault_server
from tests.support.gateway import AUTH, Gateway, ask, run_gateway

TOOL = {"type": "function", "function": {"name": "f"}}

CONFIGURATION = """
timeouts: {{connect: 2s, first_token: {first_token}, idle: {idle}, total: {total}}}
stream: {{keep_alive: 100ms}}
providers: {{up: {{type: openai, base_url: "{base_url}", api_key: upstream-secret}}}}
models:
  "*": {{endpoints: [{{provider: up, model: "*"}}]}}
  only-text: {{endpoints: [{{provider: up, model: m, drops: [tools, seed]}}]}}
aliases: {{fast: m}}
"""


@pytest.fixture(name="upstream")
async def upstream_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        yield server


@pytest.fixture(name="gateway")
async def gateway_fixture(upstream: FaultServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    configuration = CONFIGURATION.format(base_url=upstream.base_url, first_token="5s", idle="5s", total="10s")
    async with run_gateway(tmp_path, configuration) as gateway:
        yield gateway


@pytest.fixture(name="impatient")
async def impatient_fixture(upstream: FaultServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with timeouts of 300 and 600 ms."""
    configuration = CONFIGURATION.format(
        base_url=upstream.base_url, first_token="300ms", idle="300ms", total="600ms"
    )
    async with run_gateway(tmp_path, configuration) as gateway:
        yield gateway


def typed(model: str = "m", **more: Any) -> pb.ChatCompletionRequest:
    request = pb.ChatCompletionRequest(model=model, **more)
    request.messages.add(role=pb.ROLE_USER).content.add(text="hello")
    return request


async def drained(call: Any) -> list[bytes]:
    """The remaining messages of a call."""
    messages: list[bytes] = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message.data)
    return messages


async def test_rest_unary(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi", " there"))
    reply = await gateway.post(ask(temperature=0.5, top_k=3))
    assert reply.status == 200
    assert reply.messages == 1
    body = reply.json()
    assert body["id"] == "chatcmpl-up"
    assert body["object"] == "chat.completion"
    assert body["model"] == "m"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi there", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert body["lmchat"] == {
        "provider": "up",
        "tries": 1,
        "native_finish_reason": "stop",
        "dropped_params": [],
        "native_model": "up",
    }
    assert reply.headers["x-lmchat-provider"] == "up"
    assert reply.headers["x-lmchat-tries"] == "1"
    assert float(reply.headers["x-lmchat-overhead-ms"]) < 1000
    assert reply.headers["x-request-id"].startswith("req_")
    [call] = upstream.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == "Bearer upstream-secret"
    assert call.body == ask(temperature=0.5, top_k=3)


async def test_rest_stream(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi", " there"))
    reply = await gateway.post(ask(stream=True))
    events = reply.events()
    assert events[-1] == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "Hi there"
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]] == [None, None, None, "stop"]
    assert all("usage" not in e for e in events[:-1])
    assert ["lmchat" in e for e in events[:-1]] == [False, False, False, True]
    assert {e["id"] for e in events[:-1]} == {"chatcmpl-up"}
    assert upstream.calls[0].body["stream"] is True


async def test_rest_stream_with_usage(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi"))
    events = (await gateway.post(ask(stream=True, stream_options={"include_usage": True}))).events()
    assert events[-2]["choices"] == []
    assert events[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    assert "lmchat" in events[-2]
    assert [e["usage"] for e in events[:-2]] == [None, None, None]


async def test_each_token_is_sent_at_once(gateway: Gateway, upstream: FaultServer) -> None:
    step = asyncio.Event()

    async def slow(call: faults.Call) -> None:
        await call.head()
        for word in ("one", "two"):
            await call.delta(content=word)
            await step.wait()
            step.clear()
        await call.delta("stop")
        await call.end()

    upstream.script("m", slow)
    call = gateway.open(ask(stream=True))
    for word in ("one", "two"):
        message = await call.read()
        assert word in message.data.decode()
        step.set()
    assert "stop" in (await call.read()).data.decode()


async def test_grpc_unary_and_stream(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi", " there"))
    completion = await gateway.chat.CreateChatCompletion(typed(temperature=1.5), metadata=AUTH)
    assert completion.choices[0].message.content[0].text == "Hi there"
    assert completion.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert completion.lmchat.provider == "up"
    stream = gateway.chat.StreamChatCompletion(typed(), metadata=AUTH)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Hi there"
    assert chunks[-1].lmchat.tries == 1
    assert "x-request-id" in dict(await stream.initial_metadata())


async def test_keep_alive_comments(gateway: Gateway, upstream: FaultServer) -> None:
    quiet = asyncio.Event()

    async def wait_longer_than_keep_alive(call: faults.Call) -> None:
        await call.head()
        await call.delta(content="one")
        await quiet.wait()
        await call.delta("stop")
        await call.end()

    upstream.script("m", wait_longer_than_keep_alive)
    call = gateway.open(ask(stream=True))
    assert b"one" in (await call.read()).data
    assert (await call.read()).data == b": keep-alive\n"
    assert (await call.read()).data == b": keep-alive\n"
    quiet.set()
    rest = await drained(call)
    assert rest[-1].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "missing_api_key"),
        ((("authorization", "Bearer nope"),), "invalid_api_key"),
        ((("authorization", "Basic c2s="),), "missing_api_key"),
        ((("x-api-key", "nope"),), "invalid_api_key"),
    ],
)
async def test_every_method_requires_a_key(gateway: Gateway, metadata: Any, reason: str) -> None:
    reply = await gateway.post(ask(), metadata=metadata)
    assert reply.status == 401
    assert reply.json()["error"]["lmchat"]["reason"] == reason
    for call in (
        gateway.chat.CreateChatCompletion(typed(), metadata=metadata),
        gateway.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=metadata),
        gateway.models.GetModel(model_service_pb2.GetModelRequest(model="m"), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in gateway.chat.StreamChatCompletion(typed(), metadata=metadata):
            pass
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_keys_in_every_header(gateway: Gateway, upstream: FaultServer, header: str) -> None:
    upstream.script("m", answer("Hi"))
    value = AUTH[0][1] if header == "authorization" else AUTH[0][1].removeprefix("Bearer ")
    assert (await gateway.post(ask(), metadata=((header, value),))).status == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status", "param", "fragment"),
    [
        (b"{", "application/json", 400, None, "not valid JSON"),
        (b"[]", "application/json", 400, None, "must be a JSON object"),
        (b"\xff\xfe", "application/json", 400, None, "not valid JSON"),
        (ask(stream="yes"), "application/json", 400, "stream", "boolean"),
        (ask(temperature=3), "application/json", 400, "temperature", "between 0 and 2"),
        (ask(stop=["a"] * 5), "application/json", 400, "stop", "At most 4"),
        (ask(lmchat={"rooting": {}}), "application/json", 400, "lmchat.rooting", "'routing'"),
        (
            ask(lmchat={"routing": {"prefer": ["nowhere"]}}),
            "application/json", 400, "lmchat.routing.prefer[0]", "nowhere",
        ),
        (ask("only-text", tools=[TOOL]), "application/json", 400, "tools", "cannot do: tools"),
        (ask(), "text/plain", 415, None, "application/json"),
        (ask(), "", 415, None, "none was given"),
        (ask(), "application/json; charset=utf-8", 200, None, ""),
    ],
)  # fmt: skip
async def test_bad_requests(
    gateway: Gateway,
    upstream: FaultServer,
    body: Any,
    content_type: str,
    status: int,
    param: str | None,
    fragment: str,
) -> None:
    upstream.script("m", answer("Hi"))
    reply = await gateway.post(body, content_type)
    assert reply.status == status
    if status != 200:
        error = reply.json()["error"]
        assert error["param"] == param
        assert fragment in error["message"]
        assert error["type"] == "invalid_request_error"
        assert error["lmchat"]["request_id"] == reply.headers["x-request-id"]
        assert upstream.calls == []


async def test_unknown_model(tmp_path: Path) -> None:
    configuration = """
providers: {up: {type: openai, base_url: "http://127.0.0.1:1/v1"}}
models: {vendor/gpt: {endpoints: [{provider: up, model: gpt}]}}
"""
    async with run_gateway(tmp_path, configuration) as gateway:
        reply = await gateway.post(ask("vendor/gtp"))
        assert reply.status == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        assert "vendor/gpt" in reply.json()["error"]["message"]
        assert reply.code is grpc.StatusCode.NOT_FOUND


async def test_dropped_parameters_are_named(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi"))
    reply = await gateway.post(ask("only-text", seed=7))
    assert reply.json()["lmchat"]["dropped_params"] == ["seed"]
    assert reply.headers["x-lmchat-dropped-params"] == "seed"
    assert "seed" not in upstream.calls[0].body
    strict = ask("only-text", seed=7, lmchat={"routing": {"require_parameters": True}})
    assert (await gateway.post(strict)).json()["error"]["lmchat"]["reason"] == "invalid_routing"


UPSTREAM_ERRORS = [
    (failure(400, "bad thing"), 400, "invalid_request", "bad thing"),
    (failure(401, "key sk-123 wrong"), 502, "upstream_authentication", "credentials"),
    (failure(403), 502, "upstream_authentication", "credentials"),
    (failure(404, "no such model"), 404, "model_not_found", "does not know"),
    (failure(429, "slow down", retry_after="7"), 429, "rate_limited", "rate limit"),
    (failure(500, "stack trace"), 502, "upstream_error", "failed"),
    (failure(503), 503, "overloaded", "overloaded"),
    (failure(400, "too long", "context_length_exceeded"), 400, "context_length_exceeded", "too long"),
    (faults.reply(502, b"<html>oops</html>", "text/html"), 502, "upstream_error", "failed"),
    (faults.reply(200, b"<html>", "text/html"), 502, None, ""),
    (faults.reply(200, b'{"x": 1}'), 502, "upstream_invalid_response", "no sense"),
    (faults.reply(200, {"error": {"message": "inside"}}), 502, "upstream_error", "failed"),
    (faults.reset, 502, "upstream_error", "broke"),
    (faults.cut(), 502, None, ""),
]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(("behaviour", "status", "reason", "fragment"), UPSTREAM_ERRORS)
async def test_upstream_errors(
    gateway: Gateway,
    upstream: FaultServer,
    behaviour: Behaviour,
    status: int,
    reason: str | None,
    fragment: str,
    stream: bool,
) -> None:
    upstream.script("m", behaviour)
    reply = await gateway.post(ask(stream=stream))
    error = reply.json()["error"]
    assert (reply.status, error["lmchat"]["reason"]) == (status, reason or error["lmchat"]["reason"])
    assert fragment in error["message"]
    assert "sk-123" not in reply.body.decode()
    if status == 429:
        assert reply.headers["retry-after"] == "7"
    if status == 503:
        assert int(reply.headers["retry-after"]) >= 1
    assert len(upstream.calls) <= 2


async def test_grpc_errors_have_details(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", failure(429, retry_after="7"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.chat.CreateChatCompletion(typed(), metadata=(*AUTH, ("x-request-id", "mine-1")))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    status.details[1].Unpack(retry)
    assert (info.reason, info.domain, info.metadata["request_id"]) == ("RATE_LIMITED", "lmchat", "mine-1")
    assert json.loads(info.metadata["attempts"])[0]["status"] == 429
    assert retry.retry_delay.seconds == 7


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"n": 0}, "n"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"extra_body_json": "[1]"}, "extra_body_json"),
        ({"extra_body_json": "{"}, "extra_body_json"),
        *(({"extra_body_json": text}, "extra_body_json") for text in ("null", "3", '"x"', "true", "[" * 9999)),
        ({"tools": [pb.Tool(function=pb.FunctionDefinition(name="f", parameters_json="x"))]},
         "tools[0].function.parameters_json"),
        ({"messages": [pb.Message(role=pb.ROLE_USER)]}, "messages[0].content"),
        ({"messages": [pb.Message()]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": [pb.Message(role=99, content=[pb.ContentPart(text="x")])]}, "messages[0].role"),  # type: ignore[arg-type]
        ({"verbosity": 99}, "verbosity"),
        ({"model": ""}, "model"),
        ({"logit_bias": {"5": 300.0}}, "logit_bias.5"),
    ],
)  # fmt: skip
async def test_grpc_requests_are_validated(gateway: Gateway, change: dict[str, Any], param: str) -> None:
    request = pb.ChatCompletionRequest(model="m", messages=[pb.Message(role=pb.ROLE_USER)])
    request.messages[0].content.add(text="hello")
    for name, value in change.items():
        request.ClearField(name)  # type: ignore[arg-type]
        request.MergeFrom(pb.ChatCompletionRequest(**{name: value}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.chat.CreateChatCompletion(request, metadata=AUTH)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    violation = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(violation)
    assert violation.field_violations[0].field == param


@pytest.mark.parametrize(
    ("behaviour", "reason", "status"),
    [
        (faults.cut("some", " words"), "stream_truncated", None),
        (faults.stall("some", " words"), "timeout", None),
    ],
)
async def test_a_broken_stream_ends_with_an_error_event(
    impatient: Gateway, upstream: FaultServer, behaviour: Behaviour, reason: str, status: None
) -> None:
    upstream.script("m", behaviour)
    reply = await impatient.post(ask(stream=True))
    events = reply.events()
    assert reply.status == 200
    assert events[-1]["error"]["lmchat"]["reason"] == reason
    assert events[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "error"}]
    assert events[-1]["id"] == "chatcmpl-up"
    assert "[DONE]" not in events
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == "some words"
    assert reply.code is not grpc.StatusCode.OK
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in impatient.chat.StreamChatCompletion(typed(), metadata=AUTH):
            pass
    assert raised.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_content_before_an_error_in_the_same_read_is_sent(gateway: Gateway, upstream: FaultServer) -> None:
    begun = asyncio.Event()

    async def in_one_piece(call: faults.Call) -> None:
        await call.head()
        await call.delta(role="assistant", content="some")
        await begun.wait()
        rest = faults.chunk([{"index": 0, "delta": {"content": " words"}, "finish_reason": None}])
        events = (rest, {"error": {"message": "gone", "code": 502}})
        await call.piece(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))
        await call.end()

    upstream.script("m", in_one_piece)
    call = gateway.open(ask(stream=True))
    assert b'"some"' in (await call.read()).data
    begun.set()
    words, error = (await call.read()).data, (await call.read()).data
    assert b'" words"' in words
    assert b'"upstream_error"' in error


async def test_a_missing_done_is_a_success(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", answer("Hi", done=False))
    assert (await gateway.post(ask(stream=True))).events()[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("behaviour", [faults.silence, faults.headers_only])
async def test_an_unresponsive_provider_is_a_timeout(
    impatient: Gateway, upstream: FaultServer, behaviour: Behaviour, stream: bool
) -> None:
    upstream.script("m", behaviour)
    reply = await impatient.post(ask(stream=stream))
    assert reply.status == 504
    assert reply.json()["error"]["type"] == "timeout_error"
    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(upstream.calls[0].wait(), 1)
    assert len(upstream.calls) == 1


async def test_the_callers_deadline_reaches_the_provider(gateway: Gateway, upstream: FaultServer) -> None:
    upstream.script("m", faults.silence)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.chat.CreateChatCompletion(typed(), metadata=AUTH, timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(raised.value).details[0].Unpack(info)  # type: ignore[arg-type]
    assert info.reason == "TIMEOUT"  # sent just before gRPC itself would end the call without details
    await asyncio.wait_for(upstream.calls[0].wait(), 1)


@pytest.mark.parametrize(
    ("behaviour", "stream"),
    [(faults.silence, False), (faults.silence, True), (faults.stall("one"), True)],
    ids=["unary", "stream before content", "stream in the middle"],
)
async def test_cancellation_closes_the_providers_socket(
    gateway: Gateway, upstream: FaultServer, behaviour: Behaviour, stream: bool
) -> None:
    upstream.script("m", behaviour)
    call = gateway.open(ask(stream=stream))
    reading = asyncio.ensure_future(call.read())
    provider = await upstream.arrived()
    if behaviour is not faults.silence:
        await reading
    left = asyncio.get_running_loop().time()
    call.cancel()
    await asyncio.wait_for(provider.wait(), 1)
    assert provider.left_at - left < 0.1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (ask(), AUTH),
        (ask(functions=[{"name": "f", "parameters": {"type": "object"}}]), AUTH),
        (ask("down"), AUTH),
        (ask(temperature=9), AUTH),
        (b"{", AUTH),
        (ask(), ()),
    ],
)
async def test_both_rest_rpcs_return_the_same(
    gateway: Gateway, upstream: FaultServer, body: Any, metadata: Any
) -> None:
    """The headers are in the text of an OK status, which is tested in tests/e2e/test_envoy.py."""
    upstream.script("m", answer("Hi"))
    upstream.script("down", failure(500))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = HttpBody(content_type="application/json", data=data)
    unary = await gateway.rest.CreateUnaryChatCompletion(request, metadata=metadata, timeout=30)
    streaming = await gateway.post(data, metadata=metadata)
    assert unary.content_type == streaming.headers.get("content-type", "application/json")
    unary_error, expected = json.loads(unary.data), streaming.json()
    for reply in (unary_error, expected):
        reply.pop("id", None)
        reply.pop("created", None)
        if "error" in reply:
            reply["error"]["lmchat"].pop("request_id")
            for attempt in reply["error"]["lmchat"].get("attempts", ()):
                attempt.pop("ms")
    assert unary_error == expected


def test_header_values_are_sanitised() -> None:
    """Unknown fields are dropped, and listed in a header, cut to what a header can hold."""
    call: Any = SimpleNamespace(request_id="1", elapsed=lambda: 1.0)
    report = Report("up", 1, ["seed", "n\u00e9\r\nx-http-status: 500"], "stop")
    headers = dict(rest._headers(call, report, 0.5))
    assert headers["x-lmchat-dropped-params"] == "seed,n???x-http-status: 500"
    report = Report("up", 1, ["x" * 100] * 100, "stop")
    assert len(dict(rest._headers(call, report, 0.5))["x-lmchat-dropped-params"]) == 1000


@pytest.mark.parametrize("lines", [("routing", "odd"), ("odd", "routing"), ("routing, odd",)])
async def test_debug_topics_in_several_header_lines(gateway: Gateway, lines: tuple[str, ...]) -> None:
    """All lines count, not only the last."""
    metadata = (*AUTH, *(("x-lmchat-debug", line) for line in lines))
    with pytest.raises(grpc.aio.AioRpcError, match="There is no topic 'odd'"):
        await gateway.chat.CreateChatCompletion(typed(), metadata=metadata)


async def test_the_unary_rpc_rejects_stream(gateway: Gateway) -> None:
    request = HttpBody(content_type="application/json", data=json.dumps(ask(stream=True)).encode())
    reply = await gateway.rest.CreateUnaryChatCompletion(request, metadata=AUTH, timeout=30)
    error = json.loads(reply.data)["error"]
    assert (error["param"], error["code"]) == ("stream", "invalid_request")


def test_headers_in_the_status_message() -> None:
    headers = (("x-request-id", "1"), ("x-lmchat-provider", "a: b"))
    assert status_text(headers) == "x-request-id: 1\nx-lmchat-provider: a: b"
    failed = status_text((("x-http-status", "404"),), STATUS[Reason.MODEL_NOT_FOUND].grpc)
    assert failed == "x-http-status: 404\ngrpc-status: 5"


async def test_legacy_functions(gateway: Gateway, upstream: FaultServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = faults.completion("")
    body["choices"][0] = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    upstream.script("m", faults.reply(200, body))
    reply = await gateway.post(
        ask(functions=[{"name": "f", "parameters": {"type": "object"}}], function_call="auto")
    )
    [choice] = reply.json()["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert choice["finish_reason"] == "function_call"
    assert upstream.calls[0].body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]


async def test_internal_errors_are_masked(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("server.routing.router.Router._plan", explode)
    reply = await gateway.post(ask())
    assert reply.status == 500
    assert "secret" not in reply.body.decode()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.chat.CreateChatCompletion(typed(), metadata=AUTH)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("stream", [False, True])
async def test_json_near_the_limit_of_depth(gateway: Gateway, upstream: FaultServer, stream: bool) -> None:
    """What the decoder can read, the encoder may not, where it runs deeper in the stack."""
    upstream.script("m", answer("hi"))
    statuses = set()
    for depth in range(900, 1000, 2):
        body = json.dumps(ask(stream=stream, x="@")).replace('"@"', '{"a":' * depth + "1" + "}" * depth)
        statuses.add((await gateway.post(body.encode())).status)
    assert statuses == {200, 400}


async def test_models(gateway: Gateway) -> None:
    listed = await gateway.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=AUTH)
    assert (listed.object, [model.id for model in listed.data]) == ("list", ["*", "only-text"])
    found = await gateway.models.GetModel(model_service_pb2.GetModelRequest(model="a/b"), metadata=AUTH)
    assert (found.id, found.object, found.owned_by) == ("a/b", "model", "up")
    assert found.lmchat.endpoints[0].model == "a/b"
    only_text = await gateway.models.GetModel(model_service_pb2.GetModelRequest(model="only-text"), metadata=AUTH)
    assert "tools" not in only_text.lmchat.endpoints[0].supported_parameters
    assert "seed" not in only_text.lmchat.endpoints[0].supported_parameters


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The samples of the endpoint `up/up/m`: (name without prefix, further label values...) -> value."""
    of_m = {"provider": "up", "endpoint": "up", "model": "m"}
    return {
        (sample.name.removeprefix("lmchat_endpoint_"), *(v for k, v in sample.labels.items() if k not in of_m)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if of_m.items() <= sample.labels.items()
    }


async def test_metrics(gateway: Gateway, upstream: FaultServer) -> None:
    reply = await gateway.operations.GetMetrics(operations.GetMetricsRequest(), metadata=AUTH)
    assert reply.content_type.startswith("text/plain")
    assert samples(reply.data.decode()) == {}
    upstream.script("m", faults.failure(500))
    for _ in range(3):  # two calls each: one is retried
        await gateway.post(ask())
    upstream.script("m", faults.answer("Hi"))
    assert (await gateway.post(ask(stream=True, stream_options={"include_usage": True}))).status == 200
    reply = await gateway.operations.GetMetrics(operations.GetMetricsRequest(), metadata=AUTH)
    found = samples(reply.data.decode())
    assert found.pop(("first_token_seconds",)) > 0
    assert found.pop(("tokens_per_second",), 1.0) > 0
    assert found == {
        ("circuit", "closed"): 0.0,
        ("circuit", "open"): 1.0,
        ("circuit", "half_open"): 0.0,
        ("circuit_openings_total",): 1.0,
        ("answers_total",): 1.0,
        ("failures_total",): 6.0,
    }


async def test_statistics_of_a_stopped_worker_remain(upstream: FaultServer, tmp_path: Path) -> None:
    configuration = CONFIGURATION.format(base_url=upstream.base_url, first_token="5s", idle="5s", total="10s")
    shared = SharedStats.private(time.monotonic)
    upstream.script("m", answer("Hi"))
    async with run_gateway(tmp_path, configuration, shared_stats=shared) as gateway:
        assert (await gateway.post(ask())).status == 200
    other = EndpointStats(Circuit(), shared, configured=shared.configured)
    assert [snapshot.answers for _, snapshot in other.snapshots()] == [1]


async def test_metrics_need_a_key(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.operations.GetMetrics(operations.GetMetricsRequest())
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_reflection_need_no_key(gateway: Gateway) -> None:
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    for service in ("", *SERVICES):
        reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING

    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call: Any = gateway.channel.stream_stream(method)
        await (info := call()).write(request)
        response = reflection_pb2.ServerReflectionResponse.FromString(await info.read())
        assert [service.name for service in response.list_services_response.service] == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "lmchat.v1.ChatCompletions",
            "lmchat.v1.Models",
        ]
        info.cancel()


async def test_drain_finishes_active_calls(gateway: Gateway, upstream: FaultServer) -> None:
    step = asyncio.Event()

    async def slow(call: faults.Call) -> None:
        await call.head()
        await call.delta(content="one")
        await step.wait()
        await call.delta("stop")
        await call.end()

    upstream.script("m", slow)
    call = gateway.open(ask(stream=True))
    await call.read()
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    draining = asyncio.create_task(gateway.worker.drain(notice=0.2))
    watch = health.Watch(health_pb2.HealthCheckRequest())
    while (await watch.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
        pass
    watch.cancel()
    step.set()
    rest = await drained(call)
    assert rest[-1].endswith(b"data: [DONE]\n\n")
    await asyncio.wait_for(draining, 5)


ECHOES = [
    {"message": "got Bearer upstream-secret"},
    {"message": "x" * 8185 + "upstream-secret"},
    {"message": "no", "param": "upstream-secret", "code": "upstream-secret"},
    {"message": "no", "headers": {"authorization": ["Bearer upstream-secret"], "upstream-secret": 1}},
    {"message": "no", "failed_generation": "y" * 2040 + "upstream-secret"},
]


@pytest.mark.parametrize("echo", ECHOES)
async def test_a_provider_that_repeats_its_key(
    gateway: Gateway, upstream: FaultServer, echo: dict[str, Any]
) -> None:
    upstream.script("m", faults.reply(400, {"error": echo}))
    shown = [(await gateway.post(ask(stream=stream))).body for stream in (False, True)]
    for call in (
        gateway.chat.CreateChatCompletion(typed(), metadata=AUTH),
        gateway.chat.StreamChatCompletion(typed(), metadata=AUTH).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        shown.append(str(raised.value.details()).encode())
        shown += [value for _, value in raised.value.trailing_metadata() or () if isinstance(value, bytes)]
    assert len(shown) == 6
    for text in shown:
        assert b"upstream" not in text
        assert text.startswith((b'{"error"', b"no", b"got", b"x", b"\x08"))


async def test_a_long_error_keeps_the_connection(gateway: Gateway, upstream: FaultServer) -> None:
    """Six of them beside a stream of the same HTTP/2 connection, which then ends as it should."""
    step = asyncio.Event()

    async def slow(call: faults.Call) -> None:
        await call.head()
        await call.delta(content="one")
        await step.wait()
        await call.delta("stop")
        await call.end()

    upstream.script("slow", slow)
    upstream.script("m", faults.failure(400, "输" * 20_000))
    stream = gateway.chat.StreamChatCompletion(typed("slow"), metadata=AUTH)
    await stream.read()
    for number in range(6):
        request = typed(logit_bias={"x" * 60_000: 500.0}) if number % 2 else typed()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.chat.CreateChatCompletion(request, metadata=AUTH)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert rpc_status.from_call(raised.value) is not None  # type: ignore[arg-type]
    step.set()
    last: Any = await stream.read()
    assert last.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert await stream.code() is grpc.StatusCode.OK
