"""Invalid answers of providers raise ProviderError only, and the contract of chunks holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.chat.request import ProtoRequest
from server.dialects.anthropic.dialect import AnthropicTranslator
from server.dialects.base import Translator
from server.dialects.bedrock.dialect import BedrockTranslator
from server.dialects.gemini.dialect import GeminiTranslator
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import ProviderError
from tests.chat.strategies import JSON, PATIENT
from tests.dialects import openai_help
from tests.support import streams

GOLDEN = Path(__file__).parents[1] / "golden"
REQUEST = ProtoRequest(pb.ChatCompletionRequest())


class Dialect(NamedTuple):
    """How one dialect writes answers and events, and examples of both."""

    translator: Translator
    write: Callable[[Sequence[Any]], bytes]
    answers: Sequence[Any]
    streams: Sequence[Sequence[Any]]


def _read(path: str) -> Any:
    return json.loads((GOLDEN / path).read_text(encoding="utf-8"))


def _events(events: Sequence[Any]) -> bytes:
    return openai_help.sse(*events)


def _frames(events: Sequence[Any]) -> bytes:
    return b"".join(streams.frame_of_event(str(type_), payload) for type_, payload in events)


ANTHROPIC = _read("anthropic/answers.json")
BEDROCK = _read("bedrock/turns.json")
GEMINI = [_read(f"gemini/{path.name}")["gemini"] for path in sorted((GOLDEN / "gemini").glob("answer_*.json"))]
_CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_USAGE = {
    "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1},
}  # fmt: skip
_MESSAGE: dict[str, Any] = {
    "role": "assistant", "content": "Hi", "refusal": None, "reasoning": "Hm.", "tool_calls": [_CALL],
    "annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0}}],
    "audio": {"id": "a", "data": "AA==", "expires_at": 1, "transcript": "x"},
    "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}],
}  # fmt: skip
_LOGPROBS = {"content": [{"token": "Hi", "logprob": -1.0, "bytes": [72], "top_logprobs": []}]}
OPENAI_ANSWER = {
    "id": "1", "object": "chat.completion", "created": 7, "model": "m", "service_tier": "on_demand",
    "usage": _USAGE,
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop", "logprobs": _LOGPROBS}],
    "x_groq": {"id": "x"},
}  # fmt: skip
OPENAI_STREAM = [
    openai_help.chunk(openai_help.delta(role="assistant", content="")),
    openai_help.chunk(openai_help.delta(**{k: v for k, v in _MESSAGE.items() if k != "role"})),
    openai_help.chunk(openai_help.delta("stop") | {"usage": _USAGE, "logprobs": _LOGPROBS}),
    openai_help.chunk(usage=_USAGE, x_groq={"id": "x", "usage": _USAGE}),
]

DIALECTS = {
    "openai": Dialect(OpenAITranslator(), _events, [OPENAI_ANSWER], [OPENAI_STREAM]),
    "anthropic": Dialect(
        AnthropicTranslator(), _events, [a["message"] for a in ANTHROPIC], [a["stream"] for a in ANTHROPIC]
    ),
    "bedrock": Dialect(
        BedrockTranslator(), _frames, [t["answer"] for t in BEDROCK], [t["events"] for t in BEDROCK]
    ),
    "gemini": Dialect(GeminiTranslator(), _events, GEMINI, [[answer] for answer in GEMINI]),
}
EACH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
#: JSON values that programs often fail on.
ODD: st.SearchStrategy[Any] = JSON | st.sampled_from(
    [None, True, -1, 2**31, 2**63, 2**70, 1e308, -0.5, "", "null", "\x00", [], {}, [[]], [None], [{}], {"": None}]
)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON tree that can be set."""
    if not isinstance(tree, dict | list):
        return []
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]


def _mutated(tree: Any, data: st.DataObject) -> Any:
    """`tree` with up to three places set to anything, or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(tree)
        if places:
            container, key = data.draw(st.sampled_from(places))
            if isinstance(container, dict) and data.draw(st.booleans()):
                del container[key]
            else:
                container[key] = copy.deepcopy(data.draw(ODD))  # a sampled value is shared
    return tree


def _drive(translator: Translator, pieces: Sequence[bytes]) -> None:
    """Decode a stream and check the contract; a ProviderError may end it."""
    decoder = translator.decoder(REQUEST)
    chunks: list[pb.ChatCompletionChunk] = []
    error: ProviderError | None = None
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except ProviderError as failure:
        error = failure
        chunks += failure.decoded
    finished: set[int] = set()
    seen: set[int] = set()
    for place, chunk in enumerate(chunks):
        assert not chunk.HasField("usage") or (place == len(chunks) - 1 and not chunk.choices)
        for choice in chunk.choices:
            assert choice.index not in finished, "nothing follows a finish reason"
            assert bool(choice.delta.role) == (choice.index not in seen)
            seen.add(choice.index)
            if choice.finish_reason:
                finished.add(choice.index)
    assert (finished == seen and bool(seen)) if error is None else not finished


@EACH
@given(st.data())
@settings(PATIENT, max_examples=150)
def test_odd_events(dialect: Dialect, data: st.DataObject) -> None:
    events = list(data.draw(st.sampled_from(dialect.streams)))
    place = data.draw(st.integers(0, len(events) - 1))
    if isinstance(events[place], list):  # a type and its payload
        type_, payload = events[place]
        events[place] = [type_, _mutated([payload], data)[0]]
    else:
        events[place] = _mutated([events[place]], data)[0]
    _drive(dialect.translator, [dialect.write(events)])


@EACH
@given(st.data())
@settings(PATIENT, max_examples=150)
def test_events_in_any_order(dialect: Dialect, data: st.DataObject) -> None:
    pool = [event for events in dialect.streams for event in events]
    events = data.draw(st.lists(st.sampled_from(pool), max_size=8))
    _drive(dialect.translator, [dialect.write([event]) for event in events])


@EACH
@given(st.data())
@settings(PATIENT, max_examples=100)
def test_odd_bytes(dialect: Dialect, data: st.DataObject) -> None:
    stream = bytearray(dialect.write(data.draw(st.sampled_from(dialect.streams))))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(stream) - 1), st.integers(0, 255)), max_size=5)
    ):
        stream[place] = byte
    cut = data.draw(st.integers(0, len(stream)))
    _drive(dialect.translator, [bytes(stream[:cut]), bytes(stream[cut:])])


@EACH
@given(st.data())
@settings(PATIENT, max_examples=150)
def test_odd_answers(dialect: Dialect, data: st.DataObject) -> None:
    answer = _mutated([data.draw(st.sampled_from(dialect.answers))], data)[0]
    try:
        completion = dialect.translator.completion(json.dumps(answer).encode(), REQUEST)
    except ProviderError:
        return
    assert isinstance(completion.native_finish_reason, str)
    choices = completion.to_proto().choices
    assert all(choice.finish_reason and choice.message.role for choice in choices)


@EACH
@given(ODD, st.sampled_from([200, 400, 401, 403, 404, 413, 429, 500, 503]))
@settings(PATIENT, max_examples=100)
def test_odd_errors(dialect: Dialect, inner: Any, status: int) -> None:
    for body in (inner, {"error": inner}, [{"error": inner}], {"error": {"message": inner, "code": inner}}):
        error = dialect.translator.error(status, {"retry-after": "1e308"}, json.dumps(body).encode())
        assert error.message
        assert error.retry_after is not None
        assert error.retry_after <= 24 * 3600


@EACH
@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_nesting(dialect: Dialect, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    with pytest.raises(ProviderError):
        dialect.translator.completion(deep, REQUEST)
    assert dialect.translator.error(400, {}, deep).message
    _drive(dialect.translator, [b"data: " + deep + b"\n\n"])
