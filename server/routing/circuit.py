"""How endpoints have been doing: a circuit each, moving figures of speed, and counts.

Pure but for the board it is kept on, which the workers of a machine may share.
A circuit opens on a share of failures over a sliding window with a minimum
volume, or at once when a provider says how long to stay away. It stays open
for a cooldown, or as long as was asked; then the next call is its probe, which
closes it or opens it again. While it is open nothing else counts: a late
success of a call begun before closes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

from server.config.model import Circuit
from server.errors import ProviderError, Reason
from server.routing.shared_stats import FIRST, Board, Record

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


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """Content that came, at a time of the clock; `figure` is the first of the two words it moves, or 0."""

    call: Call
    came: float
    figure: int
    complete: bool
    tokens: int


_endpoint_id = attrgetter("call.endpoint_id")


def _at_once(settle: Callable[[], None]) -> None:
    settle()


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

    Answers move figures and no circuit, but for a probe's. They are written down together, when `defer` calls
    what it is given: at once by default, a moment later where calls must not wait for it.
    """

    def __init__(
        self, settings: Circuit, board: Board, defer: Callable[[Callable[[], None]], object] = _at_once
    ) -> None:
        self._defer = defer
        self._unwritten: list[_Answer] = []
        self._settings = settings
        #: Buckets a second.
        self._rate = _BUCKETS / settings.window
        self._clock = board.clock
        self._board = board

    def is_open(self, endpoint_id: str) -> bool:
        """Whether it is to be avoided: its circuit is open, or half-open with the probe under way."""
        record = self._board.find(endpoint_id)
        return record is not None and self._clock() < record[_OPEN_UNTIL]

    def latency(self, endpoint_id: str) -> float | None:
        """Seconds a caller waits: to the first content, or to whole answers where nobody streams."""
        self.settle()
        record = self._board.find(endpoint_id)
        if record is None:
            return None
        now = self._clock()
        first_token = _figure(record, _FIRST_TOKEN, now)
        return _figure(record, _ANSWER, now) if first_token is None else first_token

    def throughput(self, endpoint_id: str) -> float | None:
        """`Standing.throughput` of one."""
        self.settle()
        record = self._board.find(endpoint_id)
        return None if record is None else _figure(record, _THROUGHPUT, self._clock())

    def standing(self, endpoint_id: str) -> Standing:
        """All of one endpoint."""
        self.settle()
        record = self._board.find(endpoint_id)
        return Standing() if record is None else self._standing(record)

    def standings(self) -> Iterator[tuple[str, Standing]]:
        """Every endpoint that anything is known of."""
        self.settle()
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
        self._note(_Answer(call, self._clock(), _ANSWER if whole else _FIRST_TOKEN, whole, tokens))

    def success(self, call: Call, tokens: int = 0) -> None:
        """The answer of a stream, of so many `tokens`, is complete."""
        self._note(_Answer(call, self._clock(), 0, True, tokens))

    def settle(self) -> None:
        """Write down the answers so far."""
        if self._unwritten:
            answers, self._unwritten = self._unwritten, []
            answers.sort(key=_endpoint_id)  # those of one keep their order
            for endpoint_id, its in groupby(answers, _endpoint_id):
                with self._board.change(endpoint_id) as record:
                    for answer in its:
                        self._write(record, answer)

    def failure(self, call: Call, error: ProviderError) -> None:
        """The call failed. A mistake of the caller's is no failure of the endpoint."""
        if error.reason not in _FAULTS:
            self.abandon(call)
            return
        self.settle()
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

    def _note(self, answer: _Answer) -> None:
        """To be written down soon, and at once if it may close a circuit."""
        self._unwritten.append(answer)
        if answer.call.probe:
            self.settle()
        elif len(self._unwritten) == 1:
            self._defer(self.settle)

    def _write(self, record: Record, answer: _Answer) -> None:
        """One answer. The rate of its tokens takes in the wait for the first of them."""
        call, now = answer.call, answer.came
        seconds = now - call.begun
        if answer.figure:
            _add(record, answer.figure, seconds, now)
            if call.probe and _probed_by(record, call):
                record[_OPEN_UNTIL] = record[_PROBE] = 0.0
                for at in _SLOTS:
                    record[at + 1] = record[at + 2] = 0.0
        if answer.complete:
            record[_ANSWERS] += 1
            if answer.tokens > 1 and seconds > 0:
                _add(record, _THROUGHPUT, answer.tokens / seconds, now)
            if not record[_OPEN_UNTIL]:
                self._count(record, now, failed=False)

    def _count(self, record: Record, now: float, *, failed: bool) -> None:
        slot = int(now * self._rate)
        at = _SLOTS[slot % _BUCKETS]
        if record[at] != slot:
            record[at], record[at + 1], record[at + 2] = slot, 0.0, 0.0
        record[at + 2 if failed else at + 1] += 1

    def _too_many(self, record: Record, now: float) -> bool:
        """Whether the window's failures are enough to open the circuit."""
        oldest = int(now * self._rate) - _BUCKETS
        current = [at for at in _SLOTS if record[at] > oldest]
        failures = sum(record[at + 2] for at in current)
        total = failures + sum(record[at + 1] for at in current)
        return bool(total >= self._settings.min_requests and failures >= self._settings.failure_ratio * total)

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
