"""Credentials that end: held, renewed ahead of their end by one task, and never shown.

Knows no vendor and does no I/O of its own. However many calls wait, one renewal
runs; those that come while what is held still holds do not wait at all. A
renewal that fails costs nothing until what is held has really ended.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from server.config.model import Secret
from server.dialects.base import HttpRequest
from server.errors import ProviderError, Reason

T = TypeVar("T")

log = logging.getLogger("lmchat.credentials")

#: Seconds before the end at which renewal begins: where a metadata server hands out the same credentials again
#: and again, it has newer ones by then.
RENEWAL_MARGIN = 300.0
#: Seconds after which credentials that name no end are read again: the file they are from may have changed.
REREAD_INTERVAL = 300.0
#: Seconds between two renewals at the least.
MIN_REFRESH_INTERVAL = 10.0
#: The same, where the last one failed and calls have nothing to go by.
RETRY_INTERVAL = 2.0
#: Seconds a call waits for a renewal; that one goes on, for those that come later.
WAIT_TIMEOUT = 20.0

#: What may be a token. The libraries' messages have none; this is for what others put in them.
_TOKEN = re.compile(r"[A-Za-z0-9+=_~-]{40,}")


class NoCredentials(Exception):
    """Why there are none, in words without secrets."""


class Lease(Generic[T]):
    """Credentials, and the time they end, in seconds since the epoch; None where they name none."""

    __slots__ = ("expires", "value")

    def __init__(self, value: T, expires: float | None) -> None:
        self.value = value
        self.expires = expires

    def holds(self, now: float) -> bool:
        """Whether they can be used."""
        return self.expires is None or now < self.expires

    def __repr__(self) -> str:
        return f"Lease(***, expires={self.expires})"


class Leased(Generic[T]):
    """The newest lease. `renew` gets another; `clock` gives seconds since the epoch; `name` is for logs."""

    def __init__(self, name: str, renew: Callable[[], Awaitable[Lease[T]]], clock: Callable[[], float]) -> None:
        self._name = name
        self._renew = renew
        self._clock = clock
        self._lease: Lease[T] | None = None
        self._task: asyncio.Task[None] | None = None
        #: When the next renewal may begin.
        self._due = -math.inf
        self._failure = ""

    def __repr__(self) -> str:
        return f"Leased({self._name})"

    async def get(self) -> T:
        """What is held, renewed first where it must be. Raises ProviderError (UPSTREAM_AUTHENTICATION)."""
        if self._task is None and self._clock() >= self._due:
            self._task = asyncio.create_task(self._renewed())
        if (lease := self._held()) is not None:
            return lease.value
        task = self._task
        if task is not None:
            # Not awaited itself: a caller who leaves does not take the renewal along.
            await asyncio.wait((task,), timeout=WAIT_TIMEOUT)
            if (lease := self._held()) is not None:
                return lease.value
        raise ProviderError(
            Reason.UPSTREAM_AUTHENTICATION,
            "The gateway has no valid credentials for this provider. Tell the gateway's operator.",
            raw="getting credentials takes too long" if task and not task.done() else self._failure,
        )

    def _held(self) -> Lease[T] | None:
        lease = self._lease
        return lease if lease is not None and lease.holds(self._clock()) else None

    async def _renewed(self) -> None:
        """One renewal, whose outcome is in the attributes; raises nothing."""
        try:
            lease = await self._renew()
            now = self._clock()
            if not lease.holds(now):
                raise NoCredentials("those that came have expired already; is this machine's clock right?")
        except Exception as error:  # the libraries raise whatever befell them
            self._failure = summarize(error)
            now, held = self._clock(), self._held()
            self._due = now + RETRY_INTERVAL
            if held is not None:
                self._due = min(now + MIN_REFRESH_INTERVAL, max(self._due, held.expires or math.inf))
            kept = "those held are used while they last" if held else "calls fail"
            log.warning("provider %s: no new credentials, %s: %s", self._name, kept, self._failure)
        else:
            self._lease = lease
            self._due = (
                now + REREAD_INTERVAL
                if lease.expires is None
                else max(lease.expires - RENEWAL_MARGIN, now + MIN_REFRESH_INTERVAL)
            )
        finally:
            self._task = None


class LeasedHeaders:
    """An authenticator whose headers are the same for every call until they are renewed."""

    def __init__(self, leased: Leased[Mapping[str, str]]) -> None:
        self._leased = leased

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Those of the newest lease. Raises ProviderError."""
        return await self._leased.get()

    def __repr__(self) -> str:
        return f"LeasedHeaders({self._leased!r})"


def summarize(error: BaseException) -> str:
    """An error in one line for logs, of bounded length, without what may be a token."""
    # google-auth puts the message first and then, perhaps, the whole answer of a token endpoint.
    whole = isinstance(error, OSError) or len(error.args) < 2
    text = " ".join(str(error if whole else error.args[0]).split())
    kind = "" if isinstance(error, NoCredentials) else f"{type(error).__name__}: "
    return f"{kind}{_TOKEN.sub('***', text)[:500]}"


def plaintext(value: str | bool | Secret | None) -> str:
    """A setting as text; empty where there is none."""
    return value.reveal() if isinstance(value, Secret) else str(value or "")
