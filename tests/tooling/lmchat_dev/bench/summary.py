"""Figures computed from slices: medians over the rounds, differences, and comparison with the aims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal

import msgspec

from lmchat_dev.bench import scenarios as names
from lmchat_dev.bench.measure import Shape, Slice
from lmchat_dev.bench.scenarios import DIRECT, PLAIN, Footprint, Results

Get = Callable[[Slice], float | None]


class Row(msgspec.Struct, kw_only=True):
    """All figures of one target; None where it was not measured. Times are milliseconds."""

    target: str
    requests: float | None = None
    """Requests a second at concurrency 16."""
    cpu_request: float | None = None
    """CPU per request, of the whole gateway, at concurrency 16."""
    cpu_request_worker: float | None = None
    p50_c1: float | None = None
    p99_c1: float | None = None
    added_p50_c1: float | None = None
    """Difference to the same through a plain Envoy, as in all of `added_*`."""
    added_p99_c1: float | None = None
    p50_c16: float | None = None
    p99_c16: float | None = None
    added_p50_c16: float | None = None
    added_p99_c16: float | None = None
    events: float | None = None
    """Events a second of 16 fast streams."""
    events_per_read: float | None = None
    cpu_events: float | None = None
    """CPU for 1,000 events of fast streams, of the whole gateway."""
    cpu_events_worker: float | None = None
    cpu_events_burst: float | None = None
    """The same of the worker, for reads of 8 events, below saturation."""
    cpu_events_paced: float | None = None
    """The same, for reads of 1 event."""
    first_token: float | None = None
    first_token_added: float | None = None
    gap_p50: float | None = None
    gap_p99: float | None = None
    gap_max: float | None = None
    gap_p99_added: float | None = None
    """Difference to the same direct to the mock."""
    rss: float | None = None
    """MB resident of a worker at rest."""
    uss: float | None = None
    """MB of private memory of a worker at rest."""
    stream_worker: float | None = None
    """KB that an open stream adds to the workers."""
    stream_envoy: float | None = None


class Figures:
    """Medians of a run's slices."""

    def __init__(self, results: Results) -> None:
        self._slices = results.slices
        self._footprints = {footprint.target: footprint for footprint in results.footprints}

    def over_rounds(self, scenario: str, shape: Shape, target: str, get: Get) -> float | None:
        """The median of one figure; None where no round has it."""
        found = [
            value
            for each in self._slices
            if (each.scenario, each.shape, each.target) == (scenario, shape.name, target)
            and (value := get(each)) is not None
        ]
        return median(found) if found else None

    def row(self, target: str) -> Row:
        """All figures of a target."""

        def unary(shape: Shape, get: Get) -> float | None:
            return self.over_rounds("unary", shape, target, get)

        def stream(shape: Shape, get: Get) -> float | None:
            return self.over_rounds("paced" if shape is names.PACED else "stream", shape, target, get)

        def over_plain(scenario: str, shape: Shape, get: Get) -> float | None:
            return minus(
                self.over_rounds(scenario, shape, target, get), self.over_rounds(scenario, shape, PLAIN, get)
            )

        direct_gap = self.over_rounds("paced", names.PACED, DIRECT, gap_p99)
        return Row(
            target=target,
            requests=unary(names.CALLERS_16, requests),
            cpu_request=unary(names.CALLERS_16, lambda each: each.cpu_ms_per_request),
            cpu_request_worker=unary(names.CALLERS_16, worker_ms_per_request),
            p50_c1=unary(names.CALLERS_1, latency_p50),
            p99_c1=unary(names.CALLERS_1, latency_p99),
            added_p50_c1=over_plain("unary", names.CALLERS_1, latency_p50),
            added_p99_c1=over_plain("unary", names.CALLERS_1, latency_p99),
            p50_c16=unary(names.CALLERS_16, latency_p50),
            p99_c16=unary(names.CALLERS_16, latency_p99),
            added_p50_c16=over_plain("unary", names.CALLERS_16, latency_p50),
            added_p99_c16=over_plain("unary", names.CALLERS_16, latency_p99),
            events=stream(names.FAST, events),
            events_per_read=stream(names.FAST, lambda each: each.events_per_read or None),
            cpu_events=stream(names.FAST, lambda each: each.cpu_ms_per_1000_events()),
            cpu_events_worker=stream(names.FAST, worker_ms_per_1000_events),
            cpu_events_burst=stream(names.BURST, worker_ms_per_1000_events),
            cpu_events_paced=stream(names.PACED, worker_ms_per_1000_events),
            first_token=stream(names.FIRST, first_token),
            first_token_added=over_plain("stream", names.FIRST, first_token),
            gap_p50=stream(names.PACED, gap_p50),
            gap_p99=stream(names.PACED, gap_p99),
            gap_max=stream(names.PACED, lambda each: each.gap and each.gap.maximum),
            gap_p99_added=minus(stream(names.PACED, gap_p99), direct_gap),
            **self._memory(target),
        )

    def _memory(self, target: str) -> dict[str, float | None]:
        footprint = self._footprints.get(target)
        if footprint is None:
            return {}
        main = "worker" if "worker" in footprint.at_rest else "gateway"
        rest, count = footprint.at_rest[main], footprint.processes[main]
        return {
            "rss": rest.rss / count / 1e6,
            "uss": rest.uss / count / 1e6,
            "stream_worker": _per_stream(footprint, main),
            "stream_envoy": _per_stream(footprint, "envoy"),
        }


def _per_stream(footprint: Footprint, role: str) -> float | None:
    if role not in footprint.at_rest or not footprint.streams:
        return None
    return (footprint.open[role].uss - footprint.at_rest[role].uss) / footprint.streams / 1000


def requests(each: Slice) -> float | None:
    """Requests a second."""
    return each.requests or None


def events(each: Slice) -> float | None:
    """Events a second."""
    return each.events or None


def latency_p50(each: Slice) -> float | None:
    """Milliseconds."""
    return each.latency and each.latency.p50


def latency_p99(each: Slice) -> float | None:
    """Milliseconds."""
    return each.latency and each.latency.p99


def first_token(each: Slice) -> float | None:
    """Milliseconds, the median."""
    return each.first_token and each.first_token.p50


def gap_p50(each: Slice) -> float | None:
    """Milliseconds."""
    return each.gap and each.gap.p50


def gap_p99(each: Slice) -> float | None:
    """Milliseconds."""
    return each.gap and each.gap.p99


def worker_ms_per_request(each: Slice) -> float | None:
    """CPU milliseconds of the workers."""
    used = sum(each.cpu.get(role, 0.0) for role in ("worker", "gateway"))
    return 1000 * used / each.requests if used and each.requests else None


def worker_ms_per_1000_events(each: Slice) -> float | None:
    """CPU milliseconds of the workers."""
    return each.cpu_ms_per_1000_events("worker", "gateway")


def minus(one: float | None, other: float | None) -> float | None:
    """The difference; None where a value is missing."""
    return None if one is None or other is None else one - other


def ratio(one: float | None, other: float | None) -> float | None:
    """The quotient; None where a value is missing or the divisor is 0."""
    return one / other if one is not None and other else None


class Aim(msgspec.Struct, frozen=True):
    """A figure and its target value."""

    name: str
    value: float | None
    wanted: float
    unit: str
    least: bool = True
    """Whether `wanted` is a minimum; else it is a maximum."""

    @property
    def verdict(self) -> Literal["met", "missed", "not measured"]:
        """Whether the figure meets the target value."""
        if self.value is None:
            return "not measured"
        return "met" if (self.value >= self.wanted) is self.least or self.value == self.wanted else "missed"


def aims(rows: Iterable[Row]) -> list[Aim]:
    """All aims, measured or not."""
    of = {row.target: row for row in rows}
    nothing = Row(target="")
    rest, echo = of.get("lmchat-rest", nothing), of.get("echo", nothing)
    litellm, portkey = of.get("litellm", nothing), of.get("portkey", nothing)
    return [
        Aim("unary throughput over echo's", ratio(rest.requests, echo.requests), 0.65, "x"),
        Aim("unary throughput over Portkey's", ratio(rest.requests, portkey.requests), 2, "x"),
        Aim("unary throughput over LiteLLM's", ratio(rest.requests, litellm.requests), 20, "x"),
        Aim("fast stream events a second and core of worker", ratio(1e6, rest.cpu_events_worker), 20_000, "/s"),
        Aim("stream events over LiteLLM's", ratio(rest.events, litellm.events), 25, "x"),
        Aim("latency added at concurrency 1, p50", rest.added_p50_c1, 1.5, "ms", least=False),
        Aim("time to first token added", rest.first_token_added, 2, "ms", least=False),
        Aim("gap p99 added, 300 paced streams", rest.gap_p99_added, 25, "ms", least=False),
        Aim("memory of a worker at rest", rest.rss, 100, "MB", least=False),
        Aim("memory of an open stream, in the worker", rest.stream_worker, 50, "KB", least=False),
    ]
