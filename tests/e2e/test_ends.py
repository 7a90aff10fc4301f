"""How calls end that get no answer in time, the caller's or the worker's, as callers see it through Envoy."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from lmchat.internal.v1 import rest_service_pb2_grpc
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc

from server.launcher.preflight import runtime_directory
from tests.e2e.envoy_fixture import DEADLINE, ROOT, Envoy, until
from tests.support import faults
from tests.support.faults import FaultServer, fault_server
from tests.support.gateway import AUTH, KEY, Gateway, ask, run_gateway
from tests.support.grpc_web import framed, frames, unpadded

GRPC_WEB = {"content-type": "application/grpc-web+proto"}
CHAT = "/api/v1/chat/completions"
CONFIGURATION = """
providers: {{up: {{type: openai, base_url: "{base_url}"}}}}
models: {{"*": {{endpoints: [{{provider: up, model: "*"}}]}}}}
"""


@pytest.fixture(name="provider")
async def provider_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        server.script("stalled", faults.stall("one"))
        server.script("silent", faults.silence)
        yield server


@pytest.fixture(name="client")
async def client_fixture(envoy_process: Envoy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=envoy_process.url, headers=dict(AUTH), timeout=DEADLINE) as client:
        yield client


@pytest.fixture(name="gateway")
async def gateway_fixture(
    envoy_process: Envoy, client: httpx.AsyncClient, provider: FaultServer, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A real worker behind Envoy."""

    async def serves() -> bool:
        return (await client.get("/api/v1/models")).status_code == 200

    async with run_gateway(tmp_path, CONFIGURATION.format(base_url=provider.base_url)) as gateway:
        envoy_process.workers(gateway.address)
        await until(serves, "Envoy knows the worker")
        try:
            yield gateway
        finally:
            envoy_process.workers()


def typed(model: str) -> pb.ChatCompletionRequest:
    request = pb.ChatCompletionRequest(model=model)
    request.messages.add(role=pb.ROLE_USER).content.add(text="hello")
    return request


def details(trailers: Mapping[str, str]) -> status_pb2.Status:
    """The status in trailers of gRPC-Web."""
    text = trailers["grpc-status-details-bin"]
    return status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))


def check_status(status: status_pb2.Status) -> None:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("OVERLOADED", "lmchat")
    assert info.metadata["request_id"]
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


async def test_sse_streams_end_with_an_error_event(gateway: Gateway, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", CHAT, json=ask("stalled", stream=True)) as response:
        lines = response.aiter_lines()
        while '"one"' not in (line := await anext(lines)):
            pass
        await gateway.worker.drain(notice=0, grace=0)
        rest = [line async for line in lines if line]
    assert len(rest) == 1  # without [DONE]
    event = json.loads(rest[0].removeprefix("data: "))
    assert event["id"] == json.loads(line.removeprefix("data: "))["id"]
    assert event["choices"] == [{"index": 0, "delta": {}, "finish_reason": "error"}]
    assert event["error"]["message"].startswith("The gateway is stopping")
    assert (event["error"]["type"], event["error"]["lmchat"]["reason"]) == ("overloaded_error", "overloaded")
    assert event["error"]["lmchat"]["request_id"] == response.headers["x-request-id"]


async def test_grpc_streams_end_with_a_status(gateway: Gateway, envoy_process: Envoy) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy_process.port}") as channel:
        stub: Any = chat_service_pb2_grpc.ChatCompletionsStub(channel)
        call = stub.StreamChatCompletion(typed("stalled"), metadata=AUTH)
        while (await call.read()).choices[0].delta.content != "one":
            pass
        await gateway.worker.drain(notice=0, grace=0)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    check_status(rpc_status.from_call(raised.value))  # type: ignore[arg-type]


async def test_grpc_web_streams_end_with_a_status(gateway: Gateway, client: httpx.AsyncClient) -> None:
    url = "/lmchat.v1.ChatCompletions/StreamChatCompletion"
    async with client.stream("POST", url, headers=GRPC_WEB, content=framed(typed("stalled"))) as response:
        pieces = response.aiter_bytes()
        body = await anext(pieces)
        await gateway.worker.drain(notice=0, grace=0)
        body += b"".join([piece async for piece in pieces])
    messages, trailers = frames(body)
    assert messages
    assert trailers["grpc-status"] == "14"
    check_status(details(trailers))


@pytest.mark.parametrize("model", ["silent", "stalled"])
@pytest.mark.parametrize("method", ["CreateChatCompletion", "StreamChatCompletion"])
@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
async def test_grpc_web_deadlines(
    gateway: Gateway, client: httpx.AsyncClient, kind: str, method: str, model: str
) -> None:
    """Before the answer and inside it: gRPC's own status of a deadline, said by the worker, with its reason."""
    body = framed(typed(model))
    response = await client.post(
        f"/lmchat.v1.ChatCompletions/{method}",
        headers={"content-type": kind, "accept": kind, "grpc-timeout": "500m"},
        content=base64.b64encode(body) if kind.endswith("text") else body,
    )
    assert response.status_code == 200
    messages, trailers = frames(unpadded(response.content) if kind.endswith("text") else response.content)
    trailers = trailers or dict(response.headers)  # of a reply without messages
    assert bool(messages) == (model == "stalled" and method == "StreamChatCompletion")
    assert trailers["grpc-status"] == "4"
    info = error_details_pb2.ErrorInfo()
    assert details(trailers).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("TIMEOUT", "lmchat")
    assert info.metadata["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_without_an_answer_yet_are_a_503(
    gateway: Gateway, client: httpx.AsyncClient, provider: FaultServer, stream: bool
) -> None:
    rest = asyncio.create_task(client.post(CHAT, json=ask("silent", stream=stream)))
    unary = gateway.chat.CreateChatCompletion(typed("silent"), metadata=AUTH)
    await provider.arrived(2)
    await gateway.worker.drain(notice=0, grace=0)
    response = await rest
    assert (response.status_code, response.json()["error"]["lmchat"]["reason"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await unary
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    check_status(rpc_status.from_call(raised.value))  # type: ignore[arg-type]
    # The providers' connections are released.
    for call in provider.calls:
        await asyncio.wait_for(call.wait(), DEADLINE)


async def test_a_second_signal_ends_streams_with_an_error_event(provider: FaultServer, tmp_path: Path) -> None:
    file = tmp_path / "lmchat.yaml"
    file.write_text(
        f"auth: {{keys: [{{name: test, key: {KEY}}}]}}\n{CONFIGURATION.format(base_url=provider.base_url)}"
    )
    with runtime_directory() as directory:
        address = f"unix:{directory}/worker.sock"
        arguments = ("-m", "server", "serve", "--listen", address, "--config", str(file))
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                rest: Any = rest_service_pb2_grpc.RestStub(channel)
                body = HttpBody(
                    content_type="application/json", data=json.dumps(ask("stalled", stream=True)).encode()
                )
                call = rest.CreateChatCompletion(body, metadata=AUTH, wait_for_ready=True)
                while b'"one"' not in (await call.read()).data:
                    pass
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)  # another one: two of a kind may arrive as one
                assert b'"reason":"overloaded"' in (await call.read()).data
                assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert await asyncio.wait_for(process.wait(), DEADLINE) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
