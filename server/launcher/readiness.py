"""Probes of children: some return once a child answers, one once it has stopped answering.

They try for as long as it takes; their caller cancels them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

_POLL_INTERVAL = 0.05  # seconds between two tries
_TRY_TIMEOUT = 2.0  # seconds of one try
PROBE_INTERVAL = 1.0  # seconds between two health checks of a running server
MAX_FAILED_PROBES = 3  # health checks in a row without an answer, after which a server is unresponsive


async def grpc_serving(address: str) -> None:
    """Returns once the gRPC server at `address` reports SERVING."""
    async with _health_client(address) as check:
        while True:
            try:
                if (await check()).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(_POLL_INTERVAL)


async def grpc_unresponsive(address: str, *, timeout: float = _TRY_TIMEOUT) -> str:
    """Returns once the gRPC server at `address` leaves `MAX_FAILED_PROBES` health checks in a row unanswered.

    Each fails after `timeout` seconds. Checks are counted, not the time since the last answer, since this process
    may itself have been suspended. Returns what was seen, for the log. Any status is an answer: a server
    that drains reports NOT_SERVING.
    """
    failed = 0
    async with _health_client(address, timeout) as check:
        while failed < MAX_FAILED_PROBES:
            try:
                await check()
                failed = 0
                await asyncio.sleep(PROBE_INTERVAL)
            except grpc.aio.AioRpcError as error:
                failed += 1
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    await asyncio.sleep(timeout)
    return f"has not answered {failed} health checks of {timeout:g} s each"


@asynccontextmanager
async def _health_client(
    address: str, timeout: float = _TRY_TIMEOUT
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Yields the health check of the gRPC server at `address`. It raises AioRpcError after `timeout` seconds."""
    backoff = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
    async with grpc.aio.insecure_channel(address, options=backoff) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        yield lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=timeout)


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
