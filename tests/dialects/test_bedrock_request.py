"""Requests to Bedrock: linear time, document names, cache points and tools by model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import parse
from server.dialects.bedrock import request as bedrock_request
from server.dialects.bedrock.media import Documents
from server.dialects.dropped import Dropped
from server.errors import InvalidRequest
from tests.dialects.bedrock_help import HAIKU, NOVA, body, endpoint
from tests.dialects.steps import assert_linear

MARKER = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
HOUR, DEFAULT = {"cachePoint": {"type": "default", "ttl": "1h"}}, {"cachePoint": {"type": "default"}}


def parsed(**fields: Any) -> pb.ChatCompletionRequest:
    return parse(json.dumps({"model": "m", **fields}).encode()).request


def calls(size: int) -> list[dict[str, Any]]:
    """A turn with `size` calls and, after a message of the user, their results."""
    tool_calls = [
        {"id": str(number), "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for number in range(size)
    ]
    results = [{"role": "tool", "tool_call_id": str(number), "content": "r"} for number in range(size)]
    question = {"role": "user", "content": "Hi"}
    return [question, {"role": "assistant", "tool_calls": tool_calls}, question, *results]


def test_results_come_first_in_their_order() -> None:
    marked = {"role": "tool", "tool_call_id": "3", "content": [{"type": "text", "text": "r", **MARKER}]}
    content = body(parsed(messages=[*calls(3), marked, {"role": "user", "content": "So?"}]))["messages"][2][
        "content"
    ]
    assert [block["toolResult"]["toolUseId"] for block in content if "toolResult" in block] == list("0123")
    assert content[4:] == [HOUR, {"text": "Hi"}, {"text": "So?"}]


@pytest.mark.parametrize("ttl", [["1h"], {"1h": 1}, None, 7, "2h"])
def test_other_times_to_live_are_the_default(ttl: Any) -> None:
    marked = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", "ttl": ttl}}
    turns = body(parsed(messages=[{"role": "user", "content": [marked]}]))["messages"]
    assert turns[0]["content"] == [{"text": "Hi"}, DEFAULT]


def test_turns_take_linear_time() -> None:
    assert_linear(
        lambda size: parsed(messages=calls(size)),
        lambda request: bedrock_request.converse(request, endpoint(), Dropped()),
    )


# Names of documents


@pytest.mark.parametrize(
    ("filenames", "names"),
    [
        (["a.pdf", "A.pdf", "a.txt", "a 2.pdf", "a"], ["a", "A 2", "a 3", "a 2 2", "a 4"]),
        (["a 2", "a", "a", "a"], ["a 2", "a", "a 3", "a 4"]),
        (["", "", "?"], ["document", "document 2", "document 3"]),
        (["x" * 300, "x" * 301], ["x" * 180, "x" * 180 + " 2"]),
        (["a__b.c.pdf"], ["a b c"]),
    ],
)
def test_document_names(filenames: list[str], names: list[str]) -> None:
    documents = Documents()
    assert [documents.name(filename) for filename in filenames] == names


def test_document_names_take_linear_time() -> None:
    def name_all(filenames: list[str]) -> None:
        documents = Documents()
        names = [documents.name(filename) for filename in filenames]
        assert len({name.lower() for name in names}) == len(names)

    assert_linear(lambda size: ["a.pdf"] * size, name_all)
    assert_linear(lambda size: [f"a {number}" for number in range(2, size)] + ["a"] * size, name_all)


# Cache points


@pytest.mark.parametrize(
    ("model", "system", "messages", "tools"),
    [
        (HAIKU, [HOUR], [HOUR], [HOUR]),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", [DEFAULT], [DEFAULT], [DEFAULT]),
        ("anthropic.claude-3-haiku-20240307-v1:0", [], [], []),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", [], [], []),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", [DEFAULT], [DEFAULT], [DEFAULT]),
        (NOVA, [DEFAULT], [DEFAULT], []),
        ("us.amazon.nova-pro-v1:0", [DEFAULT], [DEFAULT], []),
        ("openai.gpt-oss-120b-1:0", [], [], []),
        ("us.meta.llama3-3-70b-instruct-v1:0", [], [], []),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12", [HOUR], [HOUR], [HOUR]),
    ],
)
def test_cache_points(model: str, system: list[Any], messages: list[Any], tools: list[Any]) -> None:
    """They follow the marked block where the model accepts them, and are left out elsewhere."""
    marked = [{"role": role, "content": [{"type": "text", "text": "a", **MARKER}]} for role in ("system", "user")]
    tool = {"type": "function", "function": {"name": "f"}, **MARKER}
    sent = body(parsed(messages=marked, tools=[tool]), model)
    assert sent["system"] == [{"text": "a"}, *system]
    assert sent["messages"] == [{"role": "user", "content": [{"text": "a"}, *messages]}]
    assert sent["toolConfig"]["tools"][1:] == tools
    sent = body(parsed(messages=[{"role": "user", "content": "a"}], **MARKER), model)
    assert sent["messages"][0]["content"][1:] == messages


def test_a_marker_on_blank_text_is_left_out() -> None:
    blank = {"role": "user", "content": [{"type": "text", "text": " ", **MARKER}, {"type": "text", "text": "a"}]}
    assert body(parsed(messages=[blank]))["messages"] == [{"role": "user", "content": [{"text": "a"}]}]


# Tools and names


@pytest.mark.parametrize("model", [HAIKU, "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/ab12"])
def test_claude_takes_no_alternatives_at_the_root(model: str) -> None:
    schema = {"type": "object", "anyOf": [{"properties": {name: {"type": "string"}}} for name in "ab"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    request = parsed(messages=[{"role": "user", "content": "a"}], tools=[tool])
    (spec,) = body(request, model)["toolConfig"]["tools"]
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    assert spec["toolSpec"]["inputSchema"] == {"json": {"type": "object", "properties": properties}}
    (spec,) = body(request, NOVA)["toolConfig"]["tools"]
    assert spec["toolSpec"]["inputSchema"] == {"json": schema}


def test_parameters_that_are_no_object() -> None:
    request = parsed(messages=[{"role": "user", "content": "a"}])
    request.tools.add().function.MergeFrom(pb.FunctionDefinition(name="f", parameters_json="[]"))
    with pytest.raises(InvalidRequest) as caught:
        body(request)
    assert caught.value.param == "tools[0].function.parameters"


def test_names_of_users() -> None:
    messages = [{"role": "user", "name": name, "content": "hi"} for name in ("buyer", "seller")]
    assert body(parsed(messages=messages))["messages"] == [
        {"role": "user", "content": [{"text": "buyer: hi"}, {"text": "seller: hi"}]}
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "DATA:image/JPG;BASE64,AA\nAA"}},
        {"type": "file", "file": {"file_data": "Data:image/jpg;base64,AAAA"}},
    ],
)
def test_images_of_any_spelling(part: dict[str, Any]) -> None:
    (turn,) = body(parsed(messages=[{"role": "user", "content": [part]}]))["messages"]
    assert turn["content"] == [{"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}}]
