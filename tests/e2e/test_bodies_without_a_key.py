"""Envoy discards the bodies of callers without a key, before it buffers or inflates them.

The worker here, unlike a real one, rejects no calls, and so shows what it received.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lmchat.v1 import chat_pb2, chat_service_pb2_grpc

from server.launcher import envoy as places
from tests.e2e.envoy_fixture import ROOT, Edge, attached, running, until

KEY = 'sk-"quoted\\] = é'
BODY = b'{"stream": true, "messages": []}'

row = pytest.param


def keys() -> list[Any]:
    """Headers, and whether they have a key."""
    return [
        row({}, False, id="none"),
        row({"authorization": "Bearer sk-unknown"}, False, id="unknown"),
        row({"authorization": f"Bearer {KEY}"}, True, id="bearer"),
        row({"authorization": f"bearer  {KEY}"}, True, id="spaces"),
        row({"authorization": f"Basic {KEY}"}, False, id="another scheme"),
        row({"authorization": "Bearer", "x-api-key": KEY}, False, id="an empty token counts"),
        row({"x-api-key": KEY}, True, id="Anthropic"),
        row({"api-key": KEY}, True, id="Azure"),
        row({"x-api-key": "sk-unknown", "api-key": KEY}, False, id="the first of two"),
    ]


async def test_bodies_and_keys() -> None:
    with running(keys=[KEY]) as envoy:
        async with attached(envoy) as edge:
            for param in keys():
                headers, has_key = param.values
                await _rest(edge, headers, has_key)
            await _grpc(edge)
            await _new_keys(edge)
        assert "script log" not in envoy.complaints(), envoy.complaints()


async def _rest(edge: Edge, headers: dict[str, str], has_key: bool) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    gzipped = (b"content-encoding", b"gzip")
    large = BODY + b" " * 200_000
    for body, size, more in (
        (BODY, len(BODY), []),
        (gzip.compress(BODY), len(BODY), [gzipped]),
        (large, len(large), []),
    ):
        sent = httpx.Headers([*encoded, (b"content-type", b"application/json"), *more])
        reply = await edge.client.post("/api/v1/chat/completions", content=body, headers=sent)
        assert reply.status_code == 200, (headers, reply.text)
        assert reply.json() == {"bytes": size if has_key else 0}, headers
    assert (await edge.client.get("/api/v1/models", headers=httpx.Headers(encoded))).status_code == 200


async def _grpc(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        chat: Any = chat_service_pb2_grpc.ChatCompletionsStub(channel)
        request = chat_pb2.ChatCompletionRequest(model="m" * 100_000)
        metadata = (("x-api-key", "sk-unknown"),)
        assert (await chat.CreateChatCompletion(request, metadata=metadata)).model == ""
        assert [chunk.model async for chunk in chat.StreamChatCompletion(request)] == ["", "", ""]
        health: Any = health_pb2_grpc.HealthStub(channel)
        answered = await health.Check(health_pb2.HealthCheckRequest())
        assert answered.status == health_pb2.HealthCheckResponse.SERVING


async def _new_keys(edge: Edge) -> None:
    """Envoy takes keys as they change, without a restart."""
    template = (ROOT / "envoy.yaml").read_text(encoding="utf-8")
    places.write(edge.envoy.directory / "request_filter.yaml", places.request_filter(template, ["sk-new"]))

    async def taken() -> bool:
        reply = await edge.client.post(
            "/api/v1/chat/completions", json=json.loads(BODY), headers={"x-api-key": "sk-new"}
        )
        return bool(reply.json()["bytes"])

    await until(taken, "the new key is known")
