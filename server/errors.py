"""The exception tree, and the one table from reasons to what callers see.

    LmchatError                 any error that a caller sees, with its Reason
    ├── InvalidRequest          the caller's mistake, with the field's path
    │   └── TranslationError    a fault of the gateway that, like a mistake, keeps an endpoint from being called
    └── ProviderError           a provider, or the connection to it, failed; says what may be tried next
        └── StreamTruncated     a stream ended without its provider finishing it

`STATUS` is the only table of HTTP statuses, gRPC codes and OpenAI types; the comments
of error_reason.proto and the Lua of envoy.yaml are tested to agree with it. Callers get
errors in the forms of server/api/public_error.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import grpc
import msgspec

DOMAIN = "lmchat"

E = TypeVar("E", bound=BaseException)

_encode = msgspec.json.Encoder().encode


class Reason(StrEnum):
    """`lmchat.v1.ErrorReason`, in the lower case REST shows; documented in error_reason.proto."""

    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    CONTENT_POLICY_VIOLATION = "content_policy_violation"
    INVALID_ROUTING = "invalid_routing"
    STRUCTURED_OUTPUT_INVALID = "structured_output_invalid"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISSING_API_KEY = "missing_api_key"
    INVALID_API_KEY = "invalid_api_key"
    MODEL_NOT_ALLOWED = "model_not_allowed"  # this and the next: reserved for access control, not raised yet
    BUDGET_EXCEEDED = "budget_exceeded"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_INVALID_RESPONSE = "upstream_invalid_response"
    UPSTREAM_AUTHENTICATION = "upstream_authentication"
    STREAM_TRUNCATED = "stream_truncated"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Status(NamedTuple):
    """A reason's HTTP status, gRPC code and OpenAI error type."""

    http: int
    grpc: grpc.StatusCode
    type: str


_C = grpc.StatusCode
STATUS: Mapping[Reason, Status] = {
    Reason.INVALID_REQUEST: Status(400, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.UNSUPPORTED_FEATURE: Status(400, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.CONTEXT_LENGTH_EXCEEDED: Status(400, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.CONTENT_POLICY_VIOLATION: Status(400, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.INVALID_ROUTING: Status(400, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.STRUCTURED_OUTPUT_INVALID: Status(422, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.REQUEST_TOO_LARGE: Status(413, _C.RESOURCE_EXHAUSTED, "invalid_request_error"),
    Reason.UNSUPPORTED_MEDIA_TYPE: Status(415, _C.INVALID_ARGUMENT, "invalid_request_error"),
    Reason.METHOD_NOT_ALLOWED: Status(405, _C.UNIMPLEMENTED, "invalid_request_error"),
    Reason.MISSING_API_KEY: Status(401, _C.UNAUTHENTICATED, "authentication_error"),
    Reason.INVALID_API_KEY: Status(401, _C.UNAUTHENTICATED, "authentication_error"),
    Reason.MODEL_NOT_ALLOWED: Status(403, _C.PERMISSION_DENIED, "permission_error"),
    Reason.BUDGET_EXCEEDED: Status(402, _C.FAILED_PRECONDITION, "insufficient_quota"),
    Reason.MODEL_NOT_FOUND: Status(404, _C.NOT_FOUND, "invalid_request_error"),
    Reason.NOT_FOUND: Status(404, _C.NOT_FOUND, "invalid_request_error"),
    Reason.RATE_LIMITED: Status(429, _C.RESOURCE_EXHAUSTED, "rate_limit_error"),
    Reason.UPSTREAM_ERROR: Status(502, _C.UNAVAILABLE, "upstream_error"),
    Reason.UPSTREAM_INVALID_RESPONSE: Status(502, _C.UNAVAILABLE, "upstream_error"),
    Reason.UPSTREAM_AUTHENTICATION: Status(502, _C.UNAVAILABLE, "upstream_error"),
    Reason.STREAM_TRUNCATED: Status(502, _C.ABORTED, "upstream_error"),
    Reason.OVERLOADED: Status(503, _C.UNAVAILABLE, "overloaded_error"),
    Reason.TIMEOUT: Status(504, _C.DEADLINE_EXCEEDED, "timeout_error"),
    Reason.CANCELLED: Status(499, _C.CANCELLED, "cancelled"),
    Reason.INTERNAL: Status(500, _C.INTERNAL, "server_error"),
}


class AttemptRecord(msgspec.Struct, frozen=True):
    """One provider call as errors and reports list it; `ms` is its duration, `status` 0 without a response."""

    provider: str
    model: str
    status: int
    reason: str
    ms: int


class SkippedRecord(msgspec.Struct, frozen=True):
    """One endpoint that was no candidate, as errors list it."""

    provider: str
    model: str
    reason: str


class LmchatError(Exception):
    """An error that a caller sees: `message` is for people, `param` is the JSON path of the field at fault.

    `retry_after` is in seconds. `code` is the machine-readable code in OpenAI's
    form; by default the reason. `skipped` is for callers who debug their routing.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        attempts: Sequence[AttemptRecord] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param
        self.code = code or str(reason)
        self.retry_after = retry_after
        self.attempts = tuple(attempts)
        self.skipped: tuple[SkippedRecord, ...] = ()

    @property
    def status(self) -> Status:
        """HTTP status, gRPC code and OpenAI error type."""
        return STATUS[self.reason]


class InvalidRequest(LmchatError):
    """The caller's mistake in the field at `param`."""

    def __init__(self, message: str, param: str | None = None, *, reason: Reason = Reason.INVALID_REQUEST) -> None:
        super().__init__(reason, message, param=param)


def unsupported(message: str, param: str) -> InvalidRequest:
    """The error for a feature that an endpoint lacks; another endpoint of the model may have it."""
    return InvalidRequest(message, param, reason=Reason.UNSUPPORTED_FEATURE)


class TranslationError(InvalidRequest):
    """A fault of the gateway: it could not build the request of one endpoint, which is not called."""

    def __init__(self) -> None:
        super().__init__(internal().message, reason=Reason.INTERNAL)


class ProviderError(LmchatError):
    """A provider call failed.

    `message` is safe for callers; `raw` is the provider's own text, for logs.
    `http_status` is the provider's, None without a response. `retry_here`: the
    same endpoint may succeed in a second try. `fall_over`: another endpoint may.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        http_status: int | None = None,
        retry_here: bool = False,
        fall_over: bool = True,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        raw: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason, message, param=param, code=code, retry_after=retry_after)
        self.http_status = http_status
        self.retry_here = retry_here
        self.fall_over = fall_over
        self.raw = raw
        #: Further fields of the provider's error, where it concerns the caller's request.
        self.details: Mapping[str, Any] = details or {}
        #: What a stream decoder had decoded of the same bytes before the error.
        self.decoded: list[Any] = []


class StreamTruncated(ProviderError):
    """The provider's stream ended before its end was announced."""

    def __init__(self, message: str = "The provider's stream broke off before the answer was complete.") -> None:
        super().__init__(Reason.STREAM_TRUNCATED, message)


def detached(error: E) -> E:
    """`error` without its traceback and context, for one that is kept.

    Their frames hold the buffers of the failed call, and mostly the error itself, a cycle that would live until
    the next garbage collection.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def fitting(details: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The fields of a provider's error that fit into `limit` bytes of JSON.

    Long texts are cut, other values that do not fit are left out; so are nulls and `lmchat`, the gateway's field.
    """
    out: dict[str, Any] = {}
    for name, value in details.items():
        if value is None or name == "lmchat":
            continue
        if isinstance(value, str):
            value = cut(value, limit // 4)
        try:
            size = len(_encode({name: value}))
        except (RecursionError, ValueError, TypeError):
            continue
        if size <= limit:
            limit -= size
            out[name] = value
    return out


def cut(text: str, limit: int) -> str:
    """`text`, or its first `limit` bytes of UTF-8 with an ellipsis as the last; never half a character."""
    data = text[: limit + 1].encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    return data[: max(limit - 3, 0)].decode("utf-8", "ignore") + "…"


def internal() -> LmchatError:
    """What callers see of a bug of the gateway."""
    return LmchatError(
        Reason.INTERNAL, "The gateway failed on this request. Report the request id to its operator."
    )
