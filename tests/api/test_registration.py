"""Undecodable messages get the gateway's error, with and without a key; nothing is logged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lmchat.v1 import chat_pb2 as pb

from server.chat import large
from tests.support.gateway import AUTH, Gateway, ask, run_gateway

CONFIGURATION = """
providers: {up: {type: openai, base_url: "http://127.0.0.1:1/v1"}}
models: {"*": {endpoints: [{provider: up, model: "*"}]}}
"""
UNARY = [
    "/lmchat.v1.ChatCompletions/CreateChatCompletion",
    "/lmchat.v1.Models/GetModel",
    "/lmchat.v1.Models/ListModels",
    "/lmchat.internal.v1.Rest/CreateUnaryChatCompletion",
    "/lmchat.internal.v1.Operations/GetMetrics",
    "/grpc.health.v1.Health/Check",
]
STREAMING = [
    "/lmchat.v1.ChatCompletions/StreamChatCompletion",
    "/lmchat.internal.v1.Rest/CreateChatCompletion",
    "/grpc.health.v1.Health/Watch",
]
REASONS = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.UNAUTHENTICATED: "MISSING_API_KEY",
}
REFLECTION = tuple(f"/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo" for v in ("v1", "v1alpha"))
#: Methods whose request has no fields.
EMPTY = ("/lmchat.v1.Models/ListModels", "/lmchat.internal.v1.Operations/GetMetrics")
NOISE = b"\xff" * 40
SHORT = b"\x0a\x7fx"
#: A text that is not UTF-8, as Envoy makes it of `/api/v1/models/%ff`.
LATIN_1 = b"\x0a\x01\xff"


@pytest.fixture(name="gateway")
async def gateway_fixture(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with run_gateway(tmp_path, CONFIGURATION) as gateway:
        yield gateway


async def refusal(gateway: Gateway, path: str, data: bytes, metadata: Any) -> grpc.aio.AioRpcError:
    async def messages() -> AsyncIterator[bytes]:
        yield data

    channel: Any = gateway.channel
    if path in UNARY:
        call = channel.unary_unary(path)(data, metadata=metadata)
    elif path in STREAMING:
        call = channel.unary_stream(path)(data, metadata=metadata)
    else:
        call = channel.stream_stream(path)(messages(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call if path in UNARY else call.read())
    return raised.value


@pytest.mark.parametrize("data", [NOISE, SHORT, LATIN_1], ids=["noise", "short", "latin-1"])
@pytest.mark.parametrize("path", [*UNARY, *STREAMING, *REFLECTION])
async def test_corrupt_messages(
    gateway: Gateway, path: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if path in EMPTY and data is LATIN_1:
        data = NOISE[:7]
    for metadata, code in ((AUTH, grpc.StatusCode.INVALID_ARGUMENT), (None, grpc.StatusCode.UNAUTHENTICATED)):
        if path in REFLECTION:  # it needs no key
            code = grpc.StatusCode.INVALID_ARGUMENT
        error = await refusal(gateway, path, data, metadata)
        assert error.code() is code
        assert "Error" not in (error.details() or "")
        info = error_details_pb2.ErrorInfo()
        assert rpc_status.from_call(error).details[0].Unpack(info)  # type: ignore[arg-type]
        assert info.reason == REASONS[code]
    assert not caplog.records


@pytest.mark.parametrize("data", [b"", NOISE], ids=["no key", "corrupt"])
@pytest.mark.parametrize(
    "path", [path for path in UNARY if not path.startswith(("/grpc", "/lmchat.internal.v1.Rest"))]
)
async def test_errors_come_without_a_message(gateway: Gateway, path: str, data: bytes) -> None:
    """Not even an empty one, with which Envoy could not convert the status to JSON."""
    channel: Any = gateway.channel
    call = channel.unary_stream(path)(data)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert not await call.initial_metadata()


LARGE = b"\x12\x00" * 1_000_000
"""Empty messages, as far as a method's request has any; else unknown fields."""


@pytest.mark.parametrize("path", [*UNARY, *STREAMING, *REFLECTION])
async def test_millions_of_fields(gateway: Gateway, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are refused before they are parsed: objects of 100 bytes each would be made of two bytes."""
    for metadata, code in ((AUTH, grpc.StatusCode.RESOURCE_EXHAUSTED), (None, grpc.StatusCode.UNAUTHENTICATED)):
        if path in REFLECTION:  # it needs no key
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await refusal(gateway, path, LARGE, metadata)
        assert error.code() is code
        assert code is grpc.StatusCode.UNAUTHENTICATED or "more than 100000 fields" in (error.details() or "")
    assert not caplog.records


async def test_large_requests_are_read_in_the_thread(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing, validating and translating them, and reading JSON; of ordinary requests, nothing is."""
    done: list[str] = []
    execute = large._THREAD.submit

    def submit(work: Any, *args: Any) -> Any:
        done.append(getattr(work.func, "__name__", ""))
        return execute(work, *args)

    monkeypatch.setattr(large._THREAD, "submit", submit)
    for length, typed, rest in (
        (1000, [], []),
        (large.LARGE_BYTES, ["parse", "_validated_large", "_translate"], ["parse", "read", "_translate"]),
    ):
        request = pb.ChatCompletionRequest(model="m")
        request.messages.add(role=pb.ROLE_USER).content.add(text="a" * length)
        with pytest.raises(grpc.aio.AioRpcError, match="could not be reached"):
            await gateway.chat.CreateChatCompletion(request, metadata=AUTH)
        assert sorted(set(done)) == sorted(typed)
        done.clear()
        with pytest.raises(grpc.aio.AioRpcError, match="could not be reached"):
            await gateway.chat.StreamChatCompletion(request, metadata=AUTH).read()
        assert sorted(set(done)) == sorted([name if name != "_translate" else "_stream" for name in typed])
        done.clear()
        reply = await gateway.post(ask(messages=[{"role": "user", "content": "a" * length}]))
        assert reply.status == 502
        assert sorted(set(done)) == sorted(rest)
        done.clear()


@pytest.mark.parametrize(
    "path", ["/lmchat.v1.Operations/GetMetrics", "/lmchat.v1.Models/Other", "/other.Service/Call"]
)
async def test_unknown_methods(gateway: Gateway, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a key they are refused like any other: callers do not learn which there are."""
    channel: Any = gateway.channel
    for metadata, code in ((AUTH, grpc.StatusCode.UNIMPLEMENTED), (None, grpc.StatusCode.UNAUTHENTICATED)):
        for call in (channel.unary_unary(path), channel.unary_stream(path)):
            pending = call(NOISE, metadata=metadata)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await (pending.read() if hasattr(pending, "read") else pending)
            assert raised.value.code() is code
    assert not caplog.records
