"""The try loop: one candidate after another until one answers, in bounded time.

`decide` is the whole policy, pure. The loop around it makes the calls, keeps
the account of them, and shares out the time that is left so that a silent first
endpoint leaves room for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from server.errors import AttemptRecord, InvalidRequest, LmchatError, ProviderError, Reason
from server.routing.health import EndpointHealth
from server.routing.plan import Candidate, Plan

T = TypeVar("T")

#: Seconds; the first retry waits up to the first of them, full jitter.
_BACKOFF = (0.25, 0.5, 1.0)
#: A `retry-after` up to this many seconds is waited out on the same endpoint.
_SHORT_WAIT = 2.0


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
    would need. `remaining` is in seconds.
    """
    if tries_left <= 0 or remaining <= 0:
        return Decision("fail")
    if error.retry_here and tries_here == 1 and tries_left > others:
        limited = error.reason is Reason.RATE_LIMITED
        wait = error.retry_after
        if wait is None:
            wait = random() * _BACKOFF[min(tries_here, len(_BACKOFF)) - 1]
            allowed = not limited
        else:
            allowed = wait <= _SHORT_WAIT and not (limited and others)
        if allowed and wait < remaining:
            return Decision("retry", wait)
    if error.fall_over and others:
        return Decision("next")
    return Decision("fail")


class Success(NamedTuple, Generic[T]):
    """What answered, and the account of how it came to it."""

    candidate: Candidate
    result: T
    attempts: list[AttemptRecord]
    #: Seconds spent in provider calls.
    upstream_seconds: float
    #: When the successful call began, for `EndpointHealth`.
    begun: float


class Attempts:
    """Runs plans. `clock` is monotonic; all times are seconds."""

    def __init__(
        self,
        health: EndpointHealth,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._health = health
        self._clock = clock
        self._random = random
        self._sleep = sleep

    async def run(
        self, plan: Plan, deadline: float, call: Callable[[Candidate, float], Awaitable[T]]
    ) -> Success[T]:
        """The first success of `call(candidate, limit)`; raises the error that tells the caller most."""
        queue = list(plan.candidates)
        attempts: list[AttemptRecord] = []
        errors: list[LmchatError] = []
        spent = 0.0
        tries_here = 0
        while True:
            candidate = self._choose(queue)
            tries_left = plan.max_tries - len(attempts)
            begun = self._health.begin(candidate.endpoint.id)
            limit = (deadline - begun) / max(1, min(len(queue), tries_left))
            try:
                result = await call(candidate, limit)
            except InvalidRequest as error:  # this dialect cannot say it; no call was made
                self._health.abandon(candidate.endpoint.id)
                errors.append(error)
                queue.pop(0)
                tries_here = 0
                if not queue:
                    raise summary(errors, attempts) from None
                continue
            except ProviderError as error:
                self._failed(candidate, error, begun)
                spent += self._account(candidate, error.http_status or 0, str(error.reason), begun, attempts)
                errors.append(error)
                tries_here += 1
                decision = decide(
                    error,
                    tries_here=tries_here,
                    tries_left=plan.max_tries - len(attempts),
                    others=len(queue) - 1,
                    remaining=deadline - self._clock(),
                    random=self._random,
                )
                if decision.action == "fail":
                    raise summary(errors, attempts) from None
                if decision.action == "retry":
                    await self._sleep(decision.delay)
                else:
                    queue.pop(0)
                    tries_here = 0
                continue
            except BaseException:
                self._health.abandon(candidate.endpoint.id)
                raise
            self._health.success(candidate.endpoint.id, begun)
            spent += self._account(candidate, 200, "ok", begun, attempts)
            return Success(candidate, result, attempts, spent, begun)

    def _choose(self, queue: list[Candidate]) -> Candidate:
        """The next candidate; one whose circuit opened since the plan was made lets the others go first."""
        if len(queue) > 1 and self._health.is_open(queue[0].endpoint.id):
            queue.sort(key=lambda candidate: self._health.is_open(candidate.endpoint.id))
        return queue[0]

    def _failed(self, candidate: Candidate, error: ProviderError, begun: float) -> None:
        """Only failures of the endpoint count against it, not mistakes of the caller."""
        if error.reason in _ENDPOINT_FAULTS:
            self._health.failure(candidate.endpoint.id, begun, error.retry_after)
        else:
            self._health.success(candidate.endpoint.id, begun)

    def _account(
        self, candidate: Candidate, status: int, reason: str, begun: float, attempts: list[AttemptRecord]
    ) -> float:
        seconds = self._clock() - begun
        endpoint = candidate.endpoint
        attempts.append(AttemptRecord(endpoint.name, endpoint.public_model, status, reason, round(seconds * 1000)))
        return seconds


_ENDPOINT_FAULTS = frozenset(
    {
        Reason.RATE_LIMITED,
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_INVALID_RESPONSE,
        Reason.UPSTREAM_AUTHENTICATION,
        Reason.STREAM_TRUNCATED,
        Reason.OVERLOADED,
        Reason.TIMEOUT,
    }
)


def summary(errors: Sequence[LmchatError], attempts: Sequence[AttemptRecord]) -> LmchatError:
    """The one error for several failures: the last, if all say the same to the caller, else 503.

    `retry_after` is the smallest wait known.
    """
    last = errors[-1]
    waits = [error.retry_after for error in errors if error.retry_after is not None]
    if len({error.status.http for error in errors}) == 1 or last.status.http == 400:
        last.retry_after = min(waits, default=None)
        last.attempts = tuple(attempts)
        return last
    return LmchatError(
        Reason.OVERLOADED,
        f"No endpoint could answer. The last one: {last.message}",
        retry_after=min(waits, default=None),
        attempts=attempts,
    )
