"""Statistics of endpoints shared by the workers of one machine."""

from __future__ import annotations

import multiprocessing
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path

import pytest

from server.config.model import Circuit
from server.errors import ProviderError, Reason
from server.routing.shared_stats import FIRST_WORD, LAST_WORD, SIZE, SharedStats
from server.routing.stats import EndpointStats, Snapshot
from tests.routing.routing_help import Clock

FAILED = ProviderError(Reason.UPSTREAM_ERROR, "It failed.", http_status=500)
PROCESSES = SpawnContext()


def test_a_record() -> None:
    clock = Clock(5.0)
    stats = SharedStats.private(clock)
    assert stats.find("a") is None
    with stats.change("a") as record:
        assert [*record[FIRST_WORD : LAST_WORD + 1]] == [0.0] * (LAST_WORD + 1 - FIRST_WORD)
        record[FIRST_WORD], record[LAST_WORD] = 1.5, 2.5
    found = stats.find("a")
    assert found is not None
    assert (found[FIRST_WORD], found[LAST_WORD]) == (1.5, 2.5)
    assert stats.find("b") is None
    assert [name for name, *_ in stats.endpoints()] == ["a"]


@pytest.mark.parametrize(
    ("endpoint_id", "shown"),
    [("p/n/m", "p/n/m"), ("é" * 50, "é" * 50), ("x" * 1000, "x" * 159), ("é" * 100, "é" * 79)],
)
def test_ids_of_any_length(endpoint_id: str, shown: str) -> None:
    stats = SharedStats.private(Clock())
    with stats.change(endpoint_id) as record:
        record[LAST_WORD] = 1.0
    assert [(name, record[LAST_WORD]) for name, record, _ in stats.endpoints()] == [(shown, 1.0)]
    assert stats.find(endpoint_id + "?") is None


def test_invented_names_do_not_evict_configured_endpoints() -> None:
    """A copy does not change, and endpoints of an earlier configuration are not listed twice."""
    clock = Clock()
    settings = Circuit(min_requests=1, cooldown=1e6)
    shared = SharedStats.private(clock)
    configured = [f"p/real/{number}" for number in range(1000)]
    stats = EndpointStats(settings, shared, configured=configured)
    for endpoint_id in configured:
        stats.failed(stats.begin(endpoint_id), FAILED)
    for number in range(30_000):
        clock.now += 1
        stats.failed(stats.begin(f"p/wild/{number}"), FAILED)
    assert all(map(stats.is_open, configured))
    copy = stats.copy()
    stats.failed(stats.begin("p/real/0"), FAILED)
    before, now = dict(copy.snapshots()), dict(stats.snapshots())
    assert sum(snapshot.configured for snapshot in before.values()) == 1000
    assert len(before) == 1000 + 8192
    assert (before["p/real/0"].failures, now["p/real/0"].failures) == (1, 2)
    fewer = EndpointStats(settings, shared, configured=configured[:10])
    fewer.failed(fewer.begin("p/real/999"), FAILED)  # through a wildcard now
    names = [name for name, _ in fewer.snapshots()]
    assert len(names) == len(set(names))
    assert names.count("p/real/999") == 1


def test_the_longest_unused_makes_room_and_leaves_nothing() -> None:
    clock = Clock()
    stats = SharedStats.private(clock)
    for number in range(30_000):
        clock.now += 1
        with stats.change(f"wild/{number}") as record:
            assert record[FIRST_WORD] == record[LAST_WORD] == 0.0
            record[FIRST_WORD] = record[LAST_WORD] = float(number)
    left = {name: record[FIRST_WORD] for name, record, _ in stats.endpoints()}
    assert len(left) == 8192
    assert all(name == f"wild/{number:.0f}" for name, number in left.items())
    # The newest eight of a set stay: hardly any of the last thousand fell to a run on one set.
    assert sum(number >= 29_000 for number in left.values()) == 1000


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    SharedStats.open(tmp_path / "stats", Clock())
    status = (tmp_path / "stats").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, SIZE)


def test_statistics_of_an_earlier_boot_are_cleared(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    before = EndpointStats(Circuit(min_requests=1, cooldown=1e6), SharedStats.open(tmp_path / "stats", clock))
    before.failed(before.begin("e"), FAILED)
    clock.now += 1
    after = EndpointStats(Circuit(), SharedStats.open(tmp_path / "stats", clock))
    assert after.snapshot("e").state == "open"
    rebooted = EndpointStats(Circuit(), SharedStats.open(tmp_path / "stats", Clock(20.0)))
    assert rebooted.snapshot("e") == Snapshot()


def test_an_unusable_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        SharedStats.open(tmp_path / "none" / "stats", Clock())


def _open_circuit(path: Path) -> None:
    health = EndpointStats(Circuit(min_requests=1, cooldown=0.2), SharedStats.open(path, time.monotonic))
    health.failed(health.begin("e"), FAILED)


def test_a_circuit_opened_in_one_worker_is_open_in_all_and_survives_it(tmp_path: Path) -> None:
    path = tmp_path / "stats"
    health = EndpointStats(Circuit(), SharedStats.open(path, time.monotonic))
    assert health.snapshot("e").state == "closed"
    other = PROCESSES.Process(target=_open_circuit, args=(path,))
    other.start()
    other.join()
    assert other.exitcode == 0
    assert health.snapshot("e").state in ("open", "half_open")
    assert health.snapshot("e").failures == 1


def _count_and_probe(path: Path, pipe: Connection) -> None:
    """Count in a loop, then send how many of 1,000 calls at a half-open circuit were its probe."""
    health = EndpointStats(Circuit(min_requests=10**9, cooldown=1e6), SharedStats.open(path, time.monotonic))
    pipe.send("ready")
    pipe.recv()
    for _ in range(2000):
        health.stream_completed(health.begin("counted"))
    pipe.send("counted")
    pipe.recv()
    pipe.send(sum(health.begin("probed").probe for _ in range(1000)))


@contextmanager
def _workers(number: int, path: Path) -> Iterator[list[Connection]]:
    """Processes with separate mappings of the statistics."""
    pairs = [multiprocessing.Pipe() for _ in range(number)]
    processes = [PROCESSES.Process(target=_count_and_probe, args=(path, theirs)) for _, theirs in pairs]
    for process in processes:
        process.start()
    try:
        yield [ours for ours, _ in pairs]
        for process in processes:
            process.join()
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()
        for pair in pairs:
            for end in pair:
                end.close()


def test_concurrent_workers_lose_no_count_and_probe_once(tmp_path: Path) -> None:
    path = tmp_path / "stats"
    early = Clock(1.0)  # long past, by the workers' clock, is the end of a cooldown that begins here
    stale = EndpointStats(Circuit(min_requests=1, cooldown=0.1), SharedStats.open(path, early))
    stale.failed(stale.begin("probed"), FAILED)
    with _workers(3, path) as pipes:
        assert [pipe.recv() for pipe in pipes] == ["ready"] * 3
        for pipe in pipes:
            pipe.send("count")
        assert [pipe.recv() for pipe in pipes] == ["counted"] * 3
        assert stale.snapshot("counted").answers == 6000
        for pipe in pipes:
            pipe.send("probe")
        assert sum(pipe.recv() for pipe in pipes) == 1


def _hold(path: Path, pipe: Connection) -> None:
    with SharedStats.open(path, time.monotonic).change("e"):
        pipe.send("held")
        pipe.recv()


def test_a_worker_suspended_with_the_lock_blocks_no_other(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    other = PROCESSES.Process(target=_hold, args=(tmp_path / "stats", theirs))
    other.start()
    assert ours.recv() == "held"
    with SharedStats.open(tmp_path / "stats", time.monotonic).change("e") as record:
        record[FIRST_WORD] = 1.0
    other.kill()
    other.join()
    other.close()
    ours.close()
    theirs.close()
