"""The try loop: one candidate after another until one answers, in bounded time.

`decide` is the whole policy, pure, and `summary` the one error for the caller when
no endpoint answered. The loop around them makes the calls, records them, and
divides the time that is left so that a silent first endpoint leaves room for a
second. No endpoint is called more than twice for one request.
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

#: Seconds; a retry waits up to this long, full jitter.
MAX_BACKOFF = 0.25
#: A `retry-after` up to this many seconds is waited out on the same endpoint.
MAX_RETRY_AFTER = 2.0
#: Seconds; silence for less than this, and less than `first_token`, does not count against an endpoint.
MIN_SILENCE = 5.0
#: What a whole answer may take while another endpoint may follow, in units of `first_token`.
_WHOLE_ANSWER_SHARE = 2.0
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
    """The policy. `tries_here` counts calls of this endpoint so far, `others` the candidates after it.

    A retry on the same endpoint never takes the try that another candidate
    would need, and a wait the provider asks for is only waited out where there is
    no other. `remaining` is in seconds, `random` gives numbers in [0, 1).
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
    """What answered, and the calls that it took."""

    candidate: Candidate
    result: T
    attempts: list[AttemptRecord]
    #: Candidates whose dialect could not express the request; they were not called.
    skipped: list[Skipped]
    #: Seconds spent in provider calls.
    upstream_seconds: float
    #: The successful call, for EndpointStats.
    attempt: Attempt
    #: The candidates that were left to try.
    others: list[Candidate]


class _History(msgspec.Struct):
    """The calls made so far for one request."""

    attempts: list[AttemptRecord] = []
    skipped: list[Skipped] = []
    #: The last error of each endpoint, by its id; the latest at the end.
    errors: dict[str, ProviderError] = {}
    tries: dict[str, int] = {}
    seconds: float = 0.0

    def add(self, candidate: Candidate, seconds: float, error: ProviderError | None = None) -> None:
        """A call ended, after so many seconds."""
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
        """The error for the caller: a summary of all calls, or `error` where none was made.

        Callers who debug their routing also learn which endpoints were skipped.
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


def _limit(candidate: Candidate, remaining: float, calls: int, *, whole: bool) -> float:
    """Seconds a call may take, of those `remaining`, when it and others after it are so many `calls`.

    They share the time evenly. A whole answer shows nothing until it is there, so that silence cannot be told
    from work: while another endpoint may follow, such a call has `_WHOLE_ANSWER_SHARE` times the endpoint's
    `first_token` at most (120 s by default), and the last one all that is left. (The first content of a stream
    has `first_token`, which UpstreamStream enforces.)
    """
    if calls <= 1:
        return remaining
    share = remaining / calls
    return min(share, _WHOLE_ANSWER_SHARE * candidate.endpoint.timeouts.first_token) if whole else share


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
        """The first success of `call(candidate, limit)`; raises the error that tells the caller most.

        `tokens` says how many tokens a success has, which is then the whole answer; without it, it is only
        the first content of a stream, and the caller tells EndpointStats how that ends.
        """
        queue = [*plan.candidates]
        history = _History()
        if deadline <= self._clock():
            late = LmchatError(Reason.TIMEOUT, "The deadline had passed before a provider could be called.")
            raise history.failure(plan, late)
        while True:
            if len(queue) > 1:
                self._reorder(queue)
            candidate = queue[0]
            attempt = self._stats.begin(candidate.endpoint.id)
            tries_left = plan.max_tries - len(history.attempts)
            limit = _limit(
                candidate, deadline - attempt.begun, min(len(queue), tries_left), whole=tokens is not None
            )
            try:
                result = await call(candidate, limit)
            except InvalidRequest as error:  # this dialect cannot express it; no call was made
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
            except BaseException:  # the caller left, or a fault of the gateway
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
        """If the circuit of the next candidate opened since the plan was made, the others go first."""
        if self._stats.is_open(queue[0].endpoint.id):
            queue.sort(key=lambda candidate: self._stats.is_open(candidate.endpoint.id))

    def _failed(self, candidate: Candidate, attempt: Attempt, error: ProviderError, limit: float) -> None:
        """Count the failure, unless only the caller's short deadline ended the call."""
        cut_short = (
            error.reason is Reason.TIMEOUT
            and error.http_status is None
            and limit < min(MIN_SILENCE, candidate.endpoint.timeouts.first_token)
            and self._clock() - attempt.begun >= limit - CLOCK_TOLERANCE
        )
        if cut_short:
            self._stats.abandoned(attempt)
        else:
            self._stats.failed(attempt, error)


def summary(errors: Sequence[ProviderError], attempts: Sequence[AttemptRecord]) -> LmchatError:
    """The one error for the last error of each endpoint called, with `attempts` and the smallest wait known.

    It is the last of them if that is final, if all have its status, or if
    waiting would help with none of them; for any other mix it is a 503.
    """
    error = errors[-1]
    statuses = {other.status.http for other in errors}
    if error.fall_over and len(statuses) > 1 and not statuses <= _LASTING:
        error = ProviderError(
            Reason.OVERLOADED,
            f"No endpoint could answer. The last one: {error.message}",
            raw="; ".join(other.raw for other in errors if other.raw),
        )
    if error.status.http not in _LASTING:
        error.retry_after = min((e.retry_after for e in errors if e.retry_after is not None), default=None)
    error.attempts = tuple(attempts)
    return error


#: Statuses that stay the same however long a caller waits.
_LASTING = frozenset({400, 404, 413, 422})
