"""The mock of a provider, on loopback, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from lmchat_dev.bench.mock import Connection, Stats


@pytest.fixture
async def mock_port() -> AsyncIterator[int]:
    stats, connections = Stats(), list[Connection]()

    def accepted() -> Connection:
        connections.append(Connection(stats))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(accepted, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in connections:
        connection.transport.abort()
    await asyncio.sleep(0)  # one turn of the loop, in which they are closed
