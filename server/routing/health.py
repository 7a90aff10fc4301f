"""How endpoints have been doing: a circuit each, and moving figures of speed.

Pure but for the injected clock. A circuit opens on a share of failures over a
sliding window with a minimum volume, or at once when a provider says how long
to stay away. It stays open for a cooldown, or as long as was asked; then the
next call is its probe, which closes it or opens it again. While it is open
nothing else counts: a late success of a call begun before closes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from server.config import Circuit
from server.errors import ProviderError, Reason

#: Endpoints remembered; wildcards let callers name any number of them.
_REMEMBERED = 4096
_BUCKETS = 10
#: The weight of the newest observation in a moving figure.
_ALPHA = 0.2
#: Seconds after which a figure is forgotten, so that what was slow once is measured again.
_FRESH = 300.0
#: A provider that asks for more patience than this (seconds) is probed all the same.
_LONGEST_WAIT = 60.0

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


class Call(NamedTuple):
    """A call under way; `begun` is of the clock. A half-open circuit closes on the success of a `probe` only."""

    endpoint_id: str
    begun: float
    probe: bool


class _Figure:
    """A moving average that is forgotten when nothing is added to it."""

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value: float | None = None
        self._at = 0.0

    def add(self, value: float, now: float) -> None:
        old = self.read(now)
        self._value = value if old is None else old + _ALPHA * (value - old)
        self._at = now

    def read(self, now: float) -> float | None:
        return self._value if now - self._at <= _FRESH else None


class _Endpoint:
    """What is remembered of one endpoint; its circuit is closed where `open_until` is None."""

    __slots__ = ("answer", "buckets", "first_token", "open_until", "opened_at", "probe", "throughput")

    def __init__(self) -> None:
        self.buckets: deque[list[int]] = deque(maxlen=_BUCKETS)  # [slot, successes, failures]
        self.open_until: float | None = None
        self.opened_at = 0.0
        self.probe: Call | None = None
        self.answer = _Figure()
        self.first_token = _Figure()
        self.throughput = _Figure()

    def probed_by(self, call: Call) -> bool:
        """Whether `call` probes the circuit as it is open now."""
        return call.probe and self.open_until is not None and call.begun >= self.opened_at


class EndpointHealth:
    """By `Endpoint.id`. Times are seconds of `clock`.

    Every call that `begin` notes ends in one of: `answered` and, for a stream,
    `success` or `failure` after it; `failure`; `abandon`.
    """

    def __init__(self, settings: Circuit, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()

    def is_open(self, endpoint_id: str) -> bool:
        """Whether it is to be avoided: its circuit is open, or half-open with the probe under way."""
        state = self._endpoints.get(endpoint_id)
        return state is not None and state.open_until is not None and self._clock() < state.open_until

    def circuit(self, endpoint_id: str) -> Literal["closed", "open", "half_open"]:
        """`half_open`: the cooldown is over, and the probe is the next call or under way."""
        state = self._endpoints.get(endpoint_id)
        if state is None or state.open_until is None:
            return "closed"
        probing = state.probe is not None or self._clock() >= state.open_until
        return "half_open" if probing else "open"

    def latency(self, endpoint_id: str) -> float | None:
        """Moving average of seconds to the first content; to whole answers, where nobody streams."""
        state = self._endpoints.get(endpoint_id)
        if state is None:
            return None
        now = self._clock()
        first_token = state.first_token.read(now)
        return state.answer.read(now) if first_token is None else first_token

    def throughput(self, endpoint_id: str) -> float | None:
        """Moving average of output tokens per second."""
        state = self._endpoints.get(endpoint_id)
        return state.throughput.read(self._clock()) if state else None

    def begin(self, endpoint_id: str) -> Call:
        """Note a call about to be made. The first after a cooldown is the probe; it has a cooldown's time."""
        now = self._clock()
        state = self._endpoints.get(endpoint_id)
        if state is None or state.open_until is None or now < state.open_until:
            return Call(endpoint_id, now, probe=False)
        state.probe = Call(endpoint_id, now, probe=True)
        state.open_until = now + self._settings.cooldown
        return state.probe

    def answered(self, call: Call, *, whole: bool) -> None:
        """Content came now: the whole answer, or the first of a stream."""
        now = self._clock()
        state = self._state(call.endpoint_id)
        (state.answer if whole else state.first_token).add(now - call.begun, now)
        if state.probed_by(call):
            state.open_until = state.probe = None
            state.buckets.clear()
        if whole:
            self.success(call)

    def success(self, call: Call) -> None:
        """The answer is complete."""
        state = self._state(call.endpoint_id)
        if state.open_until is None:
            self._count(state, failed=False)

    def speed(self, call: Call, tokens: int) -> None:
        """The answer, complete now, had so many `tokens`. Their rate takes in the wait for the first of them."""
        now = self._clock()
        if tokens > 1 and now > call.begun:
            self._state(call.endpoint_id).throughput.add(tokens / (now - call.begun), now)

    def failure(self, call: Call, error: ProviderError) -> None:
        """The call failed. A mistake of the caller's is no failure of the endpoint."""
        if error.reason not in _FAULTS:
            self.abandon(call)
            return
        now = self._clock()
        state = self._state(call.endpoint_id)
        opens = state.probed_by(call)
        if state.open_until is None:
            self._count(state, failed=True)
            failures = sum(bucket[2] for bucket in state.buckets)
            total = failures + sum(bucket[1] for bucket in state.buckets)
            opens = total >= self._settings.min_requests and failures >= self._settings.failure_ratio * total
        asked = now + min(error.retry_after, _LONGEST_WAIT) if error.retry_after else 0.0
        if opens or asked > (state.open_until or 0.0):
            state.open_until = asked or now + self._settings.cooldown
            state.opened_at = now
            state.probe = None

    def abandon(self, call: Call) -> None:
        """The call told nothing of the endpoint: the caller left. If it was the probe, the next call is."""
        state = self._endpoints.get(call.endpoint_id)
        if state is not None and state.probe is call:
            state.open_until = self._clock()
            state.probe = None

    def _count(self, state: _Endpoint, *, failed: bool) -> None:
        slot = int(self._clock() / self._settings.window * _BUCKETS)
        while state.buckets and state.buckets[0][0] <= slot - _BUCKETS:
            state.buckets.popleft()
        if not state.buckets or state.buckets[-1][0] != slot:
            state.buckets.append([slot, 0, 0])
        state.buckets[-1][2 if failed else 1] += 1

    def _state(self, endpoint_id: str) -> _Endpoint:
        state = self._endpoints.get(endpoint_id)
        if state is None:
            state = self._endpoints[endpoint_id] = _Endpoint()
            if len(self._endpoints) > _REMEMBERED:
                self._endpoints.popitem(last=False)
        else:
            self._endpoints.move_to_end(endpoint_id)
        return state
