"""asyncio.timeout for deadlines that are seldom reached, at a third of its cost.

Nearly every deadline of a call to a provider is minutes away when the call is
over, and making and cancelling one of the loop's timers costs as much as parsing
the response. So a deadline gets a timer only when it is near; until then it is in
a set that is looked through once a second.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

#: Seconds between two looks at the distant deadlines.
_SWEEP_INTERVAL = 1.0
#: Seconds from which on a deadline has a timer: more than _SWEEP_INTERVAL, so that none is missed.
_TIMER_RANGE = 2.0


class Deadlines:
    """Makes deadlines; for use on one event loop."""

    def __init__(self) -> None:
        #: Deadlines that have no timer yet.
        self.distant: set[Deadline] = set()
        self._sweeping = False

    def until(self, when: float) -> Deadline:
        """A context manager that cancels its body at the loop's time `when`, and then raises TimeoutError."""
        return Deadline(self, asyncio.get_running_loop(), when)

    def after(self, seconds: float) -> Deadline:
        """The same for a time from now."""
        loop = asyncio.get_running_loop()
        return Deadline(self, loop, loop.time() + seconds)

    def add(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        """Give `deadline` a timer when it is near."""
        self.distant.add(deadline)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(_SWEEP_INTERVAL, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        near = loop.time() + _TIMER_RANGE
        for deadline in [deadline for deadline in self.distant if deadline.when <= near]:
            self.distant.remove(deadline)
            deadline.arm()
        self._sweeping = bool(self.distant)
        if self._sweeping:
            loop.call_later(_SWEEP_INTERVAL, self._sweep, loop)


class Deadline:
    """See `Deadlines.until`. Like asyncio.Timeout, it tells its own cancellation of the task from other ones."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_loop", "_task", "_timer", "when")

    def __init__(self, deadlines: Deadlines, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._deadlines = deadlines
        self._loop = loop
        self.when = when
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    def arm(self) -> None:
        """Set a timer of the loop."""
        self._timer = self._loop.call_at(self.when, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        if self.when <= self._loop.time() + _TIMER_RANGE:
            self.arm()
        else:
            self._deadlines.add(self, self._loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            self._deadlines.distant.discard(self)
            return
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
