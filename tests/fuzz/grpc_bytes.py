"""The gRPC server of a worker without Envoy before it: raw messages of every method, with and without a key."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import grpc
from google.api.httpbody_pb2 import HttpBody
from lmchat.v1 import model_service_pb2

from tests.fuzz import mutate, seeds
from tests.support.faults import answer, fault_server
from tests.support.gateway import AUTH, Gateway, run_gateway

_CONFIGURATION = """
circuit: {{min_requests: 1000000}}
providers: {{up: {{type: openai, base_url: "{base_url}"}}}}
models: {{public-model: {{endpoints: [{{provider: up, model: m}}]}}}}
"""
#: Method -> whether it streams.
_METHODS = {
    "/lmchat.v1.ChatCompletions/CreateChatCompletion": False,
    "/lmchat.v1.ChatCompletions/StreamChatCompletion": True,
    "/lmchat.internal.v1.Rest/CreateChatCompletion": True,
    "/lmchat.internal.v1.Rest/CreateUnaryChatCompletion": False,
    "/lmchat.v1.Models/GetModel": False,
    "/lmchat.v1.Models/ListModels": False,
    "/lmchat.internal.v1.Operations/GetMetrics": False,
    "/lmchat.internal.v1.Operations/Nothing": False,
    "/grpc.health.v1.Health/Check": False,
}
#: Text that callers must not see: Python's exceptions, and grpc's messages about them.
_PYTHON = ("Traceback", "Exception", "Error(", "<class", "object at 0x", "0x7f", ".py")
#: Seconds after which a call counts as hanging.
_TIMEOUT = 20.0


class Call(NamedTuple):
    """One call: its method, its message as bytes, and whether the caller has a key."""

    method: str
    data: bytes
    has_key: bool


def generate(rng: Random) -> Call:
    """A message of a method, mutated as a message or as bytes. None names a URL: nothing is fetched."""
    method = rng.choice(list(_METHODS))
    pool = _messages(method)
    data = rng.choice(pool)
    if method.startswith("/lmchat.v1.ChatCompletions") and rng.random() < 0.5:
        message = type(seeds.messages()[0]).FromString(data)
        mutate.mutate_message(message, rng, seeds.messages())
        data = message.SerializeToString()
    else:
        data = mutate.mutate_bytes(data, rng, pool)
    return Call(method, data.replace(b"://", b":::"), rng.random() < 0.8)


def _messages(method: str) -> list[bytes]:
    if method.startswith("/lmchat.v1.ChatCompletions"):
        return [message.SerializeToString() for message in seeds.messages()]
    if method.startswith("/lmchat.internal.v1.Rest"):
        bodies = [json.dumps(body).encode() for body in seeds.requests()]
        return [HttpBody(content_type="application/json", data=body).SerializeToString() for body in bodies]
    return [model_service_pb2.GetModelRequest(model="public-model").SerializeToString(), b""]


@contextmanager
def checker() -> Iterator[Callable[[Call], None]]:
    """A worker in front of a provider that answers, and the check of one call of it."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as directory:
        exits = AsyncExitStack()
        gateway = runner.run(_start(exits, Path(directory)))
        try:
            yield lambda call: runner.run(check(gateway, call))
        finally:
            runner.run(exits.aclose())


async def _start(exits: AsyncExitStack, directory: Path) -> Gateway:
    provider = await exits.enter_async_context(fault_server())
    provider.script("m", answer("Hi", " there"))
    return await exits.enter_async_context(
        run_gateway(directory, _CONFIGURATION.format(base_url=provider.base_url))
    )


async def check(gateway: Gateway, call: Call) -> None:
    """A call ends with OK or with a status of the contract, whose text is the gateway's."""
    metadata = AUTH if call.has_key else ()
    messages: list[bytes] = []
    open_call: Any = gateway.channel.unary_stream if _METHODS[call.method] else gateway.channel.unary_unary
    under_way = open_call(call.method)(call.data, metadata=metadata, timeout=_TIMEOUT)
    with suppress(grpc.aio.AioRpcError):
        if _METHODS[call.method]:
            messages += [message async for message in under_way]
        else:
            messages.append(await under_way)
    code, details = await under_way.code(), await under_way.details() or ""
    trailing = repr([*(await under_way.trailing_metadata() or ())])
    assert code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL), f"{code}: {details}"
    assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, "a call hangs"
    texts = (details, trailing, *(message.decode("utf-8", "replace") for message in messages))
    for text in texts if code is not grpc.StatusCode.OK else ():
        assert not any(word in text for word in _PYTHON), text
    if not call.has_key and call.method.startswith("/lmchat"):
        assert code is not grpc.StatusCode.OK or b"missing_api_key" in b"".join(messages)
