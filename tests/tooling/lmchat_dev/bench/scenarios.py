"""Which slices there are, and the order in which they are taken."""

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
"""The target that others' latency is compared with, and the one for their gaps."""

LMCHAT = ("lmchat-rest", "lmchat-grpc")
ECHO_SINGLE = "echo-1"
CATALOGUE = "lmchat-catalogue"

LULL = 0.3
"""Seconds in which a target that nobody calls should use no CPU."""

PROBE = 0.3
"""Seconds of a slice that is not for its figures."""

BUSY = 16
"""Concurrency at which throughput is measured."""


@dataclass(frozen=True)
class Turn:
    """A shape, and the targets it is for; None: all that have its kind."""

    shape: Shape
    targets: frozenset[str] | None = None

    def takes(self, target: Target) -> bool:
        """Whether this target gets this load."""
        if self.targets is not None:
            return target.name in self.targets
        return self.shape.kind in target.kinds and target.name != CATALOGUE


ALONE = Shape(name="c=1", concurrency=1)
CROWD = Shape(name="c=16", concurrency=BUSY)

FAST = Shape(name="fast", kind="stream", model="fast-1000", concurrency=BUSY, least_events=1000)
FIRST = Shape(name="first token", kind="stream", model="fast-20", concurrency=1, least_events=20)
BURST = Shape(
    name="burst", kind="stream", model="burst-50", concurrency=BUSY, endless=True, spread=0.5, seconds=0.5
)
PACED = Shape(
    name="paced",
    kind="stream",
    model="paced-20",
    concurrency=300,
    endless=True,
    spread=1.0,
    warm_up=0.5,
    seconds=1.0,
)

FEW = Shape(name="16 streams", kind="stream", model="fast-1000", concurrency=BUSY, least_events=1000)
MANY = Shape(
    name="64 streams", kind="stream", model="fast-1000", concurrency=4 * BUSY, least_events=1000, warm_up=1.0
)

CONNECTIONS = (
    Shape(name="1 connection", concurrency=1),
    Shape(name="16 connections", concurrency=BUSY),
    Shape(name="100 connections", concurrency=100),
    # One call of each takes as long as a thousand of one.
    Shape(name="1000 connections", concurrency=1000, warm_up=2.0, seconds=1.0),
)
LONG = Shape(name="100 KB body", concurrency=BUSY, turns=200)
CATALOGUE_SHAPE = Shape(name="10,000 models", concurrency=BUSY, model="vendor-7/model-9957")

_BEGUN = time.monotonic()
_STREAMERS = frozenset({DIRECT, PLAIN, *LMCHAT, "litellm", "portkey"})
_FLAT = frozenset({"lmchat-rest"})

SCENARIOS: Mapping[str, Sequence[Turn]] = {
    "memory": (),
    "unary": (Turn(ALONE), Turn(CROWD)),
    "stream": (Turn(FIRST), Turn(FAST), Turn(BURST, _STREAMERS)),
    "paced": (Turn(PACED, _STREAMERS),),
    "overload": (Turn(FEW, _FLAT), Turn(MANY, _FLAT)),
    "flatness": (
        *(Turn(shape, _FLAT) for shape in CONNECTIONS),
        Turn(CONNECTIONS[1], frozenset({"echo"})),
        Turn(LONG, frozenset({"echo", "lmchat-rest"})),
        Turn(CATALOGUE_SHAPE, frozenset({CATALOGUE})),
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
    """What targets said that could not do a kind of call at all, by `target kind`."""


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
        if target.peer and _works_on(target):
            # For callers that left; it would slow down the next scenario.
            progress(f"{target.name} works on: starting it again")
            target.service.restart()

    def _probe(self) -> None:
        """One call of each kind: it warms a target up, and shows what it cannot do."""
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
        """The first calls of a kind; of all that a target does, they may take longest."""
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
        service = target.service.again()
        self._exits.callback(service.stop)
        service.start()
        service.ready()
        fresh = replace(target, service=service)
        self._rig.take("memory", ALONE, fresh, 0, seconds=PROBE)
        count, found = 0, dict[str, Memory]()
        if f"{target.name} stream" not in self.results.refusals:
            self._held(fresh, 20, found)
            time.sleep(0.5)  # hanging up takes effect
            # Others open them an order of magnitude slower.
            count = self._streams // 10 if target.peer else self._streams
        at_rest = _memory(fresh)
        count = self._held(fresh, count, found) if count else 0
        processes = {role: len(those) for role, those in service.roles().items()}
        service.terminate()  # it has nothing to do while it leaves
        return Footprint(target=target.name, processes=processes, at_rest=at_rest, streams=count, open=found)

    def _held(self, target: Target, count: int, found: dict[str, Memory]) -> int:
        """Open `count` silent streams; `found` is the memory then. How many were open."""
        pace = 20 if target.peer else 500
        shape = Shape(
            name="held", kind="stream", model="held", endless=True, concurrency=count,
            spread=count / pace, warm_up=0.5 + count / 1000,
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
    """Say what is being done, with the seconds since the benchmark was started."""
    sys.stderr.write(f"bench: {time.monotonic() - _BEGUN:4.0f} s: {text}\n")
    sys.stderr.flush()


def _works_on(target: Target) -> bool:
    """Whether it uses CPU though nobody calls it."""
    roles = target.service.roles()
    before = sum(cpu(roles).values())
    time.sleep(LULL)
    return sum(cpu(roles).values()) - before > 0.2 * LULL
