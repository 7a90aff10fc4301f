"""The load against the mock: what it counts, and the errors it finds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lmchat_dev.bench import generator
from lmchat_dev.bench.generator import Load
from lmchat_dev.bench.http1 import now
from lmchat_dev.bench.jobs import Job, Tally, Window

STREAM: dict[str, Any] = {"model": "fast-20", "stream": True}


async def load(port: int, **job: Any) -> Tally:
    load = Load(Job(**{"api": "rest", "port": port, "model": "unary", "concurrency": 2, **job}))
    async with asyncio.timeout(2):
        await load.connect()
        return await load.run(Window(now(), now() + 0.03))


@pytest.mark.parametrize("job", [{}, STREAM, {**STREAM, "min_events": 23}])
async def test_load(mock_port: int, job: dict[str, Any]) -> None:
    tally = await load(mock_port, **job)
    assert tally.requests == len(tally.latencies) > 0
    assert (tally.errors, tally.unfinished, tally.problems) == (0, 0, [])
    assert (tally.reads > 0) == (tally.events >= 20) == ("stream" in job)
    assert 0 < min(tally.first_tokens) <= max(tally.latencies) < 2000


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        ({"model": "status-500"}, "status 500: "),
        ({**STREAM, "min_events": 24}, "23 events instead of 24"),
        ({**STREAM, "model": "broken-3"}, "the stream did not end in [DONE]: "),
        ({**STREAM, "model": "cut-3"}, "ConnectionResetError: "),
        ({**STREAM, "endless": True}, "a stream ended that has no end"),
    ],
)
async def test_load_that_goes_wrong(mock_port: int, job: dict[str, Any], problem: str) -> None:
    tally = await load(mock_port, **job)
    assert tally.errors >= 2
    assert len(tally.problems) == 1
    assert tally.problems[0].startswith(problem)
    assert tally.requests == 0 or "endless" in job


async def test_load_without_an_end(mock_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = await load(mock_port, model="held", stream=True, endless=True, concurrency=3)
    assert (tally.open, tally.unfinished, tally.errors, tally.requests) == (3, 0, 0, 0)
    monkeypatch.setattr(generator, "FINISH_TIMEOUT", 0.01)
    tally = await load(mock_port, model="slow-60000")
    assert (tally.open, tally.unfinished, tally.errors, tally.requests) == (0, 2, 0, 0)
