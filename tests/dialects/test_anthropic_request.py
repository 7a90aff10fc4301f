"""Fields that Anthropic would refuse, and what is sent instead."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.config.model import ProviderSettings, Timeouts
from server.dialects.anthropic import request as anthropic_request
from server.dialects.base import Endpoint
from server.dialects.dropped import Dropped
from server.dialects.registry import DIALECTS
from server.vendors.registry import PLAIN
from tests.dialects.steps import assert_linear

MARKER = {"cache_control": {"type": "ephemeral"}}


def endpoint(model: str) -> Endpoint:
    return Endpoint(
        name="e",
        model=model,
        public_model="m",
        vendor=PLAIN["anthropic"],
        provider=ProviderSettings(key="k", type="anthropic"),
        dialect="anthropic",
        base_url="",
        timeouts=Timeouts(),
    )


def sent(openai: dict[str, Any], model: str = "claude-sonnet-4-5") -> dict[str, Any]:
    openai = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **openai}
    request = openai_json.parse(json.dumps(openai).encode()).request
    return anthropic_request.body(request, endpoint(model), Dropped(), remote=True)


def calls(*ids: str) -> list[dict[str, Any]]:
    """A turn with these calls and, in the opposite order, their results."""
    tool_calls = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id_ in ids]
    results = [{"role": "tool", "tool_call_id": id_, "content": id_} for id_ in reversed(ids)]
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": tool_calls}, *results]


@pytest.mark.parametrize("name", [["f"], {"f": 1}, None, 7])
def test_a_native_tool_without_a_name_is_not_allowed(name: Any) -> None:
    function = {"type": "function", "function": {"name": "f"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function]}}
    native = {"type": "web_search_20250305", "name": name}
    [tool] = sent({"tools": [function, native], "tool_choice": allowed})["tools"]
    assert tool["name"] == "f"


@pytest.mark.parametrize(
    "ids", [("a.b:0", "a_b_0"), ("functions.read:0", "functions.read:1"), ("x" * 99, "x" * 98)]
)
def test_call_ids(ids: tuple[str, str]) -> None:
    _, assistant, results = sent({"messages": calls(*ids)})["messages"]
    written = [block["id"] for block in assistant["content"]]
    assert len(set(written)) == 2
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", id_) for id_ in written)
    assert {block["tool_use_id"]: block["content"] for block in results["content"]} == dict(
        zip(written, ids, strict=True)
    )


@pytest.mark.parametrize(
    ("user", "sent_as"),
    [
        ("user-4711", "user-4711"),
        ("13803d75-b4b5-4c3e-b2a2-446655440000", "13803d75-b4b5-4c3e-b2a2-446655440000"),
        ("@ada", "@ada"),
        ("ada@example.com", None),
        ("Ada <ada@example.com>", None),
        ("x" * 512, "x" * 512),
        ("x" * 513, None),
    ],
)
def test_user(user: str, sent_as: str | None) -> None:
    user_id = sent({"user": user})["metadata"]["user_id"]
    if sent_as == user:
        assert user_id == user
    else:
        assert re.fullmatch("[0-9a-f]{64}", user_id)
        assert (
            user_id
            == sent({"user": user})["metadata"]["user_id"]
            != sent({"user": f"{user}x"})["metadata"]["user_id"]
        )


def test_names_of_users() -> None:
    messages = [{"role": "user", "name": name, "content": "hi"} for name in ("buyer", "seller")]
    (turn,) = sent({"messages": messages})["messages"]
    assert [block["text"] for block in turn["content"]] == ["buyer: hi", "seller: hi"]


@pytest.mark.parametrize(
    ("turn", "marked"),
    [
        ({"content": "a", "tool_calls": calls("c", "d")[1]["tool_calls"]}, [False, False, True]),
        ({"tool_calls": calls("c")[1]["tool_calls"]}, [True]),
        ({"content": "a", "refusal": "b"}, [False, True]),
        ({"content": "a"}, [True]),
    ],
)
def test_cache_marker_of_a_turn(turn: dict[str, Any], marked: list[bool]) -> None:
    """It is on the last of the turn's blocks."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", **turn, **MARKER}]
    blocks = sent({"messages": messages})["messages"][1]["content"]
    assert ["cache_control" in block for block in blocks] == marked


RECURSIVE = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/N"}},
    "additionalProperties": False,
    "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "additionalProperties": False}},
}


def test_tool_with_a_recursive_schema_is_not_strict() -> None:
    function = {"name": "f", "strict": True, "parameters": RECURSIVE}
    (tool,) = sent({"tools": [{"type": "function", "function": function}]})["tools"]
    assert tool == {"name": "f", "input_schema": RECURSIVE}


@pytest.mark.parametrize("strict", [True, False])
def test_tool_with_alternatives_at_the_root(strict: bool) -> None:
    alternatives = [{"properties": {name: {"type": "string"}}, "required": [name]} for name in "ab"]
    function = {"name": "f", "strict": strict, "parameters": {"type": "object", "anyOf": alternatives}}
    (tool,) = sent({"tools": [{"type": "function", "function": function}]})["tools"]
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    closed = {"additionalProperties": False} if strict else {}
    assert tool["input_schema"] == {"type": "object", "properties": properties, **closed}


def test_images_of_any_spelling() -> None:
    part = {"type": "image_url", "image_url": {"url": "DATA:image/JPG;BASE64,AA\nAA"}}
    (turn,) = sent({"messages": [{"role": "user", "content": [part]}]})["messages"]
    assert turn["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}}
    ]


def test_turns_take_linear_time() -> None:
    def conversation(size: int) -> pb.ChatCompletionRequest:
        question, turn, *results = calls(*map(str, range(size)))
        messages = [question, turn, {"role": "user", "content": "So?"}, *results]
        return openai_json.parse(json.dumps({"model": "m", "messages": messages}).encode()).request

    to = endpoint("claude-sonnet-4-5")
    assert_linear(conversation, lambda request: anthropic_request.body(request, to, Dropped(), remote=True))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("claude-3-haiku-20240307", set()),
        ("claude-sonnet-4-5", set()),
        ("claude-opus-4-7", {"temperature", "top_p", "top_k"}),
        ("anthropic/claude-opus-5", {"temperature", "top_p", "top_k"}),
        ("llama", set()),
    ],
)
def test_what_a_model_refuses_is_named(model: str, names: set[str]) -> None:
    assert DIALECTS["anthropic"].drops(model) == names
    values = {"temperature": 0.2, "top_p": 0.9, "top_k": 4}
    assert not names & sent(values, model).keys()


# Turns with server-side tools

RAN: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "bash_code_execution", "input": {}},
    {"type": "text", "text": "It is "},
    {"type": "text", "text": "42."},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
]


def ran(own: Any, **fields: Any) -> tuple[list[dict[str, Any]], tuple[str, ...], Any]:
    """The blocks of the turn, what is dropped, and the container."""
    call = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": "It is 42.", "tool_calls": [call], **fields}
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "ok"}
    turn["extra_content"] = {"anthropic": own}
    openai = {"model": "m", "messages": [{"role": "user", "content": "Hi"}, turn, result]}
    request = openai_json.parse(json.dumps(openai).encode()).request
    dropped = Dropped()
    body = anthropic_request.body(request, endpoint("claude-sonnet-4-5"), dropped, remote=True)
    return body["messages"][1]["content"], dropped.paths, body.get("container")


def test_a_turn_goes_back_whole() -> None:
    assert ran({"content": RAN, "container": {"id": "c"}}) == (RAN, (), "c")
    marked, dropped, _ = ran({"content": RAN}, cache_control={"type": "ephemeral"}, odd=1)
    assert (marked, dropped) == ([*RAN[:-1], {**RAN[-1], **MARKER}], ("messages[1].odd",))


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "It is 43."},
        {"tool_calls": [{"id": "toolu_2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    ],
)
def test_a_changed_turn_is_translated_anew(fields: dict[str, Any]) -> None:
    if "tool_calls" in fields:
        fields = {**fields, "content": "It is 42."}
    blocks, dropped, _ = ran({"content": RAN}, **fields)
    assert [block["type"] for block in blocks] == ["text", "tool_use"]
    assert dropped == ("messages[1].extra_content",)


@pytest.mark.parametrize(
    "own",
    [5, {"content": 5}, {"content": [5]}, {"content": [{}]}, {"content": [{"type": "text"}]}, {"container": 5}],
)
def test_extra_content_of_another_form(own: Any) -> None:
    blocks, dropped, container = ran(own)
    assert [block["type"] for block in blocks] == ["text", "tool_use"]
    assert (dropped, container) == (("messages[1].extra_content",), None)


def calls_with(own: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The block of a call with this `extra_content.anthropic`, and what is dropped."""
    call = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "tool_calls": [{**call, "extra_content": {"anthropic": own}}]}
    openai = {"model": "m", "messages": [{"role": "user", "content": "Hi"}, turn]}
    dropped = Dropped()
    request = openai_json.parse(json.dumps(openai).encode()).request
    body = anthropic_request.body(request, endpoint("claude-sonnet-4-5"), dropped, remote=True)
    [block] = (block for block in body["messages"][1]["content"] if block["type"] == "tool_use")
    return block, dropped.paths


def test_the_caller_of_a_call_goes_back() -> None:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling"""
    plain = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    own = {"caller": {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}, "toolset_name": "s"}
    assert calls_with(own) == ({**plain, **own}, ())
    thinking = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
    assert calls_with({**own, "thinking": thinking}) == ({**plain, **own}, ())
    path = "messages[1].tool_calls[0].extra_content"
    assert calls_with({**own, "odd": 1}) == ({**plain, **own}, (f"{path}.anthropic.odd",))
    assert calls_with({"odd": 1}) == (plain, (path,))
