"""`uv run fuzz --inputs 1000000`: fuzz everything. Exit code 1 when something was found."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain

from tests.fuzz.run import run, share
from tests.fuzz.targets import TARGETS

#: Inputs that a process checks before it reports.
BATCH = 1_000


class Report(dict[str, str]):
    """What one batch found: place -> text; exceptions themselves do not all cross processes."""


def batch(target: str, seed: int, numbers: range) -> tuple[str, int, Report, tuple[float, int]]:
    """Check a batch in a process of the pool."""
    outcome = run(TARGETS[target], seed, numbers)
    report = Report({finding.place: str(finding) for finding in outcome.findings})
    return target, len(numbers), report, outcome.slowest


def main() -> int:
    """Run what the command line says; the exit code."""
    options = _options()
    every = ((target.name, numbers) for target, numbers in share(options.inputs))
    shares = [(options.target, range(options.inputs))] if options.target else list(every)
    batches = list(chain.from_iterable(_batches(name, numbers, options.first) for name, numbers in shares))
    begun, done = time.monotonic(), 0
    counts = dict.fromkeys(TARGETS, 0)
    slowest: dict[str, tuple[float, int]] = {}
    findings: dict[tuple[str, str], str] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(batch, name, options.seed, numbers) for name, numbers in batches]
        for future in as_completed(futures):
            name, count, report, slow = future.result()
            counts[name] += count
            done += count
            slowest[name] = max(slowest.get(name, (0.0, 0)), slow)
            for place, text in report.items():
                if (name, place) not in findings:
                    findings[name, place] = text
                    sys.stdout.write(f"{text}\n")
                    sys.stdout.flush()
    for name, (seconds, number) in slowest.items():
        sys.stdout.write(f"{name}: {counts[name]} inputs, slowest {seconds * 1000:.0f} ms (number {number})\n")
    took = time.monotonic() - begun
    sys.stdout.write(f"{done} inputs in {took:.0f} s, seed {options.seed}: {len(findings)} findings\n")
    return 1 if findings else 0


def _batches(name: str, numbers: range, first: int) -> Iterator[tuple[str, range]]:
    for start in range(0, len(numbers), BATCH):
        piece = numbers[start : start + BATCH]
        yield name, range(piece.start + first, piece.stop + first)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz readers and translators.")
    parser.add_argument("--inputs", type=int, default=20_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--target", choices=list(TARGETS), help="default: all, in equal shares")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first input; default: 0")
    parser.add_argument("--jobs", type=int, default=None, metavar="N", help="processes; default: one a core")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
