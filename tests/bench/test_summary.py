"""Figures of constructed slices: medians, differences, aims; report and plot show them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from lmchat_dev.bench import plot, report, scenarios
from lmchat_dev.bench.measure import Percentiles, Shape, Slice
from lmchat_dev.bench.processes import Memory
from lmchat_dev.bench.scenarios import BURST, CALLERS_1, CALLERS_16, FAST, FIRST, PACED, Footprint, Results
from lmchat_dev.bench.summary import Aim, Figures, Row, aims, minus, ratio

EMPTY: dict[str, Any] = {
    **dict.fromkeys(("seconds", "requests", "events", "events_per_read", "generator_cpu", "mock_cpu"), 0.0),
    **dict.fromkeys(("latency", "first_token", "gap")),
    **dict.fromkeys(("open", "unfinished", "errors", "other_cpu"), 0),
    "cpu": {},
    "problems": [],
}


def taken(scenario: str, shape: Shape, target: str, *rounds: dict[str, Any]) -> list[Slice]:
    """A slice for each round; fields without a value are 0 or None."""
    where = {"scenario": scenario, "shape": shape.name, "target": target}
    return [Slice(**{**EMPTY, **where, "round": number, **each}) for number, each in enumerate(rounds)]


def spread(p50: float, p99: float = 0.0, most: float = 0.0) -> Percentiles:
    return Percentiles(p50, p99, most)


def figures(results: Results, target: str = "lmchat-rest") -> dict[str, Any]:
    """What is known of a target."""
    row = msgspec.structs.asdict(Figures(results).row(target))
    return {name: value for name, value in row.items() if value is not None and name != "target"}


UNARY = Results(
    slices=[
        *taken(
            "unary", CALLERS_16, "lmchat-rest",
            {"requests": 100.0, "latency": spread(9, 90), "cpu": {"worker": 0.1, "envoy": 0.1}},
            {"requests": 400.0, "latency": spread(7, 70), "cpu": {"worker": 0.8, "envoy": 0.4}},
            {"requests": 200.0, "latency": spread(8, 60), "cpu": {"worker": 0.3, "envoy": 0.2}},
        ),
        *taken("unary", CALLERS_16, "envoy", {"latency": spread(3, 30)}),
        *taken("unary", CALLERS_1, "lmchat-rest", {"latency": spread(2, 4)}, {}, {"latency": spread(3, 8)}),
        *taken("unary", CALLERS_1, "envoy", {"latency": spread(1, 5)}),
        *taken("probe", CALLERS_16, "lmchat-rest", {"requests": 9999.0}),
        *taken("unary", CALLERS_16, "litellm", {"requests": 5.0, "cpu": {"gateway": 0.5}}),
    ]
)  # fmt: skip
STREAM = Results(
    slices=[
        *taken(
            "stream", FAST, "lmchat-rest",
            {"events": 5e4, "events_per_read": 8.0, "cpu": {"worker": 0.5, "envoy": 1}},
        ),
        *taken("stream", BURST, "lmchat-rest", {"events": 1000.0, "cpu": {"worker": 0.02, "envoy": 1}}),
        *taken("stream", FIRST, "lmchat-rest", {"first_token": spread(5)}, {"first_token": spread(6)}),
        *taken("stream", FIRST, "envoy", {"first_token": spread(1)}),
        *taken("paced", PACED, "lmchat-rest", {"events": 2e3, "gap": spread(50, 70, 90), "cpu": {"worker": 0.1}}),
        *taken("paced", PACED, "envoy", {"gap": spread(50, 60, 80)}),
        *taken("paced", PACED, "direct", {"gap": spread(50, 55, 60)}),
    ]
)  # fmt: skip


def test_unary_figures() -> None:
    assert figures(UNARY) == pytest.approx(
        {
            **{"requests": 200, "cpu_request": 2.5, "cpu_request_worker": 1.5},
            **{"p50_c1": 2.5, "p99_c1": 6, "added_p50_c1": 1.5, "added_p99_c1": 1},
            **{"p50_c16": 8, "p99_c16": 70, "added_p50_c16": 5, "added_p99_c16": 40},
        }
    )
    assert figures(UNARY, "litellm") == {"requests": 5, "cpu_request": 100, "cpu_request_worker": 100}
    assert figures(UNARY, "portkey") == {}


def test_stream_figures() -> None:
    assert figures(STREAM) == pytest.approx(
        {
            **{"events": 50_000, "events_per_read": 8, "cpu_events": 30, "cpu_events_worker": 10},
            **{"cpu_events_burst": 20, "cpu_events_paced": 50, "first_token": 5.5, "first_token_added": 4.5},
            **{"gap_p50": 50, "gap_p99": 70, "gap_max": 90, "gap_p99_added": 15},
        }
    )
    assert "gap_p99_added" not in figures(Results(slices=STREAM.slices[:-1]))


@pytest.mark.parametrize(
    ("main", "streams", "known"),
    [
        ("worker", 1000, {"rss": 45, "uss": 40, "stream_worker": 20, "stream_envoy": 7}),
        ("gateway", 1000, {"rss": 45, "uss": 40, "stream_worker": 20, "stream_envoy": 7}),
        ("worker", 0, {"rss": 45, "uss": 40}),
    ],
)
def test_memory_figures(main: str, streams: int, known: dict[str, float]) -> None:
    footprint = Footprint(
        target="echo",
        processes={main: 2, "envoy": 1},
        at_rest={main: Memory(rss=90_000_000, uss=80_000_000), "envoy": Memory(uss=3_000_000)},
        streams=streams,
        open={main: Memory(uss=100_000_000), "envoy": Memory(uss=10_000_000)} if streams else {},
    )
    assert figures(Results(footprints=[footprint]), "echo") == known


def test_spread() -> None:
    assert Percentiles.of([]) is None
    assert Percentiles.of([3.0]) == Percentiles(3, 3, 3)
    assert Percentiles.of([float(n) for n in reversed(range(1001))]) == Percentiles(500, 990, 1000)


@pytest.mark.parametrize(
    ("one", "other", "difference", "quotient"),
    [(6, 3, 3, 2), (0, 2, -2, 0), (1, 0, 1, None), (None, 1, None, None), (1, None, None, None)],
)
def test_unknown_figures(
    one: float | None, other: float | None, difference: float | None, quotient: float | None
) -> None:
    assert (minus(one, other), ratio(one, other)) == (difference, quotient)


@pytest.mark.parametrize(
    ("value", "least", "verdict"),
    [
        *[(None, True, "not measured"), (3, True, "met"), (2, True, "met"), (1, True, "missed")],
        *[(None, False, "not measured"), (3, False, "missed"), (2, False, "met"), (1, False, "met")],
        *[(0, True, "missed"), (0, False, "met")],
    ],
)
def test_verdicts(value: float | None, least: bool, verdict: str) -> None:
    assert Aim("", value, 2, "x", least=least).verdict == verdict


JUST = Row(
    target="lmchat-rest", requests=65, events=25, cpu_events_worker=50, added_p50_c1=1.5,
    first_token_added=2, gap_p99_added=25, rss=100, stream_worker=50,
)  # fmt: skip
OTHERS = (
    Row(target="echo", requests=100),
    Row(target="portkey", requests=32.5),
    Row(target="litellm", requests=3.25, events=1),
)


def verdicts(*rows: Row) -> dict[str, str]:
    return {aim.name: aim.verdict for aim in aims(rows)}


def test_aims() -> None:
    assert {*verdicts().values()} == {"not measured"}
    assert {*verdicts(JUST, *OTHERS).values()} == {"met"}
    assert [*verdicts(JUST).values()].count("not measured") == 4


@pytest.mark.parametrize(
    ("field", "value", "missed"),
    [
        ("requests", 64.9, ["over echo's", "over Portkey's", "over LiteLLM's"]),
        ("events", 24.9, ["stream events over LiteLLM's"]),
        ("cpu_events_worker", 50.1, ["fast stream events a second"]),
        ("added_p50_c1", 1.51, ["latency added"]),
        ("first_token_added", 2.01, ["time to first token"]),
        ("gap_p99_added", 25.1, ["gap p99"]),
        ("rss", 100.1, ["memory of a worker"]),
        ("stream_worker", 50.1, ["memory of an open stream"]),
    ],
)
def test_missed_aims(field: str, value: float, missed: list[str]) -> None:
    found = verdicts(msgspec.structs.replace(JUST, **{field: value}), *OTHERS)
    names = [name for name, verdict in found.items() if verdict == "missed"]
    assert len(names) == len(missed)
    assert all(part in name for part, name in zip(missed, names, strict=True))


def test_the_plot_names_every_target_and_its_figure() -> None:
    rows = [
        Row(target="direct", requests=90_000),
        Row(target="a <b> & c", requests=500, cpu_events=3.25),
        Row(target="lmchat-rest", requests=2000, events=0),
        Row(target="unmeasured"),
    ]
    root = ET.fromstring(plot.svg(rows, "2 cores, <x> & y"))
    name = "{http://www.w3.org/2000/svg}"
    panels = [[text.text for text in group.iter(f"{name}text")] for group in root.iter(f"{name}g")]
    assert [panel[1:] for panel in panels] == [
        ["a <b> & c", "500", "lmchat-rest", "2,000"],
        ["lmchat-rest", "0"],
        ["a <b> & c", "3.2"],
    ]
    assert [text.text for text in root.iter(f"{name}text")][-1] == "2 cores, <x> & y"
    short, long, *_ = (float(bar.get("width", "")) for bar in root.iter(f"{name}rect") if bar.get("rx"))
    assert long == pytest.approx(4 * short, rel=0.01)
    places = [float(group.get("transform", "").split()[1].rstrip(")")) for group in root.iter(f"{name}g")]
    assert places == sorted({*places})


def test_the_report_shows_figures_errors_and_notes() -> None:
    busy = {"generator_cpu": 0.95, "other_cpu": 0.5, "errors": 2, "problems": ["status 500"], "requests": 1.0}
    slices = [
        *UNARY.slices,
        *taken("flatness", scenarios.CONNECTIONS[1], "lmchat-rest", {"requests": 100.0, "cpu": {"worker": 0.1}}),
        *taken("flatness", scenarios.LONG_BODY, "lmchat-rest", {"requests": 50.0, "cpu": {"worker": 0.1}}),
        *taken(
            "overload",
            scenarios.STREAMS_64,
            "lmchat-rest",
            {"events": 7000.0, "gap": spread(1.5, 2.5), **busy},
        ),
        *taken("paced", PACED, "direct", {"events": 6000.0}),
        *taken("paced", PACED, "lmchat-rest", {"events": 5400.0}),
    ]
    results = Results(slices=slices, refusals={"portkey stream": "status 404"})
    rows = [Figures(results).row(target) for target in ("lmchat-rest", "portkey")]
    lines = [" ".join(line.split()) for line in report.text(results, rows, aims(rows)).splitlines()]
    for line in (
        "lmchat-rest 200 2.50 1.50 2.50 6.00 1.50 1.00 8.0 70.0 5.0 40.0",
        "lmchat-rest 100 KB body 50 2.00 2.00",
        "64 streams 7,000 - 1.5 2.5",
        "latency added at concurrency 1, p50 1.50 <= 1.5 ms met",
        "portkey stream: status 404",
        "the load generator was the limit for lmchat-rest (overload, 64 streams)",
        "others used up to 0.5 cores during 1 of 15 slices: figures are unreliable",
        "lmchat-rest kept 90 % of the pace of 300 paced streams",
        "ERRORS: 2 at lmchat-rest, overload, 64 streams, round 1: status 500",
    ):
        assert line in lines
    assert not any(line.startswith("portkey ") and "-" in line for line in lines)
