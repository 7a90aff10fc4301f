"""Credentials that expire: cached, renewed before they expire by one task, and never shown.

Knows no vendor and does no I/O itself. However many calls wait, one renewal
runs; calls made while the cached credentials are valid do not wait at all. A
renewal that fails has no effect until the cached credentials have expired.
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

#: Seconds before expiry at which renewal begins. A metadata server returns the same credentials until shortly
#: before they expire; by then it has newer ones.
RENEWAL_MARGIN = 300.0
#: Seconds after which credentials without an expiry are read again: their file may have changed.
REREAD_INTERVAL = 300.0
#: Seconds between two renewals at least.
MIN_REFRESH_INTERVAL = 10.0
#: The same after a failed renewal, while there are no valid credentials.
RETRY_INTERVAL = 2.0
#: Seconds a call waits for a renewal, which then continues for later calls.
WAIT_TIMEOUT = 20.0

#: Characters of an error that are logged.
MAX_ERROR_CHARS = 500
#: What may be a token. The libraries' own messages have none, but a server's text in them may.
_TOKEN = re.compile(r"[A-Za-z0-9+=_~-]{40,}")


class NoCredentials(Exception):
    """There are no credentials; the message says why, without secrets."""


class Lease(Generic[T]):
    """Credentials, and when they expire, in seconds since the epoch; None where that is not known."""

    __slots__ = ("expires", "value")

    def __init__(self, value: T, expires: float | None) -> None:
        self.value = value
        self.expires = expires

    def is_valid(self, now: float) -> bool:
        """Whether they have not expired."""
        return self.expires is None or now < self.expires

    def __repr__(self) -> str:
        return f"Lease(***, expires={self.expires})"


class LeaseCache(Generic[T]):
    """The newest lease. `renew` gets another; `clock` gives seconds since the epoch; `name` is for logs."""

    def __init__(self, name: str, renew: Callable[[], Awaitable[Lease[T]]], clock: Callable[[], float]) -> None:
        self._name = name
        self._renew = renew
        self._clock = clock
        self._lease: Lease[T] | None = None
        self._renewal: asyncio.Task[None] | None = None
        #: When the next renewal may begin.
        self._next_renewal = -math.inf
        self._failure = ""

    def __repr__(self) -> str:
        return f"LeaseCache({self._name})"

    async def get(self) -> T:
        """Valid credentials, after a renewal if need be. Raises ProviderError (UPSTREAM_AUTHENTICATION)."""
        if self._renewal is None and self._clock() >= self._next_renewal:
            self._renewal = asyncio.create_task(self._run_renewal())
        if (lease := self._valid_lease()) is not None:
            return lease.value
        renewal = self._renewal
        if renewal is not None:
            # asyncio.wait does not cancel the renewal together with a caller.
            await asyncio.wait((renewal,), timeout=WAIT_TIMEOUT)
            if (lease := self._valid_lease()) is not None:
                return lease.value
        raise ProviderError(
            Reason.UPSTREAM_AUTHENTICATION,
            "The gateway has no valid credentials for this provider. Tell the gateway's operator.",
            raw="getting credentials takes too long" if renewal and not renewal.done() else self._failure,
        )

    def _valid_lease(self) -> Lease[T] | None:
        lease = self._lease
        return lease if lease is not None and lease.is_valid(self._clock()) else None

    async def _run_renewal(self) -> None:
        """One renewal, whose outcome is in the attributes; raises nothing."""
        try:
            lease = await self._renew()
            now = self._clock()
            if not lease.is_valid(now):
                raise NoCredentials("the new ones have already expired; check this machine's clock")
        except Exception as error:  # the libraries do not document what they raise
            self._failure = summarize(error)
            now, valid = self._clock(), self._valid_lease()
            self._next_renewal = now + RETRY_INTERVAL
            if valid is not None:
                expiry = max(self._next_renewal, valid.expires or math.inf)
                self._next_renewal = min(now + MIN_REFRESH_INTERVAL, expiry)
            effect = "the current ones are used until they expire" if valid else "calls fail"
            log.warning("provider %s: no new credentials, %s: %s", self._name, effect, self._failure)
        else:
            self._lease = lease
            if lease.expires is None:
                self._next_renewal = now + REREAD_INTERVAL
            else:
                self._next_renewal = max(lease.expires - RENEWAL_MARGIN, now + MIN_REFRESH_INTERVAL)
        finally:
            self._renewal = None


class LeasedHeaders:
    """An authenticator whose headers are the same for every call until they are renewed."""

    def __init__(self, cache: LeaseCache[Mapping[str, str]]) -> None:
        self._cache = cache

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Those of the newest lease. Raises ProviderError."""
        return await self._cache.get()

    def __repr__(self) -> str:
        return f"LeasedHeaders({self._cache!r})"


def summarize(error: BaseException) -> str:
    """An error in one line for logs, of bounded length, without what may be a token."""
    # google-auth puts the message first and then, in some errors, the whole response of a token endpoint.
    whole = isinstance(error, OSError) or len(error.args) < 2
    text = " ".join(str(error if whole else error.args[0]).split())
    kind = "" if isinstance(error, NoCredentials) else f"{type(error).__name__}: "
    return f"{kind}{_TOKEN.sub('***', text)[:MAX_ERROR_CHARS]}"


def plaintext(value: str | bool | Secret | None) -> str:
    """A setting as text; empty where there is none."""
    return value.reveal() if isinstance(value, Secret) else str(value or "")
