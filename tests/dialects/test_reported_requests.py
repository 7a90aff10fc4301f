"""Requests that public reports say a provider refuses, and how they go instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat.request import read
from server.errors import InvalidRequest
from tests.support.dialects import Sent, endpoint_for, request_for

USER = {"role": "user", "content": "Hi"}
MARKER = {"cache_control": {"type": "ephemeral"}}
CLAUDE = {"anthropic": "claude-sonnet-4-5", "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0"}
NEWER = {
    "anthropic": "claude-opus-4-6",
    "vertex": "claude-opus-4-6",
    "bedrock": "us.anthropic.claude-opus-4-6-v1",
}


def sent(vendor: str, model: str, **fields: Any) -> Sent:
    return request_for({"model": "public-model", "messages": [USER], **fields}, endpoint_for(vendor, model))


def body(vendor: str, model: str, **fields: Any) -> Any:
    return json.loads(sent(vendor, model, **fields).request.body)


# Cache markers


def marked(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text, **MARKER}]}


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("vendor", CLAUDE)
@pytest.mark.parametrize(
    ("fields", "kept", "dropped"),
    [
        # "A maximum of 4 blocks with cache_control may be provided. Found 5."
        # https://github.com/vellum-ai/vellum-assistant/pull/23506
        (
            {"messages": [marked("s", "system"), *(marked(str(i)) for i in range(5))]},
            4,
            ["messages[1].content[0].cache_control", "messages[2].content[0].cache_control"],
        ),
        (
            {"messages": [marked("s", "system"), *(marked(str(i)) for i in range(3))], "tools": [TOOL | MARKER]},
            4,
            ["messages[1].content[0].cache_control"],
        ),
        # Of the system prompt and the tools only where those of all turns but the last are not enough.
        (
            {"messages": [*(marked(str(i), "system") for i in range(5)), marked("u"), marked("v")]},
            4,
            ["messages[0].content[0].cache_control", "messages[1].content[0].cache_control",
             "messages[5].content[0].cache_control"],
        ),
        # That of the request itself takes a place. https://github.com/Wei-Shaw/sub2api/pull/2144
        (
            {"messages": [marked(str(i)) for i in range(4)], **MARKER},
            4,
            ["messages[0].content[0].cache_control"],
        ),
        ({"messages": [marked(str(i)) for i in range(4)]}, 4, []),
    ],
)  # fmt: skip
def test_no_more_cached_places_than_the_model_takes(
    vendor: str, fields: dict[str, Any], kept: int, dropped: list[str]
) -> None:
    found = sent(vendor, CLAUDE[vendor], **fields)
    assert found.request.body.count(b'"cachePoint"' if vendor == "bedrock" else b'"cache_control"') == kept
    assert sorted(found.dropped) == dropped


# Ends


@pytest.mark.parametrize("vendor", NEWER)
def test_a_model_that_refuses_a_prefill_gets_a_turn_of_the_user(vendor: str) -> None:
    """https://github.com/QwenLM/qwen-code/issues/8039"""
    messages = [USER, {"role": "assistant", "content": "The answer is "}]
    *_, said, last = body(vendor, NEWER[vendor], messages=messages)["messages"]
    assert said["role"] == "assistant"
    assert last["role"] == "user"
    assert last["content"][0]["text"] == "Continue."


@pytest.mark.parametrize("vendor", CLAUDE)
def test_a_model_that_takes_a_prefill_gets_it(vendor: str) -> None:
    messages = [USER, {"role": "assistant", "content": "The answer is "}]
    last = body(vendor, CLAUDE[vendor], messages=messages)["messages"][-1]
    assert last["role"] == "assistant"
    assert last["content"][-1]["text"] == "The answer is"


def test_no_content_at_all_is_an_error_that_says_so() -> None:
    """Anthropic's own is "messages: at least one message is required"."""
    with pytest.raises(InvalidRequest, match="No message has any content") as raised:
        sent("anthropic", "claude-sonnet-4-5", messages=[{"role": "user", "content": " "}])
    assert raised.value.param == "messages"


# Schemas


def parameters(vendor: str, found: Any) -> Any:
    if vendor == "anthropic":
        return found["tools"][0]["input_schema"]
    if vendor == "bedrock":
        return found["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]
    return found["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]


PROPERTIES = {"properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(("vendor", "model"), [*CLAUDE.items(), ("gemini", "gemini-3-flash-preview")])
@pytest.mark.parametrize(
    "schema",
    [
        # "functionDeclaration parameters schema should be of type OBJECT", "input_schema.type: Input should be
        # 'object'". https://github.com/diegosouzapw/OmniRoute/pull/3360
        PROPERTIES,
        {"type": ["object", "null"], **PROPERTIES},
        {"type": None, **PROPERTIES},
        {"type": "object", **PROPERTIES},
    ],
)
def test_parameters_are_an_object(vendor: str, model: str, schema: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert parameters(vendor, body(vendor, model, tools=[tool])) == {"type": "object", **PROPERTIES}


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        # "parameters.required[0]: property is not defined". https://github.com/iBUHub/AIStudioToAPI/issues/154
        ({"properties": {"text": {"type": "string"}}, "required": ["ref", "text"]}, ["text"]),
        ({"properties": {}, "required": ["ref"]}, None),
        ({"properties": {"a": {}, "b": {}}, "required": ["b", "a"]}, ["b", "a"]),
        ({"properties": {"a": {}}, "required": [["a"], {}, 1, "a"]}, ["a"]),
        ({"required": ["a"]}, ["a"]),
    ],
)
def test_gemini_is_asked_for_properties_that_are_there(schema: dict[str, Any], required: list[str] | None) -> None:
    nested = {"type": "object", "properties": {"inner": {"type": "object", **schema}}}
    for given in ({"type": "object", **schema}, nested):
        tool = {"type": "function", "function": {"name": "f", "parameters": given}}
        found = parameters("gemini", body("gemini", "gemini-3-flash-preview", tools=[tool]))
        assert found.get("properties", {}).get("inner", found).get("required") == required


# Text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # https://github.com/anomalyco/opencode/issues/13988 https://github.com/CherryHQ/cherry-studio/pull/20565
        (r"cut \ud83d", "cut \ufffd"),
        (r"cut \uDE00 here", "cut \ufffd here"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"whole \ud83d\ude00", "whole \U0001f600"),
        (r"a path \\ud83d", r"a path \ud83d"),
        (r"nothing \u0000", "nothing \0"),
    ],
)
def test_half_a_character_of_a_caller_is_replaced(text: str, expected: str) -> None:
    data = f'{{"model": "m", "messages": [{{"role": "user", "content": "{text}"}}]}}'.encode()
    request = read(data)
    assert request.to_openai()["messages"][0]["content"] == expected
    assert request.to_proto().messages[0].content[0].text == expected


@pytest.mark.parametrize("vendor", ["anthropic", "bedrock", "gemini"])
def test_half_a_character_in_arguments_is_replaced(vendor: str) -> None:
    function = {"name": "f", "arguments": r'{"text":"cut \ud83d"}'}
    call = {"id": "c", "type": "function", "function": function}
    turns = [
        USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]
    model = CLAUDE.get(vendor, "gemini-3-flash-preview")
    assert '{"text": "cut \ufffd"}' in json.dumps(body(vendor, model, messages=turns), ensure_ascii=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The body is empty"),
        (b" \n", "The body is empty"),
        (b'{"model": "\\ud83d', "not valid JSON"),
        (b'{"model": "\xff"}', "not valid JSON"),
    ],
)
def test_what_is_no_json_stays_an_error(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(data)
