"""Reads complete response bodies; converts transport errors to ProviderErrors."""

from __future__ import annotations

import httpx

from server.chat import limits
from server.chat.large import in_thread
from server.errors import ProviderError, Reason, detached
from server.wire.exchange import MAX_BODY_BYTES, Body


async def read_body(body: Body, limit: int | None = None) -> bytes:
    """The complete body, or at least its first `limit` bytes; closes it.

    Raises ProviderError, also for a body of more than MAX_BODY_BYTES, or of JSON beyond the limits of an answer.
    """
    whole = body.whole()
    if whole is not None:
        return whole if len(whole) <= limits.UNCHECKED_BYTES else await in_thread(_checked, whole)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in body:
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size >= limit:
                break
            if size > MAX_BODY_BYTES:
                too_large = f"The provider's response is larger than {MAX_BODY_BYTES} bytes."
                raise ProviderError(Reason.UPSTREAM_INVALID_RESPONSE, too_large, http_status=200)
    except httpx.TransportError as error:
        raise transport_error(error) from None
    finally:
        await body.aclose()
    data = b"".join(pieces)
    return data if size <= limits.UNCHECKED_BYTES else await in_thread(_checked, data)


def _checked(body: bytes) -> bytes:
    """`body`, unless decoding its JSON would take too long: then raises ProviderError."""
    try:
        limits.check_json(body)
    except limits.TooMuchJsonError as error:
        raise ProviderError(
            Reason.UPSTREAM_INVALID_RESPONSE, f"The provider's response has {error}.", http_status=200
        ) from None
    return body


def transport_error(error: httpx.TransportError) -> ProviderError:
    """The error for a failed connection: it may be tried again, unless it was a timeout.

    `error` is detached: the exchange that keeps it is held by the frames it was raised in.
    """
    detached(error)
    if isinstance(error, httpx.TimeoutException):
        return timeout_error("could not be reached in time", raw=str(error))
    return ProviderError(
        Reason.UPSTREAM_ERROR,
        "The provider could not be reached."
        if isinstance(error, httpx.ConnectError)
        else "The connection to the provider broke.",
        retry_here=True,
        raw=f"{type(error).__name__}: {error}",
    )


def timeout_error(what: str, raw: str = "") -> ProviderError:
    """The error for a provider that `what`, e.g. "did not answer in time"."""
    return ProviderError(Reason.TIMEOUT, f"The provider {what}.", raw=raw)
