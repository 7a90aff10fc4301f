"""Properties of the stream decoder of every dialect: see `server.dialects.base.StreamDecoder`."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.dialects.registry import DIALECTS
from server.errors import ProviderError, Reason, StreamTruncated
from tests.conformance.test_answers import GOLDEN, Answer, each_answer
from tests.support import goldens
from tests.support.dialects import Stream, chunks_of
from tests.support.fold import fold
from tests.support.streams import WRITERS, Event, frame_of_event, torn, written

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)
CUTS = st.lists(st.integers(0, 100_000), max_size=30)
PLENTY = settings(max_examples=20, deadline=None)


def pieces_of(answer: Answer) -> list[bytes]:
    """The bytes of each event of a golden stream."""
    return written(answer.dialect, answer.load()["stream"])


def text_of(dialect: str) -> list[Event]:
    """The events of the golden stream that is text."""
    events: list[Event] = goldens.load(GOLDEN / "text" / f"{dialect}.json")["stream"]
    return events


@each_answer
@given(cuts=CUTS)
@PLENTY
def test_any_split_of_the_bytes_gives_the_same_chunks(answer: Answer, cuts: list[int]) -> None:
    data = b"".join(pieces_of(answer))
    assert chunks_of(answer.dialect, torn(data, cuts), answer.fields) == answer.load()["chunks"]


@each_answer
def test_single_bytes_give_the_same_chunks(answer: Answer) -> None:
    data = b"".join(pieces_of(answer))
    assert chunks_of(answer.dialect, [bytes([byte]) for byte in data], answer.fields) == answer.load()["chunks"]


@each_answer
def test_a_break_is_an_error_until_the_answer_is_complete(answer: Answer) -> None:
    """Cut at every event's end, and in the middle of every event; a truncated answer never looks complete."""
    golden, pieces = answer.load(), pieces_of(answer)
    data, ends = b"".join(pieces), [0, *accumulate(map(len, pieces))]
    errors = 0
    for cut in sorted({*ends[:-1], *((start + end) // 2 for start, end in pairwise(ends))}):
        stream = Stream(answer.dialect, answer.fields)
        try:
            stream.read([data[:cut]])
        except StreamTruncated:
            errors += 1
            assert stream.chunks == golden["chunks"][: len(stream.chunks)], cut
        else:  # only the usage can be missing
            assert fold(stream.chunks)["choices"] == golden["completion"]["choices"], cut
    assert errors


#: By dialect: empty and unknown events, which must not affect a stream.
UNKNOWN: Mapping[str, tuple[bytes, ...]] = {
    "openai": (b": OPENROUTER PROCESSING\n\n", b"event: ping\n\n", b"id: 7\nretry: 100\n\n", b"\n"),
    "anthropic": (
        b": comment\n\n",
        WRITERS["anthropic"]({"type": "ping"}),
        WRITERS["anthropic"]({"type": "message_annotation", "annotation": {"text": "new"}}),
        b'data: {"type": "something_new", "index": 0}\n\n',
    ),
    "gemini": (b": comment\r\n\r\n", WRITERS["gemini"]({"responseId": "resp1", "modelStatus": {}})),
    "bedrock": (
        frame_of_event("initial-response", {}),
        frame_of_event("contentBlockAnnotation", {"contentBlockIndex": 0, "annotation": {"text": "new"}}),
    ),
}


@each_answer
def test_unknown_events_are_skipped(answer: Answer) -> None:
    unknown = UNKNOWN[answer.dialect]
    pieces = pieces_of(answer)
    for nothing in unknown:
        disturbed = [*(part for piece in pieces for part in (nothing, piece)), nothing]
        assert chunks_of(answer.dialect, disturbed, answer.fields) == answer.load()["chunks"], nothing


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
@each_answer
def test_lines_may_end_in_any_way(answer: Answer, end: bytes) -> None:
    if answer.dialect == "bedrock":  # frames have no lines
        return
    data = b"".join(pieces_of(answer)).replace(b"\r\n", b"\n").replace(b"\n", end)
    assert chunks_of(answer.dialect, [b"\xef\xbb\xbf", data], answer.fields) == answer.load()["chunks"]


def sse(error: Any, event: str = "") -> bytes:
    """An error as an event."""
    return (f"event: {event}\n" if event else "").encode() + f"data: {json.dumps(error)}\n\n".encode()


def anthropic_error(type_: str, message: str = "no") -> bytes:
    return sse({"type": "error", "error": {"type": type_, "message": message}}, "error")


def google_error(code: int, status: str, message: str = "no") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


def aws_exception(name: str, message: str = "no") -> bytes:
    return WRITERS["bedrock"]({"exception": {name: {"message": message}}})


TOO_LONG = "prompt is too long: 300000 tokens > 200000 maximum"
#: An error in a stream with status 200, and its reason.
ERRORS: Mapping[str, tuple[tuple[bytes, Reason], ...]] = {
    "openai": (
        (sse({"error": {"message": "no", "code": "rate_limit_exceeded"}}), Reason.RATE_LIMITED),
        (sse({"error": {"message": "no", "code": 429}}), Reason.RATE_LIMITED),
        (sse({"error": {"message": "no", "code": 502}, "choices": []}), Reason.UPSTREAM_ERROR),
        (sse({"error": {"message": TOO_LONG, "code": "context_length_exceeded"}}), Reason.CONTEXT_LENGTH_EXCEEDED),
        (sse({"error": "no"}), Reason.UPSTREAM_ERROR),
        (sse({"message": "no", "type": "server_error"}, "error"), Reason.UPSTREAM_ERROR),
    ),
    "anthropic": (
        (anthropic_error("overloaded_error"), Reason.OVERLOADED),
        (anthropic_error("rate_limit_error"), Reason.RATE_LIMITED),
        (anthropic_error("api_error"), Reason.UPSTREAM_ERROR),
        (anthropic_error("timeout_error"), Reason.TIMEOUT),
        (anthropic_error("invalid_request_error", TOO_LONG), Reason.CONTEXT_LENGTH_EXCEEDED),
    ),
    "gemini": (
        (sse(google_error(503, "UNAVAILABLE")), Reason.OVERLOADED),
        (sse(google_error(429, "RESOURCE_EXHAUSTED")), Reason.RATE_LIMITED),
        (sse(google_error(500, "INTERNAL")), Reason.UPSTREAM_ERROR),
        (json.dumps(google_error(503, "UNAVAILABLE"), indent=2).encode(), Reason.OVERLOADED),
        (json.dumps([google_error(504, "DEADLINE_EXCEEDED")]).encode(), Reason.TIMEOUT),
    ),
    "bedrock": (
        (aws_exception("throttlingException"), Reason.RATE_LIMITED),
        (aws_exception("modelStreamErrorException"), Reason.UPSTREAM_ERROR),
        (aws_exception("internalServerException"), Reason.UPSTREAM_ERROR),
        (aws_exception("serviceUnavailableException"), Reason.OVERLOADED),
        (aws_exception("validationException", TOO_LONG), Reason.CONTEXT_LENGTH_EXCEEDED),
    ),
}


@pytest.mark.parametrize(
    ("dialect", "error", "reason"),
    [(dialect, error, reason) for dialect in DIALECTS for error, reason in ERRORS[dialect]],
)
def test_an_error_in_a_stream(dialect: str, error: bytes, reason: Reason) -> None:
    """After any event before the answer's end; earlier content is returned before the error."""
    events = text_of(dialect)
    chunks = goldens.load(GOLDEN / "text" / f"{dialect}.json")["chunks"]
    pieces = written(dialect, events)
    finish = next(i for i, event in enumerate(events) if ends(dialect, event))
    for count in range(finish + 1):
        for bytes_at_once in (False, True):
            stream = Stream(dialect)
            parts = [*pieces[:count], error]
            with pytest.raises(ProviderError) as caught:
                stream.read([b"".join(parts)] if bytes_at_once else parts)
            assert caught.value.reason is reason
            assert stream.chunks == chunks[: len(stream.chunks)]


def ends(dialect: str, event: Event) -> bool:
    """Whether an event of the text stream has the finish reason."""
    text = json.dumps(event)
    words = {"openai": '"finish_reason": "', "anthropic": '"stop_reason": "', "gemini": '"finishReason"'}
    return words.get(dialect, '"stopReason"') in text


@each_dialect
def test_bytes_that_are_not_utf_8(dialect: str) -> None:
    def damaged(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False).encode().replace("ü".encode(), b"\xfc")

    events: list[Event] = []
    for event in text_of(dialect):
        if dialect == "bedrock" and isinstance(event, dict):
            events.append({kind: damaged(payload) for kind, payload in event.items()})
        else:
            events.append(event if isinstance(event, str) else damaged(event))
    data = b"".join(written(dialect, events))
    assert data.count(b"\xfc") == 1
    deltas = [choice["delta"] for chunk in chunks_of(dialect, [data]) for choice in chunk.get("choices", [])]
    assert "".join(delta.get("content") or "" for delta in deltas).count("\N{REPLACEMENT CHARACTER}") == 1


@each_dialect
@given(data=st.binary(max_size=60) | st.text('data:{}[]"\\ \r\n', max_size=60).map(str.encode))
@PLENTY
def test_no_bytes_at_all_are_an_answer(dialect: str, data: bytes) -> None:
    with pytest.raises(ProviderError):
        chunks_of(dialect, [data])


@each_answer
@given(place=st.integers(0, 100_000), byte=st.binary(max_size=2))
@PLENTY
def test_a_damaged_stream_is_an_error_or_keeps_the_promises(answer: Answer, place: int, byte: bytes) -> None:
    data = b"".join(pieces_of(answer))
    place %= len(data)
    damaged = data[:place] + byte + data[place + 1 :]
    with suppress(ProviderError, binascii.Error):  # base64 is not decoded by the gateway
        chunks = chunks_of(answer.dialect, [damaged], answer.fields)
        fold(chunk | {"model": ""} for chunk in chunks)  # the router sets the model


def test_every_dialect_has_its_tables() -> None:
    assert WRITERS.keys() == UNKNOWN.keys() == ERRORS.keys() == DIALECTS.keys()
