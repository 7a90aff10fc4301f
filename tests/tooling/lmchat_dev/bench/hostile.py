"""`uv run bench hostile`: nine ordinary callers, without and with a hostile one beside them.

All call one gateway in a closed loop. The ordinary calls are measured for the same time without the hostile
caller and with it, and the memory of the gateway's processes before and after. Exit code 1 when an ordinary call
failed, a process was restarted, or a hostile call was not refused.
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
from lmchat_dev.bench.targets import KEY, Lmchat, running_gateway

ORDINARY_CALLERS = 9
"""Ordinary callers beside the hostile one."""

WORKERS = 2
CLOSE_WAIT = 3.0
"""Seconds after the calls, in which buffers are released before memory is measured."""

_GROUPS = ("without hostile caller", "with hostile caller", "hostile caller")
_REFUSALS = frozenset({"400", "404", "413", "422", "431"})


def _bodies() -> Mapping[str, bytes]:
    """Name of the attack -> the body."""
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
    """Calls of a group of callers: the `seconds` of each, and the unexpected outcomes with their number."""

    seconds: list[float] = []
    wrong: Counter[str] = msgspec.field(default_factory=Counter)

    def p(self, share: float) -> float:
        """The time in milliseconds that this share of the calls took at most."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main(arguments: Sequence[str]) -> int:
    """Run both phases; the exit code."""
    parser = argparse.ArgumentParser(prog="bench hostile", description=__doc__, formatter_class=_PLAIN)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase; default: %(default)s")
    options = parser.parse_args(arguments)
    sys.stdout.write(f"{report.machine()}\n")
    with running_gateway(WORKERS) as (_, gateway):
        return asyncio.run(_phases(gateway, options.seconds))


_PLAIN = argparse.RawDescriptionHelpFormatter


async def _phases(gateway: Lmchat, seconds: float) -> int:
    await _phase(gateway.port, min(2.0, seconds), hostile=False)  # a warm-up
    before = _memory(gateway)
    alone, _ = await _phase(gateway.port, seconds, hostile=False)
    beside, refused = await _phase(gateway.port, seconds, hostile=True)
    await asyncio.sleep(CLOSE_WAIT)
    after = _memory(gateway)
    sys.stdout.write(_figures(dict(zip(_GROUPS, (alone, beside, refused), strict=True))))
    for role in before:
        was, now = (sum(found.get(role, {}).values()) for found in (before, after))
        sys.stdout.write(f"memory of {role}: {was / 1e6:.1f} -> {now / 1e6:.1f} MB\n")
    wrong = problems(alone, beside, refused, before, after)
    sys.stdout.write("".join(f"WRONG: {line}\n" for line in wrong) or "Nothing unexpected.\n")
    return 1 if wrong else 0


async def _phase(port: int, seconds: float, *, hostile: bool) -> tuple[Group, Group]:
    """Call for `seconds`; the calls of the ordinary callers, and those of the hostile one."""
    ordinary, refused = Group(), Group()
    until = time.monotonic() + seconds

    async def work(kinds: Sequence[Kind], group: Group) -> None:
        caller = Caller(port, KEY)
        for kind in itertools.cycle(kinds):
            started_at = time.monotonic()
            if started_at >= until:
                break
            outcome = await caller.make(kind)
            group.seconds.append(time.monotonic() - started_at)
            if outcome not in kind.expected:
                group.wrong[f"{kind.name}: {outcome[:120]}"] += 1
        await caller.close()

    calls = [work([ORDINARY_KIND], ordinary) for _ in range(ORDINARY_CALLERS)]
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
    """Unexpected outcomes, and processes that ended, a line each."""
    lines = [
        f"{count} x {what} ({when})"
        for when, group in zip(_GROUPS, (alone, beside, refused), strict=True)
        for what, count in group.wrong.items()
    ]
    if {role: set(found) for role, found in before.items()} != {role: set(found) for role, found in after.items()}:
        lines.append("a process of the gateway ended")
    return lines
