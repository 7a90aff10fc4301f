"""The attempt loop: candidates are tried in the plan's order until one succeeds or the deadline passes.

`decide` is the retry and fallback policy, a pure function; `summary` is the error for the caller when every
endpoint failed. The loop calls endpoints, records the attempts, and divides the remaining time so that an
unresponsive first endpoint leaves time for a second. No endpoint is called more than twice for one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

import msgspec

from server.errors import AttemptRecord, InvalidRequest, LmchatError, ProviderError, Reason, detached
from server.routing.plan import Candidate, Plan, Skipped
from server.routing.stats import Attempt, EndpointStats

T = TypeVar("T")

#: Upper bound of a retry's delay, in seconds; the delay is uniformly random below it (full jitter).
MAX_BACKOFF = 0.25
#: Seconds; with a longer `retry-after` the same endpoint is not retried.
MAX_RETRY_AFTER = 2.0
#: Seconds; a timeout shorter than this and than `first_token` does not count as a failure of the endpoint.
MIN_FAILURE_TIMEOUT = 5.0
#: Limit of a unary call while another endpoint can still be tried, as a multiple of `first_token`.
_UNARY_LIMIT_FACTOR = 2.0
#: Seconds by which timers and clocks may differ.
CLOCK_TOLERANCE = 0.01


class Decision(NamedTuple):
    """What to do after a failed call; `delay` in seconds, for `retry`."""

    action: Literal["retry", "next", "fail"]
    delay: float = 0.0


def decide(
    error: ProviderError,
    *,
    tries_here: int,
    tries_left: int,
    others: int,
    remaining: float,
    random: Callable[[], float],
) -> Decision:
    """The policy. `tries_here` counts the calls of this endpoint so far, `others` the candidates after it.

    A retry on the same endpoint never uses up the try that another candidate needs, and a `retry-after` is only
    waited for where there is no other candidate. `remaining` is in seconds, `random` gives numbers in [0, 1).
    """
    if tries_left <= 0 or remaining <= 0 or not error.fall_over:
        return Decision("fail")
    if error.retry_here and tries_here == 1 and tries_left > others:
        wait = error.retry_after
        if wait is None:
            wait = random() * MAX_BACKOFF
            allowed = error.reason is not Reason.RATE_LIMITED
        else:
            allowed = wait <= MAX_RETRY_AFTER and not others
        if allowed and wait < remaining:
            return Decision("retry", wait)
    return Decision("next" if others else "fail")


class Success(msgspec.Struct, Generic[T], frozen=True):
    """The candidate that succeeded, its result, and all attempts."""

    candidate: Candidate
    result: T
    attempts: list[AttemptRecord]
    #: Candidates whose dialect could not express the request; they were not called.
    skipped: list[Skipped]
    #: Seconds spent in provider calls.
    upstream_seconds: float
    #: The successful call, for EndpointStats.
    attempt: Attempt
    #: The candidates after it, which were not tried.
    others: list[Candidate]


class _History(msgspec.Struct):
    """The attempts so far for one request."""

    attempts: list[AttemptRecord] = []
    skipped: list[Skipped] = []
    #: The last error of each endpoint, by endpoint id; the latest error comes last.
    errors: dict[str, ProviderError] = {}
    tries: dict[str, int] = {}
    seconds: float = 0.0

    def add(self, candidate: Candidate, seconds: float, error: ProviderError | None = None) -> None:
        """Record a call that took `seconds`; without `error` it succeeded."""
        endpoint = candidate.endpoint
        status, reason = (200, "ok") if error is None else (error.http_status or 0, str(error.reason))
        ms = round(seconds * 1000)
        self.attempts.append(AttemptRecord(endpoint.name, endpoint.public_model, status, reason, ms))
        self.seconds += seconds
        self.tries[endpoint.id] = self.tries.get(endpoint.id, 0) + 1
        if error is not None:
            self.errors.pop(endpoint.id, None)
            self.errors[endpoint.id] = detached(error)

    def failure(self, plan: Plan, error: LmchatError) -> LmchatError:
        """The error for the caller: a summary of all calls, or `error` where there was no call.

        With `debug` it also lists the skipped endpoints.
        """
        errors, self.errors = (
            [*self.errors.values()],
            {},
        )  # the error that is raised must not be held by its frames
        if errors:
            error = summary(errors, self.attempts)
        if plan.debug:
            error.skipped = tuple(skipped.record() for skipped in (*plan.skipped, *self.skipped))
        return error


def _limit(candidate: Candidate, remaining: float, calls: int, *, unary: bool) -> float:
    """The time limit of a call, in seconds: an equal share of `remaining` for it and the calls that may follow.

    `calls` counts both. A unary call sends nothing until it is complete, so that an unresponsive endpoint cannot
    be distinguished from a slow one: while another endpoint can still be tried, it is limited to
    `_UNARY_LIMIT_FACTOR` times the endpoint's `first_token` (120 s by default); the last call gets all of
    `remaining`. (The first content of a stream is limited by `first_token`, which UpstreamStream enforces.)
    """
    if calls <= 1:
        return remaining
    share = remaining / calls
    return min(share, _UNARY_LIMIT_FACTOR * candidate.endpoint.timeouts.first_token) if unary else share


class Attempts:
    """Runs plans. `clock` is monotonic; all times are seconds."""

    def __init__(
        self,
        stats: EndpointStats,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._random = random
        self._sleep = sleep

    async def run(
        self,
        plan: Plan,
        deadline: float,
        call: Callable[[Candidate, float], Awaitable[T]],
        *,
        tokens: Callable[[T], int] | None = None,
    ) -> Success[T]:
        """The first success of `call(candidate, limit)`; raises the `summary` of the errors where all fail.

        For unary calls `tokens` counts the output tokens of the result. For streams it is None: the result is
        the first content, and the caller reports the end of the stream to EndpointStats.
        """
        queue = [*plan.candidates]
        history = _History()
        if deadline <= self._clock():
            expired = LmchatError(Reason.TIMEOUT, "The deadline had passed before a provider could be called.")
            raise history.failure(plan, expired)
        while True:
            if len(queue) > 1:
                self._reorder(queue)
            candidate = queue[0]
            attempt = self._stats.begin(candidate.endpoint.id)
            tries_left = plan.max_tries - len(history.attempts)
            limit = _limit(
                candidate, deadline - attempt.begun, min(len(queue), tries_left), unary=tokens is not None
            )
            try:
                result = await call(candidate, limit)
            except InvalidRequest as error:  # the dialect cannot express the request; the provider was not called
                self._stats.abandoned(attempt)
                history.skipped.append(Skipped(candidate.endpoint, error.message))
                queue.pop(0)
                if not queue:
                    raise history.failure(plan, error) from None
            except ProviderError as error:
                history.add(candidate, self._clock() - attempt.begun, error)
                self._failed(candidate, attempt, error, limit)
                decision = decide(
                    error,
                    tries_here=history.tries[candidate.endpoint.id],
                    tries_left=tries_left - 1,
                    others=len(queue) - 1,
                    remaining=deadline - self._clock(),
                    random=self._random,
                )
                if decision.action == "fail":
                    raise history.failure(plan, error) from None
                if decision.action == "retry":
                    await self._sleep(decision.delay)
                else:
                    queue.pop(0)
            except BaseException:  # the caller cancelled, or a bug in the gateway
                self._stats.abandoned(attempt)
                raise
            else:
                if tokens is None:
                    self._stats.first_content(attempt)
                else:
                    self._stats.answered(attempt, tokens(result))
                history.add(candidate, self._clock() - attempt.begun)
                return Success(
                    candidate, result, history.attempts, history.skipped, history.seconds, attempt, queue[1:]
                )

    def _reorder(self, queue: list[Candidate]) -> None:
        """Move candidates with open circuits to the end if that of the first opened since planning."""
        if self._stats.is_open(queue[0].endpoint.id):
            queue.sort(key=lambda candidate: self._stats.is_open(candidate.endpoint.id))

    def _failed(self, candidate: Candidate, attempt: Attempt, error: ProviderError, limit: float) -> None:
        """Count the failure, unless the call only ended because the caller's deadline was short."""
        cut_short = (
            error.reason is Reason.TIMEOUT
            and error.http_status is None
            and limit < min(MIN_FAILURE_TIMEOUT, candidate.endpoint.timeouts.first_token)
            and self._clock() - attempt.begun >= limit - CLOCK_TOLERANCE
        )
        if cut_short:
            self._stats.abandoned(attempt)
        else:
            self._stats.failed(attempt, error)


def summary(errors: Sequence[ProviderError], attempts: Sequence[AttemptRecord]) -> LmchatError:
    """The error for the caller, from the last error of each endpoint called, with `attempts`.

    It is the last error if that is final, if all have the same status, or if all statuses are permanent; for any
    other mix it is a 503. Its `retry_after` is the smallest of all, unless its status is permanent.
    """
    error = errors[-1]
    statuses = {other.status.http for other in errors}
    if error.fall_over and len(statuses) > 1 and not statuses <= _PERMANENT:
        error = ProviderError(
            Reason.OVERLOADED,
            f"No endpoint could answer. The last one: {error.message}",
            raw="; ".join(other.raw for other in errors if other.raw),
        )
    if error.status.http not in _PERMANENT:
        error.retry_after = min((e.retry_after for e in errors if e.retry_after is not None), default=None)
    error.attempts = tuple(attempts)
    return error


#: Statuses that a later retry of the same request would not change.
_PERMANENT = frozenset({400, 404, 413, 422})
