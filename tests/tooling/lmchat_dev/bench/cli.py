"""`uv run bench`: see `--help`. Exit code 1 for a wrong answer, but of other gateways, and for a failed start."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from lmchat_dev.bench import hostile, peers, plot, report, scenarios, soak
from lmchat_dev.bench.measure import Rig
from lmchat_dev.bench.processes import BenchFailed
from lmchat_dev.bench.scenarios import CATALOGUE, DIRECT, ECHO_SINGLE, LMCHAT, PLAIN, SCENARIOS, Results, Run
from lmchat_dev.bench.summary import Aim, Figures, Row, aims
from lmchat_dev.bench.targets import MODELS, Echo, Lmchat, Mock, PlainEnvoy, Service, Target

NAMES = (DIRECT, PLAIN, "echo", ECHO_SINGLE, "echo-grpc", *LMCHAT, CATALOGUE, *peers.NAMES)


class Output(msgspec.Struct):
    """The file of results: all measurements, and the figures computed from them."""

    command: str
    machine: str
    seconds: float
    rows: list[Row]
    aims: list[Aim]
    results: Results


def main() -> None:
    """Run the benchmark, the soak, or the run with a hostile caller."""
    for name, run in (("soak", soak.main), ("hostile", hostile.main)):
        if sys.argv[1:2] == [name]:
            raise SystemExit(_with_signals(partial(run, sys.argv[2:])))
    options = _options()
    raise SystemExit(_with_signals(lambda: bench(options)))


def bench(options: argparse.Namespace) -> int:
    """One run; the exit code."""
    started_at = time.monotonic()
    wanted = [name for name in SCENARIOS if name in (options.scenarios or SCENARIOS)]
    command = shlex.join(["bench", *sys.argv[1:]])
    sys.stdout.write(f"{report.machine()}\n{command}\n\n")
    with (
        _running_targets(options, wanted) as (mock, targets),
        Rig(mock, seconds=options.seconds, warm_up=options.warm_up) as rig,
        Run(rig, targets, rounds=options.rounds, streams=options.streams) as run,
    ):
        results = run(wanted)
    figures = Figures(results)
    rows = [figures.row(target.name) for target in targets if target.name != CATALOGUE]
    verdicts = aims(rows)
    sys.stdout.write(report.text(results, rows, verdicts))
    elapsed = time.monotonic() - started_at
    output = Output(command, report.machine(), elapsed, rows, verdicts, results)
    directory = _write(options.out, output)
    sys.stdout.write(f"\n{elapsed:.0f} s; results.json and plot.svg are in {directory}\n")
    return 1 if _wrong(results, targets) else 0


def _wrong(results: Results, targets: Sequence[Target]) -> bool:
    """Whether a target that is not a peer gave a wrong answer, or none."""
    ours = {target.name for target in targets if not target.peer}
    refused = any(what.partition(" ")[0] in ours for what in results.refusals)
    return refused or any(each.errors and each.target in ours for each in results.slices)


@contextmanager
def _running_targets(options: argparse.Namespace, wanted: Sequence[str]) -> Iterator[tuple[Mock, list[Target]]]:
    """The mock and all selected targets, running."""
    only = options.only or NAMES
    names = [name for name in NAMES if name in only and (name != CATALOGUE or "flatness" in wanted)]
    services: list[Service] = []
    with ExitStack() as exits:

        def started(service: Service) -> Service:
            services.append(service)
            exits.callback(service.stop)
            scenarios.progress(f"starting {type(service).__name__}")
            service.start()
            return service

        mock = Mock()
        started(mock)
        targets = _targets(names, mock, options, started)
        for service in services:
            service.ready()
        try:
            yield mock, targets
        finally:
            # All are signalled before any is waited for.
            for service in reversed(services):
                service.terminate()


def _targets(
    names: Sequence[str], mock: Mock, options: argparse.Namespace, started: Callable[[Service], Service]
) -> list[Target]:
    workers = options.workers
    found = []
    if DIRECT in names:
        found.append(Target(name=DIRECT, service=mock))
    if PLAIN in names:
        found.append(Target(name=PLAIN, service=started(PlainEnvoy(mock, workers))))
    if {"echo", ECHO_SINGLE, "echo-grpc"} & {*names}:
        echo = started(Echo(workers))
        found.append(Target(name="echo", service=echo))
        found.append(Target(name=ECHO_SINGLE, service=echo, fast="single", kinds=frozenset({"stream"})))
        found.append(Target(name="echo-grpc", service=echo, api="grpc"))
    if {*LMCHAT} & {*names}:
        gateway = started(Lmchat(mock, workers))
        found.append(Target(name="lmchat-rest", service=gateway))
        found.append(Target(name="lmchat-grpc", service=gateway, api="grpc"))
    if CATALOGUE in names:
        large = started(Lmchat(mock, workers, models=MODELS))
        found.append(Target(name=CATALOGUE, service=large, kinds=frozenset({"unary"})))
    if options.peers is not None:
        found += peers.targets(options.peers, names, mock, workers, started)
    return [target for target in found if target.name in names]


def _write(out: Path | None, output: Output) -> Path:
    directory = out or Path(tempfile.mkdtemp(prefix="lmchat-bench-"))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(output)) + b"\n")
    (directory / "plot.svg").write_text(plot.svg(output.rows, output.machine), encoding="utf-8")
    return directory


def _with_signals(run: Callable[[], int]) -> int:
    """The exit code of `run`; SIGINT, SIGTERM and SIGHUP raise SystemExit in it, so that its cleanup runs."""

    def exit_(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, exit_)
    try:
        return run()
    except BenchFailed as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measure the gateway beside a plain Envoy, bare gRPC workers and other gateways.",
        epilog="`bench soak --help`: a long mixed run that looks for leaks. "
        "`bench hostile --help`: ordinary callers beside a hostile one.",
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"some of: {', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--only", metavar="TARGETS", help=f"some of, with commas: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3, help="slices of each kind; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a slice; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of each target; default: %(default)s")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="measure LiteLLM and Portkey too, installed there"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for results.json and plot.svg; default: a new one"
    )
    parser.add_argument("--quick", action="store_true", help="one round of very short slices, as a smoke test")
    parser.set_defaults(warm_up=0.4, streams=1000)
    return parser


def _options() -> argparse.Namespace:
    """The command line, validated; --quick sets the options that it stands for."""
    parser = _parser()
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else []
    for chosen, known in ((options.scenarios, list(SCENARIOS)), (options.only, list(NAMES))):
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"nothing is named {', '.join(unknown)}; there are: {', '.join(known)}")
    if options.quick:
        options.rounds, options.seconds, options.warm_up, options.streams = 1, 0.25, 0.1, 100
    return options


if __name__ == "__main__":
    main()
