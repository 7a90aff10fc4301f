"""Runs targets. Inputs are numbered; a number, a target and a seed make the same input every time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.targets import TARGETS, Target

#: Characters of an input that a report shows; the number makes all of it again.
MAX_SHOWN = 4_000


class Finding(NamedTuple):
    """An input for which the rule does not hold."""

    target: str
    seed: int
    number: int
    input: Any
    error: BaseException

    @property
    def place(self) -> str:
        """The exception and the line that raised it; the same for inputs that find the same bug."""
        frames = traceback.extract_tb(self.error.__traceback__)
        return f"{type(self.error).__name__} at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"

    def __str__(self) -> str:
        trace = "".join(traceback.format_exception(self.error)[-6:])
        return (
            f"{self.target}: {self.place}\n{trace}input: {repr(self.input)[:MAX_SHOWN]}\n"
            f"again: uv run fuzz --target {self.target} --seed {self.seed} --first {self.number}"
            " --inputs 1\n"
        )


class Outcome(NamedTuple):
    """`slowest`: seconds of the slowest input, and its number."""

    findings: list[Finding]
    slowest: tuple[float, int]


def input_of(target: Target, seed: int, number: int) -> Any:
    """The input with this number."""
    return target.generate(Random(f"{seed}/{target.name}/{number}"))


def run(target: Target, seed: int, numbers: range) -> Outcome:
    """Check the inputs with these numbers; one finding for each place that raises."""
    found: dict[str, Finding] = {}
    slowest = (0.0, numbers.start)
    with target.checker() as check:
        for number in numbers:
            value = input_of(target, seed, number)
            begun = time.perf_counter()
            try:
                check(value)
            except Exception as error:
                finding = Finding(target.name, seed, number, value, error)
                found.setdefault(finding.place, finding)
            slowest = max(slowest, (time.perf_counter() - begun, number))
    return Outcome([*found.values()], slowest)


def share(inputs: int) -> Iterator[tuple[Target, range]]:
    """`inputs` distributed over all targets."""
    each, rest = divmod(inputs, len(TARGETS))
    for place, target in enumerate(TARGETS.values()):
        yield target, range(each + (place < rest))
