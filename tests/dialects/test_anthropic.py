"""The Anthropic dialect against hand-written goldens, recorded traffic and the published API description."""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat import openai_json
from server.config.model import ProviderSettings, Timeouts
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.dialect import AnthropicTranslator
from server.dialects.anthropic.request import EXTRA_BODY
from server.dialects.base import Endpoint, HttpRequest
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from server.vendors.registry import PLAIN, VENDORS
from tests.recordings.readings import anthropic_stream
from tests.support import specs
from tests.support.fold import fold_messages
from tests.support.typed import TypedTranslator

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
RECORDINGS = SHARED / "recordings"
SPEC = SHARED / "specs" / "anthropic-messages.json"
GOLDEN = ROOT / "tests" / "golden" / "anthropic"
REQUESTS: list[dict[str, Any]] = json.loads((GOLDEN / "requests.json").read_text(encoding="utf-8"))
ANSWERS: list[dict[str, Any]] = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))

TRANSLATOR = TypedTranslator(AnthropicTranslator())
NONE = pb.ChatCompletionRequest()
needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="../shared/recordings is not there")
needs_spec = pytest.mark.skipif(not SPEC.is_file(), reason="../shared/specs is not there")


def endpoint(
    model: str = "claude-sonnet-4-5", type_: str = "anthropic", base_url: str = "", **more: Any
) -> Endpoint:
    settings = {name: more.pop(name) for name in ("location", "headers") if name in more}
    return Endpoint(
        name="e",
        model=model,
        public_model="public",
        vendor=replace(VENDORS[type_].in_dialect(PLAIN["anthropic"]), max_stop=64),
        provider=ProviderSettings(key="k", type=type_, project="proj", **settings),
        dialect="anthropic",
        base_url=base_url,
        timeouts=Timeouts(),
        **more,
    )


def ask(openai: dict[str, Any], to: Endpoint | None = None, *, stream: bool = False) -> HttpRequest:
    openai = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **openai}
    request = openai_json.parse(json.dumps(openai).encode()).request
    return TRANSLATOR.request(request, to or endpoint(), stream=stream)


def sent(openai: dict[str, Any], to: Endpoint | None = None) -> dict[str, Any]:
    return json.loads(ask(openai, to).body)  # type: ignore[no-any-return]


def refused(openai: dict[str, Any], to: Endpoint | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ask(openai, to)
    return caught.value


def unary(body: bytes) -> pb.ChatCompletion:
    return TRANSLATOR.completion(body, NONE)[0]


def sse(events: list[dict[str, Any]]) -> bytes:
    """As Anthropic writes it, padding included."""
    return b"".join(
        f"event: {e['type']}\ndata: {json.dumps(e, ensure_ascii=False)[:-1]}   }}\n\n".encode() for e in events
    )


def decode(data: bytes, cuts: list[int] | None = None) -> list[pb.ChatCompletionChunk]:
    """Feed `data`, split at `cuts`."""
    decoder = TRANSLATOR.decoder(NONE)
    chunks = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or ()), len(data)]
    for start, end in itertools.pairwise(edges):
        chunks += decoder.feed(data[start:end])
    return chunks + decoder.close()


def same(completion: pb.ChatCompletion) -> dict[str, Any]:
    """For comparing: JSON text decoded, so that its formatting does not matter."""
    out = openai_json.dump_completion(completion)
    for call in out["choices"][0]["message"].get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return out


# Goldens


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case["name"])
def test_request_golden(case: dict[str, Any]) -> None:
    assert sent(case["openai"], endpoint(case["model"])) == case["anthropic"]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case["name"])
def test_answer_golden(case: dict[str, Any]) -> None:
    completion, native = TRANSLATOR.completion(json.dumps(case["message"]).encode(), NONE)
    assert openai_json.dump_completion(completion) == case["openai"]
    assert native == case["message"]["stop_reason"]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case["name"])
def test_folded_stream_is_the_unary_answer(case: dict[str, Any]) -> None:
    decoder = TRANSLATOR.decoder(NONE)
    chunks = decoder.feed(sse(case["stream"]))
    assert decoder.native_finish_reason == case["message"]["stop_reason"]
    assert decoder.close() == []
    assert openai_json.dump_completion(fold_messages(chunks)) == case["openai"]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case["name"])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
@settings(max_examples=40, deadline=None)
def test_any_byte_split_gives_the_same_chunks(case: dict[str, Any], cuts: list[int]) -> None:
    data = sse(case["stream"])
    assert decode(data, cuts) == decode(data)


@needs_spec
@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case["name"])
def test_request_goldens_are_what_anthropic_documents(case: dict[str, Any]) -> None:
    assert specs.anthropic(case["anthropic"]) == []


# Any message: the stream of it folds to its unary answer

_TEXT = st.text(max_size=12)
_NAME = st.text("abcXYZ_-", min_size=1, max_size=8)
_BLOCK = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("thinking"), "thinking": _TEXT, "signature": st.sampled_from(["", "s"])}
    ),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": _NAME}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["tool_use", "server_tool_use"]),
            "id": _NAME,
            "name": _NAME,
            "input": st.dictionaries(_NAME, st.one_of(st.integers(), _TEXT), max_size=2),
        }
    ),
)


def events(message: dict[str, Any], whole: bool) -> Iterator[dict[str, Any]]:
    """A message as Anthropic would stream it, letter by letter or in whole blocks."""
    yield {"type": "message_start", "message": message | {"content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        pieces: list[dict[str, Any]] = []
        start = dict(block)
        for field, kind in (
            ("text", "text_delta"),
            ("thinking", "thinking_delta"),
            ("signature", "signature_delta"),
        ):
            if field in block and not whole:
                start[field] = ""
                letters = [block[field]] if field == "signature" else list(block[field])
                pieces += [{"type": kind, field: letter} for letter in letters]
        if "input" in block and not whole:
            start["input"] = {}
            written = json.dumps(block["input"]) if block["input"] else ""
            pieces += [{"type": "input_json_delta", "partial_json": part} for part in ("", *written)]
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield from ({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces)
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": message["stop_reason"]}, "usage": message["usage"]}
    yield {"type": "message_stop"}


@given(
    blocks=st.lists(_BLOCK, max_size=6),
    stop=st.sampled_from(["end_turn", "tool_use", "max_tokens", "something_new"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=9),
    whole=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_message_streamed_is_the_message(blocks: list[Any], stop: str, cuts: list[int], whole: bool) -> None:
    message = {"id": "m", "content": blocks, "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": 2}}
    streamed = fold_messages(decode(sse(list(events(message, whole))), cuts))
    assert same(streamed) == same(unary(json.dumps(message).encode()))


# URLs


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("http://localhost:8080/v1/", "http://localhost:8080/v1/messages"),
        ("https://proxy.example/anthropic", "https://proxy.example/anthropic/v1/messages"),
    ],
)
def test_direct(base_url: str, url: str) -> None:
    call = ask({}, endpoint(base_url=base_url, headers={"x-own": "1"}))
    assert (call.method, call.url) == ("POST", url)
    assert call.headers == {
        "content-type": "application/json",
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "x-own": "1",
    }
    body = json.loads(call.body)
    assert body["model"] == "claude-sonnet-4-5"
    assert "stream" not in body
    streamed = ask({}, endpoint(base_url=base_url), stream=True)
    assert json.loads(streamed.body)["stream"] is True
    assert streamed.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    ("location", "base_url", "origin"),
    [
        ("us-east5", "", "https://us-east5-aiplatform.googleapis.com"),
        ("global", "", "https://aiplatform.googleapis.com"),
        ("eu", "", "https://aiplatform.eu.rep.googleapis.com"),
        ("us-east5", "https://proxy.example/v1", "https://proxy.example"),
    ],
)
@pytest.mark.parametrize(("stream", "verb"), [(False, "rawPredict"), (True, "streamRawPredict")])
def test_vertex(location: str, base_url: str, origin: str, stream: bool, verb: str) -> None:
    to = endpoint("claude-sonnet-4-5@20250929", "vertex", base_url, location=location)
    call = ask({"max_tokens": 4}, to, stream=stream)
    path = f"projects/proj/locations/{location}/publishers/anthropic/models/claude-sonnet-4-5@20250929"
    assert call.url == f"{origin}/v1/{path}:{verb}"
    assert "anthropic-version" not in call.headers
    assert json.loads(call.body) == {
        "anthropic_version": "vertex-2023-10-16",
        "max_tokens": 4,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    } | ({"stream": True} if stream else {})


def test_files_kept_at_anthropic() -> None:
    content = [{"type": "file", "file": {"file_id": "file_1"}}]
    messages = [{"role": "user", "content": content}]
    call = ask({"messages": messages}, endpoint(headers={"anthropic-beta": "a"}))
    assert call.headers["anthropic-beta"] == "a,files-api-2025-04-14"
    (block,) = json.loads(call.body)["messages"][0]["content"]
    assert block == {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    error = refused({"messages": messages}, endpoint(type_="vertex"))
    assert error.param == "messages[0].content[0].file.file_id"


# Parameters


@pytest.mark.parametrize(
    ("openai", "model", "configured", "expected"),
    [
        ({}, "claude-sonnet-4-5-20250929", 0, 64_000),
        ({}, "claude-opus-4-1@20250805", 0, 32_000),
        ({}, "claude-opus-4-20250514", 0, 32_000),
        ({}, "claude-3-haiku-20240307", 0, 4_096),
        ({}, "claude-sonnet-5", 0, 128_000),
        ({}, "anthropic/claude-opus-4.6", 0, 128_000),
        ({}, "claude-something-9", 0, 128_000),
        ({}, "llama", 0, 4_096),
        ({}, "claude-sonnet-4-5", 1_000, 1_000),
        ({"max_tokens": 7}, "claude-sonnet-4-5", 1_000, 7),
        ({"max_tokens": 7, "max_completion_tokens": 8}, "claude-sonnet-4-5", 1_000, 8),
    ],
)
def test_max_tokens(openai: dict[str, Any], model: str, configured: int, expected: int) -> None:
    assert sent(openai, endpoint(model, max_output_tokens=configured))["max_tokens"] == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-haiku-20240307", {"temperature": 1, "top_p": 0.5, "top_k": 9}),
        ("llama", {"temperature": 1, "top_p": 0.5, "top_k": 9}),
        ("claude-haiku-4-5", {"temperature": 1, "top_k": 9}),
        ("claude-sonnet-4-6", {"temperature": 1, "top_k": 9}),
        ("claude-opus-4-7", {}),
        ("claude-haiku-5-5", {}),
        ("claude-opus-6", {}),
    ],
)
def test_sampling_by_model(model: str, expected: dict[str, Any]) -> None:
    body = sent({"temperature": 1.9, "top_p": 0.5, "top_k": 9}, endpoint(model))
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == expected


SUMMARIZED = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        ("claude-3-5-haiku-20241022", "high", None, None),
        ("claude-3-7-sonnet-20250219", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-haiku-4-5", "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-haiku-4-5", "high", {"type": "enabled", "budget_tokens": 24576}, None),
        ("claude-haiku-4-5", "none", None, None),
        ("claude-opus-4-5", "xhigh", {"type": "enabled", "budget_tokens": 32768}, "high"),
        ("claude-opus-4-6", "medium", SUMMARIZED, "medium"),
        ("claude-opus-4-6", "xhigh", SUMMARIZED, "high"),
        ("claude-opus-4-6", "max", SUMMARIZED, "max"),
        ("claude-opus-4-8", "xhigh", SUMMARIZED, "xhigh"),
        ("claude-opus-4-8", "none", None, None),
        ("claude-opus-5", "none", {"type": "disabled"}, None),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("claude-opus-5-5", "none", None, "low"),
        ("claude-fable-5", "low", SUMMARIZED, "low"),
        ("llama", "none", {"type": "disabled"}, None),
        ("llama", "low", {"type": "enabled", "budget_tokens": 1024}, None),
    ],
)
def test_reasoning_effort(model: str, effort: str, thinking: Any, level: str | None) -> None:
    body = sent({"reasoning_effort": effort, "max_tokens": 60_000}, endpoint(model))
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == level


@pytest.mark.parametrize(
    ("limit", "budget"), [(100_000, 24_576), (10_000, 8_000), (1_281, 1_024), (1_279, None), (10, None)]
)
def test_a_budget_leaves_room_for_the_answer(limit: int, budget: int | None) -> None:
    body = sent({"reasoning_effort": "high", "max_tokens": limit})
    assert body["max_tokens"] == limit
    assert body.get("thinking", {}).get("budget_tokens") == budget


def test_no_budget_where_anthropic_would_refuse_to_think() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    unsigned = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ok", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    effort = {"reasoning_effort": "high", "tools": tools}
    assert "thinking" in sent(effort)
    assert "thinking" not in sent(effort | {"tool_choice": "required"})
    assert "thinking" not in sent(effort | {"messages": unsigned})
    assert "thinking" in sent(
        effort | {"messages": [*unsigned, {"role": "assistant", "content": "1."}, unsigned[0]]}
    )
    assert "thinking" not in sent(effort | {"messages": [{"role": "assistant", "content": "So"}]})
    adaptive = endpoint("claude-opus-4-8")  # needs no block to begin with, and may be forced
    assert "thinking" in sent(effort | {"messages": unsigned, "tool_choice": "required"}, adaptive)


@pytest.mark.parametrize(
    ("native", "model", "thinking"),
    [
        (
            {"type": "enabled", "budget_tokens": 2000},
            "claude-opus-4-6",
            {"type": "enabled", "budget_tokens": 2000},
        ),
        ({"type": "enabled"}, "claude-opus-4-6", SUMMARIZED),
        ({"type": "enabled"}, "claude-haiku-4-5", {"type": "enabled", "budget_tokens": 8192}),
        ({"type": "disabled"}, "claude-opus-5", {"type": "disabled"}),
        ("yes", "claude-opus-5", None),
    ],
)
def test_callers_own_thinking(native: Any, model: str, thinking: Any) -> None:
    assert sent({"thinking": native}, endpoint(model)).get("thinking") == thinking


def test_callers_own_thinking_wins() -> None:
    body = sent({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, endpoint("claude-opus-5"))
    assert body["thinking"] == {"type": "disabled"}
    assert body["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        (None, None),
    ],
)
@pytest.mark.parametrize("parallel", [None, True, False])
def test_tool_choice(choice: Any, expected: dict[str, Any] | None, parallel: bool | None) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = sent({"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel})
    if parallel is False and expected != {"type": "none"}:
        expected = {**(expected or {"type": "auto"}), "disable_parallel_tool_use": True}
    assert body.get("tool_choice") == expected


def test_refusals_in_history_are_sent() -> None:
    turn = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "refusal": "Never."}
    body = sent({"messages": [{"role": "user", "content": "Hi"}, turn, {"role": "user", "content": "Why?"}]})
    assert [block["text"] for block in body["messages"][1]["content"]] == ["No.", "Never."]


def test_choices_without_tools_say_nothing() -> None:
    body = sent({"tool_choice": "none", "parallel_tool_calls": False})
    assert "tool_choice" not in body
    assert "tools" not in body


@pytest.mark.parametrize(
    ("openai", "model", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "claude-opus-5", "response_format.type"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}},
                }
            },
            "claude-opus-5",
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "claude-opus-5",
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            "claude-3-7-sonnet-20250219",
            "response_format.type",
        ),
        ({"stop": ["a", " \n"]}, "claude-opus-5", "stop[1]"),
        ({"modalities": ["text", "audio"]}, "claude-opus-5", "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "claude-opus-5", "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "custom"}},
            "claude-opus-5",
            "tool_choice.type",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
            "claude-opus-5-5",
            "tool_choice",
        ),
    ],
)
def test_inexpressible_requests(openai: dict[str, Any], model: str, param: str) -> None:
    error = refused(openai, endpoint(model))
    assert (error.reason, error.param) == (Reason.UNSUPPORTED_FEATURE, param)


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("role", "part", "type_", "where"),
    [
        (
            "user",
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            "anthropic",
            "input_audio",
        ),
        ("user", {"type": "video_url", "video_url": {}}, "anthropic", "type"),
        ("user", _image("http://example.com/a.png"), "anthropic", "image_url.url"),
        ("user", _image("https://example.com/a.png"), "vertex", "image_url.url"),
        ("user", _image("data:image/tiff;base64,AA"), "anthropic", "image_url.url"),
        ("assistant", _image("data:image/png;base64,AA"), "anthropic", "image_url"),
        ("system", _image("data:image/png;base64,AA"), "anthropic", "image_url"),
        (
            "user",
            {"type": "file", "file": {"file_data": "data:application/zip;base64,AA"}},
            "anthropic",
            "file.file_data",
        ),
        ("user", {"type": "file", "file": {"file_data": "https://e.com/a.pdf"}}, "vertex", "file.file_data"),
        ("user", {"type": "file", "file": {}}, "anthropic", "file.file_data"),
    ],
)
def test_content_that_cannot_be_read(role: str, part: dict[str, Any], type_: str, where: str) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": role, "content": [part]}]
    error = refused({"messages": messages}, endpoint(type_=type_))
    assert (error.reason, error.param) == (Reason.UNSUPPORTED_FEATURE, f"messages[1].content[0].{where}")


def test_text_file_that_is_not_text() -> None:
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}
    error = refused({"messages": [{"role": "user", "content": [part]}]})
    assert (error.reason, error.param) == (Reason.INVALID_REQUEST, "messages[0].content[0].file.file_data")


def test_custom_calls_in_history() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "x", "input": "y"}}
    error = refused({"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert (error.reason, error.param) == (Reason.UNSUPPORTED_FEATURE, "messages[0].tool_calls[0].custom")


def test_json_text_that_is_none() -> None:
    request = pb.ChatCompletionRequest(model="m")
    request.messages.add(role=pb.ROLE_USER).content.add(text="Hi", extra_json="{")
    with pytest.raises(InvalidRequest):
        TRANSLATOR.request(request, endpoint(), stream=False)
    request.messages[0].content[0].extra_json = "[1]"
    request.tools.add().function.name = "f"
    request.tools[0].function.parameters_json = "[]"
    with pytest.raises(InvalidRequest) as caught:
        TRANSLATOR.request(request, endpoint(), stream=False)
    assert caught.value.param == "tools[0].function.parameters"


def test_stop_sequences_are_as_many_as_the_vendor_takes() -> None:
    assert sent({"stop": list("abcdef")})["stop_sequences"] == list("abcdef")
    request = pb.ChatCompletionRequest(model="m", stop=["x"] * 65)
    request.messages.add(role=pb.ROLE_USER).content.add(text="Hi")
    with pytest.raises(InvalidRequest, match="At most 64"):
        TRANSLATOR.request(request, endpoint(), stream=False)


def test_extra_body_matches_its_documentation() -> None:
    values = {
        "cache_control": {"type": "ephemeral"},
        "container": "c",
        "inference_geo": "us",
        "output_config": {"effort": "low"},
        "thinking": {"type": "disabled"},
        "top_k": 3,
    }
    assert values.keys() == EXTRA_BODY
    body = sent(values | {"other": 1})
    assert {name: body[name] for name in values} == values
    assert "other" not in body


@pytest.mark.parametrize(
    ("schema", "ok"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": True}, True),
        ({"type": "object", "additionalProperties": False}, True),
        ({"type": ["object", "null"], "properties": {}}, True),
        ({"type": "object"}, False),
        ({"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}}, False),
        ({"type": "object", "properties": {}, "patternProperties": {"^a": {}}}, False),
    ],
)
def test_free_form_objects_are_inexpressible(schema: dict[str, Any], ok: bool) -> None:
    if ok:
        assert anthropic_schema.strict(schema)["additionalProperties"] is False
    else:
        with pytest.raises(anthropic_schema.InexpressibleError):
            anthropic_schema.strict(schema)


def test_models_name_only_known_levels() -> None:
    for model in ("claude-opus-4-5", "claude-opus-4-6", "claude-opus-5", "claude-x", "other"):
        assert set(anthropic_models.of(model).efforts) <= set(anthropic_models.EFFORTS)


# Round trips of a turn through a client


@pytest.mark.parametrize("keeps_unknown", [True, False])
def test_thinking_survives_a_round_trip(keeps_unknown: bool) -> None:
    message = ANSWERS[1]["message"]
    answer = openai_json.dump_completion(unary(json.dumps(message).encode()))["choices"][0]["message"]
    if not keeps_unknown:
        answer = {name: answer[name] for name in ("role", "content", "tool_calls")}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in answer["tool_calls"]]
    body = sent({"messages": [{"role": "user", "content": "Hi"}, answer, *results]})
    assert body["messages"][1]["content"] == message["content"]


# Ends and errors


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ("end_turn", pb.FINISH_REASON_STOP),
        ("stop_sequence", pb.FINISH_REASON_STOP),
        ("pause_turn", pb.FINISH_REASON_STOP),
        ("max_tokens", pb.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", pb.FINISH_REASON_LENGTH),
        ("tool_use", pb.FINISH_REASON_TOOL_CALLS),
        ("refusal", pb.FINISH_REASON_CONTENT_FILTER),
        ("unheard_of", pb.FINISH_REASON_STOP),
        (None, pb.FINISH_REASON_STOP),
    ],
)
def test_finish_reasons(native: str | None, expected: int) -> None:
    block = {"type": "tool_use", "id": "c", "name": "f", "input": {}} if native == "tool_use" else None
    body = {"id": "m", "content": [block or {"type": "text", "text": "x"}], "stop_reason": native}
    completion, word = TRANSLATOR.completion(json.dumps(body).encode(), NONE)
    assert completion.choices[0].finish_reason == expected
    assert word == (native or "")


@needs_spec
def test_every_documented_stop_reason_is_known() -> None:
    documented = json.loads(SPEC.read_text())["components"]["schemas"]["StopReason"]["enum"]
    assert len(documented) == 7
    for native in documented:
        body = {"id": "m", "content": [], "stop_reason": native}
        assert TRANSLATOR.completion(json.dumps(body).encode(), NONE)[1] == native


def test_a_broken_stream_is_never_an_end() -> None:
    """Up to the event with the stop_reason it is truncated; from there on it is complete."""
    for case in ANSWERS:
        for count in range(len(case["stream"])):
            part = case["stream"][:count]
            if any(event["type"] == "message_delta" for event in part):
                assert fold_messages(decode(sse(part))) == fold_messages(decode(sse(case["stream"])))
            else:
                with pytest.raises(StreamTruncated):
                    decode(sse(part))
                with pytest.raises(StreamTruncated):
                    decode(sse(part) + b'event: content_block_start\ndata: {"type": "con')


def test_a_truncated_end_after_the_last_finish_reason() -> None:
    stream = ANSWERS[0]["stream"]
    torn = sse(stream[:-1]) + b'event: message_stop\ndata: {"type'
    assert fold_messages(decode(torn)) == fold_messages(decode(sse(stream)))


def test_blocks_left_open_are_completed() -> None:
    stream = [event for event in ANSWERS[1]["stream"] if event["type"] != "content_block_stop"]
    folded = fold_messages(decode(sse(stream)))
    assert len(folded.choices[0].message.reasoning_details) == 2
    assert folded.choices[0].message.tool_calls[1].function.arguments == "{}"


def test_first_chunk_speaks_even_without_message_start() -> None:
    chunks = decode(sse(ANSWERS[0]["stream"][1:]))
    assert chunks[0].choices[0].delta.role == pb.ROLE_ASSISTANT
    assert chunks[0].choices[0].delta.content == "Grü"


def test_deltas_of_blocks_that_are_passed_on_whole() -> None:
    """https://platform.claude.com/docs/en/build-with-claude/compaction"""
    start = {"type": "compaction", "content": None, "note": "n"}
    deltas = [{"type": "compaction_delta", "content": text} for text in ("So far: ", "hello.")]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    message = openai_json.dump_completion(fold_messages(decode(sse(events))))["choices"][0]["message"]
    whole = {**start, "content": "So far: hello."}
    assert message["extra_content"] == {"anthropic": {"content": [whole]}}


def test_crlf_comments_and_missing_event_lines() -> None:
    data = sse(ANSWERS[0]["stream"])
    other = b"\xef\xbb\xbf: hi\n\n" + b"\n".join(line for line in data.split(b"\n") if line[:6] != b"event:")
    assert decode(other.replace(b"\n", b"\r\n")) == decode(data)


IN_BAND = [
    ("overloaded_error", "Overloaded", Reason.OVERLOADED, 529, True),
    ("api_error", "Internal server error", Reason.UPSTREAM_ERROR, 500, True),
    ("rate_limit_error", "Slow down", Reason.RATE_LIMITED, 429, True),
    ("authentication_error", "invalid x-api-key", Reason.UPSTREAM_AUTHENTICATION, 401, True),
    ("permission_error", "no", Reason.UPSTREAM_AUTHENTICATION, 403, True),
    ("billing_error", "pay", Reason.UPSTREAM_AUTHENTICATION, 402, True),
    ("not_found_error", "model: claude-x", Reason.MODEL_NOT_FOUND, 404, True),
    ("request_too_large", "Request exceeds the maximum size", Reason.REQUEST_TOO_LARGE, 413, False),
    ("timeout_error", "late", Reason.TIMEOUT, 504, True),
    ("invalid_request_error", "messages.0: bad", Reason.INVALID_REQUEST, 400, False),
    (
        "invalid_request_error",
        "prompt is too long: 3 tokens > 2 maximum",
        Reason.CONTEXT_LENGTH_EXCEEDED,
        400,
        True,
    ),
    (
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
        Reason.CONTEXT_LENGTH_EXCEEDED,
        400,
        True,
    ),
    (
        "invalid_request_error",
        "Output blocked by content filtering policy",
        Reason.CONTENT_POLICY_VIOLATION,
        400,
        False,
    ),
    (
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
        Reason.UPSTREAM_AUTHENTICATION,
        400,
        True,
    ),
    ("brand_new_error", "?", Reason.UPSTREAM_ERROR, 500, True),
]


@pytest.mark.parametrize(("type_", "message", "reason", "status", "fall_over"), IN_BAND)
def test_errors(type_: str, message: str, reason: Reason, status: int, fall_over: bool) -> None:
    body = {"type": "error", "error": {"details": None, "type": type_, "message": message}, "request_id": "r"}
    data = json.dumps(body).encode()
    in_stream = sse(ANSWERS[0]["stream"][:1]) + b"event: error\ndata: " + data
    errors = [TRANSLATOR.error(status, {"retry-after": "3"}, data)]
    for call, argument in ((unary, data), (decode, in_stream + b"\n\n"), (decode, in_stream)):
        with pytest.raises(ProviderError) as caught:
            call(argument)
        errors.append(caught.value)
    assert {(e.reason, e.http_status, e.fall_over, e.raw) for e in errors} == {
        (reason, status, fall_over, message)
    }
    assert errors[0].retry_after == 3


def test_a_message_that_is_whole_from_its_start() -> None:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling"""
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Oslo"}}
    message = {
        "id": "m",
        "content": [{"type": "text", "text": "Hi"}, call],
        "stop_reason": "tool_use",
        "usage": {},
    }
    start = {"type": "message_start", "message": message | {"usage": {"input_tokens": 17, "output_tokens": 1}}}
    whole = fold_messages(decode(sse([start, {"type": "message_stop"}])))
    assert same(whole) == same(unary(json.dumps(start["message"]).encode()))
    assert whole.choices[0].message.tool_calls[0].function.arguments == '{"city":"Oslo"}'


@pytest.mark.parametrize(("id_", "reason"), [("msg_1", None), ("msg_2", Reason.UPSTREAM_INVALID_RESPONSE)])
def test_a_second_message_start(id_: str, reason: Reason | None) -> None:
    """Repeated by gateways; another message's is spliced in. https://github.com/vercel/ai/issues/18331"""
    first, *rest = ANSWERS[0]["stream"]
    again = copy.deepcopy(first)
    again["message"]["id"] = id_
    data = sse([first, again, *rest])
    if reason is None:
        assert fold_messages(decode(data)) == fold_messages(decode(sse(ANSWERS[0]["stream"])))
    else:
        with pytest.raises(ProviderError) as caught:
            decode(data)
        assert caught.value.reason is reason


def test_a_refusal_in_mid_stream_ends_the_answer() -> None:
    error = {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}
    for reason, message in (("CONTENT_FILTER", error), ("", error | {"message": "messages.0: bad"})):
        data = sse([*ANSWERS[0]["stream"][:4], {"type": "error", "error": message}])
        if reason:
            finish = decode(data)[-2].choices[0].finish_reason  # before the usage
            assert pb.FinishReason.Name(finish) == f"FINISH_REASON_{reason}"
        else:
            with pytest.raises(ProviderError, match=r"messages\.0"):
                decode(data)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (
            403,
            b'[{"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}]',
            "upstream_authentication",
        ),
        (429, b'{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}', "rate_limited"),
        (404, b'{"error": {"code": 404, "message": "Publisher Model was not found"}}', "model_not_found"),
        (502, b"<html>Bad gateway</html>", "upstream_error"),
        (503, b"", "overloaded"),
        (400, b'{"error": "no"}', "invalid_request"),
        (400, b"[]", "invalid_request"),
        (529, b"\xff", "overloaded"),
    ],
)
def test_errors_of_other_forms(status: int, body: bytes, reason: str) -> None:
    error = TRANSLATOR.error(status, {}, body)
    assert (error.reason, error.http_status) == (reason, status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"content": 1}',
        b'{"content": [1]}',
        b'{"content": [{"type": "text"}]}',
        b"\xff",
    ],
)
def test_invalid_values(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        TRANSLATOR.completion(body, NONE)
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


@pytest.mark.parametrize(
    "data",
    [
        "nonsense",
        "[]",
        '{"type": "message_start"}',
        '{"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}}',
        '{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 5}}',
        '{"type": "message_stop"}',
    ],
)
def test_nonsense_in_streams(data: str) -> None:
    with pytest.raises(ProviderError) as caught:
        decode(f"data: {data}\n\n".encode())
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


# Recorded traffic


def recordings(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RECORDINGS.glob(pattern))]


def raw(response: dict[str, Any]) -> bytes:
    body = response["body"]
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def check(completion: pb.ChatCompletion, message: dict[str, Any]) -> None:
    """Compare a completion with Anthropic's message, field by field."""
    (choice,) = completion.choices
    answer = choice.message
    blocks = message["content"]
    assert completion.id == f"chatcmpl-{message['id']}"
    assert "".join(part.text for part in answer.content) == "".join(
        b["text"] for b in blocks if b["type"] == "text"
    )
    thoughts = [b for b in blocks if b["type"] == "thinking"]
    assert answer.reasoning_content == "".join(b["thinking"] for b in thoughts)
    assert [(d.text, d.signature) for d in answer.reasoning_details] == [
        (b["thinking"], b["signature"]) for b in thoughts
    ]
    calls = [b for b in blocks if b["type"] == "tool_use"]
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in answer.tool_calls] == [
        (b["id"], b["name"], b["input"]) for b in calls
    ]
    if calls and thoughts:
        (native,) = [b for b in thoughts if blocks.index(b) < blocks.index(calls[0])]
        carried = json.loads(answer.tool_calls[0].extra_json)["extra_content"]["anthropic"]["thinking"]
        assert carried == [{name: native[name] for name in ("type", "thinking", "signature")}]
    cited = [citation for b in blocks if b["type"] == "text" for citation in b.get("citations") or ()]
    assert len(answer.annotations) == len(cited)
    for annotation, citation in zip(answer.annotations, cited, strict=True):
        if "url" in citation:
            assert annotation.url_citation.url == citation["url"]
        else:
            assert json.loads(annotation.other_json).items() >= citation.items()
    words = {"end_turn": "STOP", "stop_sequence": "STOP", "tool_use": "TOOL_CALLS"}
    assert pb.FinishReason.Name(choice.finish_reason) == f"FINISH_REASON_{words[message['stop_reason']]}"
    usage, counts = completion.usage, message["usage"]
    cache = counts["cache_read_input_tokens"], counts["cache_creation_input_tokens"]
    assert usage.prompt_tokens == counts["input_tokens"] + sum(cache)
    assert usage.completion_tokens == counts["output_tokens"]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == cache
    if counts.get("output_tokens_details"):
        thought = counts["output_tokens_details"]["thinking_tokens"]
        assert usage.completion_tokens_details.reasoning_tokens == thought
    assert completion.service_tier == {"standard": "default"}.get(counts["service_tier"], counts["service_tier"])


@needs_recordings
def test_recorded_answers() -> None:
    seen: Counter[str] = Counter()
    for name, recording in recordings("anthropic/messages/*.json"):
        response = recording["response"]
        if not recording["request"]["url"].endswith("/v1/messages"):
            seen["batches, another API"] += 1
        elif response["status"] != 200:
            error = TRANSLATOR.error(response["status"], {}, raw(response))
            assert error.reason in (Reason.UPSTREAM_AUTHENTICATION, Reason.CONTEXT_LENGTH_EXCEEDED)
            seen["error"] += 1
        elif recording["request"]["body"].get("stream"):
            data = raw(response)
            expected = anthropic_stream(response["body"])
            whole = decode(data)
            chance = random.Random(name)
            for _ in range(5):
                cuts = [chance.randrange(len(data)) for _ in range(chance.choice([1, 9, 200]))]
                assert decode(data, cuts) == whole, name
            check(fold_messages(whole), expected)
            assert same(fold_messages(whole)) == same(unary(json.dumps(expected).encode())), name
            for end in chance.sample(range(data.index(b"event: message_delta")), 20):
                with pytest.raises(StreamTruncated):
                    decode(data[:end])
            seen["stream"] += 1
        else:
            completion, native = TRANSLATOR.completion(raw(response), NONE)
            message = json.loads(raw(response))
            assert native == message["stop_reason"]
            check(completion, message)
            seen["unary"] += 1
    print(dict(seen))
    assert seen == {"unary": 71, "stream": 39, "error": 2, "batches, another API": 4}


@needs_recordings
def test_recorded_errors() -> None:
    expected = {
        (400, "prompt is too long"): Reason.CONTEXT_LENGTH_EXCEEDED,
        (529, "Overloaded"): Reason.OVERLOADED,
        (500, "Internal server error"): Reason.UPSTREAM_ERROR,
        (413, "Request exceeds the maximum size"): Reason.REQUEST_TOO_LARGE,
        (413, "Request size exceeds model context window"): Reason.CONTEXT_LENGTH_EXCEEDED,
        (429, "Rate limited"): Reason.RATE_LIMITED,
        ("200-midstream", "Overloaded"): Reason.OVERLOADED,
        (401, "invalid x-api-key"): Reason.UPSTREAM_AUTHENTICATION,
    }
    seen = 0
    for entry in json.loads((RECORDINGS / "errors.json").read_text(encoding="utf-8")):
        if entry["provider"] != "anthropic":
            continue
        seen += 1
        (reason,) = [
            r for (status, text), r in expected.items() if status == entry["status"] and text in entry["body"]
        ]
        body = entry["body"].encode()
        if entry["status"] == "200-midstream":
            with pytest.raises(ProviderError) as caught:
                decode(sse(ANSWERS[0]["stream"][:4]) + body)
            assert caught.value.reason == reason
        else:
            assert TRANSLATOR.error(entry["status"], {}, body).reason == reason
    print(seen)
    assert seen == 8


#: Recorded requests of the OpenAI dialect that Anthropic cannot express, and why.
INEXPRESSIBLE = {
    "response_format.type": 6,  # json_object: the gateway prompts for it instead
    "messages[0].content[1].input_audio": 4,  # sound: no Claude hears
    "messages[0].content[1].type": 2,  # Mistral's own parts: document_url, file_url
    "messages[1].content[0].type": 2,  # Mistral's own part: thinking
    "modalities": 1,  # spoken answers: no Claude speaks
    "tools[0].type": 1,  # OpenRouter's own tool: web search
}
#: Those that are no requests of the contract: max_tokens 0, and no messages.
INVALID = {"max_tokens": 1, "messages": 1}


@needs_recordings
@needs_spec
@pytest.mark.parametrize(
    ("model", "type_", "more"),
    [
        ("claude-sonnet-4-5", "anthropic", {}),
        ("claude-opus-4-6", "anthropic", {}),
        ("claude-opus-5", "anthropic", {}),
        ("claude-3-haiku-20240307", "anthropic", {"response_format.type": 14}),  # it has no schemas either
        ("claude-opus-5-5", "anthropic", {"tool_choice": 7}),  # tool calls cannot be forced
        ("claude-sonnet-4-5", "vertex", {"messages[0].content[1].image_url.url": 3}),  # it fetches no URLs
    ],
)
def test_recorded_openai_requests_are_valid_for_anthropic(model: str, type_: str, more: dict[str, int]) -> None:
    to = endpoint(model, type_)
    seen: Counter[str] = Counter()
    for name, recording in recordings("*/chat.completions/*.json"):
        body = recording["request"].get("body")
        if not isinstance(body, dict):
            continue
        try:
            parsed = openai_json.parse(json.dumps(body).encode())
        except InvalidRequest as error:
            seen[f"invalid: {error.param}"] += 1
            continue
        try:
            call = TRANSLATOR.request(parsed.request, to, stream=parsed.stream)
        except InvalidRequest as error:
            if error.reason is not Reason.UNSUPPORTED_FEATURE:
                raise
            seen[str(error.param)] += 1
            continue
        produced = json.loads(call.body)
        if type_ == "vertex":
            assert produced.pop("anthropic_version") == "vertex-2023-10-16"
            assert "model" not in produced
            produced["model"] = model
        assert specs.anthropic(produced) == [], name
        seen["valid"] += 1
    print(model, type_, dict(seen))
    exceptions = INEXPRESSIBLE | more
    invalid = {f"invalid: {param}": count for param, count in INVALID.items()}
    valid_count = 417 - sum(exceptions.values()) - sum(INVALID.values())
    assert seen == {"valid": valid_count, **exceptions, **invalid}
