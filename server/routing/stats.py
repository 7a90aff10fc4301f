"""Statistics of endpoints: circuits, moving averages of latency and throughput, and counts.

Kept in `SharedStats`, which the workers of a machine may share. Successful calls
move averages and close a circuit only as its probe, so they are written together,
after a short delay; failures are written at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

from server.config.model import Circuit
from server.errors import ProviderError
from server.routing import circuit
from server.routing.shared_stats import Record, SharedStats

#: The weight of the newest observation in a moving average.
_ALPHA = 0.2
#: Seconds after its last update for which an average is valid, so that a once slow endpoint is measured again.
AVERAGE_LIFETIME = 300.0

# Indices of a record's floats, after the circuit's: averages, each a value and the time of its update; counts.
_LATENCY, _FIRST_TOKEN, _THROUGHPUT = circuit.END, circuit.END + 2, circuit.END + 4
_ANSWERS, _FAILURES = circuit.END + 6, circuit.END + 7

State = Literal["closed", "open", "half_open"]


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A provider call in progress, since `begun`. A half-open circuit closes when its `probe` succeeds."""

    endpoint_id: str
    begun: float
    probe: bool


class _Success(msgspec.Struct, frozen=True, gc=False):
    """Content received at a time; `average` is the index of the average that it updates, or 0 for none."""

    attempt: Attempt
    received: float
    average: int
    complete: bool
    tokens: int


_endpoint_id = attrgetter("attempt.endpoint_id")


def _flush_now(flush: Callable[[], None]) -> None:
    flush()


class Snapshot(NamedTuple):
    """The statistics of an endpoint.

    Moving averages, None without recent measurements: `latency` of seconds to whole answers that were
    not streamed, `first_token` of seconds to the first content of streams, `throughput` of output tokens per
    second. The counts, of complete answers, failures and times the circuit opened, are for as long as the
    endpoint is remembered. `configured`: it is of the configuration, not of a model named through a wildcard.
    """

    state: State = "closed"
    latency: float | None = None
    first_token: float | None = None
    throughput: float | None = None
    answers: int = 0
    failures: int = 0
    openings: int = 0
    configured: bool = False


class EndpointStats:
    """Statistics by `Endpoint.id`. Times are seconds of the clock of `shared`.

    Every attempt that `begin` gives ends in one of: `first_content` and then `stream_completed` or `failed`;
    `answered`; `failed`; `abandoned`. `schedule_flush` gets `flush` to call when successes are to be written:
    at once by default, after a delay where calls must not wait for it. `configured` are the ids of the endpoints
    of the configuration, which others cannot evict; all endpoints of models named through wildcards are others.
    """

    def __init__(
        self,
        settings: Circuit,
        shared: SharedStats,
        schedule_flush: Callable[[Callable[[], None]], object] = _flush_now,
        *,
        configured: Iterable[str] = (),
    ) -> None:
        shared.reserve(configured)
        self._settings = settings
        self._shared = shared
        self._clock = shared.clock
        self._schedule_flush = schedule_flush
        self._pending: list[_Success] = []

    def is_open(self, endpoint_id: str) -> bool:
        """Whether the circuit is open, or half-open with its probe in progress."""
        record = self._shared.find(endpoint_id)
        return record is not None and circuit.is_open(record, self._clock())

    def latency(self, endpoint_id: str) -> float | None:
        """Average seconds to the first content of streams, or of unary calls where no stream was measured."""
        record = self._record(endpoint_id)
        if record is None:
            return None
        now = self._clock()
        first_token = _average(record, _FIRST_TOKEN, now)
        return _average(record, _LATENCY, now) if first_token is None else first_token

    def throughput(self, endpoint_id: str) -> float | None:
        """`Snapshot.throughput` of one endpoint."""
        record = self._record(endpoint_id)
        return None if record is None else _average(record, _THROUGHPUT, self._clock())

    def snapshot(self, endpoint_id: str) -> Snapshot:
        """The statistics of one endpoint."""
        record = self._record(endpoint_id)
        configured = endpoint_id in self._shared.configured
        return Snapshot(configured=configured) if record is None else self._snapshot(record, configured)

    def copy(self) -> EndpointStats:
        """What is known now, to be read only, in another thread too."""
        self.flush()
        shared = self._shared.copy()
        return EndpointStats(self._settings, shared, configured=shared.configured)

    def snapshots(self) -> Iterator[tuple[str, Snapshot]]:
        """The statistics of every endpoint that has any, by id."""
        self.flush()
        for endpoint_id, record, configured in self._shared.endpoints():
            yield endpoint_id, self._snapshot(record, configured)

    def begin(self, endpoint_id: str) -> Attempt:
        """An attempt that is about to begin. The first after a cooldown is the probe."""
        now = self._clock()
        record = self._shared.find(endpoint_id)
        if record is None or not circuit.wants_probe(record, now):
            return Attempt(endpoint_id, now, probe=False)
        with self._shared.change(endpoint_id) as record:
            probe = circuit.wants_probe(record, now)  # another worker may have begun it meanwhile
            if probe:
                circuit.begin_probe(record, now, self._settings)
        return Attempt(endpoint_id, now, probe)

    def answered(self, attempt: Attempt, tokens: int = 0) -> None:
        """A unary call completed, with `tokens` output tokens."""
        self._add(_Success(attempt, self._clock(), _LATENCY, True, tokens))

    def first_content(self, attempt: Attempt) -> None:
        """The first content of a stream arrived."""
        self._add(_Success(attempt, self._clock(), _FIRST_TOKEN, False, 0))

    def stream_completed(self, attempt: Attempt, tokens: int = 0) -> None:
        """A stream of `tokens` output tokens completed."""
        self._add(_Success(attempt, self._clock(), 0, True, tokens))

    def failed(self, attempt: Attempt, error: ProviderError) -> None:
        """The call failed. An error of the caller's request is not counted as a failure of the endpoint."""
        if error.reason not in circuit.FAULTS:
            self.abandoned(attempt)
            return
        self.flush()
        with self._shared.change(attempt.endpoint_id) as record:
            record[_FAILURES] += 1
            probe_failed = attempt.probe and circuit.probed_by(record, attempt.begun)
            circuit.fail(record, self._clock(), self._settings, error, probe_failed=probe_failed)

    def abandoned(self, attempt: Attempt) -> None:
        """The call says nothing about the endpoint: its caller left. If it was the probe, the next call is."""
        if attempt.probe:
            with self._shared.change(attempt.endpoint_id) as record:
                circuit.abandon_probe(record, attempt.begun, self._clock())

    def flush(self) -> None:
        """Write the pending successes."""
        if self._pending:
            successes, self._pending = self._pending, []
            successes.sort(key=_endpoint_id)  # stable: those of one endpoint keep their order
            for endpoint_id, group in groupby(successes, _endpoint_id):
                with self._shared.change(endpoint_id) as record:
                    for success in group:
                        self._write(record, success)

    def _record(self, endpoint_id: str) -> Record | None:
        """The record, with pending successes written."""
        self.flush()
        return self._shared.find(endpoint_id)

    def _add(self, success: _Success) -> None:
        """Queue a success; that of a probe is written at once."""
        self._pending.append(success)
        if success.attempt.probe:
            self.flush()
        elif len(self._pending) == 1:
            self._schedule_flush(self.flush)

    def _write(self, record: Record, success: _Success) -> None:
        """Write one success. Throughput is measured from the start of the call."""
        attempt, now = success.attempt, success.received
        seconds = now - attempt.begun
        if success.average:
            _add_to_average(record, success.average, seconds, now)
            if attempt.probe and circuit.probed_by(record, attempt.begun):
                circuit.close(record)
        if success.complete:
            record[_ANSWERS] += 1
            if success.tokens > 1 and seconds > 0:
                _add_to_average(record, _THROUGHPUT, success.tokens / seconds, now)
            circuit.count(record, now, self._settings, failed=False)

    def _snapshot(self, record: Record, configured: bool) -> Snapshot:
        now = self._clock()
        state: State = "closed"
        if record[circuit.OPEN_UNTIL]:
            half_open = record[circuit.PROBE] or circuit.wants_probe(record, now)
            state = "half_open" if half_open else "open"
        return Snapshot(
            state,
            latency=_average(record, _LATENCY, now),
            first_token=_average(record, _FIRST_TOKEN, now),
            throughput=_average(record, _THROUGHPUT, now),
            answers=int(record[_ANSWERS]),
            failures=int(record[_FAILURES]),
            openings=int(record[circuit.OPENINGS]),
            configured=configured,
        )


def _average(record: Record, at: int, now: float) -> float | None:
    """A moving average; None if it was not updated within AVERAGE_LIFETIME."""
    value: float = record[at]
    return value if record[at + 1] and now - record[at + 1] <= AVERAGE_LIFETIME else None


def _add_to_average(record: Record, at: int, value: float, now: float) -> None:
    since = record[at + 1]
    if since and now - since <= AVERAGE_LIFETIME:
        value = record[at] + _ALPHA * (value - record[at])
    record[at], record[at + 1] = value, now
