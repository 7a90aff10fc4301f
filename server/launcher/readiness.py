"""Probes that return once something answers. They try for as long as it takes; their caller cancels them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

_POLL_INTERVAL = 0.05  # seconds between two tries
_TRY_TIMEOUT = 2.0  # seconds of one try


async def grpc_serving(address: str) -> None:
    """Returns once the gRPC server at `address` reports SERVING."""
    backoff = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
    async with grpc.aio.insecure_channel(address, options=backoff) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                response = await health.Check(health_pb2.HealthCheckRequest(), timeout=_TRY_TIMEOUT)
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(_POLL_INTERVAL)


async def http_ok(url: str, *, socket_path: Path | None = None, containing: str = "") -> None:
    """Returns once GET `url` gives a 200 whose text contains `containing`; over a unix socket at `socket_path`."""
    request = httpx.Request("GET", url, extensions={"timeout": httpx.Timeout(_TRY_TIMEOUT).as_dict()})
    async with httpx.AsyncHTTPTransport(uds=str(socket_path) if socket_path else None) as transport:
        while True:
            try:
                response = await transport.handle_async_request(request)
                text = (await response.aread()).decode(errors="replace")
                if response.status_code == 200 and containing in text:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_POLL_INTERVAL)
