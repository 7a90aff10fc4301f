"""Requests in the OpenAI dialect: fields beyond OpenAI's, by what each vendor takes, and tool call ids."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat import openai_json
from server.chat.request import ChatRequest, ProtoRequest, read
from server.dialects.openai.dialect import OpenAITranslator
from server.dialects.tool_ids import exact
from tests.support.dialects import endpoint_for

CACHE = {"type": "ephemeral"}
CALL = {"id": "call_abcdefghijklmnop", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "long", "cache_control": CACHE}]},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
            "reasoning_content": "Hm.",
            "reasoning": "Hm.",
        },
        {"role": "tool", "tool_call_id": CALL["id"], "content": "r", "cache_control": CACHE},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "x": 1}, "cache_control": CACHE}],
    "of_a_vendor": 1,
}
MARKERS = ["messages[0].content[0].cache_control", "messages[3].cache_control", "tools[0].cache_control"]


def both(body: dict[str, Any]) -> list[ChatRequest]:
    data = json.dumps(body).encode()
    return [read(data), ProtoRequest(openai_json.parse(data).request)]


def sent(vendor: str, body: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What goes to a vendor, and what is named as dropped: the same of the request in JSON and of its message."""
    calls = [
        OpenAITranslator().request(request, endpoint_for(vendor, "m"), stream=False) for request in both(body)
    ]
    assert calls[0].body == calls[1].body
    assert set(calls[0].dropped) == set(calls[1].dropped)
    return json.loads(calls[0].body), set(calls[0].dropped)


@pytest.mark.parametrize(
    ("vendor", "dropped"),
    [
        ("groq", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content"}),
        ("cerebras", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content"}),
        ("mistral", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("openai", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("azure", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("deepseek", {*MARKERS, "tools[0].function.x", "messages[2].reasoning"}),
        ("fireworks", {*MARKERS, "tools[0].function.x", "messages[2].reasoning"}),
        ("openrouter", set()),
        ("dashscope", set()),
        ("litellm", set()),
        ("moonshot", set()),
        ("vllm", set()),
        ("llamacpp", set()),
    ],
)
def test_fields_beyond_openais(vendor: str, dropped: set[str]) -> None:
    body, named = sent(vendor, BODY)
    assert named == dropped
    assert ("cache_control" in json.dumps(body)) is not bool(dropped)
    assert body["of_a_vendor"] == 1
    assert body["messages"][0]["content"][0]["text"] == "long"
    assistant = body["messages"][2]
    assert ("reasoning_content" in assistant) is ("messages[2].reasoning_content" not in dropped)
    assert ("reasoning" in assistant) is ("messages[2].reasoning" not in dropped)


@pytest.mark.parametrize("vendor", ["groq", "openai", "mistral"])
def test_objects_of_unknown_type_are_left_alone(vendor: str) -> None:
    video = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4", "fps": 1}}
    search = {"type": "web_search_preview", "search_context_size": "low"}
    messages = [{"role": "user", "content": [video]}]
    body, named = sent(vendor, {"model": "m", "messages": messages, "tools": [search]})
    assert (body["messages"], body["tools"], named) == (messages, [search], set())


@pytest.mark.parametrize(
    ("format_", "name"), [("anthropic", "anthropic"), ("gemini", "google"), ("bedrock", "bedrock")]
)
def test_signatures_of_other_dialects(format_: str, name: str) -> None:
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": format_}
    own = {"type": "reasoning.summary", "summary": "Hm."}
    call = {**CALL, "extra_content": {name: {"thought_signature": "s"}}}
    turn = {"role": "assistant", "content": "x", "tool_calls": [call], "reasoning_details": [detail, own]}
    body, named = sent("openrouter", {"model": "m", "messages": [{"role": "user", "content": "hi"}, turn]})
    assert body["messages"][1]["reasoning_details"] == [own]
    assert "extra_content" not in body["messages"][1]["tool_calls"][0]
    assert named == {"messages[1].reasoning_details[0]", "messages[1].tool_calls[0].extra_content"}


def test_mistral_gets_ids_of_nine_letters_and_digits() -> None:
    body, named = sent("mistral", BODY)
    id_ = body["messages"][2]["tool_calls"][0]["id"]
    assert len(id_) == 9
    assert id_.isalnum()
    assert body["messages"][3]["tool_call_id"] == id_
    assert not any("id" in path.rpartition(".")[2].split("_") for path in named)


def test_ids_that_fit_stay() -> None:
    assert exact("D681PevKs", 9) == "D681PevKs"


@given(st.sets(st.text(max_size=40), max_size=20))
def test_ids_stay_apart(ids: set[str]) -> None:
    fitted = {exact(id_, 9) for id_ in ids}
    assert len(fitted) == len(ids)
    assert all(len(id_) == 9 and id_.isascii() and id_.isalnum() for id_ in fitted)


@pytest.mark.parametrize(
    ("model", "native"),
    [
        ("llama-3.3-70b-versatile", False),
        ("openai/gpt-oss-120b", True),
        ("moonshotai/kimi-k2-instruct-0905", True),
    ],
)
def test_schemas_at_groq_by_model(model: str, native: bool) -> None:
    where = endpoint_for("groq", model)
    assert ("json_schema" not in where.emulates) is native
