"""asyncio.timeout for limits that seldom run out, at a third of its cost.

Nearly every limit of a call to a provider is minutes away when the call is over,
and to make and cancel one of the loop's timers costs as much as to parse the
answer. So a limit gets a timer when its time has nearly come; until then it is
one of a set that is looked through once a second.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

#: Seconds between two looks, and how near a limit is that has a timer: more than that, so that none is missed.
_TICK, _NEAR = 1.0, 2.0


class Limits:
    """Makes limits; for use on one event loop."""

    def __init__(self) -> None:
        #: Limits that have no timer yet.
        self.far: set[Limit] = set()
        self._ticks = False

    def until(self, when: float) -> Limit:
        """`with` it, what takes longer than the loop's time `when` is cancelled, and raises TimeoutError."""
        return Limit(self, asyncio.get_running_loop(), when)

    def after(self, seconds: float) -> Limit:
        """The same for a time from now."""
        loop = asyncio.get_running_loop()
        return Limit(self, loop, loop.time() + seconds)

    def tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look through `far`, now and then."""
        if not self._ticks:
            self._ticks = True
            loop.call_later(_TICK, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        near = loop.time() + _NEAR
        for limit in [limit for limit in self.far if limit.when <= near]:
            self.far.remove(limit)
            limit.arm()
        self._ticks = False
        if self.far:
            self.tick(loop)


class Limit:
    """See `Limits.until`. As asyncio.Timeout does, it tells its own cancelling of the task from others'."""

    __slots__ = ("_cancelling", "_expired", "_limits", "_loop", "_task", "_timer", "when")

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._limits = limits
        self._loop = loop
        self.when = when
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    def arm(self) -> None:
        """Have the loop see to it."""
        self._timer = self._loop.call_at(self.when, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a limit needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        if self.when <= self._loop.time() + _NEAR:
            self.arm()
        else:
            self._limits.far.add(self)
            self._limits.tick(self._loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            self._limits.far.discard(self)
            return
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
