"""How endpoints have been doing: a circuit each, moving figures of speed, and counts.

Pure but for the board it is kept on, which the workers of a machine may share.
A circuit opens on a share of failures over a sliding window with a minimum
volume, or at once when a provider says how long to stay away. It stays open
for a cooldown, or as long as was asked; then the next call is its probe, which
closes it or opens it again. While it is open nothing else counts: a late
success of a call begun before closes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from server.config import Circuit
from server.errors import ProviderError, Reason
from server.routing.board import FIRST, Board, Record

_BUCKETS = 10
#: The weight of the newest observation in a moving figure.
_ALPHA = 0.2
#: Seconds after which a figure is forgotten, so that what was slow once is measured again.
_FRESH = 300.0
#: A provider that asks for more patience than this (seconds) is probed all the same.
_LONGEST_WAIT = 60.0

# The words of a record. Times are of the clock, and 0 stands for never.
#: When an open circuit half-opens, or its probe's time is up; 0 while it is closed.
_OPEN_UNTIL = FIRST
_OPENED_AT = FIRST + 1
#: When the probe under way began.
_PROBE = FIRST + 2
#: Moving figures, each a value and when it was last added to.
_ANSWER, _FIRST_TOKEN, _THROUGHPUT = FIRST + 3, FIRST + 5, FIRST + 7
_ANSWERS, _FAILURES, _OPENINGS = FIRST + 9, FIRST + 10, FIRST + 11
#: Buckets of slot, successes and failures.
_WINDOW = FIRST + 12
_SLOTS = range(_WINDOW, _WINDOW + 3 * _BUCKETS, 3)

#: What is the endpoint's doing; everything else is the caller's, and tells nothing of it.
_FAULTS = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.RATE_LIMITED,
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_INVALID_RESPONSE,
        Reason.UPSTREAM_AUTHENTICATION,
        Reason.STREAM_TRUNCATED,
        Reason.OVERLOADED,
        Reason.TIMEOUT,
    }
)

State = Literal["closed", "open", "half_open"]


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call under way; `begun` is of the clock. A half-open circuit closes on the success of a `probe` only."""

    endpoint_id: str
    begun: float
    probe: bool


class Standing(NamedTuple):
    """How an endpoint is doing.

    Moving averages, None where nothing was measured of late: `latency` of seconds to whole answers that were
    not streamed, `first_token` of seconds to the first content of streams, `throughput` of output tokens per
    second. The counts, of complete answers, failures and times the circuit opened, are for as long as the
    endpoint is remembered.
    """

    state: State = "closed"
    latency: float | None = None
    first_token: float | None = None
    throughput: float | None = None
    answers: int = 0
    failures: int = 0
    openings: int = 0


class EndpointHealth:
    """By `Endpoint.id`. Times are seconds of the board's clock.

    Every call that `begin` notes ends in one of: `answered` and, for a stream,
    `success` or `failure` after it; `failure`; `abandon`.
    """

    def __init__(self, settings: Circuit, board: Board) -> None:
        self._settings = settings
        self._clock = board.clock
        self._board = board

    def is_open(self, endpoint_id: str) -> bool:
        """Whether it is to be avoided: its circuit is open, or half-open with the probe under way."""
        record = self._board.find(endpoint_id)
        return record is not None and self._clock() < record[_OPEN_UNTIL]

    def latency(self, endpoint_id: str) -> float | None:
        """Seconds a caller waits: to the first content, or to whole answers where nobody streams."""
        record = self._board.find(endpoint_id)
        if record is None:
            return None
        now = self._clock()
        first_token = _figure(record, _FIRST_TOKEN, now)
        return _figure(record, _ANSWER, now) if first_token is None else first_token

    def throughput(self, endpoint_id: str) -> float | None:
        """`Standing.throughput` of one."""
        record = self._board.find(endpoint_id)
        return None if record is None else _figure(record, _THROUGHPUT, self._clock())

    def standing(self, endpoint_id: str) -> Standing:
        """All of one endpoint."""
        record = self._board.find(endpoint_id)
        return Standing() if record is None else self._standing(record)

    def standings(self) -> Iterator[tuple[str, Standing]]:
        """Every endpoint that anything is known of."""
        for endpoint_id, record in self._board.endpoints():
            yield endpoint_id, self._standing(record)

    def begin(self, endpoint_id: str) -> Call:
        """Note a call about to be made. The first after a cooldown is the probe; it has a cooldown's time."""
        now = self._clock()
        record = self._board.find(endpoint_id)
        if record is None or not _half_open(record, now):
            return Call(endpoint_id, now, probe=False)
        with self._board.change(endpoint_id) as record:
            probe = _half_open(record, now)  # unless another worker was faster
            if probe:
                record[_PROBE] = now
                record[_OPEN_UNTIL] = now + self._settings.cooldown
        return Call(endpoint_id, now, probe)

    def answered(self, call: Call, *, whole: bool, tokens: int = 0) -> None:
        """Content came now: the whole answer, of so many `tokens`, or the first of a stream."""
        now = self._clock()
        with self._board.change(call.endpoint_id) as record:
            _add(record, _ANSWER if whole else _FIRST_TOKEN, now - call.begun, now)
            if call.probe and _probed_by(record, call):
                record[_OPEN_UNTIL] = record[_PROBE] = 0.0
                for at in _SLOTS:
                    record[at + 1] = record[at + 2] = 0.0
            if whole:
                self._succeed(record, call, tokens, now)

    def success(self, call: Call, tokens: int = 0) -> None:
        """The answer of a stream, of so many `tokens`, is complete."""
        with self._board.change(call.endpoint_id) as record:
            self._succeed(record, call, tokens, self._clock())

    def failure(self, call: Call, error: ProviderError) -> None:
        """The call failed. A mistake of the caller's is no failure of the endpoint."""
        if error.reason not in _FAULTS:
            self.abandon(call)
            return
        now = self._clock()
        with self._board.change(call.endpoint_id) as record:
            record[_FAILURES] += 1
            opens = _probed_by(record, call)
            if not record[_OPEN_UNTIL]:
                self._count(record, now, failed=True)
                opens = self._too_many(record, now)
            asked = now + min(error.retry_after, _LONGEST_WAIT) if error.retry_after else 0.0
            if opens or asked > record[_OPEN_UNTIL]:
                record[_OPENINGS] += opens or not record[_OPEN_UNTIL]
                record[_OPEN_UNTIL] = asked or now + self._settings.cooldown
                record[_OPENED_AT] = now
                record[_PROBE] = 0.0

    def abandon(self, call: Call) -> None:
        """The call told nothing of the endpoint: the caller left. If it was the probe, the next call is."""
        if call.probe:
            with self._board.change(call.endpoint_id) as record:
                if record[_PROBE] == call.begun:
                    record[_OPEN_UNTIL] = self._clock()
                    record[_PROBE] = 0.0

    def _succeed(self, record: Record, call: Call, tokens: int, now: float) -> None:
        """Count an answer; the rate of its tokens takes in the wait for the first of them."""
        record[_ANSWERS] += 1
        if tokens > 1 and now > call.begun:
            _add(record, _THROUGHPUT, tokens / (now - call.begun), now)
        if not record[_OPEN_UNTIL]:
            self._count(record, now, failed=False)

    def _count(self, record: Record, now: float, *, failed: bool) -> None:
        slot = self._slot(now)
        at = _SLOTS[slot % _BUCKETS]
        if record[at] != slot:
            record[at], record[at + 1], record[at + 2] = slot, 0.0, 0.0
        record[at + 2 if failed else at + 1] += 1

    def _too_many(self, record: Record, now: float) -> bool:
        """Whether the window's failures are enough to open the circuit."""
        oldest = self._slot(now) - _BUCKETS
        current = [at for at in _SLOTS if record[at] > oldest]
        failures = sum(record[at + 2] for at in current)
        total = failures + sum(record[at + 1] for at in current)
        return bool(total >= self._settings.min_requests and failures >= self._settings.failure_ratio * total)

    def _slot(self, now: float) -> int:
        return int(now / self._settings.window * _BUCKETS)

    def _standing(self, record: Record) -> Standing:
        now = self._clock()
        state: State = "closed"
        if record[_OPEN_UNTIL]:
            probing = record[_PROBE] or _half_open(record, now)
            state = "half_open" if probing else "open"
        return Standing(
            state,
            latency=_figure(record, _ANSWER, now),
            first_token=_figure(record, _FIRST_TOKEN, now),
            throughput=_figure(record, _THROUGHPUT, now),
            answers=int(record[_ANSWERS]),
            failures=int(record[_FAILURES]),
            openings=int(record[_OPENINGS]),
        )


def _half_open(record: Record, now: float) -> bool:
    """Whether the circuit is open and the next call its probe."""
    return bool(0.0 < record[_OPEN_UNTIL] <= now)


def _probed_by(record: Record, call: Call) -> bool:
    """Whether `call` probes the circuit as it is open now."""
    return bool(call.probe and record[_OPEN_UNTIL] and call.begun >= record[_OPENED_AT])


def _figure(record: Record, at: int, now: float) -> float | None:
    """A moving average; None when nothing was added to it for long."""
    value: float = record[at]
    return value if record[at + 1] and now - record[at + 1] <= _FRESH else None


def _add(record: Record, at: int, value: float, now: float) -> None:
    since = record[at + 1]
    if since and now - since <= _FRESH:
        value = record[at] + _ALPHA * (value - record[at])
    record[at], record[at + 1] = value, now
