"""Completions and chunks as JSON: strict writing, lenient reading, and round trips."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import (
    decode_json,
    dump_chunk,
    dump_completion,
    encode_text,
    parse_chunk,
    parse_completion,
)
from server.chat.openai_json.fields import INT32_MAX, INT64_MAX
from server.errors import InvalidRequest
from tests.chat.strategies import CHUNKS, COMPLETIONS, JSON, PATIENT

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "openai/gpt-5",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi.", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
    "system_fingerprint": "fp_1",
    "service_tier": "default",
    "lmchat": {"provider": "direct", "tries": 1, "native_finish_reason": "stop", "dropped_params": []},
}
TYPED = pb.ChatCompletion(
    id="chatcmpl-1",
    created=1700000000,
    model="openai/gpt-5",
    choices=[
        pb.Choice(
            message=pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.ContentPart(text="Hi.")]),
            finish_reason=pb.FINISH_REASON_STOP,
        )
    ],
    usage=pb.Usage(
        prompt_tokens=9,
        completion_tokens=4,
        total_tokens=13,
        prompt_tokens_details=pb.PromptTokensDetails(cached_tokens=0),
        completion_tokens_details=pb.CompletionTokensDetails(reasoning_tokens=2),
    ),
    system_fingerprint="fp_1",
    service_tier="default",
    lmchat=pb.RoutingReport(provider="direct", tries=1, native_finish_reason="stop"),
)


def test_completion() -> None:
    assert dump_completion(TYPED) == COMPLETION
    assert list(dump_completion(TYPED)) == list(COMPLETION)
    assert parse_completion(copy.deepcopy(COMPLETION)) == TYPED


def message(written: dict[str, Any]) -> pb.Message:
    choice = {"index": 0, "message": written, "finish_reason": None, "logprobs": None}
    return parse_completion({"choices": [choice]}).choices[0].message


def written(typed: pb.Message) -> dict[str, Any]:
    found: dict[str, Any] = dump_completion(pb.ChatCompletion(choices=[pb.Choice(message=typed)]))["choices"][0]
    return found["message"]  # type: ignore[no-any-return]


CITATION = {"url": "https://a", "title": "A", "start_index": 0, "end_index": 3}
EMPTY: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}

#: What a message holds beyond the least, in JSON and in protobuf.
MESSAGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {}),
    ("empty text", {"content": ""}, {"content": [pb.ContentPart(text="")]}),
    ("refusal", {"refusal": "No."}, {"refusal": "No."}),
    (
        "tool calls",
        {
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}},
                {"id": "2", "type": "custom", "custom": {"name": "c", "input": "in"}},
                {"id": "3", "type": "function", "function": {"name": "g", "arguments": ""}, "signature": "s"},
            ]
        },
        {
            "tool_calls": [
                pb.ToolCall(id="1", function=pb.FunctionCall(name="f", arguments="{")),
                pb.ToolCall(id="2", custom=pb.CustomToolCall(name="c", input="in")),
                pb.ToolCall(id="3", function=pb.FunctionCall(name="g"), extra_json='{"signature":"s"}'),
            ]
        },
    ),
    ("reasoning", {"reasoning_content": "Hm."}, {"reasoning_content": "Hm."}),
    (
        "reasoning details",
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "", "signature": "s"},
                {"type": "reasoning.encrypted", "data": "x", "format": "f"},
                {"type": "reasoning.text", "text": "Hm.", "index": 0},
            ]
        },
        {
            "reasoning_details": [
                pb.ReasoningDetail(text="", signature="s"),
                pb.ReasoningDetail(redacted="x", format="f"),
                pb.ReasoningDetail(other_json='{"type":"reasoning.text","text":"Hm.","index":0}'),
            ]
        },
    ),
    (
        "annotations",
        {"annotations": [{"type": "url_citation", "url_citation": CITATION}, {"type": "file", "file": {}}]},
        {
            "annotations": [
                pb.Annotation(url_citation=pb.UrlCitation(url="https://a", title="A", end_index=3)),
                pb.Annotation(other_json='{"type":"file","file":{}}'),
            ]
        },
    ),
    (
        "audio",
        {"audio": {"id": "a", "data": "UklGRg==", "expires_at": 1700000000, "transcript": "Hi"}},
        {"audio": pb.Audio(id="a", data="UklGRg==", expires_at=1700000000, transcript="Hi")},
    ),
    (
        "parts",
        {"content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x"}}]},
        {"content": [pb.ContentPart(text="see"), pb.ContentPart(image_url=pb.ImageUrl(url="https://x"))]},
    ),
    ("unknown", {"citations": ["a"], "x": None}, {"extra_json": '{"citations":["a"],"x":null}'}),
]


@pytest.mark.parametrize(("more", "fields"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_messages(more: dict[str, Any], fields: dict[str, Any]) -> None:
    typed = pb.Message(role=pb.ROLE_ASSISTANT, **fields)
    assert written(typed) == EMPTY | more
    assert message(EMPTY | more) == typed


def test_text_in_parts_is_one_string() -> None:
    parts = [pb.ContentPart(text="Hi"), pb.ContentPart(text=" there")]
    assert written(pb.Message(content=parts))["content"] == "Hi there"


def test_logprobs() -> None:
    token = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    other = {"token": "", "logprob": -9999.0, "bytes": None}
    logprobs = {
        "content": [token | {"top_logprobs": [token, other]}, other | {"top_logprobs": []}],
        "refusal": None,
    }
    obj = {"choices": [{"index": 0, "message": EMPTY, "logprobs": logprobs, "finish_reason": "stop"}]}
    typed = parse_completion(obj)
    first, second = typed.choices[0].logprobs.content
    assert first.bytes == "é".encode()
    assert first.top_logprobs[1].logprob == -9999
    assert not second.HasField("bytes")
    assert dump_completion(typed)["choices"][0]["logprobs"] == logprobs


def test_report() -> None:
    report = {
        "provider": "b",
        "tries": 2,
        "native_finish_reason": "end_turn",
        "dropped_params": ["seed"],
        "attempts": [
            {"provider": "a", "model": "m", "status": 503, "reason": "overloaded", "ms": 12},
            {"provider": "b", "model": "m", "status": 200, "reason": "ok", "ms": 340},
        ],
        "skipped": [{"provider": "c", "model": "m", "reason": "it has no tools"}],
        "resumed": True,
    }
    typed = parse_completion({"lmchat": report})
    assert typed.lmchat.attempts[0].status == 503
    assert dump_completion(typed)["lmchat"] == report


# Chunks

CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "m",
    "choices": [],
}


def choice(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


CHUNK_CHOICES = [
    choice({"role": "assistant", "content": ""}),
    choice({"content": "Hi"}, index=3),
    choice({"refusal": "No."}),
    choice({"reasoning_content": "Hm."}),
    choice(
        {"tool_calls": [{"index": 1, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    ),
    choice({"tool_calls": [{"index": 1, "function": {"arguments": '{"x"'}}]}),
    choice({"tool_calls": [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "c", "input": "a"}}]}),
    choice({"tool_calls": [{"index": 0, "custom": {"input": "b"}}]}),
    choice({"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}),
    choice({"annotations": [{"type": "url_citation", "url_citation": CITATION}]}),
    choice({"audio": {"transcript": "Hi"}}),
    choice({"audio": {"id": "a", "data": "AA=="}, "x": 1}),
    choice({}, "tool_calls"),
    choice({}, "stop") | {"content_filter_results": {}},
]


@pytest.mark.parametrize("one", CHUNK_CHOICES, ids=[encode_text(one["delta"])[:50] for one in CHUNK_CHOICES])
def test_chunks(one: dict[str, Any]) -> None:
    typed = parse_chunk(CHUNK | {"choices": [copy.deepcopy(one)]})
    assert dump_chunk(typed, include_usage=False) == CHUNK | {"choices": [one]}


@pytest.mark.parametrize("word", ["stop", "length", "tool_calls", "content_filter"])
def test_finish_reasons(word: str) -> None:
    typed = parse_chunk({"choices": [choice({}, word)]})
    assert pb.FinishReason.Name(typed.choices[0].finish_reason) == f"FINISH_REASON_{word.upper()}"


@pytest.mark.parametrize(
    ("chunk", "include_usage", "expected"),
    [
        pytest.param(pb.ChatCompletionChunk(), False, "absent", id="not requested"),
        pytest.param(pb.ChatCompletionChunk(), True, None, id="requested, not the last"),
        pytest.param(
            pb.ChatCompletionChunk(usage=pb.Usage(prompt_tokens=1, total_tokens=1)),
            True,
            {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1},
            id="requested, the last",
        ),
    ],
)
def test_usage_of_chunks(chunk: pb.ChatCompletionChunk, include_usage: bool, expected: Any) -> None:
    assert dump_chunk(chunk, include_usage=include_usage).get("usage", "absent") == expected


# Reading

#: JSON as vendors send it, and the fields read from it.
FORGIVEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("created as a float", {"created": 1700000000.9}, {"created": 1700000000}),
    ("created as text", {"created": "1700000000"}, {"created": 1700000000}),
    (
        "counts as floats and text",
        {"usage": {"prompt_tokens": 5.0, "completion_tokens": "7", "total_tokens": 12}},
        {"usage": pb.Usage(prompt_tokens=5, completion_tokens=7, total_tokens=12)},
    ),
    (
        "null everywhere",
        {"id": None, "usage": None, "choices": None, "system_fingerprint": None, "lmchat": None},
        {},
    ),
    (
        "null details",
        {"usage": {"prompt_tokens": 1, "prompt_tokens_details": None, "completion_tokens_details": {}}},
        {"usage": pb.Usage(prompt_tokens=1, completion_tokens_details=pb.CompletionTokensDetails())},
    ),
    (
        "unknown fields are kept",
        {"usage": {"cost": 0.1}, "citations": [], "x_groq": None},
        {"usage": pb.Usage(extra_json='{"cost":0.1}'), "extra_json": '{"citations":[],"x_groq":null}'},
    ),
    ("a key without a name", {"": 1}, {"extra_json": '{"":1}'}),
    ("another object", {"object": "text"}, {}),
]


@pytest.mark.parametrize(("obj", "fields"), [row[1:] for row in FORGIVEN], ids=[row[0] for row in FORGIVEN])
def test_accepted_deviations(obj: dict[str, Any], fields: dict[str, Any]) -> None:
    assert parse_completion(obj) == pb.ChatCompletion(**fields)
    if "choices" not in obj:
        assert parse_chunk(obj) == pb.ChatCompletionChunk(**fields)


TOKEN = {"token": "a", "logprob": -1.0}


def logged(token: Any) -> dict[str, Any]:
    return {"choices": [{"logprobs": {"content": [token]}}]}


#: Invalid JSON, the path of the error and a part of its message.
INVALID: list[tuple[Any, str | None, str]] = [
    ([], None, "Expected an object, got an array."),
    ({"id": 5}, "id", "Expected a string, got a number."),
    ({"created": "yesterday"}, "created", "Expected an integer, got a string."),
    ({"created": 2**63}, "created", "Expected an integer"),
    ({"created": "inf"}, "created", "Expected an integer"),
    ({"usage": 5}, "usage", "Expected an object, got a number."),
    ({"usage": {"total_tokens": []}}, "usage.total_tokens", "Expected an integer, got an array."),
    ({"usage": {"prompt_tokens": True}}, "usage.prompt_tokens", "Expected an integer, got a boolean."),
    ({"choices": {}}, "choices", "Expected an array, got an object."),
    ({"choices": [5]}, "choices[0]", "Expected an object, got a number."),
    ({"choices": [{"index": -1}]}, "choices[0].index", "Expected an index"),
    ({"choices": [{"index": 2**31}]}, "choices[0].index", "Expected an index"),
    ({"choices": [{"index": "0"}]}, "choices[0].index", "Expected an index, got a string."),
    ({"choices": [{"finish_reason": "eos"}]}, "choices[0].finish_reason", "Must be one of stop, length"),
    ({"choices": [{"logprobs": []}]}, "choices[0].logprobs", "Expected an object, got an array."),
    (logged("a"), "choices[0].logprobs.content[0]", "Expected an object, got a string."),
    (logged({"token": "a"}), "choices[0].logprobs.content[0]", "Expected a token, its logprob and its bytes."),
    (logged({"logprob": "0"}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged({"logprob": 10**400}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged(TOKEN | {"token": 5}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged(TOKEN | {"bytes": 10**12}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged(TOKEN | {"bytes": [256]}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged(TOKEN | {"bytes": "a"}), "choices[0].logprobs.content[0]", "Expected a token"),
    (logged(TOKEN | {"top_logprobs": 5}), "choices[0].logprobs.content[0].top_logprobs", "Expected an array"),
    (
        logged(TOKEN | {"top_logprobs": [5]}),
        "choices[0].logprobs.content[0].top_logprobs[0]",
        "Expected an object",
    ),
    ({"lmchat": {"tries": 2**31}}, "lmchat.tries", f"Must be at most {INT32_MAX}"),
    ({"lmchat": {"attempts": [{"ms": -1}]}}, "lmchat.attempts[0].ms", "Must be at least 0"),
    ({"lmchat": {"skipped": [{"status": 1}]}}, "lmchat.skipped[0].status", "Unknown field 'status'"),
    ({"lmchat": {"price": 1}}, "lmchat.price", "Unknown field 'price'"),
]


@pytest.mark.parametrize(("obj", "param", "message"), INVALID, ids=[encode_text(row[0])[:60] for row in INVALID])
def test_invalid_values(obj: Any, param: str | None, message: str) -> None:
    for parse in (parse_completion, parse_chunk):
        with pytest.raises(InvalidRequest) as caught:
            parse(obj)
        assert caught.value.param == param
        assert message in caught.value.message


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON tree that can be set."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


@given(st.one_of(COMPLETIONS, CHUNKS), st.data())
@settings(PATIENT, max_examples=100)
def test_any_value_anywhere_is_read_or_refused(
    msg: pb.ChatCompletion | pb.ChatCompletionChunk, data: st.DataObject
) -> None:
    whole = isinstance(msg, pb.ChatCompletion)
    obj = dump_completion(msg) if isinstance(msg, pb.ChatCompletion) else dump_chunk(msg, include_usage=True)
    container, key = data.draw(st.sampled_from(list(places(obj))))
    container[key] = data.draw(JSON | st.sampled_from([INT64_MAX + 1, -(2**63), 2**31, 1e300, [0, -1, 256]]))
    try:
        parse_completion(obj) if whole else parse_chunk(obj)
    except InvalidRequest as error:
        assert error.param  # noqa: PT017


# Round trips


@given(COMPLETIONS)
@settings(PATIENT, max_examples=80)
def test_parse_of_dump_is_the_completion(completion: pb.ChatCompletion) -> None:
    assert parse_completion(decode_json(encode_text(dump_completion(completion)))) == completion


@given(CHUNKS, st.booleans())
@settings(PATIENT, max_examples=80)
def test_parse_of_dump_is_the_chunk(chunk: pb.ChatCompletionChunk, include_usage: bool) -> None:
    assert parse_chunk(decode_json(encode_text(dump_chunk(chunk, include_usage=include_usage)))) == chunk


@given(COMPLETIONS, CHUNKS)
@settings(PATIENT, max_examples=30)
def test_required_keys_are_always_present(completion: pb.ChatCompletion, chunk: pb.ChatCompletionChunk) -> None:
    for choice in dump_completion(completion)["choices"]:
        assert choice.keys() >= {"index", "message", "logprobs", "finish_reason"}
        assert choice["message"].keys() >= {"role", "content", "refusal"}
    for choice in dump_chunk(chunk, include_usage=False)["choices"]:
        assert choice.keys() >= {"index", "delta", "logprobs", "finish_reason"}
        for call in choice["delta"].get("tool_calls", ()):
            assert "index" in call
            assert ("id" in call) == ("type" in call)
