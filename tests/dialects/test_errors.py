"""What a provider's failure means, and how long it asks to wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.dialects import errors as failures
from server.dialects.errors import CODES, classify, invalid_response, retry_after
from server.errors import Reason

R = Reason

#: Status, code and message of the provider; the reason, whether the same endpoint may do better in a moment, and
#: whether another may.
TABLE: list[tuple[int, str, str, Reason, bool, bool]] = [
    (400, "", "bad", R.INVALID_REQUEST, False, False),
    (400, "context_length_exceeded", "x", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "", "This model's maximum context length is 8192 tokens.", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "", "prompt is too long: 3 tokens > 2 maximum", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "content_filter", "x", R.CONTENT_POLICY_VIOLATION, False, False),
    (400, "ResponsibleAIPolicyViolation", "x", R.CONTENT_POLICY_VIOLATION, False, False),
    (400, "", "Incorrect API key provided.", R.UPSTREAM_AUTHENTICATION, False, True),
    (400, "", "API key not valid. Please pass a valid API key.", R.UPSTREAM_AUTHENTICATION, False, True),
    (401, "", "bad key", R.UPSTREAM_AUTHENTICATION, False, True),
    (402, "", "no money", R.UPSTREAM_AUTHENTICATION, False, True),
    (403, "", "not you", R.UPSTREAM_AUTHENTICATION, False, True),
    (404, "", "no such model", R.MODEL_NOT_FOUND, False, True),
    (404, "DeploymentNotFound", "x", R.MODEL_NOT_FOUND, False, True),
    (405, "", "x", R.UPSTREAM_ERROR, False, True),
    (408, "", "x", R.TIMEOUT, False, True),
    (409, "", "x", R.UPSTREAM_ERROR, False, True),
    (413, "", "too large", R.REQUEST_TOO_LARGE, False, False),
    (413, "", "prompt is too long", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (422, "", "bad", R.INVALID_REQUEST, False, False),
    (425, "", "x", R.UPSTREAM_ERROR, False, True),
    (429, "", "slow down", R.RATE_LIMITED, True, True),
    (429, "RateLimitReached", "slow down", R.RATE_LIMITED, True, True),
    (429, "insufficient_quota", "no money", R.RATE_LIMITED, False, True),
    (500, "", "x", R.UPSTREAM_ERROR, True, True),
    (500, "", "context window", R.UPSTREAM_ERROR, True, True),  # only a 4xx is believed
    (500, "context_length_exceeded", "x", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (500, "invalid_api_key", "x", R.UPSTREAM_AUTHENTICATION, False, True),
    (501, "", "x", R.UPSTREAM_ERROR, False, True),
    (502, "", "x", R.UPSTREAM_ERROR, True, True),
    (503, "", "x", R.OVERLOADED, True, True),
    (503, "model_not_found", "x", R.MODEL_NOT_FOUND, False, True),
    (504, "", "x", R.TIMEOUT, False, True),
    (520, "", "x", R.UPSTREAM_ERROR, False, True),
    (529, "", "x", R.OVERLOADED, True, True),
    (302, "", "x", R.UPSTREAM_ERROR, False, True),
]
OWN = {R.INVALID_REQUEST, R.CONTEXT_LENGTH_EXCEEDED, R.CONTENT_POLICY_VIOLATION, R.REQUEST_TOO_LARGE}


@pytest.mark.parametrize(("status", "code", "message", "reason", "here", "elsewhere"), TABLE)
def test_classify(status: int, code: str, message: str, reason: Reason, here: bool, elsewhere: bool) -> None:
    error = classify(status, code=code, message=message, param="messages", retry_after=3.0)
    assert (error.reason, error.retry_here, error.fall_over) == (reason, here, elsewhere)
    assert error.http_status == status
    assert error.raw == message
    assert error.retry_after == 3.0
    # The provider's words go to the caller only where they concern the caller's input.
    if reason in OWN:
        assert (error.message, error.param) == (message, "messages")
    else:
        assert message not in error.message
        assert error.message
        assert error.param is None


@pytest.mark.parametrize("code", CODES)
def test_codes_count_in_any_case_and_status(code: str) -> None:
    assert code == code.lower()
    assert classify(400, code=code.upper()).reason is classify(500, code=code).reason is CODES[code]


@pytest.mark.parametrize("phrase", failures._CONTEXT_PHRASES)
def test_a_context_too_long_in_words(phrase: str) -> None:
    assert phrase == phrase.lower()
    assert classify(400, message=f"Error: {phrase.upper()} 8192").reason is R.CONTEXT_LENGTH_EXCEEDED
    assert classify(401, message=phrase).reason is R.UPSTREAM_AUTHENTICATION


def test_what_the_dialect_knows_wins() -> None:
    assert classify(400, code="content_filter", reason=R.OVERLOADED).reason is R.OVERLOADED


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_without_a_message(status: int) -> None:
    error = classify(status)
    assert error.message == "The provider refused the request without saying why."
    assert error.param is None


def test_long_messages_are_cut_for_the_caller() -> None:
    error = classify(400, message="x" * 5000)
    assert len(error.message) == 2000
    assert len(error.raw) == 5000


def test_invalid_response() -> None:
    error = invalid_response("<html>")
    assert (error.reason, error.http_status, error.raw) == (R.UPSTREAM_INVALID_RESPONSE, 200, "<html>")
    assert "<html>" not in error.message
    assert error.fall_over
    assert not error.retry_here


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20 GMT", "date": DATE}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 09:28:20 +0200", "date": DATE}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20", "date": DATE}, None),
        ({"retry-after": DATE, "date": "yesterday"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),  # Azure, recorded
        ({"retry-after-ms": "2500", "retry-after": "1"}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1 Jan 99999999999999999999 00:00:00 GMT", "date": DATE}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


_DATES = st.lists(
    st.sampled_from(["Wed,", "21", "Oct", "-", "2015", "99999999999999999999", "7:28", "+9999", "GMT"])
)


@given(st.text(max_size=12) | _DATES.map(" ".join), st.sampled_from([None, "", DATE, "21 Oct 99999"]))
@settings(deadline=None)
def test_any_retry_after_is_a_time_or_none(value: str, date: str | None) -> None:
    headers = {"retry-after": value, "retry-after-ms": value} | ({} if date is None else {"date": date})
    seconds = retry_after(headers)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (429, "429"), (None, ""), (True, ""), ({}, ""), ([], ""), (1.5, "")]
)
def test_text(value: object, text: str) -> None:
    assert failures.text(value) == text
