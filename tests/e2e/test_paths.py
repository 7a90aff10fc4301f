"""Unsupported requests: other spellings of paths, other APIs, and invalid HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.envoy_fixture import DEADLINE, Edge


@pytest.mark.parametrize(
    "prefix", ["", "/v1", "/api", "/api/v1", "/openai/v1", "/openai", "//api/v1", "/openai/deployments/gpt-4o"]
)
async def test_aliases_of_chat_completions(edge: Edge, prefix: str) -> None:
    for tail in ("", "/", "?api-version=2024-10-21"):
        reply = await edge.client.post(f"{edge.envoy.url}{prefix}/chat/completions{tail}", json={"model": "m"})
        assert (reply.status_code, reply.json()) == (200, {"bytes": 13}), reply.text
    reply = await edge.client.get(f"{edge.envoy.url}{prefix}/chat/completions")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("prefix", ["", "/v1", "/api", "/api/v1", "/openai/v1", "/openai"])
async def test_aliases_of_models(edge: Edge, prefix: str) -> None:
    reply = await edge.client.get(f"{prefix}/models")
    assert reply.json()["data"][0]["id"] == "a/b"
    for model in ("a%2Fb", "a/b", "a/messages", "a:generateContent"):
        reply = await edge.client.get(f"{prefix}/models/{model}")
        assert (reply.status_code, reply.json()["id"]) == (200, model.replace("%2F", "/"))


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/responses", "client.responses"),
        ("/responses/resp_1", "client.responses"),
        ("/completions", "client.completions"),
        ("/embeddings", "client.embeddings"),
        ("/images/generations", "client.images"),
        ("/audio/transcriptions", "client.audio"),
        ("/moderations", "client.moderations"),
        ("/files", "client.files"),
        ("/batches", "client.batches"),
        ("/messages", "client.messages"),
        ("/messages/count_tokens", "client.messages"),
        ("/models/gemini-3-pro:generateContent", "client.models.generate_content"),
        ("/models/gemini-3-pro:streamGenerateContent?alt=sse", "client.models.generate_content_stream"),
        ("/model/claude/converse", "client.converse"),
        ("/model/claude/converse-stream", "client.converse_stream"),
    ],
)
async def test_other_apis_are_named(edge: Edge, path: str, method: str) -> None:
    for prefix in ("", "/v1", "/v1beta", "/api/v1", "/anthropic/v1", "/openai/deployments/gpt-4o"):
        reply = await edge.client.post(f"{prefix}{path}", json={"model": "m"})
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (404, "not_found")
        assert f"({method})" in error["message"]
        assert "client.chat.completions.create()" in error["message"]


async def test_an_unknown_path_names_ours(edge: Edge) -> None:
    reply = await edge.client.post("/api/v2/unknown", json={})
    assert reply.status_code == 404
    assert "POST /api/v1/chat/completions" in reply.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["application/grpcx", "application/grpc-x", "application/grpcweb+proto"])
async def test_what_only_begins_like_grpc_is_not_grpc(edge: Edge, content_type: str) -> None:
    headers = {"content-type": content_type}
    reply = await edge.client.post("/lmchat.v1.Models/ListModels", content=b"\0\0\0\0\0", headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    reply = await edge.client.post("/api/v1/chat/completions", content=b"{}", headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ([b"x-a: " + b"a" * 15_000, b"content-length: 2"], 200, ""),
        ([b"x-a: " + b"a" * 17_000, b"content-length: 2"], 431, "over 16 KB"),
        ([b"authorization: Bearer " + b"a" * 17_000, b"content-length: 2"], 431, "over 16 KB"),
        ([b"x-%d: a" % n for n in range(120)], 431, "more than 100"),
        ([b"transfer-encoding: identity"], 501, "The transfer-encoding is not supported"),
        ([b"transfer-encoding: gzip, chunked"], 501, "The transfer-encoding is not supported"),
        ([b"content-length: 2", b"transfer-encoding: chunked"], 400, "malformed"),
    ],
)
async def test_odd_headers(edge: Edge, headers: list[bytes], status: int, message: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.envoy.port)
    try:
        first = [b"POST /api/v1/chat/completions HTTP/1.1", b"host: x", b"content-type: application/json"]
        writer.write(b"\r\n".join([*first, *headers, b"connection: close", b"", b"{}"]))
        reply = await asyncio.wait_for(reader.read(), DEADLINE)
    finally:
        writer.close()
    head, _, text = reply.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    if status != 200:
        assert b"content-type: application/json" in head
        error = json.loads(text)["error"]
        assert error["type"] == "invalid_request_error"
        assert message in error["message"]
