"""The slices of each scenario, and the order in which they are taken."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import msgspec

from lmchat_dev.bench.measure import Rig, Shape, Slice
from lmchat_dev.bench.processes import Memory, cpu, memory
from lmchat_dev.bench.targets import Target

PLAIN, DIRECT = "envoy", "direct"
"""The target whose latency is subtracted from others', and the one for gaps."""

LMCHAT = ("lmchat-rest", "lmchat-grpc")
ECHO_SINGLE = "echo-1"
CATALOGUE = "lmchat-catalogue"

IDLE_INTERVAL = 0.3
"""Seconds for which the CPU of an idle target is measured."""

PROBE = 0.3
"""Seconds of a slice whose figures are not used."""

CONCURRENCY = 16
"""Concurrency at which throughput is measured."""


@dataclass(frozen=True)
class TargetedShape:
    """A shape and its targets; None: all targets that support its kind."""

    shape: Shape
    targets: frozenset[str] | None = None

    def takes(self, target: Target) -> bool:
        """Whether `target` gets this load."""
        if self.targets is not None:
            return target.name in self.targets
        return self.shape.kind in target.kinds and target.name != CATALOGUE


CALLERS_1 = Shape(name="c=1", concurrency=1)
CALLERS_16 = Shape(name="c=16", concurrency=CONCURRENCY)

FAST = Shape(name="fast", kind="stream", model="fast-1000", concurrency=CONCURRENCY, min_events=1000)
FIRST = Shape(name="first token", kind="stream", model="fast-20", concurrency=1, min_events=20)
BURST = Shape(
    name="burst", kind="stream", model="burst-50", concurrency=CONCURRENCY, endless=True, ramp_up=0.5, seconds=0.5
)
PACED = Shape(
    name="paced",
    kind="stream",
    model="paced-20",
    concurrency=300,
    endless=True,
    ramp_up=1.0,
    warm_up=0.5,
    seconds=1.0,
)

STREAMS_16 = Shape(name="16 streams", kind="stream", model="fast-1000", concurrency=CONCURRENCY, min_events=1000)
STREAMS_64 = Shape(
    name="64 streams", kind="stream", model="fast-1000", concurrency=4 * CONCURRENCY, min_events=1000, warm_up=1.0
)

CONNECTIONS = (
    Shape(name="1 connection", concurrency=1),
    Shape(name="16 connections", concurrency=CONCURRENCY),
    Shape(name="100 connections", concurrency=100),
    # One call on each connection takes as long as a thousand calls on one.
    Shape(name="1000 connections", concurrency=1000, warm_up=2.0, seconds=1.0),
)
LONG_BODY = Shape(name="100 KB body", concurrency=CONCURRENCY, turns=200)
CATALOGUE_SHAPE = Shape(name="10,000 models", concurrency=CONCURRENCY, model="vendor-7/model-9957")

_BEGUN = time.monotonic()
_STREAM_TARGETS = frozenset({DIRECT, PLAIN, *LMCHAT, "litellm", "portkey"})
_LMCHAT_REST = frozenset({"lmchat-rest"})

SCENARIOS: Mapping[str, Sequence[TargetedShape]] = {
    "memory": (),
    "unary": (TargetedShape(CALLERS_1), TargetedShape(CALLERS_16)),
    "stream": (TargetedShape(FIRST), TargetedShape(FAST), TargetedShape(BURST, _STREAM_TARGETS)),
    "paced": (TargetedShape(PACED, _STREAM_TARGETS),),
    "overload": (TargetedShape(STREAMS_16, _LMCHAT_REST), TargetedShape(STREAMS_64, _LMCHAT_REST)),
    "flatness": (
        *(TargetedShape(shape, _LMCHAT_REST) for shape in CONNECTIONS),
        TargetedShape(CONNECTIONS[1], frozenset({"echo"})),
        TargetedShape(LONG_BODY, frozenset({"echo", "lmchat-rest"})),
        TargetedShape(CATALOGUE_SHAPE, frozenset({CATALOGUE})),
    ),
}
"""By name, in the order in which they run: memory first, on fresh processes."""


class Footprint(msgspec.Struct, kw_only=True):
    """Memory of one target, by role: after its first calls, and with `streams` streams open."""

    target: str
    processes: dict[str, int]
    at_rest: dict[str, Memory]
    streams: int
    open: dict[str, Memory]


class Results(msgspec.Struct):
    """All that was measured."""

    slices: list[Slice] = []
    footprints: list[Footprint] = []
    refusals: dict[str, str] = {}
    """`<target> <kind>` -> the error of a target that does not support this kind of call."""


class Run:
    """Takes the slices of the chosen scenarios."""

    def __init__(self, rig: Rig, targets: Sequence[Target], *, rounds: int, streams: int) -> None:
        self._rig = rig
        self._targets = targets
        self._rounds = rounds
        self._streams = streams
        self._exits = ExitStack()
        self.results = Results()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def __call__(self, scenarios: Sequence[str]) -> Results:
        """Run them."""
        self._probe()
        for name in scenarios:
            if name == "memory":
                self._memory()
            else:
                self._scenario(name)
        return self.results

    def _scenario(self, name: str) -> None:
        for round_ in range(self._rounds):
            progress(f"{name}, round {round_ + 1} of {self._rounds}")
            turn = round_ % len(self._targets)
            for load in SCENARIOS[name]:
                for target in (*self._targets[turn:], *self._targets[:turn]):
                    if load.takes(target) and f"{target.name} {load.shape.kind}" not in self.results.refusals:
                        self._slice(name, load.shape, target, round_)

    def _slice(self, scenario: str, shape: Shape, target: Target, round_: int) -> None:
        taken = self._rig.take(scenario, shape, target, round_)
        self.results.slices.append(taken)
        if target.peer and _is_still_busy(target):
            # With calls whose callers left, which would slow down the next scenario.
            progress(f"{target.name} is still busy: restarting it")
            target.service.restart()

    def _probe(self) -> None:
        """One call of each kind, to warm the target up and to find the kinds that it does not support."""
        progress("first calls")
        shapes = (Shape(name="unary", concurrency=1), Shape(name="stream", kind="stream", concurrency=1))
        for target in self._targets:
            for shape in shapes:
                if shape.kind not in target.kinds:
                    continue
                probe = self._first(shape, target)
                if not probe.requests:
                    problem = probe.problems[0] if probe.problems else "no answer in time"
                    self.results.refusals[f"{target.name} {shape.kind}"] = problem
                elif probe.errors:
                    self.results.slices.append(probe)

    def _first(self, shape: Shape, target: Target) -> Slice:
        """The first calls of a kind, with a longer window where the first is too short for them."""
        for seconds in (PROBE, 10 * PROBE):
            probe = self._rig.take("probe", shape, target, 0, seconds=seconds)
            if probe.requests or probe.errors:
                break
        return probe

    def _memory(self) -> None:
        for target in self._targets:
            if target.name in ("echo", *LMCHAT) or target.peer:
                progress(f"memory of {target.name}")
                self.results.footprints.append(self._footprint(target))

    def _footprint(self, target: Target) -> Footprint:
        service = target.service.new_instance()
        self._exits.callback(service.stop)
        service.start()
        service.ready()
        restarted = replace(target, service=service)
        self._rig.take("memory", CALLERS_1, restarted, 0, seconds=PROBE)
        count, found = 0, dict[str, Memory]()
        if f"{target.name} stream" not in self.results.refusals:
            self._held(restarted, 20, found)
            time.sleep(0.5)  # until the cancelled streams are released
            # Peers open streams an order of magnitude slower.
            count = self._streams // 10 if target.peer else self._streams
        at_rest = _memory(restarted)
        count = self._held(restarted, count, found) if count else 0
        processes = {role: len(those) for role, those in service.roles().items()}
        service.terminate()  # it is idle, so it can end while others are measured
        return Footprint(target=target.name, processes=processes, at_rest=at_rest, streams=count, open=found)

    def _held(self, target: Target, count: int, found: dict[str, Memory]) -> int:
        """Open `count` streams without events and put the memory into `found`; returns how many were open."""
        pace = 20 if target.peer else 500
        shape = Shape(
            name="held", kind="stream", model="held", endless=True, concurrency=count,
            ramp_up=count / pace, warm_up=0.5 + count / 1000,
        )  # fmt: skip
        taken = self._rig.take(
            "memory", shape, target, 0, seconds=PROBE, at_end=lambda: found.update(_memory(target))
        )
        if taken.open != count:
            taken.errors += count - taken.open
            taken.problems.append(f"{taken.open} of {count} streams were open")
        self.results.slices.append(taken)
        return taken.open


def _memory(target: Target) -> dict[str, Memory]:
    return {role: memory(processes) for role, processes in target.service.roles().items()}


def progress(text: str) -> None:
    """Write a progress line with the seconds since the benchmark started."""
    sys.stderr.write(f"bench: {time.monotonic() - _BEGUN:4.0f} s: {text}\n")
    sys.stderr.flush()


def _is_still_busy(target: Target) -> bool:
    """Whether the target uses CPU without calls in progress."""
    roles = target.service.roles()
    before = sum(cpu(roles).values())
    time.sleep(IDLE_INTERVAL)
    return sum(cpu(roles).values()) - before > 0.2 * IDLE_INTERVAL
