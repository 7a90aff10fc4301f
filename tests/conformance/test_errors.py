"""Every dialect's errors for provider errors and for invalid bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.dialects.registry import DIALECTS
from server.errors import ProviderError, Reason
from tests.conformance.test_answers import GOLDEN
from tests.support import goldens
from tests.support.dialects import completion_of, error_of

R = Reason
each_dialect = pytest.mark.parametrize("dialect", DIALECTS)

#: The reason for a status without further information, in every dialect.
STATUSES: Mapping[int, Reason] = {
    400: R.INVALID_REQUEST,
    401: R.UPSTREAM_AUTHENTICATION,
    402: R.UPSTREAM_AUTHENTICATION,
    403: R.UPSTREAM_AUTHENTICATION,
    404: R.MODEL_NOT_FOUND,
    405: R.UPSTREAM_ERROR,
    408: R.TIMEOUT,
    409: R.UPSTREAM_ERROR,
    413: R.REQUEST_TOO_LARGE,
    422: R.INVALID_REQUEST,
    429: R.RATE_LIMITED,
    500: R.UPSTREAM_ERROR,
    502: R.UPSTREAM_ERROR,
    503: R.OVERLOADED,
    504: R.TIMEOUT,
    520: R.UPSTREAM_ERROR,
    529: R.OVERLOADED,
}
PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"
#: Bodies without information.
SILENT = (
    b"", b" ", PAGE, b"null", b"[]", b"{}", b"7", b'"down"', b"[[]]", b"[null]", b"{", b"\xff\xfe\x00", b"\x00",
    b'{"error": null}', b'{"error": {}}', b'{"error": []}', b'{"error": 5}', b'{"message": {}}', b"[" * 100_000,
)  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
@each_dialect
def test_a_status_without_a_message(dialect: str, status: int) -> None:
    for body in SILENT:
        error = error_of(dialect, status, {"content-type": "text/html", "retry-after": "7"}, body)
        assert error.reason is STATUSES[status], body[:40]
        assert error.http_status == status
        assert error.retry_after == 7.0
        assert error.message
        assert "<" not in error.message


@each_dialect
@given(status=st.sampled_from(sorted(STATUSES)), body=st.binary(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_body_is_an_error(dialect: str, status: int, body: bytes) -> None:
    assert isinstance(error_of(dialect, status, {}, body), ProviderError)


class Fault(NamedTuple):
    """One provider's error; `shown`: the caller gets the provider's message."""

    status: int
    body: Any
    reason: Reason
    headers: Mapping[str, str] = {}
    retry_after: float | None = None
    param: str | None = None
    shown: bool = False


def openai(status: int, code: str | int | None, reason: Reason, message: str = "Why.", **more: Any) -> Fault:
    error = {"message": message, "type": "invalid_request_error", "param": more.get("param"), "code": code}
    return Fault(status, {"error": error}, reason, **more)


def anthropic(status: int, type_: str, reason: Reason, message: str = "Why.", **more: Any) -> Fault:
    error = {"type": type_, "message": message}
    return Fault(status, {"type": "error", "error": error, "request_id": "req_1"}, reason, **more)


def google(code: int, status: str, reason: Reason, message: str = "Why.", *details: Any, **more: Any) -> Fault:
    return Fault(
        code,
        {"error": {"code": code, "message": message, "status": status, "details": details}},
        reason,
        **more,
    )


def aws(status: int, name: str, reason: Reason, message: str = "Why.", **more: Any) -> Fault:
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return Fault(status, {"message": message}, reason, headers, **more)


TOO_LONG = "prompt is too long: 300000 tokens > 200000 maximum"
FILTER = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}
PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
NO_INPUT = "Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input."
SHOWN: dict[str, Any] = {"shown": True}

FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "openai": (
        openai(400, "unsupported_parameter", R.INVALID_REQUEST, param="max_tokens", shown=True),
        openai(400, None, R.INVALID_REQUEST, **SHOWN),
        openai(400, "context_length_exceeded", R.CONTEXT_LENGTH_EXCEEDED, **SHOWN),
        openai(400, "string_above_max_length", R.CONTEXT_LENGTH_EXCEEDED, **SHOWN),
        openai(400, None, R.CONTEXT_LENGTH_EXCEEDED, "The maximum context length is 8192 tokens.", **SHOWN),
        openai(400, "content_filter", R.CONTENT_POLICY_VIOLATION, FILTER, **SHOWN),
        openai(401, "invalid_api_key", R.UPSTREAM_AUTHENTICATION),
        openai(403, "unsupported_country_region_territory", R.UPSTREAM_AUTHENTICATION),
        openai(404, "model_not_found", R.MODEL_NOT_FOUND),
        openai(404, "DeploymentNotFound", R.MODEL_NOT_FOUND),
        openai(429, "rate_limit_exceeded", R.RATE_LIMITED, headers={"retry-after-ms": "1500"}, retry_after=1.5),
        openai(429, "insufficient_quota", R.RATE_LIMITED),
        openai(500, None, R.UPSTREAM_ERROR),
        openai(503, "server_is_overloaded", R.OVERLOADED),
        Fault(400, {"error": {"message": FILTER, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
              R.CONTENT_POLICY_VIOLATION, **SHOWN),
        Fault(400, {"error": {"message": "Why.", "type": "too_many_prompt_tokens", "code": 400}},
              R.CONTEXT_LENGTH_EXCEEDED, **SHOWN),
        Fault(400, {"code": "invalid-argument", "error": "Incorrect API key."}, R.UPSTREAM_AUTHENTICATION),
        Fault(401, {"detail": "Invalid API Key"}, R.UPSTREAM_AUTHENTICATION),
        Fault(422, {"object": "error", "message": {"detail": [{"loc": ["body", "seed"]}]}}, R.INVALID_REQUEST),
        Fault(422, {"detail": "Why."}, R.INVALID_REQUEST, **SHOWN),
        Fault(400, {"message": "Why.", "request_id": "1"}, R.INVALID_REQUEST, **SHOWN),
        Fault(400, [{"error": {"message": "Why.", "code": 400}}], R.INVALID_REQUEST, **SHOWN),
    ),
    "anthropic": (
        anthropic(400, "invalid_request_error", R.INVALID_REQUEST, **SHOWN),
        anthropic(400, "invalid_request_error", R.CONTEXT_LENGTH_EXCEEDED, TOO_LONG, **SHOWN),
        anthropic(400, "invalid_request_error", R.CONTEXT_LENGTH_EXCEEDED,
                  "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", **SHOWN),
        anthropic(400, "invalid_request_error", R.CONTENT_POLICY_VIOLATION,
                  "Output blocked by content filtering policy", **SHOWN),
        anthropic(400, "invalid_request_error", R.UPSTREAM_AUTHENTICATION, "Your credit balance is too low."),
        anthropic(401, "authentication_error", R.UPSTREAM_AUTHENTICATION, "invalid x-api-key"),
        anthropic(402, "billing_error", R.UPSTREAM_AUTHENTICATION),
        anthropic(403, "permission_error", R.UPSTREAM_AUTHENTICATION),
        anthropic(404, "not_found_error", R.MODEL_NOT_FOUND, "model: claude-9"),
        anthropic(413, "request_too_large", R.REQUEST_TOO_LARGE, "Request exceeds the maximum size", **SHOWN),
        anthropic(413, "invalid_request_error", R.CONTEXT_LENGTH_EXCEEDED,
                  "Request size exceeds model context window", **SHOWN),
        anthropic(429, "rate_limit_error", R.RATE_LIMITED, headers={"retry-after": "20"}, retry_after=20),
        anthropic(500, "api_error", R.UPSTREAM_ERROR),
        anthropic(504, "timeout_error", R.TIMEOUT),
        anthropic(529, "overloaded_error", R.OVERLOADED),
        # On Vertex AI: Google's form, and a list of it.
        google(429, "RESOURCE_EXHAUSTED", R.RATE_LIMITED),
        Fault(403, [{"error": {"code": 403, "message": "Why.", "status": "PERMISSION_DENIED"}}],
              R.UPSTREAM_AUTHENTICATION),
    ),
    "gemini": (
        google(400, "INVALID_ARGUMENT", R.INVALID_REQUEST, **SHOWN),
        google(400, "INVALID_ARGUMENT", R.UPSTREAM_AUTHENTICATION, "API key not valid.", KEY_INVALID),
        google(400, "INVALID_ARGUMENT", R.CONTEXT_LENGTH_EXCEEDED,
               "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).", **SHOWN),
        google(400, "FAILED_PRECONDITION", R.UNSUPPORTED_FEATURE, "User location is not supported.", **SHOWN),
        google(401, "UNAUTHENTICATED", R.UPSTREAM_AUTHENTICATION),
        google(403, "PERMISSION_DENIED", R.UPSTREAM_AUTHENTICATION),
        google(404, "NOT_FOUND", R.MODEL_NOT_FOUND),
        google(429, "RESOURCE_EXHAUSTED", R.RATE_LIMITED, "Why.", RETRY_INFO, retry_after=12.5),
        google(429, "RESOURCE_EXHAUSTED", R.RATE_LIMITED, "Why.", PER_DAY),
        google(500, "INTERNAL", R.UPSTREAM_ERROR),
        google(503, "UNAVAILABLE", R.OVERLOADED),
        google(504, "DEADLINE_EXCEEDED", R.TIMEOUT),
        Fault(403, [{"error": {"code": 403, "message": "Why.", "status": "PERMISSION_DENIED"}}],
              R.UPSTREAM_AUTHENTICATION),
        Fault(400, {"error": "Why."}, R.INVALID_REQUEST, **SHOWN),
    ),
    "bedrock": (
        aws(400, "ValidationException", R.INVALID_REQUEST, **SHOWN),
        aws(400, "ValidationException", R.CONTEXT_LENGTH_EXCEEDED, NO_INPUT, **SHOWN),
        aws(400, "ValidationException", R.MODEL_NOT_FOUND, "The provided model identifier is invalid."),
        aws(400, "ValidationException", R.MODEL_NOT_FOUND,
            "Invocation of model ID x with on-demand throughput isn’t supported. Retry with a profile."),
        aws(400, "ValidationException", R.UNSUPPORTED_FEATURE, "This model doesn't support tool use.", **SHOWN),
        aws(400, "ValidationException", R.CONTENT_POLICY_VIOLATION,
            "Output blocked by content filtering policy", **SHOWN),
        aws(403, "AccessDeniedException", R.UPSTREAM_AUTHENTICATION),
        aws(403, "ExpiredTokenException", R.UPSTREAM_AUTHENTICATION),
        aws(403, "UnrecognizedClientException", R.UPSTREAM_AUTHENTICATION),
        aws(404, "ResourceNotFoundException", R.MODEL_NOT_FOUND),
        aws(408, "ModelTimeoutException", R.TIMEOUT),
        aws(424, "ModelErrorException", R.UPSTREAM_ERROR),
        aws(429, "ModelNotReadyException", R.OVERLOADED),
        aws(429, "ThrottlingException", R.RATE_LIMITED),
        aws(429, "ServiceQuotaExceededException", R.RATE_LIMITED),
        aws(500, "InternalServerException", R.UPSTREAM_ERROR),
        aws(503, "ServiceUnavailableException", R.OVERLOADED),
        Fault(403, {"message": "You don't have access to the model with the specified model ID."},
              R.UPSTREAM_AUTHENTICATION),
        Fault(400, {"__type": "com.amazon.coral.validate#ValidationException", "Message": "Why."},
              R.INVALID_REQUEST, **SHOWN),
    ),
}  # fmt: skip


def message_of(body: Any) -> str:
    """The provider's message."""
    if isinstance(body, list):
        return message_of(body[0])
    found = body.get("error") or body.get("message") or body.get("Message") or body.get("detail")
    return message_of(found) if isinstance(found, dict) else str(found)


@pytest.mark.parametrize(
    ("dialect", "fault"),
    [
        pytest.param(dialect, fault, id=f"{dialect}-{number}-{fault.status}-{fault.reason}")
        for dialect in DIALECTS
        for number, fault in enumerate(FAULTS[dialect])
    ],
)
def test_fault(dialect: str, fault: Fault) -> None:
    error = error_of(dialect, fault.status, fault.headers, json.dumps(fault.body).encode())
    assert (error.reason, error.http_status) == (fault.reason, fault.status)
    assert (error.retry_after, error.param) == (fault.retry_after, fault.param)
    assert (message_of(fault.body) == error.message) is fault.shown


#: Errors that came as an answer, with a 200.
INSIDE: Mapping[str, tuple[tuple[Any, Reason], ...]] = {
    "openai": (
        ({"error": {"message": "Why.", "code": "rate_limit_exceeded"}}, R.RATE_LIMITED),
        ({"error": {"message": "Why.", "code": 503}}, R.OVERLOADED),
        ({"error": {"message": TOO_LONG, "code": 400}}, R.CONTEXT_LENGTH_EXCEEDED),
        ({"error": "Why."}, R.UPSTREAM_ERROR),
    ),
    "anthropic": (
        (anthropic(200, "overloaded_error", R.OVERLOADED).body, R.OVERLOADED),
        (anthropic(200, "api_error", R.UPSTREAM_ERROR).body, R.UPSTREAM_ERROR),
        (anthropic(200, "invalid_request_error", R.INVALID_REQUEST).body, R.INVALID_REQUEST),
    ),
    "gemini": (
        (google(503, "UNAVAILABLE", R.OVERLOADED).body, R.OVERLOADED),
        ([google(429, "RESOURCE_EXHAUSTED", R.RATE_LIMITED).body], R.RATE_LIMITED),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, R.CONTENT_POLICY_VIOLATION),
    ),
    "bedrock": (
        ({"__type": "ThrottlingException", "message": "Why."}, R.RATE_LIMITED),
        ({"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"},
         R.UPSTREAM_ERROR),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "body", "reason"),
    [(dialect, body, reason) for dialect in DIALECTS for body, reason in INSIDE[dialect]],
)
def test_an_error_inside_a_200(dialect: str, body: Any, reason: Reason) -> None:
    with pytest.raises(ProviderError) as caught:
        completion_of(dialect, json.dumps(body).encode())
    assert caught.value.reason is reason


def text_answer(dialect: str) -> bytes:
    """The body of the golden answer that is text."""
    answer = goldens.load(GOLDEN / "text" / f"{dialect}.json")["answer"]
    return json.dumps(answer, ensure_ascii=False).encode()


@each_dialect
def test_a_200_that_is_no_answer(dialect: str) -> None:
    whole = text_answer(dialect)
    bodies = [b"", b" ", PAGE, b"null", b"[]", b"{}", b"7", b'"down"', b"[[]]", b"\xff\xfe\x00", b"[" * 100_000]
    bodies += [whole[:-1], whole[: len(whole) // 2], b'{"choices": []}']
    for body in bodies:
        with pytest.raises(ProviderError) as caught:
            completion_of(dialect, body)
        assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE, body[:40]
        assert caught.value.fall_over


@each_dialect
@given(place=st.integers(0, 100_000), byte=st.binary(max_size=2))
@settings(max_examples=100, deadline=None)
def test_a_damaged_answer_is_an_error_or_an_answer(dialect: str, place: int, byte: bytes) -> None:
    data = text_answer(dialect)
    place %= len(data)
    try:
        completion = completion_of(dialect, data[:place] + byte + data[place + 1 :])
    except ProviderError:
        return
    assert all(choice["finish_reason"] for choice in completion["choices"])


def test_every_dialect_has_its_tables() -> None:
    assert FAULTS.keys() == INSIDE.keys() == DIALECTS.keys()
