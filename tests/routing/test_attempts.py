"""The retry policy, row by row, and the attempt loop, with a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from server.config.model import Circuit
from server.dialects import errors as failures
from server.dialects.base import Endpoint
from server.errors import AttemptRecord, InvalidRequest, LmchatError, ProviderError, Reason
from server.routing.attempts import Attempts, Decision, Success, decide, summary
from server.routing.plan import Candidate, Plan
from server.routing.shared_stats import SharedStats
from server.routing.stats import EndpointStats
from tests.routing.routing_help import Clock, endpoint

row = pytest.param


def answered(status: int, **details: Any) -> ProviderError:
    """The error for an HTTP status, by the rules that all dialects share."""
    return failures.classify(status, **details)


def refused() -> ProviderError:
    """A connection refused or reset."""
    return ProviderError(Reason.UPSTREAM_ERROR, "No connection.", retry_here=True, raw="ConnectError")


def silent() -> ProviderError:
    """No first token in time."""
    return ProviderError(Reason.TIMEOUT, "The provider sent no content in time.")


RETRY, NEXT, FAIL = Decision("retry", 0.125), Decision("next"), Decision("fail")


@pytest.mark.parametrize(
    ("error", "others", "tries_left", "expected"),
    [
        row(refused(), 1, 2, RETRY, id="refused: retry"),
        row(answered(500), 1, 2, RETRY, id="500: retry"),
        row(answered(502), 1, 2, RETRY, id="502: retry"),
        row(answered(503), 1, 2, RETRY, id="503: retry"),
        row(answered(529), 1, 2, RETRY, id="529: retry"),
        row(answered(500), 0, 1, RETRY, id="500, no other candidate: retry"),
        row(answered(500), 1, 1, NEXT, id="500: the last try is reserved for the other candidate"),
        row(answered(500), 2, 2, NEXT, id="500: the last tries are reserved for the other candidates"),
        row(answered(500), 2, 3, RETRY, id="500: enough tries for all"),
        row(answered(500), 0, 0, FAIL, id="500, no tries left"),
        row(answered(500), 3, 0, FAIL, id="500, other candidates, no tries left"),
        row(
            answered(503, retry_after=1.0),
            0,
            2,
            Decision("retry", 1.0),
            id="503 with a short retry-after, no other candidate: wait",
        ),
        row(answered(503, retry_after=1.0), 1, 2, NEXT, id="503 with a short retry-after: next without waiting"),
        row(
            answered(503, retry_after=30.0), 0, 2, FAIL, id="503 with a long retry-after, no other candidate: fail"
        ),
        row(answered(503, retry_after=30.0), 1, 2, NEXT, id="503 with a long retry-after: next"),
        row(answered(429), 1, 2, NEXT, id="429: next"),
        row(answered(429), 0, 2, FAIL, id="429 without retry-after, no other candidate: fail"),
        row(answered(429, retry_after=1.0), 1, 2, NEXT, id="429 with a short retry-after: next"),
        row(
            answered(429, retry_after=1.0),
            0,
            2,
            Decision("retry", 1.0),
            id="429 with a short retry-after, no other candidate: wait",
        ),
        row(
            answered(429, retry_after=2.0),
            0,
            2,
            Decision("retry", 2.0),
            id="429 with a retry-after of two seconds: wait",
        ),
        row(answered(429, retry_after=2.1), 0, 2, FAIL, id="429 with a retry-after above the maximum: fail"),
        row(answered(429, retry_after=0.0), 0, 2, Decision("retry", 0.0), id="429 with a retry-after of 0"),
        row(answered(429, code="insufficient_quota", retry_after=1.0), 0, 2, FAIL, id="429 for exhausted credit"),
        row(silent(), 1, 2, NEXT, id="timeout: next"),
        row(silent(), 0, 2, FAIL, id="timeout, no other candidate: fail"),
        row(answered(408), 1, 2, NEXT, id="408: next"),
        row(answered(504), 0, 2, FAIL, id="504, no other candidate: fail"),
        row(answered(409), 1, 2, NEXT, id="409: next"),
        row(answered(425), 1, 2, NEXT, id="425: next"),
        row(answered(401), 1, 2, NEXT, id="401: next"),
        row(answered(401), 0, 2, FAIL, id="401, no other candidate: fail"),
        row(answered(402), 1, 2, NEXT, id="402: next"),
        row(answered(403), 1, 2, NEXT, id="403: next"),
        row(answered(404), 1, 2, NEXT, id="404: next"),
        row(answered(400, code="context_length_exceeded"), 1, 2, NEXT, id="context too long: next"),
        row(
            answered(400, code="context_length_exceeded"),
            0,
            2,
            FAIL,
            id="context too long, no other candidate: fail",
        ),
        row(failures.invalid_response("<html>"), 1, 2, NEXT, id="undecodable response: next"),
        row(answered(400), 1, 2, FAIL, id="400: fail"),
        row(answered(413), 1, 2, FAIL, id="413"),
        row(answered(422), 1, 2, FAIL, id="422"),
        row(answered(400, code="content_filter"), 1, 2, FAIL, id="content policy"),
        row(answered(500, code="content_filter"), 1, 2, FAIL, id="content policy with status 500: fail"),
    ],
)
def test_decide(error: ProviderError, others: int, tries_left: int, expected: Decision) -> None:
    decision = decide(
        error, tries_here=1, tries_left=tries_left, others=others, remaining=60.0, random=lambda: 0.5
    )
    assert decision == expected


@pytest.mark.parametrize(
    ("error", "others", "tries_here", "remaining", "dice", "expected"),
    [
        row(answered(500), 0, 2, 60.0, 0.5, FAIL, id="retried once: fail"),
        row(answered(500), 1, 2, 60.0, 0.5, NEXT, id="retried once: next"),
        row(refused(), 0, 2, 60.0, 0.5, FAIL, id="refused twice"),
        row(answered(429, retry_after=1.0), 0, 2, 60.0, 0.5, FAIL, id="429 twice"),
        row(answered(500), 0, 1, 60.0, 0.0, Decision("retry", 0.0), id="full jitter: at once"),
        row(answered(500), 0, 1, 60.0, 1.0, Decision("retry", 0.25), id="full jitter: at most"),
        row(answered(500), 0, 1, 0.1, 0.5, FAIL, id="no time for the wait"),
        row(answered(500), 1, 1, 0.1, 0.5, NEXT, id="no time for the wait, next"),
        row(answered(429, retry_after=1.0), 0, 1, 1.0, 0.5, FAIL, id="no time for the retry-after"),
        row(silent(), 1, 1, 0.0, 0.5, FAIL, id="no time left"),
        row(silent(), 1, 1, -1.0, 0.5, FAIL, id="some time left"),
    ],
)
def test_decide_in_time(
    error: ProviderError, others: int, tries_here: int, remaining: float, dice: float, expected: Decision
) -> None:
    decision = decide(
        error, tries_here=tries_here, tries_left=3, others=others, remaining=remaining, random=lambda: dice
    )
    assert decision == expected


RECORDS = [AttemptRecord("a", "m", 500, "upstream_error", 7)]


@pytest.mark.parametrize(
    ("errors", "status", "reason", "retry_after"),
    [
        row([answered(429)], 429, Reason.RATE_LIMITED, None, id="429"),
        row([answered(429, retry_after=9.0)], 429, Reason.RATE_LIMITED, 9.0, id="429 with a wait"),
        row(
            [answered(429, retry_after=9.0), answered(429, retry_after=4.0), answered(429, retry_after=7.0)],
            429, Reason.RATE_LIMITED, 4.0, id="429 everywhere: the smallest retry-after",
        ),
        row([answered(429, retry_after=9.0), answered(429)], 429, Reason.RATE_LIMITED, 9.0, id="one retry-after"),
        row([answered(429, retry_after=9.0), answered(500)], 503, Reason.OVERLOADED, 9.0, id="429 and 500"),
        row([answered(500), answered(429, retry_after=9.0)], 503, Reason.OVERLOADED, 9.0, id="500 and 429"),
        row([silent()], 504, Reason.TIMEOUT, None, id="a timeout"),
        row([silent(), answered(408), answered(504)], 504, Reason.TIMEOUT, None, id="timeouts of all kinds"),
        row([silent(), refused()], 503, Reason.OVERLOADED, None, id="a timeout and another failure"),
        row([answered(500), refused()], 502, Reason.UPSTREAM_ERROR, None, id="failures"),
        row([answered(500), answered(401)], 502, Reason.UPSTREAM_AUTHENTICATION, None, id="failures: the last"),
        row([answered(503), answered(529)], 503, Reason.OVERLOADED, None, id="overload"),
        row([answered(404)], 404, Reason.MODEL_NOT_FOUND, None, id="an unknown model"),
        row([answered(404), answered(500)], 503, Reason.OVERLOADED, None, id="unknown at one, failed at another"),
        row([answered(500), answered(400)], 400, Reason.INVALID_REQUEST, None, id="invalid request is final"),
        row(
            [answered(429, retry_after=9.0), answered(413)],
            413, Reason.REQUEST_TOO_LARGE, None, id="request too large: no retry-after",
        ),
        row(
            [answered(503), answered(400, code="content_filter")],
            400, Reason.CONTENT_POLICY_VIOLATION, None, id="content policy",
        ),
        row(
            [answered(400, code="context_length_exceeded")],
            400, Reason.CONTEXT_LENGTH_EXCEEDED, None, id="context too long",
        ),
        row(
            [answered(404), answered(400, code="context_length_exceeded")],
            400, Reason.CONTEXT_LENGTH_EXCEEDED, None, id="context too long, unknown model",
        ),
        row(
            [answered(503), answered(400, code="context_length_exceeded")],
            503, Reason.OVERLOADED, None, id="context too long, and a 503",
        ),
    ],
)  # fmt: skip
def test_summary(errors: list[ProviderError], status: int, reason: Reason, retry_after: float | None) -> None:
    error = summary(errors, RECORDS)
    assert (error.status.http, error.reason, error.retry_after) == (status, reason, retry_after)
    assert error.attempts == tuple(RECORDS)
    assert errors[-1].message in error.message


def test_a_mixed_summary_keeps_raw_errors() -> None:
    error = summary([refused(), answered(429, message="slow down, org-1")], RECORDS)
    assert isinstance(error, ProviderError)
    assert error.raw == "ConnectError; slow down, org-1"
    assert "org-1" not in error.message


class Outcome(NamedTuple):
    """The outcome of a call after `seconds`; `error` is None for an answer."""

    error: BaseException | None = None
    seconds: float = 0.01


OK = Outcome()


class Bench:
    """Endpoints with a script each, whose last outcome is repeated; `calls`: name, time and limit of each."""

    def __init__(self, scripts: Mapping[str, Sequence[Outcome]], circuit: Circuit | None = None) -> None:
        self.clock = Clock(0.0)
        self.health = EndpointStats(circuit or Circuit(), SharedStats.private(self.clock))
        self.calls: list[tuple[str, float, float]] = []
        self._scripts = {name: list(outcomes) for name, outcomes in scripts.items()}
        self.endpoints = [endpoint(name, first_token=30.0) for name in scripts]
        self.attempts = Attempts(self.health, clock=self.clock, random=lambda: 0.5, sleep=self.clock.sleep)

    async def call(self, candidate: Candidate, limit: float) -> str:
        """Play the endpoint's next outcome; nothing takes longer than its limit."""
        name = candidate.endpoint.name
        self.calls.append((name, self.clock.now, limit))
        script = self._scripts[name]
        outcome = script.pop(0) if len(script) > 1 else script[0]
        if outcome.seconds > limit:
            self.clock.now += limit
            raise silent()
        self.clock.now += outcome.seconds
        if outcome.error is not None:
            raise outcome.error
        return f"from {name}"

    async def run(
        self, *, tries: int = 3, deadline: float = 100.0, whole: bool = True, of: Sequence[Endpoint] = ()
    ) -> Success[str]:
        """Run the plan of all endpoints, in their order; `deadline` is from now."""
        plan = Plan([Candidate(e, []) for e in of or self.endpoints], [], tries)
        return await self.attempts.run(
            plan, self.clock.now + deadline, self.call, tokens=(lambda _: 0) if whole else None
        )

    def names(self) -> str:
        """The names of the called endpoints, in order."""
        return "".join(name for name, _, _ in self.calls)

    def is_open(self, name: str) -> bool:
        """The circuit of an endpoint."""
        return self.health.is_open(f"{name}/{name}/up")


def fails(status: int, **details: Any) -> Outcome:
    return Outcome(answered(status, **details))


REFUSED = Outcome(refused())
SILENCE = Outcome(seconds=1e9)
CANNOT = Outcome(InvalidRequest("At most 4 sequences, got 5.", "stop"), 0.0)


@pytest.mark.parametrize(
    ("scripts", "tries", "calls", "slept"),
    [
        row({"a": [OK], "b": [OK]}, 3, "a", [], id="the first answers"),
        row({"a": [fails(500), OK], "b": [OK]}, 3, "aa", [0.125], id="500 once"),
        row({"a": [fails(503)], "b": [OK]}, 3, "aab", [0.125], id="503 always"),
        row({"a": [fails(503)], "b": [OK]}, 2, "ab", [], id="two tries for two endpoints"),
        row({"a": [REFUSED], "b": [OK]}, 3, "aab", [0.125], id="refused"),
        row({"a": [fails(429)], "b": [OK]}, 3, "ab", [], id="429"),
        row(
            {"a": [fails(429, retry_after=1.0)], "b": [OK]},
            3,
            "ab",
            [],
            id="429 with a short retry-after, another candidate",
        ),
        row(
            {"a": [fails(429, retry_after=1.5), OK]},
            3,
            "aa",
            [1.5],
            id="429 with a short retry-after, no other candidate",
        ),
        row({"a": [fails(401)], "b": [OK]}, 3, "ab", [], id="credentials refused"),
        row({"a": [fails(404)], "b": [OK]}, 3, "ab", [], id="unknown model"),
        row({"a": [SILENCE], "b": [OK]}, 3, "ab", [], id="timeout"),
        row({"a": [fails(500)], "b": [fails(500)], "c": [OK]}, 3, "abc", [], id="three tries for three endpoints"),
        row(
            {"a": [fails(500)], "b": [fails(500)], "c": [OK]}, 9, "aabbc", [0.125] * 2, id="more tries than needed"
        ),
        row({"a": [CANNOT], "b": [OK]}, 1, "ab", [], id="an inexpressible request uses no try"),
        row(
            {"a": [fails(429)], "b": [CANNOT], "c": [OK]},
            2,
            "abc",
            [],
            id="an inexpressible request after a failure uses no try",
        ),
    ],
)
async def test_answers(scripts: dict[str, list[Outcome]], tries: int, calls: str, slept: list[float]) -> None:
    bench = Bench(scripts)
    success = await bench.run(tries=tries)
    assert bench.names() == calls
    assert bench.clock.slept == slept
    assert success.result == f"from {calls[-1]}"
    assert success.candidate.endpoint.name == calls[-1]
    providers = [record.provider for record in success.attempts]
    assert "".join(providers) == "".join(name for name in calls if scripts[name] != [CANNOT])
    assert success.attempts[-1] == AttemptRecord(calls[-1], "m", 200, "ok", 10)


@pytest.mark.parametrize(
    ("scripts", "tries", "calls", "status"),
    [
        row({"a": [fails(500)]}, 3, "aa", 502, id="one endpoint, always 500"),
        row({"a": [fails(500)]}, 100, "aa", 502, id="more tries than needed: each endpoint is called twice"),
        row({"a": [fails(500)]}, 1, "a", 502, id="one try is one call"),
        row({"a": [fails(500)], "b": [OK]}, 1, "a", 502, id="one try is one call, with other candidates"),
        row({"a": [fails(503)], "b": [fails(503)]}, 3, "aab", 503, id="all overloaded"),
        row({"a": [fails(503)], "b": [fails(503)]}, 100, "aabb", 503, id="all overloaded, more tries than needed"),
        row({"a": [fails(429)]}, 3, "a", 429, id="429 always"),
        row({"a": [fails(429, retry_after=1.0)]}, 100, "aa", 429, id="429 with a short retry-after, always"),
        row({"a": [fails(429)], "b": [fails(429)]}, 3, "ab", 429, id="429 everywhere"),
        row({"a": [fails(500), fails(429)], "b": [fails(429)]}, 9, "aab", 429, id="429 is the last error of each"),
        row({"a": [fails(429)], "b": [fails(500)]}, 2, "ab", 503, id="different errors"),
        row({"a": [SILENCE], "b": [SILENCE]}, 3, "ab", 504, id="timeouts everywhere"),
        row({"a": [SILENCE]}, 3, "a", 504, id="timeout, no other candidate"),
        row({"a": [fails(400)], "b": [OK]}, 3, "a", 400, id="invalid request"),
        row(
            {"a": [fails(503)], "b": [fails(400)], "c": [OK]},
            3,
            "ab",
            400,
            id="invalid request at the second candidate",
        ),
        row({"a": [fails(400, code="content_filter")], "b": [OK]}, 3, "a", 400, id="content policy"),
        row({"a": [CANNOT]}, 3, "a", 400, id="inexpressible"),
        row({"a": [CANNOT], "b": [CANNOT]}, 3, "ab", 400, id="inexpressible everywhere"),
        row({"a": [fails(429)], "b": [CANNOT]}, 3, "ab", 429, id="429, and inexpressible elsewhere"),
    ],
)
async def test_errors(scripts: dict[str, list[Outcome]], tries: int, calls: str, status: int) -> None:
    bench = Bench(scripts)
    with pytest.raises(LmchatError) as e:
        await bench.run(tries=tries)
    assert bench.names() == calls
    assert e.value.status.http == status
    assert len(e.value.attempts) == sum(scripts[name] != [CANNOT] for name in calls)


async def test_attempts_are_recorded() -> None:
    bench = Bench({"a": [Outcome(answered(503), 0.2)], "b": [CANNOT], "c": [SILENCE], "d": [Outcome(None, 1.5)]})
    success = await bench.run(tries=5, deadline=30.0)
    assert success.attempts == [
        AttemptRecord("a", "m", 503, "overloaded", 200),
        AttemptRecord("a", "m", 503, "overloaded", 200),
        AttemptRecord("c", "m", 0, "timeout", round((30.0 - 0.525) / 2 * 1000)),
        AttemptRecord("d", "m", 200, "ok", 1500),
    ]
    assert [(s.endpoint.name, s.reason) for s in success.skipped] == [("b", "At most 4 sequences, got 5.")]
    assert success.upstream_seconds == pytest.approx(0.4 + (30.0 - 0.525) / 2 + 1.5)  # without the back-off
    assert success.attempt.begun == pytest.approx(bench.clock.now - 1.5)


@pytest.mark.parametrize(
    ("endpoints", "tries", "limits"),
    [
        row("a", 3, [60.0], id="one endpoint: all of the time"),
        row("ab", 3, [30.0, 30.0], id="two endpoints share"),
        row("abc", 3, [20.0, 20.0, 20.0], id="three endpoints share"),
        row("abc", 2, [30.0, 30.0], id="only endpoints with a try share"),
        row("abc", 1, [60.0], id="a single try: all of the time"),
        row("abcd", 100, [15.0] * 4, id="more tries than needed"),
    ],
)
async def test_an_unresponsive_endpoint_leaves_time_for_others(
    endpoints: str, tries: int, limits: list[float]
) -> None:
    bench = Bench({name: [SILENCE] for name in endpoints})
    with pytest.raises(LmchatError) as e:
        await bench.run(tries=tries, deadline=60.0)
    assert e.value.reason is Reason.TIMEOUT
    assert [limit for _, _, limit in bench.calls] == pytest.approx(limits)
    assert bench.clock.now == pytest.approx(60.0)


async def test_time_saved_by_a_fast_failure_goes_to_the_others() -> None:
    bench = Bench({"a": [fails(429)], "b": [SILENCE], "c": [OK]})
    await bench.run(deadline=60.0)
    assert [limit for _, _, limit in bench.calls] == pytest.approx([20.0, 29.995, 29.995])


@pytest.mark.parametrize("deadline", [0.0, -1.0])
async def test_no_call_without_time(deadline: float) -> None:
    bench = Bench({"a": [OK]})
    with pytest.raises(LmchatError) as e:
        await bench.run(deadline=deadline)
    assert (e.value.reason, bench.calls) == (Reason.TIMEOUT, [])


@pytest.mark.parametrize("scripts", [{"a": [fails(500)]}, {"a": [REFUSED], "b": [fails(529)]}, {"a": [SILENCE]}])
@pytest.mark.parametrize("deadline", [0.1, 1.0, 100.0])
async def test_calls_and_time_are_bounded(scripts: dict[str, list[Outcome]], deadline: float) -> None:
    bench = Bench(scripts)
    with pytest.raises(LmchatError):
        await bench.run(tries=100, deadline=deadline)
    assert all(bench.names().count(name) <= 2 for name in scripts)
    assert bench.clock.now <= deadline + 1e-9


# Circuits


ONE = Circuit(min_requests=1)
ENDS = (LmchatError, RuntimeError, asyncio.CancelledError)


async def test_an_open_circuit_sends_the_retry_elsewhere() -> None:
    bench = Bench({"a": [fails(500), OK], "b": [OK]}, ONE)
    success = await bench.run()
    assert bench.names() == "ab"
    assert success.candidate.endpoint.name == "b"


async def test_an_open_endpoint_is_retried_when_all_others_failed() -> None:
    bench = Bench({"a": [fails(500), OK], "b": [fails(500)]}, ONE)
    assert (await bench.run()).result == "from a"
    assert bench.names() == "aba"


async def test_the_last_error_is_the_most_recent() -> None:
    bench = Bench({"a": [fails(500), fails(401)], "b": [fails(500)]}, ONE)
    with pytest.raises(LmchatError) as e:
        await bench.run()
    assert bench.names() == "aba"
    assert e.value.reason is Reason.UPSTREAM_AUTHENTICATION


async def test_calls_are_bounded_in_every_circuit_state() -> None:
    bench = Bench({name: [fails(500)] for name in "abc"}, ONE)
    with pytest.raises(LmchatError):
        await bench.run(tries=100)
    assert sorted(bench.names()) == sorted("aabbcc")


async def test_a_circuit_opens_after_planning() -> None:
    bench = Bench({"a": [OK], "b": [OK]}, ONE)
    bench.health.failed(bench.health.begin("a/a/up"), answered(500))
    assert (await bench.run()).result == "from b"


async def test_a_flapping_endpoint_recovers_after_a_cooldown() -> None:
    bench = Bench({"a": [fails(401), OK], "b": [OK]}, ONE)
    for _ in range(3):
        assert (await bench.run()).result == "from b"
    assert bench.names() == "abbb"  # the later plans are the same here, so only the attempt loop avoids it
    bench.clock.now += 10
    assert (await bench.run()).result == "from a"
    assert not bench.is_open("a")


async def test_the_circuit_half_opens_before_a_delayed_retry() -> None:
    bench = Bench({"a": [fails(429, retry_after=1.0), OK]})
    await bench.run()
    assert not bench.is_open("a")


@pytest.mark.parametrize(
    ("outcome", "deadline", "counts"),
    [
        row(Outcome(answered(500)), 100.0, True, id="a failure"),
        row(SILENCE, 100.0, True, id="timeout after its whole limit"),
        row(SILENCE, 6.0, True, id="timeout after more than the minimum"),
        row(SILENCE, 4.0, False, id="timeout by a short deadline of the caller"),
        row(Outcome(silent(), 0.5), 4.0, True, id="timeout after its own limit, below the caller's deadline"),
        row(Outcome(answered(504), 3.999), 4.0, True, id="504"),
        row(Outcome(answered(400)), 100.0, False, id="invalid request"),
        row(Outcome(answered(400, code="context_length_exceeded")), 100.0, False, id="context too long"),
        row(Outcome(answered(400, code="content_filter")), 100.0, False, id="content policy"),
        row(Outcome(answered(404)), 100.0, True, id="unknown model"),
        row(CANNOT, 100.0, False, id="inexpressible"),
        row(Outcome(RuntimeError("bug")), 100.0, False, id="a bug of the gateway"),
        row(Outcome(asyncio.CancelledError()), 100.0, False, id="the caller left"),
    ],
)
async def test_what_counts_against_an_endpoint(outcome: Outcome, deadline: float, counts: bool) -> None:
    bench = Bench({"a": [outcome]}, ONE)
    with pytest.raises(ENDS):
        await bench.run(tries=1, deadline=deadline)
    assert bench.is_open("a") is counts


@pytest.mark.parametrize(
    "outcome",
    [
        row(CANNOT, id="inexpressible"),
        row(Outcome(answered(400)), id="invalid request"),
        row(Outcome(RuntimeError("bug")), id="a bug of the gateway"),
        row(Outcome(asyncio.CancelledError()), id="the caller left"),
    ],
)
async def test_after_an_abandoned_probe_the_next_call_probes(outcome: Outcome) -> None:
    bench = Bench({"a": [outcome, OK], "b": [OK]}, ONE)
    bench.health.failed(bench.health.begin("a/a/up"), answered(500))
    bench.clock.now += 10
    with pytest.raises(ENDS):
        await bench.run(of=bench.endpoints[:1])
    assert (await bench.run()).result == "from a"
    assert bench.health.begin("a/a/up").probe is False  # it is closed


async def test_streams_close_a_circuit_but_are_no_success_yet() -> None:
    bench = Bench({"a": [OK]}, Circuit(min_requests=2, failure_ratio=1.0))
    success = await bench.run(whole=False)
    bench.health.failed(success.attempt, answered(500))
    bench.health.failed(success.attempt, answered(500))
    assert bench.is_open("a")


# Cancellation


async def test_no_call_after_cancellation() -> None:
    begun: list[str] = []
    started = asyncio.Event()

    async def call(candidate: Candidate, limit: float) -> str:
        begun.append(candidate.endpoint.name)
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench = Bench({"a": [OK], "b": [OK]})
    plan = Plan([Candidate(e, []) for e in bench.endpoints], [], 3)
    task = asyncio.create_task(bench.attempts.run(plan, 60.0, call, tokens=lambda _: 0))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == ["a"]


async def test_no_retry_after_cancellation_in_the_delay() -> None:
    slept = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.set()
        await asyncio.Event().wait()

    bench = Bench({"a": [fails(500)], "b": [OK]})
    bench.attempts = Attempts(bench.health, clock=bench.clock, random=lambda: 0.5, sleep=sleep)
    task = asyncio.create_task(bench.run())
    await slept.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.names() == "a"
