"""The soak: outcomes of calls to the mock, and the leaks it reports."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from lmchat_dev.bench import soak_mix
from lmchat_dev.bench.mock import Stats
from lmchat_dev.bench.soak import CALLERS, ProcessState, leaks, unexpected
from lmchat_dev.bench.soak_mix import KINDS, Caller, Kind, sequence

STREAM: dict[str, Any] = {"model": "fast-20", "stream": True}
NEXT = Kind(name="next", weight=1, expected=frozenset({"answer"}), model="unary")


@pytest.mark.parametrize(
    ("expected", "kind", "outcome"),
    [
        ("answer", {}, "answer"),
        ("answer", {**STREAM, "new_connection": True}, "answer"),
        ("500", {"model": "status-500"}, "500"),
        ("answer", {"model": "status-500"}, "status 500: "),
        ("hung up", {"model": "held", "stream": True, "hang_up": "middle"}, "hung up"),
        ("hung up", {"model": "slow-60000", "hang_up": "before"}, "hung up"),
        ("hung up", {"hang_up": "middle"}, "answer"),
        ("error event", {"model": "broken-3", "stream": True}, "the stream did not end in [DONE]: "),
        ("error event", {"model": "cut-3", "stream": True}, "ConnectionResetError: "),
    ],
)
async def test_outcomes(mock_port: int, expected: str, kind: dict[str, Any], outcome: str) -> None:
    caller = Caller(mock_port, "key")
    kinds = {"this": Kind(name="this", weight=1, expected=frozenset({expected}), **{"model": "unary", **kind})}
    async with asyncio.timeout(2):
        first, second = [await caller.make(kind) for kind in (kinds["this"], NEXT)]
    await caller.close()
    assert first.startswith(outcome)
    assert second == "answer"
    wrong = [] if first == expected else [f"1 x this: {first}"]
    assert unexpected(kinds, {"this": Counter([first])}) == wrong


async def test_a_hung_call_does_not_spoil_the_next(mock_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(mock_port, "key")
    for hang_up in ("", "middle"):
        with monkeypatch.context() as patch:
            patch.setattr(soak_mix, "CALL_TIMEOUT", 0.02)
            hung = Kind(name="hung", weight=1, expected=frozenset(), model="slow-60000", hang_up=hang_up)
            async with asyncio.timeout(2):
                assert await caller.make(hung) == "no answer in 0.02 s"
        assert await caller.make(NEXT) == "answer"
    await caller.close()


def test_the_mix_is_the_same_for_the_same_seed() -> None:
    assert sequence(50, 1) == sequence(50, 1) != sequence(50, 2)
    assert {*sequence(20_000, 1)} == {*KINDS}


# What counts as left behind

IDLE = ProcessState(pid=7, rss=100_000_000, fds=50, sockets=20, upstream=6, threads=10)
LARGE = msgspec.structs.replace(IDLE, pid=8, rss=20_000_000)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"rss": 110_000_000}, []),
        ({"rss": 110_000_001}, ["the memory of worker grew by 10.0 MB"]),
        ({"rss": 10_000_000}, []),
        ({"fds": 54, "sockets": 16, "threads": 14, "upstream": 60}, []),
        ({"fds": 55}, ["worker has +5 fds"]),
        ({"sockets": 25, "threads": 5}, ["worker has +5 sockets", "worker has -5 threads"]),
        ({"pid": 9}, ["a process of the gateway ended in the middle of the soak"]),
    ],
)
def test_left_behind_by_the_gateway(change: dict[str, int], found: list[str]) -> None:
    after = {"worker": msgspec.structs.replace(IDLE, **change), "envoy": LARGE}
    assert leaks({"worker": IDLE, "envoy": LARGE}, after, Stats()) == found


def test_left_behind_by_small_processes_and_missing_ones() -> None:
    grown = {"envoy": msgspec.structs.replace(LARGE, rss=28_000_000)}
    assert leaks({"envoy": LARGE}, grown, Stats()) == []
    grown = {"envoy": msgspec.structs.replace(LARGE, rss=28_000_001)}
    assert leaks({"envoy": LARGE}, grown, Stats()) == ["the memory of envoy grew by 8.0 MB"]
    one, two = {"envoy": LARGE}, {"envoy": LARGE, "worker": IDLE}
    for before, after in ((one, two), (two, one)):
        [line] = leaks(before, after, Stats())
        assert "ended" in line


@pytest.mark.parametrize(
    ("stats", "pooled", "found"),
    [
        (Stats(running=0, connections=CALLERS, requests=9, abandoned=9), 0, ""),
        (Stats(running=0, connections=CALLERS + 1), CALLERS + 1, ""),
        (Stats(running=0, connections=CALLERS + 1), 3, f"the mock has {CALLERS + 1} connections"),
        (Stats(running=2, connections=2), 2, "2 calls still run upstream"),
    ],
)
def test_left_behind_upstream(stats: Stats, pooled: int, found: str) -> None:
    look = {"worker": msgspec.structs.replace(IDLE, upstream=pooled)}
    lines = leaks(look, look, stats)
    assert [line.startswith(found) for line in lines] == [True] * bool(found)
