"""What a provider's failure means for the caller and for the next attempt.

Every dialect takes its error body apart itself and hands the pieces to
`classify`; the decision what may be retried or tried elsewhere is made here, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from server.errors import ProviderError, Reason

#: Codes and types that mean the same at every vendor which uses them.
CODES: Mapping[str, Reason] = {
    "context_length_exceeded": Reason.CONTEXT_LENGTH_EXCEEDED,
    "string_above_max_length": Reason.CONTEXT_LENGTH_EXCEEDED,
    "too_many_prompt_tokens": Reason.CONTEXT_LENGTH_EXCEEDED,  # Perplexity
    "exceed_context_size_error": Reason.CONTEXT_LENGTH_EXCEEDED,  # llama.cpp
    "content_filter": Reason.CONTENT_POLICY_VIOLATION,
    "content_policy_violation": Reason.CONTENT_POLICY_VIOLATION,
    "responsibleaipolicyviolation": Reason.CONTENT_POLICY_VIOLATION,
    "moderation_blocked": Reason.CONTENT_POLICY_VIOLATION,
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "deploymentnotfound": Reason.MODEL_NOT_FOUND,
    "invalid_api_key": Reason.UPSTREAM_AUTHENTICATION,
    "insufficient_quota": Reason.RATE_LIMITED,
    "rate_limit_exceeded": Reason.RATE_LIMITED,
    "ratelimitreached": Reason.RATE_LIMITED,
}

#: Providers that have no code for it say it in one of these ways.
_CONTEXT_PHRASES = (
    "maximum context length",
    "context length",
    "context window",
    "context_length",
    "context size",
    "prompt is too long",
    "input is too long",
    "too many input tokens",
    "input tokens exceed",
    "input token count",
    "exceeds the maximum number of tokens",
    "exceeds maximum length",
    "prompt contains too many tokens",
    "too large for model",
)

#: A provider's 400 that is none of the caller's doing: x.ai, Google.
_KEY_PHRASES = ("incorrect api key", "invalid api key", "api key not valid", "api key is not valid")

_MASKED = {
    Reason.UPSTREAM_AUTHENTICATION: "The provider refused the gateway's credentials. Tell the gateway's operator.",
    Reason.UPSTREAM_ERROR: "The provider failed.",
    Reason.UPSTREAM_INVALID_RESPONSE: "The provider's answer made no sense.",
    Reason.OVERLOADED: "The provider is overloaded. Try again in a moment.",
    Reason.RATE_LIMITED: "The provider's rate limit is reached. Try again later.",
    Reason.TIMEOUT: "The provider did not answer in time.",
    Reason.MODEL_NOT_FOUND: "The provider does not know this model.",
}


def classify(
    status: int,
    *,
    code: str = "",
    message: str = "",
    param: str | None = None,
    reason: Reason | None = None,
    retry_after: float | None = None,
) -> ProviderError:
    """The error for a provider's HTTP status, its code and its message.

    `reason` is what the dialect knows already. The provider's own message goes
    to the caller only where it concerns the caller's input.
    """
    reason = reason or _reason(status, code, message)
    own = reason not in _MASKED and bool(message)
    return ProviderError(
        reason,
        message[:2000] if own else _MASKED.get(reason, "The provider refused the request without saying why."),
        http_status=status,
        retry_here=(reason in _PASSES and status in (500, 502, 503, 529))
        or (reason is Reason.RATE_LIMITED and code != "insufficient_quota"),
        fall_over=reason in _FALLS_OVER,
        param=param if own else None,
        retry_after=retry_after,
        raw=message,
    )


#: What may be over in a moment.
_PASSES = frozenset({Reason.UPSTREAM_ERROR, Reason.UPSTREAM_INVALID_RESPONSE, Reason.OVERLOADED})

_FALLS_OVER = frozenset(
    {
        Reason.CONTEXT_LENGTH_EXCEEDED,
        Reason.MODEL_NOT_FOUND,
        Reason.UNSUPPORTED_FEATURE,
        Reason.RATE_LIMITED,
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_INVALID_RESPONSE,
        Reason.UPSTREAM_AUTHENTICATION,
        Reason.OVERLOADED,
        Reason.TIMEOUT,
    }
)

_STATUSES: Mapping[int, Reason] = {
    400: Reason.INVALID_REQUEST,
    401: Reason.UPSTREAM_AUTHENTICATION,
    402: Reason.UPSTREAM_AUTHENTICATION,  # the gateway's account there is out of money
    403: Reason.UPSTREAM_AUTHENTICATION,
    404: Reason.MODEL_NOT_FOUND,
    408: Reason.TIMEOUT,
    413: Reason.REQUEST_TOO_LARGE,
    422: Reason.INVALID_REQUEST,
    429: Reason.RATE_LIMITED,
    503: Reason.OVERLOADED,
    504: Reason.TIMEOUT,
    529: Reason.OVERLOADED,
}


def _reason(status: int, code: str, message: str) -> Reason:
    known = CODES.get(code.lower())
    if known is not None:
        return known
    reason = _STATUSES.get(status, Reason.UPSTREAM_ERROR)
    if reason in (Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE):
        text = message.lower()
        if any(phrase in text for phrase in _CONTEXT_PHRASES):
            return Reason.CONTEXT_LENGTH_EXCEEDED
        if any(phrase in text for phrase in _KEY_PHRASES):
            return Reason.UPSTREAM_AUTHENTICATION
    return reason


def invalid_response(what: str, *, http_status: int | None = 200) -> ProviderError:
    """The error for an answer that cannot be read; `what` is for logs."""
    reason = Reason.UPSTREAM_INVALID_RESPONSE
    return ProviderError(reason, _MASKED[reason], http_status=http_status, raw=what)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: the longest that `retry-after-ms` and `retry-after` ask for.

    A date is taken relative to the answer's own `date`. Azure sends both
    headers, and a zero in the first.
    """
    waits = []
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        seconds = _seconds(value, headers) if value else None
        if seconds is not None:
            waits.append(max(0.0, seconds * scale))
    return max(waits, default=None)


def _seconds(value: str, headers: Mapping[str, str]) -> float | None:
    try:
        number = float(value)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return wait.total_seconds()


def text(value: Any) -> str:
    """`value` if it is a string or a number, as a string; else nothing."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
