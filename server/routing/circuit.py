"""The circuit breaker of one endpoint: pure functions over its record in SharedStats.

States and transitions:

    state       holds while                      leaves when
    closed      OPEN_UNTIL is 0                  too many calls of the window failed, or a failure
                                                 had a `retry-after`: open
    open        now < OPEN_UNTIL, no probe       OPEN_UNTIL has passed: half-open
    half-open   OPEN_UNTIL has passed: the next  the probe succeeded: closed; it failed: open; its
                call is the probe; or a probe    caller cancelled: half-open; it did not end within
                is under way (PROBE is set)      a cooldown: the next call is the probe

While a circuit is not closed only the probe changes its state: the success of a call that began before it opened
does not close it. Times are seconds of the clock of SharedStats; 0 stands for never.
"""

from __future__ import annotations

from server.config.model import Circuit
from server.errors import ProviderError, Reason
from server.routing.shared_stats import FIRST_WORD, Record

_BUCKETS = 10
#: Upper bound in seconds of the time a `retry-after` opens a circuit for.
MAX_RETRY_AFTER = 60.0

# Indices of a record's floats.
#: When an open circuit half-opens, or its probe times out; 0 while it is closed.
OPEN_UNTIL = FIRST_WORD
OPENED_AT = FIRST_WORD + 1
#: When the probe under way began.
PROBE = FIRST_WORD + 2
OPENINGS = FIRST_WORD + 3
#: The sliding window: buckets of slot, successes and failures.
_WINDOW = FIRST_WORD + 4
_BUCKET_WORDS = range(_WINDOW, _WINDOW + 3 * _BUCKETS, 3)
#: The first index after the circuit's.
END = _WINDOW + 3 * _BUCKETS

#: Errors that count as failures of the endpoint; all others are errors of the caller's request.
FAULTS = frozenset(
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


def is_open(record: Record, now: float) -> bool:
    """Whether the endpoint is to be avoided: open, or half-open with its probe under way."""
    return bool(now < record[OPEN_UNTIL])


def wants_probe(record: Record, now: float) -> bool:
    """Whether the next call is the probe."""
    return bool(0.0 < record[OPEN_UNTIL] <= now)


def begin_probe(record: Record, now: float, settings: Circuit) -> None:
    """Record that a probe began; it times out after a cooldown."""
    record[PROBE] = now
    record[OPEN_UNTIL] = now + settings.cooldown


def abandon_probe(record: Record, begun: float, now: float) -> None:
    """The probe that began at `begun` was cancelled: the next call is the probe."""
    if record[PROBE] == begun:
        record[OPEN_UNTIL] = now
        record[PROBE] = 0.0


def probed_by(record: Record, begun: float) -> bool:
    """Whether a probe that began at `begun` belongs to the current opening of the circuit."""
    return bool(record[OPEN_UNTIL] and begun >= record[OPENED_AT])


def close(record: Record) -> None:
    """The probe succeeded."""
    record[OPEN_UNTIL] = record[PROBE] = 0.0
    for at in _BUCKET_WORDS:
        record[at + 1] = record[at + 2] = 0.0


def count(record: Record, now: float, settings: Circuit, *, failed: bool) -> None:
    """Add a call that ended to the window of a closed circuit."""
    if record[OPEN_UNTIL]:
        return
    slot = _slot(now, settings)
    at = _BUCKET_WORDS[slot % _BUCKETS]
    if record[at] != slot:
        record[at], record[at + 1], record[at + 2] = slot, 0.0, 0.0
    record[at + 2 if failed else at + 1] += 1


def fail(record: Record, now: float, settings: Circuit, error: ProviderError, *, probe_failed: bool) -> None:
    """Count a failure; open the circuit after too many, a failed probe or a `retry-after`."""
    opens = probe_failed
    if not record[OPEN_UNTIL]:
        count(record, now, settings, failed=True)
        opens = _has_too_many_failures(record, now, settings)
    retry_at = now + min(error.retry_after, MAX_RETRY_AFTER) if error.retry_after else 0.0
    if opens or retry_at > record[OPEN_UNTIL]:
        record[OPENINGS] += opens or not record[OPEN_UNTIL]
        record[OPEN_UNTIL] = retry_at or now + settings.cooldown
        record[OPENED_AT] = now
        record[PROBE] = 0.0


def _slot(now: float, settings: Circuit) -> int:
    return int(now * _BUCKETS / settings.window)


def _has_too_many_failures(record: Record, now: float, settings: Circuit) -> bool:
    oldest = _slot(now, settings) - _BUCKETS
    current = [at for at in _BUCKET_WORDS if record[at] > oldest]
    failures = sum(record[at + 2] for at in current)
    total = failures + sum(record[at + 1] for at in current)
    return bool(total >= settings.min_requests and failures >= settings.failure_ratio * total)
