"""The edge as callers see it: a real Envoy with the repository's envoy.yaml in front of a real gRPC server."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from lmchat.v1 import chat_pb2, chat_service_pb2_grpc, model_pb2, model_service_pb2, model_service_pb2_grpc

from server.launcher import envoy as places
from tests.e2e import envoy_fixture
from tests.e2e.envoy_fixture import (
    DEADLINE,
    NOT_SERVING,
    ROOT,
    Context,
    Edge,
    metadata,
)
from tests.support.grpc_web import framed, frames, unpadded

CHAT = "/api/v1/chat/completions"
MIB = 1 << 20
JSON = {"content-type": "application/json"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of a reply in OpenAI's shape, complete and consistent with the headers."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "param", "code", "lmchat"]
    assert error["message"]
    assert error["code"] == error["lmchat"]["reason"]
    assert error["lmchat"]["request_id"] == response.headers["x-request-id"]
    assert "grpc-message" not in response.headers
    return error


def says(response: httpx.Response) -> tuple[int, str, str]:
    error = error_of(response)
    return response.status_code, error["type"], error["lmchat"]["reason"]


async def event_of(lines: AsyncIterator[str]) -> str:
    """The next event's data."""
    data = await asyncio.wait_for(anext(lines), DEADLINE)
    assert await asyncio.wait_for(anext(lines), DEADLINE) == ""
    return data.removeprefix("data: ")


# --- REST: replies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"m", "n":9007199254740993}', id="unary"),
        pytest.param(b'{"model":"m", "stream"\n:\ttrue}', id="may stream"),
        pytest.param(b'{"model":"m", "\\u0073tream":true}', id="may stream, escaped"),
        pytest.param(b'{"content":"%s"}' % (b"x" * 100_000), id="not looked into"),
    ],
)
async def test_a_completion_passes_byte_for_byte(edge: Edge, body: bytes) -> None:
    seen: dict[str, Any] = {}

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        seen.update(data=request.data, content_type=request.content_type, metadata=metadata(context))
        seen["deadline"] = context.time_remaining()
        await context.send_initial_metadata((("x-lmchat-provider", "direct"), ("x-lmchat-tries", "1")))
        yield HttpBody(content_type="application/json", data=b'{"z":1, "a":9007199254740993}')

    edge.worker.rest = rest
    response = await edge.client.post(
        f"{CHAT}?api-version=1",
        content=body,
        headers=JSON
        | {
            "authorization": "Bearer key",
            "x-request-id": "mine-1",
            # None of these may reach a worker: they would fail the call, bound it, or fake its status.
            "trace-bin": "***",
            "grpc-timeout": "1n",
            "grpc-encoding": "br",
            "x-http-status": "500",
        },
    )
    assert response.status_code == 200
    assert response.content == b'{"z":1, "a":9007199254740993}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-lmchat-provider"] == "direct"
    assert response.headers["x-lmchat-tries"] == "1"
    assert not [name for name in response.headers if name.startswith(("x-envoy", "grpc-"))]

    assert seen["data"] == body
    assert seen["content_type"] == "application/json"
    assert seen["deadline"] is None
    assert seen["metadata"].items() >= {
        ("authorization", "Bearer key"),
        ("x-request-id", "mine-1"),
        ("x-envoy-original-path", f"{CHAT}?api-version=1"),
    }
    assert not seen["metadata"].keys() & {"trace-bin", "grpc-timeout", "grpc-encoding", "x-http-status"}


async def test_events_leave_one_by_one(edge: Edge) -> None:
    more = asyncio.Queue[bytes]()

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        await context.send_initial_metadata((("cache-control", "no-cache"),))
        while data := await more.get():
            yield HttpBody(content_type="text/event-stream", data=data)

    edge.worker.rest = rest
    more.put_nowait(b"data: 0\n\n")
    async with edge.client.stream("POST", CHAT, json={"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        lines = aiter(response.aiter_lines())
        assert await event_of(lines) == "0"
        for i in range(1, 20):
            # Only now does the worker continue: an event that is held back would block here.
            more.put_nowait(b"data: %d\n\n" % i)
            assert await event_of(lines) == str(i)
        more.put_nowait(b"data: a\n\ndata: b\n\ndata: [DONE]\n\n")
        assert [await event_of(lines) for _ in range(3)] == ["a", "b", "[DONE]"]
        more.put_nowait(b"")
        assert [line async for line in lines] == []


async def test_models_are_openai_objects(edge: Edge) -> None:
    model = {"object": "model", "created": 1_700_000_000, "owned_by": "test"}
    response = await edge.client.get("/api/v1/models?api-version=1")
    assert response.json() == {"object": "list", "data": [{"id": "a/b"} | model]}
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("m", "m"),
        ("org/m", "org/m"),
        ("org%2Fm", "org/m"),
        ("a%2Fb%2fc", "a/b/c"),
        ("a/b/c?x=1", "a/b/c"),
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("claude%40latest", "claude@latest"),
        ("%C3%BC%20", "ü "),
    ],
)
async def test_model_ids_arrive_decoded(edge: Edge, path: str, model: str) -> None:
    response = await edge.client.get(f"/api/v1/models/{path}")
    assert (response.status_code, response.json()["id"]) == (200, model)


# --- REST: errors of the worker --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 405, 413, 415, 422, 429, 499, 500, 502, 503, 504, 529]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_rest_errors_have_exact_status_and_body(edge: Edge, status: int, *, stream: bool) -> None:
    sent = b'{"error": {"message": "m", "type": "t", "param": null, "code": "c", "lmchat": {"reason": "r"}}}'

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        await context.send_initial_metadata((("x-http-status", str(status)), ("retry-after", "7")))
        yield HttpBody(content_type="application/json", data=sent)
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("not for callers")

    edge.worker.rest = rest
    response = await edge.client.post(CHAT, json={"stream": stream})
    assert (response.status_code, response.content) == (status, sent)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["retry-after"] == "7"
    assert "x-http-status" not in response.headers
    assert "not for callers" not in str(response.headers)
    assert not [name for name in response.headers if name.startswith("grpc-")]

    line = await edge.logged(response.headers["x-request-id"])
    assert (line["status"], line["grpc_status"]) == (status, "DataLoss")


_REASONED = [
    ("UNAUTHENTICATED", "MISSING_API_KEY", 401, "authentication_error"),
    ("UNAUTHENTICATED", "INVALID_API_KEY", 401, "authentication_error"),
    ("FAILED_PRECONDITION", "BUDGET_EXCEEDED", 402, "insufficient_quota"),
    ("PERMISSION_DENIED", "MODEL_NOT_ALLOWED", 403, "permission_error"),
    ("NOT_FOUND", "MODEL_NOT_FOUND", 404, "invalid_request_error"),
    ("RESOURCE_EXHAUSTED", "RATE_LIMITED", 429, "rate_limit_error"),
    ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE", 413, "invalid_request_error"),
    ("INVALID_ARGUMENT", "INVALID_REQUEST", 400, "invalid_request_error"),
    ("INVALID_ARGUMENT", "STRUCTURED_OUTPUT_INVALID", 422, "invalid_request_error"),
    ("UNAVAILABLE", "UPSTREAM_ERROR", 502, "upstream_error"),
    ("ABORTED", "STREAM_TRUNCATED", 502, "upstream_error"),
    ("UNAVAILABLE", "OVERLOADED", 503, "overloaded_error"),
    ("DEADLINE_EXCEEDED", "TIMEOUT", 504, "timeout_error"),
]


@pytest.mark.parametrize(("code", "reason", "status", "kind"), _REASONED)
@pytest.mark.parametrize("api", ["typed", "typed after metadata", "rest"])
async def test_a_status_with_a_reason_becomes_that_error(
    edge: Edge, api: str, code: str, reason: str, status: int, kind: str
) -> None:
    grpc_status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message='Say "\\why"\n\u00e4.')
    grpc_status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=reason, domain="lmchat", metadata={"a": '"reason":"X"'})
    )
    grpc_status.details.add().Pack(
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="model", description="d")]
        )
    )

    async def get_model(model: str, context: Context) -> model_pb2.Model:
        if api == "typed after metadata":
            await context.send_initial_metadata((("x-lmchat-tries", "0"),))
        await context.abort_with_status(rpc_status.to_status(grpc_status))
        raise AssertionError

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        await context.abort_with_status(rpc_status.to_status(grpc_status))
        yield HttpBody()  # type: ignore[unreachable]

    edge.worker.get_model, edge.worker.rest = get_model, rest
    if api == "rest":
        response = await edge.client.post(CHAT, json={})
    else:
        response = await edge.client.get("/api/v1/models/m")
    assert says(response) == (status, kind, reason.lower())
    error = error_of(response)
    assert (error["message"], error["param"]) == (grpc_status.message, "model")
    assert "grpc-status-details-bin" not in response.headers
    assert ("retry-after" in response.headers) == (status in (429, 503))

    line = await edge.logged(response.headers["x-request-id"])
    assert (line["status"], line["grpc_status"].lower()) == (status, code.replace("_", "").lower())
    assert line["method"] == response.request.method


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("NOT_FOUND", (404, "invalid_request_error", "model_not_found"), 'no "m" \u00e4'),
        ("UNAUTHENTICATED", (401, "authentication_error", "invalid_api_key"), 'no "m" \u00e4'),
        ("CANCELLED", (499, "cancelled", "cancelled"), 'no "m" \u00e4'),
        ("INTERNAL", (500, "server_error", "internal"), None),
        ("UNKNOWN", (500, "server_error", "internal"), None),
    ],
)
@pytest.mark.parametrize("detailed", [False, True])
async def test_a_status_without_a_reason_becomes_its_usual_error(
    edge: Edge, code: str, expected: tuple[int, str, str], message: str | None, detailed: bool
) -> None:
    grpc_status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message='no "m" \u00e4')
    if detailed:
        # Of a type Envoy knows nothing about: it prints no body at all then.
        grpc_status.details.add(type_url="type.googleapis.com/elsewhere.Unknown", value=b"\x0a\x01x")

    async def get_model(model: str, context: Context) -> model_pb2.Model:
        await context.abort_with_status(rpc_status.to_status(grpc_status))
        raise AssertionError

    edge.worker.get_model = get_model
    response = await edge.client.get("/api/v1/models/m")
    assert says(response) == expected
    if message is None:
        # A bug of the gateway: the text is for logs.
        assert "no" not in error_of(response)["message"].split()
    else:
        assert error_of(response)["message"] == message


async def test_an_exception_of_the_worker_does_not_leak(edge: Edge) -> None:
    async def get_model(model: str, context: Context) -> model_pb2.Model:
        raise RuntimeError("secret")

    edge.worker.get_model = get_model
    response = await edge.client.get("/api/v1/models/m")
    assert says(response) == (500, "server_error", "internal")
    assert "secret" not in response.text + str(response.headers)


# --- REST: errors of the edge ----------------------------------------------------------------------------------

_INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected", "allow"),
    [
        ("GET", "/", {}, (404, _INVALID, "not_found"), None),
        ("GET", "/nowhere", {}, (404, _INVALID, "not_found"), None),
        ("POST", "/v2/chat/completions", JSON, (404, _INVALID, "not_found"), None),
        ("POST", "/api/v1", JSON, (404, _INVALID, "not_found"), None),
        ("POST", "/lmchat.internal.v1.Rest/CreateChatCompletion", JSON, (404, _INVALID, "not_found"), None),
        ("GET", CHAT, {}, (405, _INVALID, "method_not_allowed"), "POST"),
        ("GET", f"{CHAT}?x=1", {}, (405, _INVALID, "method_not_allowed"), "POST"),
        ("GET", f"{CHAT}/", {}, (405, _INVALID, "method_not_allowed"), "POST"),
        ("PUT", CHAT, JSON, (405, _INVALID, "method_not_allowed"), "POST"),
        ("POST", "/api/v1/models", JSON, (405, _INVALID, "method_not_allowed"), "GET"),
        ("POST", "/metrics", JSON, (405, _INVALID, "method_not_allowed"), "GET"),
        ("GET", "/metrics/more", {}, (404, _INVALID, "not_found"), None),
        ("DELETE", "/api/v1/models/a/b", {}, (405, _INVALID, "method_not_allowed"), "GET"),
        ("POST", CHAT, {}, (415, _INVALID, "unsupported_media_type"), None),
        ("POST", CHAT, {"content-type": ""}, (415, _INVALID, "unsupported_media_type"), None),
        ("POST", CHAT, {"content-type": "text/plain"}, (415, _INVALID, "unsupported_media_type"), None),
        ("POST", CHAT, {"content-type": "application/jsonl"}, (415, _INVALID, "unsupported_media_type"), None),
        ("POST", CHAT, JSON | {"content-encoding": "br"}, (415, _INVALID, "unsupported_media_type"), None),
        ("POST", CHAT, JSON | {"x": "a" * 70_000}, (431, _INVALID, "invalid_request"), None),
    ],
)
async def test_what_is_no_call_is_an_error_in_openai_shape(
    edge: Edge, method: str, path: str, headers: dict[str, str], expected: tuple[int, str, str], allow: str | None
) -> None:
    content = b"{}" if method in ("POST", "PUT") else None
    response = await edge.client.request(method, path, content=content, headers=headers)
    assert says(response) == expected
    assert response.headers.get("allow") == allow


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;a=b"]
)
async def test_json_may_be_declared_in_any_way(edge: Edge, content_type: str) -> None:
    response = await edge.client.post(CHAT, content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    ],
    ids=["garbage", "tls", "no host", "bad length"],
)
async def test_malformed_http_is_a_400_with_an_id(edge: Edge, sent: bytes) -> None:
    reply = await raw(edge, sent)
    assert says(reply) == (400, "invalid_request_error", "invalid_request")


async def test_a_head_request_gets_an_error_without_a_body(edge: Edge) -> None:
    """A body would be read as the start of the next reply on the connection."""
    async with connected(
        edge, b"HEAD /nowhere HTTP/1.1\r\nhost: a\r\n\r\nHEAD /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    ) as reader:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@asynccontextmanager
async def connected(edge: Edge, sent: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """The connection's reply to exactly these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.envoy.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(DEADLINE):
            yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def raw(edge: Edge, sent: bytes) -> httpx.Response:
    """The reply to exactly these bytes."""
    async with connected(edge, sent) as reader:
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


# --- Bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{CHAT}/", "//api/v1//chat/completions", "/api/v1/./chat/completions"])
async def test_a_base_url_may_end_in_a_slash(edge: Edge, path: str) -> None:
    assert (await edge.client.post(edge.envoy.url + path, json={})).json() == {"bytes": 2}


async def test_30_mb_pass(edge: Edge) -> None:
    response = await edge.client.post(CHAT, content=b"x" * 30_000_000, headers=JSON)
    assert response.json() == {"bytes": 30_000_000}


async def test_65_mb_are_too_large(edge: Edge) -> None:
    """Whatever the worker replies, and although this client reads nothing before it has written all."""
    seen = []

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        seen.append(len(request.data))
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
        yield HttpBody()  # type: ignore[unreachable]

    edge.worker.rest = rest
    response = await edge.client.post(CHAT, content=b"x" * (65 * MIB), headers=JSON)
    assert says(response) == (413, "invalid_request_error", "request_too_large")
    assert "64 MiB" in error_of(response)["message"]
    assert seen == [0]


async def test_65_mb_of_unknown_length_are_too_large(edge: Edge) -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b"x" * MIB

    response = await edge.client.post(CHAT, content=content(), headers=JSON)
    assert says(response) == (413, "invalid_request_error", "request_too_large")


@pytest.mark.parametrize(
    ("plain", "status"),
    [(b'{"model":"m"}', 200), (b"hello " * 100_000, 200), (os.urandom(MIB) * 8, 200), (b"0" * (200 * MIB), 413)],
    ids=["small", "repetitive", "8 MiB", "bomb"],
)
async def test_gzip_bodies_are_inflated_up_to_the_limit(edge: Edge, plain: bytes, status: int) -> None:
    packed = gzip.compress(plain, compresslevel=1 if len(plain) > 64 * MIB else 6)
    response = await edge.client.post(CHAT, content=packed, headers=JSON | {"content-encoding": "gzip"})
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"bytes": len(plain)}
    else:
        assert says(response) == (413, "invalid_request_error", "request_too_large")


# --- gRPC ------------------------------------------------------------------------------------------------------


async def test_headers_that_no_worker_reads_stay_at_the_edge(edge: Edge) -> None:
    """gRPC creates Python objects for every header, and an SDK sends a dozen."""
    seen: dict[str, str] = {}

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        seen.update(metadata(context))
        yield HttpBody(content_type="application/json", data=b"{}")

    edge.worker.rest = rest
    async with openai.AsyncOpenAI(base_url=f"{edge.envoy.url}/api/v1", api_key="key") as client:
        await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            extra_headers={"x-request-id": "mine", "x-lmchat-debug": "routing", "x-api-key": "a", "api-key": "b"},
        )
    assert seen["authorization"] == "Bearer key"
    assert (seen["x-request-id"], seen["x-lmchat-debug"]) == ("mine", "routing")
    assert (seen["x-api-key"], seen["api-key"]) == ("a", "b")
    asked_for = {"authorization", "x-request-id", "x-lmchat-debug", "x-api-key", "api-key"}
    assert seen.keys() - asked_for == {"x-envoy-original-path", "user-agent"}  # which the log has


async def test_grpc_calls_pass_unread(edge: Edge) -> None:
    seen: dict[str, Any] = {}

    async def complete(request: chat_pb2.ChatCompletionRequest, context: Context) -> chat_pb2.ChatCompletion:
        seen.update(metadata(context), remaining=context.time_remaining())
        await context.send_initial_metadata((("x-http-status", "500"), ("x-lmchat-tries", "1")))
        return chat_pb2.ChatCompletion(id="chatcmpl-1", model=request.model)

    edge.worker.complete = complete
    async with grpc.aio.insecure_channel(edge.target) as channel:
        stub = chat_service_pb2_grpc.ChatCompletionsStub(channel)
        call = stub.CreateChatCompletion(
            chat_pb2.ChatCompletionRequest(model="org/m"),
            timeout=DEADLINE,
            metadata=(
                ("authorization", "Bearer key"),
                ("x-request-id", "mine-2"),
                ("x-envoy-original-path", CHAT),
                ("trace-bin", b"\x00\xff"),
            ),
        )
        assert await call == chat_pb2.ChatCompletion(id="chatcmpl-1", model="org/m")
        headers = dict(await call.initial_metadata() or ())
        assert headers["x-lmchat-tries"] == "1"
        assert headers["x-request-id"] == "mine-2"
        assert "x-http-status" not in headers

        chunks = stub.StreamChatCompletion(chat_pb2.ChatCompletionRequest(model="m"), timeout=DEADLINE)
        assert [chunk.id async for chunk in chunks] == ["chatcmpl-0", "chatcmpl-1", "chatcmpl-2"]

    assert seen["authorization"] == "Bearer key"
    assert seen["x-request-id"] == "mine-2"
    assert seen["trace-bin"] == str(b"\x00\xff")
    # On the wire ten seconds are counted in tenths, rounded up.
    assert 0 < seen["remaining"] <= DEADLINE + 0.1
    # Only a REST call has one, so that a worker can tell them apart.
    assert "x-envoy-original-path" not in seen


async def test_grpc_errors_keep_their_details(edge: Edge) -> None:
    grpc_status = status_pb2.Status(code=5, message="no")
    grpc_status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="lmchat"))

    async def get_model(model: str, context: Context) -> model_pb2.Model:
        await context.abort_with_status(rpc_status.to_status(grpc_status))
        raise AssertionError

    edge.worker.get_model = get_model
    async with grpc.aio.insecure_channel(edge.target) as channel:
        call = model_service_pb2_grpc.ModelsStub(channel).GetModel(
            model_service_pb2.GetModelRequest(model="m"), timeout=DEADLINE
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert rpc_status.from_call(raised.value) == grpc_status  # type: ignore[arg-type]
    # Initial metadata and trailers are one in a reply that is only an error.
    assert dict(raised.value.trailing_metadata())["x-request-id"]


async def test_health_and_reflection_are_there_for_grpc_callers(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(), timeout=DEADLINE
        )
        assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        info = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=DEADLINE
        )
        services = [each.name async for reply in info for each in reply.list_services_response.service]
    assert services == ["lmchat.v1.ChatCompletions"]


async def grpc_call(channel: grpc.aio.Channel, method: str) -> None:
    """Call `method` with an empty message."""
    call: Any = channel.unary_unary(method)
    await call(b"", timeout=DEADLINE)


async def test_grpc_callers_get_grpc_errors_from_the_edge(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        for method, code in [
            ("/other.Service/Call", "UNIMPLEMENTED"),
            ("/lmchat.v1.Models/Other", "UNIMPLEMENTED"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await grpc_call(channel, method)
            assert raised.value.code() == grpc.StatusCode[code]
        edge.envoy.workers()
        await edge.ready(503)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await grpc_call(channel, "/lmchat.v1.Models/ListModels")
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(raised.value.trailing_metadata())["x-request-id"]


# --- gRPC-Web --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
async def test_grpc_web(edge: Edge, kind: str) -> None:
    text = kind.endswith("text")

    async def call(method: str, message: Message) -> tuple[list[bytes], dict[str, str]]:
        body = framed(message)
        response = await edge.client.post(
            f"/lmchat.v1.{method}",
            content=base64.b64encode(body) if text else body,
            headers={"content-type": kind, "accept": kind, "x-grpc-web": "1", "origin": "https://app.example"},
        )
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("application/grpc-web")
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert response.headers["x-request-id"]
        if response.headers.get("grpc-status"):
            return [], dict(response.headers)
        return frames(unpadded(response.content) if text else response.content)

    request = chat_pb2.ChatCompletionRequest(model="m")
    messages, trailers = await call("ChatCompletions/CreateChatCompletion", request)
    assert [chat_pb2.ChatCompletion.FromString(each).id for each in messages] == ["chatcmpl-1"]
    assert trailers["grpc-status"] == "0"

    messages, trailers = await call("ChatCompletions/StreamChatCompletion", request)
    ids = [chat_pb2.ChatCompletionChunk.FromString(each).id for each in messages]
    assert (ids, trailers["grpc-status"]) == (["chatcmpl-0", "chatcmpl-1", "chatcmpl-2"], "0")

    async def get_model(model: str, context: Context) -> model_pb2.Model:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        raise AssertionError

    edge.worker.get_model = get_model
    messages, trailers = await call("Models/GetModel", model_service_pb2.GetModelRequest(model="m"))
    assert messages == []
    assert (trailers["grpc-status"], trailers["grpc-message"]) == ("5", "no such model")

    edge.envoy.workers()
    await edge.ready(503)
    messages, trailers = await call("ChatCompletions/CreateChatCompletion", request)
    assert (messages, trailers["grpc-status"]) == ([], "14")


# --- CORS ------------------------------------------------------------------------------------------------------

ORIGIN = {"origin": "https://app.example"}


@pytest.mark.parametrize("path", [CHAT, "/api/v1/models", "/lmchat.v1.ChatCompletions/StreamChatCompletion"])
async def test_preflights_need_no_key_and_no_worker(edge: Edge, path: str) -> None:
    edge.envoy.workers()
    await edge.ready(503)
    requested_headers = [
        "authorization",
        "content-type",
        "x-api-key",
        "x-stainless-lang",
        "openai-beta",
        "x-grpc-web",
    ]
    response = await edge.client.options(
        path,
        headers=ORIGIN
        | {
            "access-control-request-method": "POST",
            "access-control-request-headers": ", ".join(requested_headers),
        },
    )
    assert response.is_success
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in response.headers
    assert {"GET", "POST"} <= names(response, "access-control-allow-methods")
    # The star, for browsers that know it; authorization it never covers.
    assert {*requested_headers, "*"} <= names(response, "access-control-allow-headers")


async def test_browsers_may_read_replies_and_errors(edge: Edge) -> None:
    async def get_model(model: str, context: Context) -> model_pb2.Model:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
        raise AssertionError

    edge.worker.get_model = get_model
    calls: Iterable[tuple[int, str, str, dict[str, str]]] = [
        (200, "POST", CHAT, JSON),
        (200, "GET", "/api/v1/models", {}),
        (401, "GET", "/api/v1/models/m", {}),
        (404, "GET", "/nowhere", {}),
        (405, "GET", CHAT, {}),
        (415, "POST", CHAT, {}),
    ]
    for status, method, path, headers in calls:
        response = await edge.client.request(method, path, headers=ORIGIN | headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        exposed = names(response, "access-control-expose-headers")
        assert {"x-request-id", "retry-after", "x-lmchat-provider", "grpc-status", "grpc-message"} <= exposed
        assert "grpc-status-details-bin" in exposed

    edge.envoy.workers()
    await edge.ready(503)
    response = await edge.client.post(CHAT, json={}, headers=ORIGIN)
    assert says(response) == (503, "overloaded_error", "overloaded")
    assert response.headers["access-control-allow-origin"] == "https://app.example"


def names(response: httpx.Response, header: str) -> set[str]:
    return {each.strip() for each in response.headers[header].split(",")}


# --- Health, request ids, log ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_alive_is_not_the_same_as_ready(edge: Edge, method: str) -> None:
    for path in ("/healthz", "/readyz", "/readyz?verbose"):
        response = await edge.client.request(method, path)
        assert (response.status_code, bool(response.headers["x-request-id"])) == (200, True)
        assert not [name for name in response.headers if name.startswith("x-envoy")]
    edge.envoy.workers()
    await edge.ready(503)
    assert (await edge.client.request(method, "/healthz")).status_code == 200
    response = await edge.client.request(method, "/readyz")
    assert response.status_code == 503
    if method == "GET":
        assert says(response) == (503, "overloaded_error", "overloaded")
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/api/v1/models", "/nowhere", "/healthz"])
async def test_every_reply_has_a_request_id(edge: Edge, path: str) -> None:
    for kept in ("mine", "req_0123-ABC.x:y/z+=@", "a" * 128):
        response = await edge.client.get(path, headers={"x-request-id": kept})
        assert response.headers.get_list("x-request-id") == [kept]
    generated = set()
    for odd in (None, "", "a" * 129, 'x"}', "a b", b"\xc3\xa4"):
        headers = {} if odd is None else {"x-request-id": odd}
        (request_id,) = (await edge.client.get(path, headers=headers)).headers.get_list("x-request-id")  # type: ignore[arg-type]
        generated.add(request_id)
        assert len(request_id) == 36
    assert len(generated) == 6


async def test_the_log_tells_what_happened_and_no_secrets(edge: Edge) -> None:
    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        await context.send_initial_metadata((("x-lmchat-provider", "vertex"), ("x-lmchat-tries", "2")))
        yield HttpBody(content_type="text/event-stream", data=b"data: {}\n\n")
        await context.abort(grpc.StatusCode.ABORTED, "broke off")

    edge.worker.rest = rest
    secrets = {"authorization": "Bearer s3cret", "x-api-key": "s3cret", "api-key": "s3cret"}
    await edge.client.post(
        f"{CHAT}?key=s3cret", json={"stream": True}, headers=secrets | {"x-request-id": "logged-1"}
    )
    line = await edge.logged("logged-1")
    assert line.items() >= {
        ("method", "POST"),
        ("path", CHAT),
        ("status", 200),
        # The reply began well; only the trailers know.
        ("grpc_status", "Aborted"),
        ("provider", "vertex"),
        ("tries", "2"),
        ("caller", "127.0.0.1"),
        ("worker", edge.address.removeprefix("unix:")),
    }
    assert not [each for each in edge.envoy.access_log() if each["path"] in ("/healthz", "/readyz")]
    assert "s3cret" not in json.dumps(edge.envoy.access_log())


# --- Workers that start, stop and hang----------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_caller_that_leaves_is_noticed_at_once(edge: Edge, streaming: bool) -> None:
    called, left = asyncio.Event(), asyncio.Event()

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        try:
            if streaming:
                yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
            called.set()
            await asyncio.Event().wait()
        finally:
            left.set()

    edge.worker.rest = rest
    async with httpx.AsyncClient(base_url=edge.envoy.url, timeout=DEADLINE) as caller:
        call = asyncio.create_task(caller.post(CHAT, json={}))
        await asyncio.wait_for(called.wait(), DEADLINE)
        assert not left.is_set()
        call.cancel()
        await asyncio.wait_for(left.wait(), 1)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_grpc_caller_that_leaves_is_noticed_at_once(edge: Edge) -> None:
    left = asyncio.Event()

    async def stream(
        request: chat_pb2.ChatCompletionRequest, context: Context
    ) -> AsyncGenerator[chat_pb2.ChatCompletionChunk, None]:
        try:
            yield chat_pb2.ChatCompletionChunk(id="0")
            await asyncio.Event().wait()
        finally:
            left.set()

    edge.worker.stream = stream
    async with grpc.aio.insecure_channel(edge.target) as channel:
        call = chat_service_pb2_grpc.ChatCompletionsStub(channel).StreamChatCompletion(
            chat_pb2.ChatCompletionRequest()
        )
        chunk = await call.read()
        assert isinstance(chunk, chat_pb2.ChatCompletionChunk)
        call.cancel()
        await asyncio.wait_for(left.wait(), 1)


async def test_a_caller_that_does_not_read_slows_the_worker_down(edge: Edge) -> None:
    sent = 0
    block = b"data: " + b"x" * 65_536 + b"\n\n"

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        nonlocal sent
        for _ in range(1024):
            yield HttpBody(content_type="text/event-stream", data=block)
            sent += 1

    edge.worker.rest = rest
    async with edge.client.stream("POST", CHAT, json={"stream": True}) as response:
        before = -1
        # Until it blocks; what it has sent by then is in buffers.
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 512
        size = 0
        async for data in response.aiter_bytes():
            size += len(data)
    assert (sent, size) == (1024, 1024 * len(block))


async def test_a_killed_worker_cuts_its_streams_and_is_a_503(edge: Edge) -> None:
    address = edge.envoy.address()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", envoy_fixture.__name__, address, cwd=ROOT)
    try:
        edge.envoy.workers(address)
        await edge.ready(503)
        await edge.ready()
        async with edge.client.stream("POST", CHAT, json={"stream": True}) as response:
            lines = aiter(response.aiter_lines())
            assert await event_of(lines) == "0"
            process.kill()
            # Cut, not ended: a truncated reply must not look complete.
            with pytest.raises(httpx.RemoteProtocolError):
                await asyncio.wait_for(anext(lines), DEADLINE)
        response = await edge.client.post(CHAT, json={})
        assert says(response) == (503, "overloaded_error", "overloaded")
        assert response.headers["retry-after"] == "1"
        await edge.ready(503)
        response = await edge.client.post(CHAT, json={})
        assert says(response) == (503, "overloaded_error", "overloaded")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

    # A new worker takes over without a restart of Envoy.
    edge.envoy.workers(address, edge.address)
    await edge.ready()
    assert (await edge.client.post(CHAT, json={})).status_code == 200


async def test_a_dead_worker_beside_a_live_one_fails_no_call(edge: Edge) -> None:
    def named(name: bytes) -> Any:
        async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
            yield HttpBody(content_type="application/json", data=name)

        return rest

    address = edge.envoy.address()
    async with envoy_fixture.Worker.serving(address) as other:
        edge.worker.rest, other.rest = named(b"a"), named(b"b")
        edge.envoy.workers(edge.address, address)
        served = set()

        async def both() -> bool:
            served.add((await edge.client.post(CHAT, json={})).text)
            return served == {"a", "b"}

        await envoy_fixture.until(both, "both workers serve")
    # Before the health check detects it.
    replies = [await edge.client.post(CHAT, json={}) for _ in range(50)]
    assert {reply.status_code for reply in replies} == {200}


async def test_workers_change_without_a_dropped_call(edge: Edge) -> None:
    old_may_end = asyncio.Event()

    async def old(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        yield HttpBody(content_type="text/event-stream", data=b"data: old\n\n")
        if b"stream" in request.data:
            await old_may_end.wait()
            yield HttpBody(content_type="text/event-stream", data=b"data: end\n\n")

    async def new(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        yield HttpBody(content_type="text/event-stream", data=b"data: new\n\n")

    edge.worker.rest = old
    address = edge.envoy.address()
    async with (
        envoy_fixture.Worker.serving(address) as other,
        edge.client.stream("POST", CHAT, json={"stream": True}) as stream,
    ):
        other.rest = new
        lines = aiter(stream.aiter_lines())
        assert await event_of(lines) == "old"

        # As a rolling restart does it: the new one joins, then the old one leaves.
        edge.envoy.workers(edge.address, address)
        replies = []

        async def reached() -> bool:
            reply = await edge.client.post(CHAT, json={})
            replies.append((reply.status_code, reply.text))
            return reply.text == "data: new\n\n"

        async def moved() -> bool:
            return all([await reached() for _ in range(10)])

        await envoy_fixture.until(reached, "the new worker serves")
        edge.envoy.workers(address)
        await envoy_fixture.until(moved, "the old worker gets no more calls")
        assert set(replies) <= {(200, "data: new\n\n"), (200, "data: old\n\n")}

        old_may_end.set()
        assert await event_of(lines) == "end"
        assert [line async for line in lines] == []


async def test_a_worker_that_is_not_serving_gets_no_new_calls_and_finishes_active_ones(edge: Edge) -> None:
    end = asyncio.Event()

    async def rest(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        await end.wait()
        yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")

    edge.worker.rest = rest
    async with edge.client.stream("POST", CHAT, json={"stream": True}) as response:
        lines = aiter(response.aiter_lines())
        assert await event_of(lines) == "0"
        await edge.worker.health.set("", NOT_SERVING)
        await edge.ready(503)
        assert (await edge.client.post(CHAT, json={})).status_code == 503
        end.set()
        assert await event_of(lines) == "1"


async def test_a_worker_that_hangs_is_a_504_and_a_flood_a_429() -> None:
    def with_short_limits(template: str) -> str:
        for usual, changed in [
            ("idle_timeout: 900s", "idle_timeout: 0.2s"),
            (
                "max_tokens: 20000, tokens_per_fill: 10000, fill_interval: 1s",
                "max_tokens: 60, fill_interval: 600s",
            ),
        ]:
            assert template.count(usual) == 1
            template = template.replace(usual, changed)
        return template

    async def hang(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        await asyncio.Event().wait()
        yield HttpBody()

    async def hang_later(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        await asyncio.Event().wait()

    with envoy_fixture.running(with_short_limits) as envoy:
        async with envoy_fixture.attached(envoy) as edge:
            edge.worker.rest = hang
            response = await edge.client.post(CHAT, json={})
            assert says(response) == (504, "timeout_error", "timeout")

            edge.worker.rest = hang_later
            with pytest.raises(httpx.RemoteProtocolError):
                await edge.client.post(CHAT, json={"stream": True})

            for _ in range(60):
                response = await edge.client.get("/api/v1/models")
            assert says(response) == (429, "rate_limit_error", "rate_limited")
            assert response.headers["retry-after"] == "1"
            async with grpc.aio.insecure_channel(edge.target) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await grpc_call(channel, "/lmchat.v1.Models/ListModels")
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_repository_file_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "generated").symlink_to(ROOT / "generated")
    places.write(tmp_path / "run" / "endpoints.yaml", places.endpoints(["127.0.0.1:50051"]))
    command = [envoy_fixture.binary(), "--mode", "validate", "-c", str(ROOT / "envoy.yaml"), "-l", "warning"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
