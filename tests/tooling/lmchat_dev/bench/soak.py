"""`uv run bench soak`: tens of thousands of mixed calls through a real gateway, and the leaks they cause.

Memory, file descriptors, sockets and threads are compared when the gateway is
idle: after a warm-up of the same mix, and after the soak. Exit code 1 when an
outcome was unexpected, a process was restarted, or a limit below is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec
import psutil

from lmchat_dev.bench import report
from lmchat_dev.bench.mock import Stats
from lmchat_dev.bench.soak_mix import Caller, Kind, sequence
from lmchat_dev.bench.targets import KEY, Lmchat, Mock, running_gateway

CALLERS = 32
WORKERS = 2
WARM_UP = 5_000
"""Calls before the first measurement."""

MAX_COUNT_CHANGE = 4
"""The most by which the number of file descriptors, sockets or threads of a process may change."""

MAX_GROWTH, MAX_GROWTH_BYTES = 0.10, 8_000_000
"""The most by which a process's memory may grow: a share, or bytes, whichever is more."""

SETTLE_TIMEOUT = 15.0
"""Seconds within which abandoned calls must have ended at the mock."""

POLL_INTERVAL = 0.2
"""Seconds between two checks of that."""

CLOSE_WAIT = 3.0
"""Seconds after the last call, in which connections close and buffers are released."""

Outcomes = dict[str, Counter[str]]
"""Kind of call -> number of calls with each outcome."""


class ProcessState(msgspec.Struct, frozen=True):
    """Resources of one process of the idle gateway.

    `upstream` are its pooled connections to the mock, which `fds` and `sockets`
    do not count.
    """

    pid: int
    rss: int
    fds: int
    sockets: int
    upstream: int
    threads: int


def main(arguments: Sequence[str]) -> int:
    """Run the soak; the exit code."""
    parser = argparse.ArgumentParser(prog="bench soak", description="Send many mixed calls and look for leaks.")
    parser.add_argument("--requests", type=int, default=50_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the mix's order; default: %(default)s")
    options = parser.parse_args(arguments)
    sys.stdout.write(f"{report.machine()}\n")
    with running_gateway(WORKERS) as (mock, gateway):
        return asyncio.run(_soak(mock, gateway, options.warm_up, options.requests, options.seed))


async def _soak(mock: Mock, gateway: Lmchat, warm_up: int, requests: int, seed: int) -> int:
    calls = sequence(requests, seed)
    await _calls(gateway.port, sequence(warm_up, seed - 1), "warm-up")
    before_mock = await _idle(mock)
    before = _states(mock, gateway)
    started_at = time.monotonic()
    outcomes = await _calls(gateway.port, calls, "soak")
    elapsed = time.monotonic() - started_at
    after_mock = await _idle(mock)
    after = _states(mock, gateway)
    kinds = {kind.name: kind for kind in calls}
    sys.stdout.write(
        f"{requests} calls by {CALLERS} callers in {elapsed:.0f} s, {requests / elapsed:.0f} a second\n\n"
    )
    sys.stdout.write(_mix(kinds, outcomes) + "\n" + _before_and_after(before, after) + "\n")
    sys.stdout.write(
        f"The mock: {after_mock.requests - before_mock.requests} calls, "
        f"{after_mock.abandoned - before_mock.abandoned} of them left by the gateway; now {after_mock.running} "
        f"running (before: {before_mock.running}), {after_mock.connections} connections "
        f"(before: {before_mock.connections})\n"
    )
    wrong = [*unexpected(kinds, outcomes), *leaks(before, after, after_mock)]
    sys.stdout.write("".join(f"WRONG: {line}\n" for line in wrong) or "Nothing unexpected, nothing left behind.\n")
    return 1 if wrong else 0


async def _calls(port: int, kinds: Sequence[Kind], what: str) -> Outcomes:
    """Make these calls; every connection is closed at the end."""
    waiting = deque(kinds)
    outcomes: Outcomes = {}
    step = max(1, len(kinds) // 10)

    async def work(caller: Caller) -> None:
        while waiting:
            kind = waiting.popleft()
            if not len(waiting) % step:
                sys.stderr.write(f"{what}: {len(waiting)} calls to go\n")
            outcome = await caller.make(kind)
            outcomes.setdefault(kind.name, Counter())[outcome] += 1

    callers = [Caller(port, KEY) for _ in range(CALLERS)]
    await asyncio.gather(*(work(caller) for caller in callers))
    await asyncio.gather(*(caller.close() for caller in callers))
    return outcomes


async def _idle(mock: Mock) -> Stats:
    """Wait until no call runs at the mock, and CLOSE_WAIT more; returns its counters."""
    for _ in range(round(SETTLE_TIMEOUT / POLL_INTERVAL)):
        if not mock.stats().running:
            break
        await asyncio.sleep(POLL_INTERVAL)
    await asyncio.sleep(CLOSE_WAIT)
    return mock.stats()


def _states(mock: Mock, gateway: Lmchat) -> dict[str, ProcessState]:
    """By name: the workers in the order in which they started, Envoy, the supervisor."""
    found = {}
    for role, processes in gateway.roles().items():
        for number, process in enumerate(sorted(processes, key=lambda each: each.pid), 1):
            found[f"{role}-{number}" if len(processes) > 1 else role] = _state(process, mock.port)
    return found


def _state(process: psutil.Process, upstream: int) -> ProcessState:
    sockets = process.net_connections(kind="all")
    pooled = sum(1 for each in sockets if each.raddr and each.raddr[1:] == (upstream,))
    return ProcessState(
        pid=process.pid,
        rss=process.memory_info().rss,
        fds=process.num_fds() - pooled,
        sockets=len(sockets) - pooled,
        upstream=pooled,
        threads=process.num_threads(),
    )


def _mix(kinds: Mapping[str, Kind], outcomes: Outcomes) -> str:
    body = []
    for name in sorted(kinds, key=lambda name: -kinds[name].weight):
        counts = ", ".join(f"{count} {outcome[:120]}" for outcome, count in outcomes[name].most_common())
        body.append([name, str(outcomes[name].total()), counts])
    width = max(len(line[2]) for line in body)
    return report.table(
        "The mix", ["call", "calls", "outcome".ljust(width)], [[*a[:2], a[2].ljust(width)] for a in body]
    )


def _before_and_after(before: Mapping[str, ProcessState], after: Mapping[str, ProcessState]) -> str:
    body = []
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            continue
        pairs = [
            (was.fds, now.fds),
            (was.sockets, now.sockets),
            (was.upstream, now.upstream),
            (was.threads, now.threads),
        ]
        memory = [f"{look.rss / 1e6:.1f}" for look in (was, now)]
        growth = f"{(now.rss - was.rss) / 1e6:+.1f}"
        body.append([name, " -> ".join(memory), growth, *(f"{one} -> {other}" for one, other in pairs)])
    head = ["process", "RSS MB", "grown", "fds", "sockets", "pooled upstream", "threads"]
    return report.table("Idle, before and after", head, body)


def unexpected(kinds: Mapping[str, Kind], outcomes: Outcomes) -> list[str]:
    """Outcomes that are not expected of their kind, a line each."""
    return [
        f"{count} x {name}: {outcome}"
        for name, counts in outcomes.items()
        for outcome, count in counts.items()
        if outcome not in kinds[name].expected
    ]


def leaks(before: Mapping[str, ProcessState], after: Mapping[str, ProcessState], mock: Stats) -> list[str]:
    """Differences between before and after that exceed the limits, a line each."""
    lines = []
    if {name: look.pid for name, look in before.items()} != {name: look.pid for name, look in after.items()}:
        lines.append("a process of the gateway ended in the middle of the soak")
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            continue
        for what in ("fds", "sockets", "threads"):
            difference = getattr(now, what) - getattr(was, what)
            if abs(difference) > MAX_COUNT_CHANGE:
                lines.append(f"{name} has {difference:+d} {what}")
    for kind in dict.fromkeys(map(_kind, before)):
        was_rss, now_rss = (
            sum(look.rss for name, look in looks.items() if _kind(name) == kind) for looks in (before, after)
        )
        if now_rss - was_rss > max(MAX_GROWTH * was_rss, MAX_GROWTH_BYTES):
            lines.append(f"the memory of {kind} grew by {(now_rss - was_rss) / 1e6:.1f} MB")
    if mock.running:
        lines.append(f"{mock.running} calls still run upstream, although their callers have left")
    pooled = sum(look.upstream for look in after.values())
    if mock.connections > max(pooled, CALLERS):
        lines.append(f"the mock has {mock.connections} connections, of which the gateway keeps {pooled}")
    return lines


def _kind(name: str) -> str:
    """The role: workers are compared as a group, since each grows by the size of the last bodies that it got."""
    return name.partition("-")[0]
