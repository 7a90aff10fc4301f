"""How endpoints have been doing: a circuit each, and moving figures of speed.

Pure but for the injected clock. A circuit opens on a share of failures over a
sliding window with a minimum volume, stays open for a cooldown (or as long as
`retry-after` asks), then lets a single probe through, which closes it or opens
it again. A late success of a call begun before it opened closes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from server.config import Circuit

#: Endpoints remembered; wildcards let callers name any number of them.
_REMEMBERED = 4096
_BUCKETS = 10
#: The weight of the newest observation in a moving figure.
_ALPHA = 0.2
#: A provider that asks for more patience than this (seconds) is probed all the same.
_LONGEST_WAIT = 60.0


class _Endpoint:
    """What is remembered of one endpoint."""

    __slots__ = ("buckets", "latency", "open_until", "opened_at", "probing", "throughput")

    def __init__(self) -> None:
        self.buckets: deque[list[int]] = deque(maxlen=_BUCKETS)  # [slot, successes, failures]
        self.open_until: float | None = None
        self.opened_at = 0.0
        self.probing = False
        self.latency: float | None = None
        self.throughput: float | None = None


class EndpointHealth:
    """By `Endpoint.id`. Times are seconds of `clock`."""

    def __init__(self, settings: Circuit, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()

    def is_open(self, endpoint_id: str) -> bool:
        """Whether it is to be avoided: its circuit is open, or half-open with the probe under way."""
        state = self._endpoints.get(endpoint_id)
        if state is None or state.open_until is None:
            return False
        return state.probing or self._clock() < state.open_until

    def latency(self, endpoint_id: str) -> float | None:
        """Moving average of seconds to the first content."""
        state = self._endpoints.get(endpoint_id)
        return state.latency if state else None

    def throughput(self, endpoint_id: str) -> float | None:
        """Moving average of output tokens per second."""
        state = self._endpoints.get(endpoint_id)
        return state.throughput if state else None

    def begin(self, endpoint_id: str) -> float:
        """Note a call about to be made; the time to hand to `success`, `failure` or `abandon`."""
        now = self._clock()
        state = self._endpoints.get(endpoint_id)
        if state is not None and state.open_until is not None and now >= state.open_until:
            state.probing = True
        return now

    def success(self, endpoint_id: str, begun: float) -> None:
        """The endpoint answered; its first content came now."""
        state = self._state(endpoint_id)
        seconds = self._clock() - begun
        state.latency = seconds if state.latency is None else state.latency + _ALPHA * (seconds - state.latency)
        if state.open_until is None:
            self._count(state, failed=False)
        elif begun >= state.opened_at and state.probing:
            state.open_until = None
            state.probing = False
            state.buckets.clear()

    def speed(self, endpoint_id: str, tokens: int, seconds: float) -> None:
        """`tokens` came within `seconds` of the first."""
        if tokens < 2 or seconds <= 0:
            return
        state = self._state(endpoint_id)
        figure = tokens / seconds
        old = state.throughput
        state.throughput = figure if old is None else old + _ALPHA * (figure - old)

    def failure(self, endpoint_id: str, begun: float, retry_after: float | None = None) -> None:
        """The endpoint failed, and asked to be left alone for `retry_after` seconds."""
        state = self._state(endpoint_id)
        if state.open_until is not None:
            if state.probing and begun >= state.opened_at:
                self._open(state, retry_after)
            return
        self._count(state, failed=True)
        failures = sum(bucket[2] for bucket in state.buckets)
        total = failures + sum(bucket[1] for bucket in state.buckets)
        s = self._settings
        if retry_after or (total >= s.min_requests and failures >= s.failure_ratio * total):
            self._open(state, retry_after)

    def abandon(self, endpoint_id: str) -> None:
        """The call ended without telling anything of the endpoint: the caller left."""
        state = self._endpoints.get(endpoint_id)
        if state is not None:
            state.probing = False

    def _open(self, state: _Endpoint, retry_after: float | None) -> None:
        state.opened_at = self._clock()
        wait = self._settings.cooldown if retry_after is None else min(retry_after, _LONGEST_WAIT)
        state.open_until = state.opened_at + wait
        state.probing = False

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
