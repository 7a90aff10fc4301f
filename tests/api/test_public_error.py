"""Errors as callers get them: bounded in both forms, their field named, the provider's further fields kept."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from server.api import public_error
from server.api.public_error import MAX_STATUS, PublicError
from server.errors import AttemptRecord, InvalidRequest, LmchatError, ProviderError, Reason, SkippedRecord

texts = st.text(max_size=20) | st.sampled_from(["x", "输", "😀", "\x00", "%", '"', "\\", "\ud800"])
values = st.recursive(
    texts | st.integers() | st.floats() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
attempts = st.lists(
    st.builds(AttemptRecord, texts, texts, st.just(400), st.just("timeout"), st.just(7)), max_size=4
)
skips = st.lists(st.builds(SkippedRecord, texts, texts, texts), max_size=4)


def grown(value: Any, times: int) -> Any:
    """`value` with every text repeated `times` times."""
    if isinstance(value, str):
        return value * times
    if isinstance(value, list):
        return [grown(item, times) for item in value]
    if isinstance(value, dict):
        return {grown(key, times): grown(item, times) for key, item in value.items()}
    if isinstance(value, AttemptRecord | SkippedRecord):
        return type(value)(**grown(msgspec.structs.asdict(value), 1) | {"model": value.model * times})
    return value


def encoded(error: PublicError) -> int:
    """Bytes of the status in HTTP/2 headers."""
    status = rpc_status.to_status(error.status())
    [(_, details)] = status.trailing_metadata
    return len(quote(status.details, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))) + (
        4 * -(-len(details) // 3)
    )


def info_of(error: PublicError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert error.status().details[0].Unpack(info)
    return info


@given(
    message=texts,
    param=texts,
    code=texts,
    details=st.dictionaries(texts, values, max_size=4),
    tried=attempts,
    skipped=skips,
    wait=st.floats() | st.none(),
    times=st.sampled_from([1, 30, 2000, 20_000]),
)
def test_both_forms_are_bounded(
    message: str,
    param: str,
    code: str,
    details: dict[str, Any],
    tried: list[AttemptRecord],
    skipped: list[SkippedRecord],
    wait: float | None,
    times: int,
) -> None:
    source = ProviderError(
        Reason.INVALID_REQUEST,
        message * times,
        param=param * times,
        code=code * times,
        details=grown(details, times),
        retry_after=wait,
    )
    source.attempts = tuple(grown(tried, times) * min(times, 100))
    source.skipped = tuple(grown(skipped, times) * min(times, 100))
    error = PublicError.of(source, "r" * 128)
    assert encoded(error) <= MAX_STATUS
    metadata = info_of(error).metadata
    for name in ("details", "attempts", "skipped"):
        json.loads(metadata.get(name, "null"))
    body = public_error._encode(error.body())
    assert json.loads(body)["error"]["lmchat"]["reason"] == "invalid_request"
    assert len(json.loads(body)["error"]["message"].encode()) <= public_error.MAX_MESSAGE
    details_alone = len(public_error._encode(dict(error.details)))
    assert (
        len(body) <= 6 * (public_error.MAX_MESSAGE + public_error.MAX_PARAM) + 2 * 16 * 1024 + details_alone + 1024
    )


@pytest.mark.parametrize(
    ("character", "least"), [("x", 1200), ("输", 200), ("%", 600), ("\n", 600), ("😀", 150)], ids=repr
)
def test_a_long_message_keeps_what_fits(character: str, least: int) -> None:
    error = PublicError.of(LmchatError(Reason.INVALID_REQUEST, character * 100_000, param="x" * 70_000), "r")
    message = error.status().message
    assert encoded(error) <= MAX_STATUS
    assert message.startswith(f"{error.param}: ")
    assert message.count(character) >= least - 512 * 2
    assert message.endswith("…")
    plain = PublicError.of(LmchatError(Reason.INVALID_REQUEST, character * 100_000), "r")
    assert plain.status().message == character * plain.status().message.count(character) + "…"
    assert plain.status().message.count(character) >= least
    assert plain.status_message() == plain.status().message
    assert len(plain.message.encode()) > 8000  # a body has more room


#: Field, message, the message for the caller.
NAMED = [
    ("messages[0].role", "Required.", "messages[0].role is required."),
    ("model", "Required: the id of a model.", "model is required: the id of a model."),
    ("temperature", "Must be between 0 and 2, got 3.", "temperature must be between 0 and 2, got 3."),
    ("stream", "Expected a boolean, got a string.", "stream: Expected a boolean, got a string."),
    ("max_tokens", "Unsupported parameter: 'max_tokens'.", "Unsupported parameter: 'max_tokens'."),
    ("messages", "Invalid 'messages[1].content'.", "Invalid 'messages[1].content'."),
    ("n", "None can.", "n: None can."),
    ("lmchat.debug[0]", "There is no topic 'x'.", "lmchat.debug[0]: There is no topic 'x'."),
    ("tools[0]", "tools[0] is odd", "tools[0] is odd"),
    ("a.b", "see x.a.b", "a.b: see x.a.b"),
    (None, "Broken.", "Broken."),
    ("", "Broken.", "Broken."),
]


@pytest.mark.parametrize(("param", "message", "expected"), NAMED)
def test_messages_name_their_field(param: str | None, message: str, expected: str) -> None:
    error = PublicError.of(InvalidRequest(message, param), "r")
    assert error.body()["error"]["message"] == error.status().message == expected
    again = PublicError.of(InvalidRequest(expected, param), "r")
    assert again.message == expected
    assert PublicError.of(ProviderError(Reason.INVALID_REQUEST, message, param=param), "r").message == message


def test_a_providers_code_and_fields_reach_both_forms() -> None:
    details = {"failed_generation": '<function=f{"a":1}>', "innererror": {"content_filter_result": {"hate": {}}}}
    source = ProviderError(Reason.INVALID_REQUEST, "no", code="tool_use_failed", details=details)
    error = PublicError.of(source, "r")
    assert error.body()["error"] == {
        **details,
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": "tool_use_failed",
        "lmchat": {"reason": "invalid_request", "request_id": "r"},
    }
    metadata = info_of(error).metadata
    assert metadata["code"] == "tool_use_failed"
    assert json.loads(metadata["details"]) == details
    assert "code" not in info_of(PublicError.of(LmchatError(Reason.TIMEOUT, "x"), "r")).metadata


@pytest.mark.parametrize(
    ("wait", "shown"),
    [(7.5, 7.5), (0.0, 0.0), (-3.0, 0.0), (float("nan"), 0.0), (1e308, 86400.0), (float("inf"), 86400.0)],
)
def test_waits_are_bounded(wait: float, shown: float) -> None:
    error = PublicError.of(LmchatError(Reason.RATE_LIMITED, "x", retry_after=wait), "r")
    retry = error_details_pb2.RetryInfo()
    assert error.status().details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == shown
