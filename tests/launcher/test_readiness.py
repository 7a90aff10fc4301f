"""Health checks of running servers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from server.launcher import readiness

DEADLINE = 20.0


async def test_a_server_that_does_not_accept_calls_is_unresponsive(tmp_path: Path) -> None:
    """As a stopped process: the kernel accepts its connections, and no more happens."""
    path = tmp_path / "frozen.sock"
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(path))
        frozen.listen()
        async with asyncio.timeout(DEADLINE):
            seen = await readiness.grpc_unresponsive(f"unix:{path}", timeout=0.05)
    assert seen == "has not answered 3 health checks of 0.05 s each"


async def test_any_status_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that drains is not killed; once its calls fail, it is."""
    monkeypatch.setattr(readiness, "PROBE_INTERVAL", 0.0)
    answered = asyncio.Event()

    class Draining(health.aio.HealthServicer):
        checks = 0

        async def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
            self.checks += 1
            if self.checks > 2 * readiness.MAX_FAILED_PROBES:
                answered.set()
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)

    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Draining(), server)
    address = f"unix:{tmp_path / 'worker.sock'}"
    server.add_insecure_port(address)
    await server.start()
    probing = asyncio.create_task(readiness.grpc_unresponsive(address, timeout=DEADLINE / 10))
    async with asyncio.timeout(DEADLINE):
        await answered.wait()
        assert not probing.done()
        probing.cancel()
        await asyncio.wait([probing])
        await server.stop(None)
        assert await readiness.grpc_unresponsive(address, timeout=0.05)
