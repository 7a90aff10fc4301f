"""Circuits and averages over time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.config.model import Circuit
from server.errors import ProviderError, Reason, StreamTruncated
from server.routing.shared_stats import SharedStats
from server.routing.stats import Attempt, EndpointStats, Snapshot
from tests.routing.routing_help import Clock

row = pytest.param

#: A window of 30 s, five calls at least, half of them failed, 10 s of cooldown.
SETTINGS = Circuit()

FAILED = ProviderError(Reason.UPSTREAM_ERROR, "It failed.", http_status=500)


def play(script: str, settings: Circuit = SETTINGS) -> str:
    """The results of `is_open` at each `?` of a script: `O` for open, `-` for closed.

    `s` and `f` are calls that succeed and fail, `r9` one that fails with a
    retry-after of 9 s, `m` an invalid request, `a` a caller who leaves; `+9`
    advances the clock by 9 s. Capital letters name calls that take time: `bA` begins one,
    `sA`, `fA`, `mA`, `aA` end it; `cA` is the first content of a stream, and
    `eA` its end. The delay of writing successes makes no difference.
    """
    clock = Clock()
    outcome = _outcome(script, EndpointStats(settings, SharedStats.private(clock)), clock)
    clock = Clock()
    assert _outcome(script, EndpointStats(settings, SharedStats.private(clock), lambda _: None), clock) == outcome
    return outcome


def _outcome(script: str, health: EndpointStats, clock: Clock) -> str:
    under_way: dict[str, Attempt] = {}
    outcome = ""
    for step in script.split():
        action, name = step[0], step[1:]
        if action == "?":
            outcome += "O" if health.is_open("e") else "-"
        elif action == "+":
            clock.now += float(name)
        elif action == "b":
            under_way[name] = health.begin("e")
        else:
            call = under_way[name] if name.isalpha() else health.begin("e")
            match action:
                case "s":
                    health.answered(call)
                case "c":
                    health.first_content(call)
                case "f":
                    health.failed(call, FAILED)
                case "r":
                    health.failed(call, ProviderError(Reason.RATE_LIMITED, "Slower.", retry_after=float(name)))
                case "m":
                    health.failed(call, ProviderError(Reason.INVALID_REQUEST, "What?", fall_over=False))
                case "a":
                    health.abandoned(call)
                case "e":
                    health.stream_completed(call)
    return outcome


OPENED = "f f f f f"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        row("?", "-", id="no calls"),
        row("f f f f ?", "-", id="too few calls"),
        row("f f f f ? f ?", "-O", id="the fifth failure opens it"),
        row("s s s s s s f f f f f ? f ?", "-O", id="half of twelve"),
        row("s s s s s s s s s f f f f f f f f ?", "-", id="less than half"),
        row("s f s f s f ?", "O", id="every second call"),
        row("f f f f +31 f ?", "-", id="failures older than the window"),
        row("f f +12 f f +14 f ?", "O", id="failures within the window"),
        row("s s s s s s s s +31 f f f f f ?", "O", id="successes older than the window"),
        row("m m m m m m m m ?", "-", id="invalid requests"),
        row("m m m m m f f f f ? f ?", "-O", id="invalid requests count neither as success nor as failure"),
        row("a a a a a a ?", "-", id="callers who leave"),
        row("r9 ?", "O", id="a retry-after"),
        row("r9 +8.9 ? +0.2 ?", "O-", id="a retry-after opens it for that time"),
        row("r3600 +59 ? +2 ?", "O-", id="a retry-after is bounded"),
        row("r0 ?", "-", id="a retry-after of 0"),
        row("r0 r0 r0 r0 r0 +9 ? +2 ?", "O-", id="repeated retry-after of 0: a cooldown"),
    ],
)
def test_opening(script: str, expected: str) -> None:
    assert play(script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        row("+9.9 ? +0.2 ?", "O-", id="half-open after the cooldown"),
        row("+10 bA ? +1 sA ?", "O-", id="the probe closes it"),
        row("+10 bA cA ?", "-", id="the first content of a stream is enough"),
        row("+10 bA ? +1 fA ? +9.9 ? +0.2 ?", "OOO-", id="a failed probe opens it for a cooldown from its end"),
        row("+10 r3 ? +2.9 ? +0.2 ?", "OO-", id="a failed probe with a retry-after opens it for that time"),
        row("+10 bA ? aA ?", "O-", id="the probe's caller left: the next call probes"),
        row("+10 bA aA bB ? sB ?", "O-", id="the next probe closes it"),
        row("+10 bA mA ?", "-", id="the probe was an invalid request: the next call probes"),
        row("+10 m f ?", "O", id="the next probe may open it again"),
        row("+10 bA bB ? sB ?", "OO", id="a call beside the probe closes nothing"),
        row("+10 bA bB fB +1 sA ?", "-", id="a call beside the probe opens nothing"),
        row("+10 bA bB aB ?", "O", id="a call beside the probe frees nothing when its caller leaves"),
        row("+10 bA bB mB ?", "O", id="an invalid request beside the probe frees nothing"),
        row("+10 bA +9.9 ? +0.2 ?", "O-", id="a probe that hangs: another after a cooldown"),
        row("+10 bA +10 bB ? sA ?", "O-", id="a slow probe still closes it"),
        row("+10 bA +10 bB fB sA ?", "O", id="a slow probe does not close it after a later one failed"),
        row(
            "+10 bA +10 bB sB fA ? f f ? f ?",
            "--O",
            id="a slow probe does not open it after a later one succeeded",
        ),
        row("+10 bA +10 bB aA ?", "O", id="a slow probe's caller leaves while a later one is in progress"),
        row("+10 s f f f ? f ?", "-O", id="once closed it counts from zero"),
        row("s s s ? +10 ?", "O-", id="successes of other calls while it is open close nothing"),
        row("+9 f +1.5 ?", "-", id="failures while it is open do not prolong it"),
        row("+9 r5 +1.5 ? +4 ?", "O-", id="a longer retry-after prolongs it"),
        row("r2 +3 ? +8 ?", "O-", id="a shorter retry-after does not shorten it"),
    ],
)
def test_open(script: str, expected: str) -> None:
    assert play(f"{OPENED} {script}") == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        row(f"bL {OPENED} sL ?", "O", id="a late success of a call that began before it opened"),
        row(f"bL {OPENED} +11 sL ?  f ?", "-O", id="a late success after the cooldown: still half-open"),
        row(f"bL {OPENED} +10 bA sL ? fA ?", "OO", id="a late success beside the probe"),
        row(f"bL {OPENED} +10 bA sL aA bB fB ?", "O", id="a late success beside an abandoned probe"),
        row(f"bL {OPENED} +10 bA sA fL ? f f ?", "--", id="a late failure after it closed is one failure"),
        row(f"{OPENED} bL +10 s sL ?", "-", id="a late success after it closed"),
    ],
)
def test_late_outcomes(script: str, expected: str) -> None:
    assert play(script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        row("bA cA bB cB bC cC bD cD bE cE ?", "-", id="streams in progress count as neither"),
        row("bA cA fA bA cA fA bA cA fA bA cA fA ? bA cA fA ?", "-O", id="streams that break are failures"),
        row("bA cA eA bA cA eA bA cA eA bA cA eA f f f ? f ?", "-O", id="streams that end are successes"),
        row("bA cA aA bA cA aA f f f f ? f ?", "-O", id="streams whose callers leave count as neither"),
        row("bA cA mA bA cA mA f f f f ? f ?", "-O", id="streams ended by an invalid request count as neither"),
        row(f"{OPENED} +10 bA cA ? fA f f f ? f ?", "--O", id="a probe's stream that breaks later is one failure"),
        row(f"bA cA {OPENED} eA ?", "O", id="a stream that ends while it is open"),
    ],
)
def test_streams(script: str, expected: str) -> None:
    assert play(script) == expected


@pytest.mark.parametrize(
    ("settings", "script", "expected"),
    [
        row(Circuit(min_requests=1), "f ?", "O", id="one failure is enough"),
        row(Circuit(min_requests=2, failure_ratio=1.0), "f s f f f ?", "-", id="all of them"),
        row(Circuit(min_requests=2, failure_ratio=1.0), "f f ?", "O", id="all of two"),
        row(Circuit(min_requests=2, failure_ratio=0.0), "s s s f ?", "O", id="any failure"),
        row(Circuit(min_requests=1, cooldown=60.0), "f +59 ? +1 ?", "O-", id="a long cooldown"),
        row(Circuit(min_requests=2, window=0.5), "f +0.6 f ? f ?", "-O", id="a short window"),
    ],
)
def test_settings(settings: Circuit, script: str, expected: str) -> None:
    assert play(script, settings) == expected


@pytest.mark.parametrize(
    ("reason", "counts"),
    [
        (Reason.RATE_LIMITED, True),
        (Reason.UPSTREAM_ERROR, True),
        (Reason.UPSTREAM_INVALID_RESPONSE, True),
        (Reason.UPSTREAM_AUTHENTICATION, True),
        (Reason.OVERLOADED, True),
        (Reason.TIMEOUT, True),
        (Reason.MODEL_NOT_FOUND, True),
        (Reason.STREAM_TRUNCATED, True),
        (Reason.INVALID_REQUEST, False),
        (Reason.CONTEXT_LENGTH_EXCEEDED, False),
        (Reason.CONTENT_POLICY_VIOLATION, False),
        (Reason.REQUEST_TOO_LARGE, False),
        (Reason.UNSUPPORTED_FEATURE, False),
    ],
)
def test_which_errors_count_as_failures(reason: Reason, *, counts: bool) -> None:
    health = EndpointStats(Circuit(min_requests=1), SharedStats.private(Clock()))
    error = StreamTruncated() if reason is Reason.STREAM_TRUNCATED else ProviderError(reason, "It failed.")
    health.failed(health.begin("e"), error)
    assert health.is_open("e") is counts


def test_one_probe_for_many_at_once() -> None:
    clock = Clock()
    health = EndpointStats(Circuit(min_requests=1), SharedStats.private(clock))
    health.failed(health.begin("e"), FAILED)
    clock.now += 10
    assert [health.begin("e").probe for _ in range(50)] == [True] + [False] * 49


def test_endpoints_do_not_mix() -> None:
    health = EndpointStats(Circuit(min_requests=1), SharedStats.private(Clock()))
    health.failed(health.begin("e"), FAILED)
    assert (health.is_open("e"), health.is_open("other")) == (True, False)


def took(health: EndpointStats, clock: Clock, seconds: float, *, whole: bool, tokens: int = 0) -> None:
    call = health.begin("e")
    clock.now += seconds
    if whole:
        health.answered(call, tokens)
    else:
        health.first_content(call)
    if not whole:
        health.stream_completed(call, tokens)


def test_latency() -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock))
    assert health.latency("e") is None
    took(health, clock, 3.0, whole=True)
    assert health.latency("e") == pytest.approx(3.0)  # of unary answers, without a measured stream
    took(health, clock, 0.5, whole=False)
    assert health.latency("e") == pytest.approx(0.5)  # to the first content
    took(health, clock, 1.0, whole=False)
    assert health.latency("e") == pytest.approx(0.6)
    took(health, clock, 9.0, whole=True)
    assert health.latency("e") == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("tokens", "seconds", "rate"),
    [
        row(100, 2.0, 50.0, id="a rate"),
        row(1, 2.0, None, id="one token has none"),
        row(0, 2.0, None, id="tokens not known"),
        row(100, 0.0, None, id="in no time"),
    ],
)
def test_throughput(tokens: int, seconds: float, rate: float | None) -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock))
    took(health, clock, seconds, whole=True, tokens=tokens)
    assert health.throughput("e") == (None if rate is None else pytest.approx(rate))
    took(health, clock, 1.0, whole=True, tokens=100)
    assert health.throughput("e") == pytest.approx(100.0 if rate is None else 60.0)


def test_averages_expire() -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock))
    took(health, clock, 2.0, whole=True, tokens=20)
    clock.now += 299
    assert health.latency("e") == pytest.approx(2.0)
    clock.now += 2
    assert (health.latency("e"), health.throughput("e")) == (None, None)
    took(health, clock, 1.0, whole=True, tokens=20)
    assert health.latency("e") == pytest.approx(1.0)
    assert health.throughput("e") == pytest.approx(20.0)


def test_failures_do_not_change_averages() -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock))
    for error in (FAILED, ProviderError(Reason.INVALID_REQUEST, "What?")):
        call = health.begin("e")
        clock.now += 0.01
        health.failed(call, error)
    assert health.latency("e") is None


def test_endpoint_ids_do_not_grow_the_memory() -> None:
    clock = Clock()
    health = EndpointStats(Circuit(min_requests=1, cooldown=1e6), SharedStats.private(clock))
    health.failed(health.begin("in use"), FAILED)
    for number in range(20_000):
        clock.now += 0.001
        health.failed(health.begin(f"wild/{number}"), FAILED)
        if number % 1000 == 0:
            health.stream_completed(health.begin("in use"))
    assert len(list(health.snapshots())) == 8192
    assert health.is_open("in use")
    assert health.is_open("wild/19999")
    assert not health.is_open("wild/1")


def test_reads_create_no_record() -> None:
    health = EndpointStats(SETTINGS, SharedStats.private(Clock()))
    for number in range(100):
        call = health.begin(f"wild/{number}")
        assert not health.is_open(call.endpoint_id)
        assert health.latency(call.endpoint_id) is None
        assert health.throughput(call.endpoint_id) is None
        health.abandoned(call)
    assert not list(health.snapshots())


def test_snapshot() -> None:
    clock = Clock()
    health = EndpointStats(Circuit(min_requests=2), SharedStats.private(clock))
    assert health.snapshot("e") == Snapshot("closed", None, None, None, 0, 0, 0)
    took(health, clock, 2.0, whole=True, tokens=20)
    assert health.snapshot("e") == Snapshot("closed", 2.0, None, 10.0, answers=1, failures=0, openings=0)
    health.failed(health.begin("e"), FAILED)
    assert health.snapshot("e") == Snapshot("open", 2.0, None, 10.0, answers=1, failures=1, openings=1)
    clock.now += 10
    assert health.snapshot("e").state == "half_open"
    probe = health.begin("e")
    assert health.snapshot("e").state == "half_open"
    health.failed(probe, FAILED)
    assert health.snapshot("e") == Snapshot("open", 2.0, None, 10.0, answers=1, failures=2, openings=2)
    health.failed(health.begin("e"), ProviderError(Reason.RATE_LIMITED, "Slower.", retry_after=30))
    assert health.snapshot("e") == Snapshot("open", 2.0, None, 10.0, answers=1, failures=3, openings=2)
    assert dict(health.snapshots()) == {"e": health.snapshot("e")}


def test_latency_and_first_token_are_separate() -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock))
    took(health, clock, 0.5, whole=False)
    took(health, clock, 3.0, whole=True)
    assert health.snapshot("e")[1:3] == (3.0, 0.5)


def test_successes_are_written_in_batches() -> None:
    clock = Clock()
    due: list[Callable[[], None]] = []
    shared = SharedStats.private(clock)
    health = EndpointStats(SETTINGS, shared, due.append)
    for endpoint in ("a", "b", "a"):
        health.answered(health.begin(endpoint))
    stream = health.begin("b")
    health.first_content(stream)
    health.stream_completed(stream)
    assert shared.find("a") is None
    assert len(due) == 1
    due.pop()()
    assert shared.find("a") is not None
    others = EndpointStats(SETTINGS, shared)
    assert [others.snapshot(name).answers for name in "ab"] == [2, 2]
    health.stream_completed(health.begin("a"))
    assert len(due) == 1
    due.pop()()
    assert others.snapshot("a").answers == 3


@pytest.mark.parametrize(
    "ask",
    [
        lambda health: health.snapshot("e").answers,
        lambda health: health.latency("e"),
        lambda health: health.throughput("e"),
        lambda health: dict(health.snapshots())["e"].answers,
    ],
)
def test_reads_include_pending_successes(ask: Callable[[EndpointStats], object]) -> None:
    clock = Clock()
    health = EndpointStats(SETTINGS, SharedStats.private(clock), lambda _: None)
    took(health, clock, 2.0, whole=True, tokens=20)
    assert ask(health)
