"""Handling common to all RPCs: request id, API key, deadline, and errors as google.rpc.Status."""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_status import rpc_status

from server import errors
from server.api.drain import Drain
from server.api.public_error import PublicError, Redact, clean
from server.chat.request import ChatRequest
from server.config.model import Key
from server.errors import LmchatError, ProviderError, Reason, detached

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("lmchat.rpc")

#: Seconds, and share of the caller's remaining time, that are reserved for sending the timeout error.
MAX_DEADLINE_MARGIN = 0.1
DEADLINE_SHARE = 0.05
#: Bytes of a provider's text in a line of the log.
MAX_LOGGED = 1000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}").fullmatch


class KeyRing:
    """The API keys callers may use, as digests, so that the time of a look-up reveals nothing about a key."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._names = {_digest(key.key.reveal()): key.name for key in keys}

    def check(self, key: str | None) -> str:
        """The name of `key`. Raises LmchatError."""
        if not key:
            raise LmchatError(
                Reason.MISSING_API_KEY, "No API key was given. Send it as `authorization: Bearer <key>`."
            )
        name = self._names.get(_digest(key))
        if name is None:
            raise LmchatError(Reason.INVALID_API_KEY, "The API key is not known. Check it, or ask the operator.")
        return name


class Call:
    """One RPC; `async with` checks the key and turns every exception into the caller's error.

    `redact` takes secrets out of what callers are shown. Inside `with call.drain` the call ends with an
    error when the worker's time to drain is over.

    `request_id` is the caller's if it is well-formed, else new. `started` is a time of
    the gateway's monotonic clock. `debug` has the topics of the header `x-lmchat-debug`, which are separated by
    commas and have the meaning of `lmchat.debug` in a request.
    """

    __slots__ = (
        "_clock",
        "_keys",
        "_redact",
        "authorization",
        "context",
        "debug",
        "drain",
        "request_id",
        "started",
    )

    def __init__(
        self, keys: KeyRing, redact: Redact, drain: Drain, clock: Callable[[], float], context: Context
    ) -> None:
        self._keys = keys
        self._redact = redact
        self._clock = clock
        self.drain = drain
        self.context = context
        self.started = clock()
        metadata = context.invocation_metadata() or ()
        headers: dict[str, Any] = dict(metadata)  # the last of repeated ones
        self.authorization = _key(headers)
        request_id = str(headers.get("x-request-id", ""))
        self.request_id = request_id if _REQUEST_ID(request_id) else f"req_{uuid.uuid4().hex}"
        self.debug: list[str] = []
        if "x-lmchat-debug" in headers:  # a list, possibly in several header lines
            values = [str(value) for name, value in metadata if name == "x-lmchat-debug"]
            self.debug = " ".join(values).replace(",", " ").split()

    def authenticate(self) -> None:
        """Raise LmchatError unless the caller has a valid API key."""
        self._keys.check(self.authorization)

    def with_options(self, request: ChatRequest) -> ChatRequest:
        """`request` with the options of the call's headers."""
        return request.with_debug(self.debug) if self.debug else request

    @property
    def timeout(self) -> float | None:
        """Seconds that the answer may take; None where the caller has no deadline.

        A little less than until the deadline, at which Envoy and gRPC end the call with their own message and,
        over gRPC-Web, with another status.
        """
        remaining = self.context.time_remaining()
        return remaining and remaining - min(MAX_DEADLINE_MARGIN, remaining * DEADLINE_SHARE)

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self._clock() - self.started

    def explain(self, error: BaseException) -> PublicError:
        """What the caller may see of `error`; a fault of the gateway is logged, and its text masked."""
        if not isinstance(error, LmchatError):
            log.error("%s: internal error", self.request_id, exc_info=error)
            detached(error)
            error = errors.internal()
        elif isinstance(error, ProviderError) and error.raw:
            log.warning("%s: %s (%s)", self.request_id, error.reason, clean(error.raw, MAX_LOGGED, self._redact))
        return PublicError.of(detached(error), self.request_id, self._redact)

    async def __aenter__(self) -> Self:
        try:
            self.authenticate()
        except LmchatError as error:
            await self.abort(error)
        return self

    async def begin(self) -> None:
        """Send initial metadata, once the call has succeeded: errors after it reach REST without a body."""
        await self.context.send_initial_metadata((("x-request-id", self.request_id),))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            await self.abort(error)

    async def abort(self, error: Exception) -> None:
        """End the call with the status of `error`; raises AbortError."""
        status = rpc_status.to_status(self.explain(error).status())
        await self.context.abort(
            status.code, status.details, (*status.trailing_metadata, ("x-request-id", self.request_id))
        )


Calls = Callable[[Context], Call]
"""Creates the Call of a servicer context; its key is not checked yet."""


def _digest(key: str) -> bytes:
    # BLAKE2 is built into Python; the call overhead of OpenSSL's SHA-256 exceeds the time of the hash.
    return hashlib.blake2s(key.encode()).digest()


def _key(headers: Mapping[str, Any]) -> str | None:
    """The caller's API key: a bearer token (OpenAI), else `x-api-key` (Anthropic) or `api-key` (Azure)."""
    scheme, _, token = str(headers.get("authorization", "")).partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    other = headers.get("x-api-key") or headers.get("api-key")
    return str(other) if other else None
