"""Ends the calls that a worker's drain has no more time for with an error, where gRPC alone would cut them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, TypeVar

from server.errors import LmchatError, Reason

T = TypeVar("T")

#: Seconds after which a caller whose call was interrupted may try again.
RETRY_AFTER = 1.0


class Drain:
    """The calls that wait for a provider: the tasks that are inside `with drain`.

    After `expire` each of them raises LmchatError there, and so does every later one. A task must not be inside
    while it writes to the caller: gRPC cannot send an error after a write that was cancelled. For use on one event
    loop; a task enters once at a time.
    """

    def __init__(self) -> None:
        #: Task -> whether it was interrupted.
        self._calls: dict[asyncio.Task[Any] | None, bool] = {}
        self._expired = False

    def expire(self) -> None:
        """Interrupt the calls that wait, and those that will."""
        self._expired = True
        for task, interrupted in self._calls.items():
            if task is not None and not interrupted:
                self._calls[task] = task.cancel()

    async def next(self, items: AsyncIterator[T]) -> T | None:
        """The next item, None after the last one."""
        with self:
            return await anext(items, None)

    def __enter__(self) -> None:
        if self._expired:
            raise _interrupted()
        self._calls[asyncio.current_task()] = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        # Like asyncio.Timeout: a caller who leaves at the same time cancels the task once more.
        if self._calls.pop(task) and task is not None and not task.uncancel() and kind is asyncio.CancelledError:
            raise _interrupted()


def _interrupted() -> LmchatError:
    return LmchatError(
        Reason.OVERLOADED,
        "The gateway is stopping, and the answer was not complete in time. Send the request again.",
        retry_after=RETRY_AFTER,
    )
