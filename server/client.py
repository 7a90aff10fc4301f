"""`lmchat chat` and `lmchat models`: small clients of a running gateway, over gRPC.

A terminal acts on control characters, so those that models and providers write are printed as escapes.
"""

from __future__ import annotations

import asyncio
import re
import sys
from urllib.parse import urlsplit

import grpc
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc as chat_grpc
from lmchat.v1 import model_pb2, model_service_pb2
from lmchat.v1 import model_service_pb2_grpc as model_grpc

from server.telemetry.logs import one_line

Metadata = tuple[tuple[str, str], ...]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Controls but tab and line feed: C0, DEL, C1.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]").sub


def _channel(url: str) -> grpc.aio.Channel:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # A proxy that http_proxy names does not reach this machine's loopback, but gRPC would use it.
    options = [("grpc.enable_http_proxy", 0)] if host in _LOOPBACK else []
    if parts.scheme == "https":
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
    return grpc.aio.insecure_channel(target, options)


def _metadata(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),) if key else ()


def _fail(error: grpc.aio.AioRpcError, url: str) -> int:
    hint = f" Is a gateway running at {url}?" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
    sys.stderr.write(f"lmchat: {error.code().name}: {one_line(error.details() or '')}{hint}\n")
    return 1


async def _list(channel: grpc.aio.Channel, metadata: Metadata) -> list[model_pb2.Model]:
    stub = model_grpc.ModelsStub(channel)
    return list((await stub.ListModels(model_service_pb2.ListModelsRequest(), metadata=metadata)).data)


async def models(url: str, key: str) -> int:
    """Print every model with its endpoints. The exit code."""
    async with _channel(url) as channel:
        try:
            found = await _list(channel, _metadata(key))
        except grpc.aio.AioRpcError as error:
            return _fail(error, url)
    for model in found:
        endpoints = ", ".join(f"{e.name} ({e.dialect}: {e.model})" for e in model.lmchat.endpoints)
        sys.stdout.write(f"{one_line(model.id)}\t{one_line(endpoints)}\n")
    return 0


async def chat(url: str, key: str, model: str, system: str, prompt: str | None) -> int:
    """Print the completion of `prompt`, or hold a conversation until the end of input. The exit code."""
    async with _channel(url) as channel:
        try:
            if not model:
                listed = await _list(channel, _metadata(key))
                model = next((m.id for m in listed if not m.id.endswith("*")), "")
                if not model:
                    sys.stderr.write("lmchat: the gateway has only wildcard models; name one with -m\n")
                    return 1
            request = pb.ChatCompletionRequest(model=model)
            if system:
                request.messages.add(role=pb.ROLE_SYSTEM).content.add(text=system)
            if prompt is not None:
                await _turn(channel, _metadata(key), request, prompt)
                return 0
            return await _converse(channel, _metadata(key), request)
        except grpc.aio.AioRpcError as error:
            return _fail(error, url)


async def _converse(channel: grpc.aio.Channel, metadata: Metadata, request: pb.ChatCompletionRequest) -> int:
    sys.stderr.write(f"{one_line(request.model)}; an empty line or Ctrl-D ends the conversation\n")
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line.strip():
            return 0
        await _turn(channel, metadata, request, line.strip())


async def _turn(
    channel: grpc.aio.Channel, metadata: Metadata, request: pb.ChatCompletionRequest, prompt: str
) -> None:
    """Send `prompt`, print the completion as it comes, and add both to the conversation."""
    request.messages.add(role=pb.ROLE_USER).content.add(text=prompt)
    completion = ""
    async for chunk in chat_grpc.ChatCompletionsStub(channel).StreamChatCompletion(request, metadata=metadata):
        for choice in chunk.choices:
            completion += choice.delta.content
            sys.stdout.write(_CONTROLS(_escape, choice.delta.content))
            sys.stdout.flush()
    sys.stdout.write("\n")
    request.messages.add(role=pb.ROLE_ASSISTANT).content.add(text=completion)


def _escape(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()
