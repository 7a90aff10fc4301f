"""One slice: load on one target for a few seconds, and the CPU that the target used."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import psutil

from lmchat_dev.bench.jobs import Api, Job, Tally, Window
from lmchat_dev.bench.processes import Process, cpu, python
from lmchat_dev.bench.targets import Mock, Target

SATURATED_LOAD = 0.9
"""CPU seconds per second from which the generator or the mock counts as saturated."""


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of times in milliseconds."""

    p50: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Percentiles | None:
        """None where there are no times."""
        if not times:
            return None
        ranked = sorted(times)
        last = len(ranked) - 1
        return cls(ranked[last // 2], ranked[min(last, round(last * 0.99))], ranked[-1])


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The load of a slice, independent of the target. Fields as in Job."""

    name: str
    kind: str = "unary"
    """`unary` or `stream`."""
    model: str = "unary"
    """`fast-N` is replaced by the target's name for it."""
    concurrency: int = 16
    turns: int = 1
    min_events: int = 0
    ramp_up: float = 0.0
    endless: bool = False
    seconds: float = 0.0
    """The least length of the window; 0: the run's."""
    warm_up: float = 0.0
    """The least length of the warm-up in seconds; 0: the run's."""

    def job(self, target: Target) -> Job:
        """This load on that target."""
        name, dash, number = self.model.partition("-")
        model = f"{target.fast}{dash}{number}" if name == "fast" else self.model
        return Job(
            api=target.api,
            port=target.service.port,
            path=target.path,
            headers=dict(target.headers),
            model=model,
            stream=self.kind == "stream",
            concurrency=self.concurrency,
            turns=self.turns,
            # lmchat gives the role with the first token, and gRPC has no [DONE].
            min_events=self.min_events,
            ramp_up=self.ramp_up,
            endless=self.endless,
        )


class Slice(msgspec.Struct, kw_only=True):
    """The result of one slice. Rates are per second; `cpu` is CPU seconds per second, by role."""

    scenario: str
    shape: str
    target: str
    round: int
    seconds: float
    requests: float
    events: float
    events_per_read: float
    latency: Percentiles | None
    first_token: Percentiles | None
    gap: Percentiles | None
    cpu: dict[str, float]
    generator_cpu: float
    mock_cpu: float
    other_cpu: float
    """CPU seconds per second of all processes that are not part of the benchmark."""
    open: int
    unfinished: int
    errors: int
    problems: list[str]

    @property
    def cpu_ms_per_request(self) -> float | None:
        """Of all processes of the gateway."""
        return 1000 * sum(self.cpu.values()) / self.requests if self.cpu and self.requests else None

    def cpu_ms_per_1000_events(self, *roles: str) -> float | None:
        """Of all processes of the gateway, or of these roles."""
        used = sum(self.cpu[role] for role in roles or self.cpu if role in self.cpu)
        return 1_000_000 * used / self.events if used and self.events else None


class Generator:
    """A load generator's process."""

    def __init__(self, api: Api, log: Path) -> None:
        self._process = Process(f"generator-{api}", python("lmchat_dev.bench.generator"), log, pipe=True)

    def prepare(self, job: Job) -> Tally | None:
        """Connect the callers; a tally if they cannot be."""
        self._write_line(msgspec.json.encode(job))
        line = self._process.line()
        return None if line == b"ready" else msgspec.json.decode(line, type=Tally)

    def begin(self, window: Window) -> None:
        """Let the callers run."""
        self._write_line(msgspec.json.encode(window))

    def tally(self) -> Tally:
        """The result; waits for the end."""
        return msgspec.json.decode(self._process.line(), type=Tally)

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def _write_line(self, line: bytes) -> None:
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()


class Rig:
    """Takes slices. Starts a generator for each API when it is first needed."""

    def __init__(self, mock: Mock, *, seconds: float, warm_up: float) -> None:
        self._mock = mock
        self._seconds = seconds
        self._warm_up = warm_up
        self._generators: dict[Api, Generator] = {}
        self._logs = tempfile.TemporaryDirectory(prefix="bench-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for generator in self._generators.values():
            generator.stop()
        self._logs.cleanup()

    def take(
        self,
        scenario: str,
        shape: Shape,
        target: Target,
        round_: int,
        *,
        seconds: float | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> Slice:
        """One slice, of `seconds`. `at_end` is called when the window closes, with the load still on."""
        job = shape.job(target)
        generator = self._generator(target.api)
        failure = generator.prepare(job)
        if failure is not None:
            return _slice(scenario, shape, target, round_, failure, {}, 0.0, Window(0.0, 1.0))
        roles = {**target.service.roles(), "mock": [psutil.Process(self._mock.process.pid)]}
        begin = time.monotonic() + max(self._warm_up, shape.warm_up) + shape.ramp_up
        window = Window(begin, begin + (seconds or max(self._seconds, shape.seconds)))
        generator.begin(window)
        _sleep_until(window.begin)
        since, before, machine = time.monotonic(), cpu(roles), _machine()
        _sleep_until(window.end)
        until, after = time.monotonic(), cpu(roles)
        everything = (_machine() - machine) / (until - since)
        if at_end is not None:
            at_end()
        used = {role: (after[role] - before[role]) / (until - since) for role in roles}
        return _slice(scenario, shape, target, round_, generator.tally(), used, everything, window)

    def _generator(self, api: Api) -> Generator:
        found = self._generators.get(api)
        if found is None:
            found = self._generators[api] = Generator(api, Path(self._logs.name) / f"{api}.log")
        return found


def _slice(
    scenario: str,
    shape: Shape,
    target: Target,
    round_: int,
    tally: Tally,
    used: dict[str, float],
    everything: float,
    window: Window,
) -> Slice:
    seconds = window.end - window.begin
    mock = used.pop("mock", 0.0)
    return Slice(
        scenario=scenario,
        shape=shape.name,
        target=target.name,
        round=round_,
        seconds=seconds,
        requests=tally.requests / seconds,
        events=tally.events / seconds,
        events_per_read=tally.events / tally.reads if tally.reads else 0.0,
        latency=Percentiles.of(tally.latencies),
        first_token=Percentiles.of(tally.first_tokens),
        gap=Percentiles.of(tally.gaps),
        cpu=used,
        generator_cpu=tally.busy,
        mock_cpu=mock,
        other_cpu=max(0.0, everything - sum(used.values()) - mock - tally.busy),
        open=tally.open,
        unfinished=tally.unfinished,
        errors=tally.errors,
        problems=tally.problems,
    )


def _machine() -> float:
    """CPU seconds that all cores of the machine have used."""
    times = psutil.cpu_times()
    return times.user + times.system


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
