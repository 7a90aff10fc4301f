"""The load generator, a process with callers in a closed loop. Reads jobs from stdin, writes tallies to stdout.

For each job: a `Job` comes in, `ready` goes out once all callers are connected, a
`Window` comes in, the callers run from then to the window's end, a `Tally` goes out.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any, Protocol

import msgspec

from lmchat_dev.bench import http1
from lmchat_dev.bench.http1 import Exchange, now
from lmchat_dev.bench.jobs import Job, Tally, Window, body

FINISH_TIMEOUT = 8.0
"""Seconds after the window in which calls in progress may finish."""

_KINDS = 5
"""Kinds of errors that a tally shows."""


class Caller(Protocol):
    """One of the callers of a job."""

    async def connect(self) -> None:
        """Open the connection. Raises OSError."""

    async def call(self, exchange: Exchange) -> None:
        """Make one call, to its end. Fills in `exchange`, its `problem` included; cancelling hangs up."""

    async def close(self) -> None:
        """Hang up."""


class RestCaller:
    """A caller over HTTP/1.1 with one connection."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = http1.request(job.path, job.headers, body(job.model, stream=job.stream, turns=job.turns))
        self._connection: http1.Connection | None = None

    async def connect(self) -> None:
        """Open the connection. Raises OSError."""
        self._connection = await http1.Connection.open(self._job.port)

    async def call(self, exchange: Exchange) -> None:
        """See Caller."""
        if self._connection is None or self._connection.closed:
            await self.connect()
        assert self._connection is not None
        await self._connection.call(self._request, exchange, stream=self._job.stream)
        exchange.check(stream=self._job.stream, min_events=self._job.min_events)

    async def close(self) -> None:
        """See Caller."""
        if self._connection is not None:
            self._connection.close()


def callers(job: Job) -> list[Caller]:
    """All callers of a job, not connected yet."""
    if job.api == "rest":
        return [RestCaller(job) for _ in range(job.concurrency)]
    from lmchat_dev.bench import rpc  # imported here since gRPC would add CPU and memory to generators of REST

    return [*rpc.callers(job)]


class Load:
    """The calls of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._callers = callers(job)
        self._finished: list[Exchange] = []
        self._open: set[Exchange] = set()
        self._problems: list[str] = []

    async def connect(self) -> None:
        """Connect all callers, a few at a time."""
        for at in range(0, len(self._callers), 50):
            await asyncio.gather(*(caller.connect() for caller in self._callers[at : at + 50]))

    async def run(self, window: Window) -> Tally:
        """Make calls until the window ends, and wait up to FINISH_TIMEOUT for those in progress."""
        step = self._job.ramp_up / len(self._callers)
        tasks = [
            asyncio.create_task(self._loop(caller, number * step, window.end))
            for number, caller in enumerate(self._callers)
        ]
        await asyncio.sleep(window.begin - now())
        spent = time.process_time()
        await asyncio.sleep(window.end - now())
        busy = (time.process_time() - spent) / (window.end - window.begin)
        open_now = sum(1 for exchange in self._open if exchange.content and not exchange.ended)
        if not self._job.endless:
            await asyncio.wait(tasks, timeout=FINISH_TIMEOUT)
        late = len(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(caller.close() for caller in self._callers))
        tally = self._count(window)
        tally.busy, tally.open = busy, open_now
        tally.unfinished = 0 if self._job.endless else late
        return tally

    async def _loop(self, caller: Caller, wait: float, end: float) -> None:
        await asyncio.sleep(wait)
        while now() < end:
            exchange = Exchange()
            self._open.add(exchange)
            try:
                await caller.call(exchange)
            except OSError as error:
                exchange.problem = f"{type(error).__name__}: {error}"
            finally:
                self._open.discard(exchange)
                self._finished.append(exchange)
            if exchange.problem:
                self._problems.append(exchange.problem)
                await asyncio.sleep(0.02)
            elif self._job.endless:
                self._problems.append("a stream ended that has no end")

    def _count(self, window: Window) -> Tally:
        tally = Tally(errors=len(self._problems), problems=list(dict.fromkeys(self._problems))[:_KINDS])
        begin, end = window.begin, window.end
        for exchange in self._finished:
            if exchange.problem:
                continue
            if begin <= exchange.ended < end:
                tally.requests += 1
                tally.latencies.append(1000 * (exchange.ended - exchange.sent))
            if begin <= exchange.first < end:
                tally.first_tokens.append(1000 * (exchange.first - exchange.sent))
            inside = [arrival for arrival in exchange.arrivals if begin <= arrival[0] < end]
            tally.events += sum(events for _, events in inside)
            tally.reads += len(inside)
            tally.gaps += [1000 * (after - before) for (before, _), (after, _) in pairwise(inside)]
        return tally


async def serve(read: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
    """Do one job after the other, until `read` gives an empty line."""
    while line := await read():
        load = Load(msgspec.json.decode(line, type=Job))
        try:
            await load.connect()
        except OSError as error:
            _write_line(msgspec.json.encode(Tally(errors=1, problems=[f"cannot connect: {error}"])))
            continue
        # A garbage collection within a slice would distort its latencies.
        gc.collect()
        gc.disable()
        _write_line(b"ready")
        tally = await load.run(msgspec.json.decode(await read(), type=Window))
        gc.enable()
        _write_line(msgspec.json.encode(tally))


def _write_line(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


async def main() -> None:
    """Serve stdin."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await serve(reader.readline)


if __name__ == "__main__":
    asyncio.run(main())
