"""A worker in the test's own loop, on a real socket, in front of a fault server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from lmchat.internal.v1 import operations_service_pb2_grpc, rest_service_pb2_grpc
from lmchat.v1 import chat_service_pb2_grpc, model_service_pb2_grpc

from server.config.load import load
from server.dialects.base import Dialect, Vendor
from server.dialects.registry import DIALECTS
from server.routing.catalog import Catalog
from server.routing.shared_stats import SharedStats
from server.vendors.registry import PLAIN, VENDORS
from server.wire.transport import Transport
from server.worker.app import Worker

KEY = "sk-test"
AUTH = (("authorization", f"Bearer {KEY}"),)


@dataclass
class RestReply:
    """A REST response: `status` as Envoy would set it, headers from the metadata, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: The gRPC status code, which REST callers do not see.
    code: grpc.StatusCode | None = None
    messages: int = 0

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The events of a stream; comments are left out, [DONE] is a string."""
        found = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in found]


class Gateway:
    """Stubs of one worker."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel, address: str) -> None:
        self.worker = worker
        self.address = address
        self.channel = channel
        self.chat = chat_service_pb2_grpc.ChatCompletionsStub(channel)
        self.models = model_service_pb2_grpc.ModelsStub(channel)
        self.operations = operations_service_pb2_grpc.OperationsStub(channel)
        self.rest = rest_service_pb2_grpc.RestStub(channel)

    def open(self, body: Any, content_type: str = "application/json", metadata: Any = AUTH) -> Any:
        """Start a REST call; an async iterator of HttpBody."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.rest.CreateChatCompletion(
            HttpBody(content_type=content_type, data=data), metadata=metadata, timeout=30
        )

    async def post(self, body: Any, content_type: str = "application/json", metadata: Any = AUTH) -> RestReply:
        """One REST call, to its end."""
        call = self.open(body, content_type, metadata)
        pieces: list[bytes] = []
        with suppress(grpc.aio.AioRpcError):  # the code is read below
            while (message := await call.read()) is not grpc.aio.EOF:
                pieces.append(message.data)
        headers = {name: str(value) for name, value in await call.initial_metadata()}
        status = int(headers.pop("x-http-status", "200"))
        return RestReply(status, headers, b"".join(pieces), await call.code(), len(pieces))


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    """A small request."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


@asynccontextmanager
async def run_gateway(
    tmp_path: Path,
    configuration: str,
    environ: Mapping[str, str] | None = None,
    shared_stats: SharedStats | None = None,
    *,
    dialects: Mapping[str, Dialect] = DIALECTS,
    vendors: Mapping[str, Vendor] = VENDORS,
    plain: Mapping[str, Vendor] = PLAIN,
) -> AsyncIterator[Gateway]:
    """A worker for a configuration in YAML, to which the API key KEY is added.

    Other parameters as for Worker and Catalog.
    """
    file = tmp_path / "lmchat.yaml"
    file.write_text(f"auth: {{keys: [{{name: test, key: {KEY}}}]}}\n{configuration}")
    config = load(file, environ or {})
    catalog = Catalog(config, environ or {}, dialects, vendors, plain)
    worker = Worker(config, catalog, Transport(), shared_stats=shared_stats, dialects=dialects)
    address = await worker.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            yield Gateway(worker, channel, address)
        finally:
            await worker.stop()
