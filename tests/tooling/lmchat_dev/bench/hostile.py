"""`uv run bench hostile`: nine ordinary callers, without and with a hostile one beside them.

Everybody calls one gateway as fast as it answers. What the ordinary callers get is measured for the same time
without the hostile caller and with him, and the memory of the gateway's processes before and after. Exit code 1
when an ordinary call failed, a process was started again, or a hostile call came to anything but a refusal.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from lmchat_dev.bench import report
from lmchat_dev.bench.soak_mix import ANSWER, Caller, Kind
from lmchat_dev.bench.targets import KEY, Lmchat, Mock

ORDINARY = 9
"""Ordinary callers beside the hostile one."""

WORKERS = 2
REST = 3.0
"""Seconds after the calls, in which buffers are given back before memory is looked at."""

_REFUSALS = frozenset({"400", "404", "413", "422", "431"})


def _bodies() -> Mapping[str, bytes]:
    """What is hostile about a body -> the body."""
    head = b'{"model":"mock/unary","messages":[{"role":"user","content":"Hi"}]'
    fields = b"".join(b',"x%d":1' % number for number in range(40_000))
    pattern = b'{"type":"object","properties":{"a":{"type":"string","pattern":"' + b"(a+)+" * 2_000 + b'"}}}'
    format_ = b'{"type":"json_schema","json_schema":{"name":"n","schema":%b}}'
    return {
        "unknown fields": head + fields + b"}",
        "deep nesting": head + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "values by the million": head + b',"x":[' + b"[]," * 1_000_000 + b"1]}",
        "a number without end": head + b',"seed":' + b"9" * 1_000_000 + b"}",
        "a long unknown model": b'{"model":"%b","messages":[{"role":"user","content":"Hi"}]}'
        % ("漢" * 2_000).encode(),
        "a misspelt key": head + b',"lmchat":{"' + b"a" * 1_000_000 + b'":1}}',
        "a nested pattern in a bad schema": head + b',"response_format":' + format_ % pattern + b',"n":0}',
        "no JSON": b"\xff" * 100_000,
    }


ORDINARY_KIND = Kind(name="ordinary", weight=1, expected=frozenset({ANSWER}))
HOSTILE_KINDS = tuple(Kind(name=name, weight=1, expected=_REFUSALS, raw=body) for name, body in _bodies().items())


class Group(msgspec.Struct):
    """What the calls of some callers came to. `seconds` of each call, in no order."""

    seconds: list[float] = []
    wrong: Counter[str] = msgspec.field(default_factory=Counter)

    def p(self, share: float) -> float:
        """The time in milliseconds that this share of the calls took at most."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main(arguments: Sequence[str]) -> int:
    """Run both halves; the exit code."""
    parser = argparse.ArgumentParser(prog="bench hostile", description=__doc__, formatter_class=_PLAIN)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half; default: %(default)s")
    options = parser.parse_args(arguments)
    sys.stdout.write(f"{report.machine()}\n")
    mock = Mock()
    gateway = Lmchat(mock, WORKERS, star="mock/*")
    try:
        mock.start()
        gateway.start()
        gateway.ready()
        return asyncio.run(_both(gateway, options.seconds))
    finally:
        gateway.stop()
        mock.stop()


_PLAIN = argparse.RawDescriptionHelpFormatter


async def _both(gateway: Lmchat, seconds: float) -> int:
    await _half(gateway.port, min(2.0, seconds), hostile=False)  # a warm-up
    before = _memory(gateway)
    alone, _ = await _half(gateway.port, seconds, hostile=False)
    beside, refused = await _half(gateway.port, seconds, hostile=True)
    await asyncio.sleep(REST)
    after = _memory(gateway)
    sys.stdout.write(_figures({"without the hostile caller": alone, "with him": beside, "he himself": refused}))
    for role in before:
        was, now = (sum(found.get(role, {}).values()) for found in (before, after))
        sys.stdout.write(f"memory of {role}: {was / 1e6:.1f} -> {now / 1e6:.1f} MB\n")
    wrong = problems(alone, beside, refused, before, after)
    sys.stdout.write("".join(f"WRONG: {line}\n" for line in wrong) or "Nothing unexpected.\n")
    return 1 if wrong else 0


async def _half(port: int, seconds: float, *, hostile: bool) -> tuple[Group, Group]:
    """Call for so many seconds: what the ordinary callers saw, and the hostile one."""
    ordinary, refused = Group(), Group()
    until = time.monotonic() + seconds

    async def work(kinds: Sequence[Kind], group: Group) -> None:
        caller = Caller(port, KEY)
        for kind in itertools.cycle(kinds):
            begun = time.monotonic()
            if begun >= until:
                break
            outcome = await caller.make(kind)
            group.seconds.append(time.monotonic() - begun)
            if outcome not in kind.expected:
                group.wrong[f"{kind.name}: {outcome[:120]}"] += 1
        await caller.close()

    calls = [work([ORDINARY_KIND], ordinary) for _ in range(ORDINARY)]
    await asyncio.gather(*calls, *([work(HOSTILE_KINDS, refused)] if hostile else []))
    return ordinary, refused


def _memory(gateway: Lmchat) -> dict[str, dict[int, int]]:
    """By role and process id: resident bytes."""
    return {
        role: {process.pid: process.memory_info().rss for process in processes}
        for role, processes in gateway.roles().items()
    }


def _figures(groups: Mapping[str, Group]) -> str:
    body = [
        [name, str(len(group.seconds)), f"{group.p(0.5):.1f}", f"{group.p(0.99):.1f}", str(group.wrong.total())]
        for name, group in groups.items()
    ]
    return report.table("Calls", ["callers", "calls", "p50 ms", "p99 ms", "errors"], body) + "\n"


def problems(
    alone: Group,
    beside: Group,
    refused: Group,
    before: Mapping[str, Mapping[int, int]],
    after: Mapping[str, Mapping[int, int]],
) -> list[str]:
    """What must not be, a line each."""
    lines = [
        f"{count} x {what} ({when})"
        for when, group in (("without the hostile caller", alone), ("with him", beside), ("his own", refused))
        for what, count in group.wrong.items()
    ]
    if {role: set(found) for role, found in before.items()} != {role: set(found) for role, found in after.items()}:
        lines.append("a process of the gateway ended")
    return lines
