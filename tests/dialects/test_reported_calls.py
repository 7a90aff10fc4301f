"""Tool calls that public reports say are refused, lost or mixed up: names, ids and arguments, there and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.dialects import chunks_of, completion_of, endpoint_for, request_for

USER = {"role": "user", "content": "Hi"}
ANTHROPIC = "anthropic", "claude-sonnet-4-5"
BEDROCK = "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"
GEMINI = "gemini", "gemini-3-flash-preview"
MISTRAL = "mistral", "mistral-large-latest"


def body(vendor: tuple[str, str], **fields: Any) -> Any:
    """What the vendor is sent."""
    sent = request_for({"model": "public-model", "messages": [USER], **fields}, endpoint_for(*vendor))
    return json.loads(sent.request.body)


def call(id_: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def turn(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [*calls]}


def result(id_: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def anthropic_calls(sent: Any) -> tuple[list[Any], list[Any]]:
    """Calls as (id, name), results as (id, content)."""
    blocks = [block for message in sent["messages"] for block in message["content"]]
    return (
        [(block["id"], block["name"]) for block in blocks if block["type"] == "tool_use"],
        [(block["tool_use_id"], block["content"]) for block in blocks if block["type"] == "tool_result"],
    )


def bedrock_calls(sent: Any) -> tuple[list[Any], list[Any]]:
    blocks = [block for message in sent["messages"] for block in message["content"]]
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    results = [block["toolResult"] for block in blocks if "toolResult" in block]
    return (
        [(use["toolUseId"], use["name"]) for use in calls],
        [(found["toolUseId"], found["content"][0]["text"]) for found in results],
    )


def gemini_calls(sent: Any) -> tuple[list[Any], list[Any]]:
    parts = [part for content in sent["contents"] for part in content["parts"]]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    return (
        [(made["id"], made["name"]) for made in calls],
        [(found["id"], found["response"]["output"]) for found in results],
    )


def openai_calls(sent: Any) -> tuple[list[Any], list[Any]]:
    calls = [made for message in sent["messages"] for made in message.get("tool_calls", ())]
    results = [message for message in sent["messages"] if message["role"] == "tool"]
    return (
        [(made["id"], made["function"]["name"]) for made in calls],
        [(found["tool_call_id"], found["content"]) for found in results],
    )


STRICT = [(ANTHROPIC, anthropic_calls), (BEDROCK, bedrock_calls), (GEMINI, gemini_calls), (MISTRAL, openai_calls)]


@pytest.mark.parametrize(
    ("messages", "of_results"),
    [
        # A provider that begins each answer with `call_0`; Anthropic: "`tool_use` ids must be unique".
        # https://github.com/NVIDIA-NeMo/Switchyard/issues/502
        (
            [turn(call("call_0", "f")), result("call_0", "x"), turn(call("call_0", "g")), result("call_0", "y")],
            [0, 1],
        ),
        # A gateway that gives both calls of an answer the same id.
        # https://github.com/vectorize-io/hindsight/pull/4250
        ([turn(call("a", "f"), call("a", "g")), result("a", "x"), result("a", "y")], [0, 1]),
        # https://github.com/router-for-me/CLIProxyAPI/issues/5199: results in another order than their calls
        ([turn(call("a", "f"), call("b", "g")), result("b", "y"), result("a", "x")], [1, 0]),
        # Two results for one call go to that call.
        ([turn(call("a", "f")), result("a", "x"), result("a", "y")], [0, 0]),
        # A call of an earlier turn that nobody answered does not get the result of a later one.
        ([turn(call("a", "f")), USER, turn(call("a", "g")), result("a", "y")], [1]),
    ],
)
@pytest.mark.parametrize(("vendor", "read"), STRICT)
def test_ids_are_unique_and_results_belong_to_their_calls(
    vendor: tuple[str, str],
    read: Callable[[Any], tuple[list[Any], list[Any]]],
    messages: list[dict[str, Any]],
    of_results: list[int],
) -> None:
    sent = body(vendor, messages=[USER, *messages])
    calls, results = read(sent)
    assert len({id_ for id_, _ in calls}) == len(calls)
    contents = [message["content"] for message in messages if message["role"] == "tool"]
    expected = [(calls[index][0], text) for index, text in zip(of_results, contents, strict=True)]
    assert sorted(results) == sorted(expected)
    assert sent == body(vendor, messages=[USER, *messages])


def test_ids_stay_the_same_as_the_conversation_grows() -> None:
    """Else no prompt of it could be cached."""
    start = [USER, turn(call("call_0")), result("call_0", "x"), turn(call("call_0")), result("call_0", "y")]
    more = [*start, turn(call("call_0")), result("call_0", "z")]
    assert (
        anthropic_calls(body(ANTHROPIC, messages=more))[0][:2]
        == anthropic_calls(body(ANTHROPIC, messages=start))[0]
    )


@pytest.mark.parametrize("vendor", [ANTHROPIC, BEDROCK, GEMINI])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # https://github.com/aws-samples/bedrock-access-gateway/pull/258
        ("", {}),
        (" \n", {}),
        ("null", {}),
        ("{}", {}),
        ('{"a":12345678901234567890}', {"a": 12345678901234567890}),
    ],
)
def test_arguments_of_a_call_without_any(
    vendor: tuple[str, str], arguments: str, expected: Mapping[str, Any]
) -> None:
    sent = body(vendor, messages=[USER, turn(call("c", "f", arguments)), result("c", "x")])
    block = sent["contents" if vendor is GEMINI else "messages"][1]
    block = block["parts" if vendor is GEMINI else "content"][0]
    inputs = {"anthropic": lambda: block["input"], "bedrock": lambda: block["toolUse"]["input"]}
    found = inputs.get(vendor[0], lambda: block["functionCall"]["args"])()
    assert found == expected


#: Names that MCP servers and OpenAPI generators make. https://github.com/BerriAI/litellm/pull/26788
#: https://github.com/nicobailon/pi-mcp-adapter/pull/190 https://github.com/google-gemini/gemini-cli/pull/20987
NAMES = ["actions/download-logs", "files.read", "7zip", "a b", "x" * 129, "größe", "actions_download-logs"]
ALPHABETS = {
    ANTHROPIC: re.compile(r"[a-zA-Z0-9_-]{1,128}"),
    BEDROCK: re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    GEMINI: re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}"),
}


def declared(vendor: tuple[str, str], sent: Any) -> tuple[list[str], str]:
    """The names of the tools, and the one that must be called."""
    if vendor is ANTHROPIC:
        return [item["name"] for item in sent["tools"]], sent["tool_choice"]["name"]
    if vendor is BEDROCK:
        config = sent["toolConfig"]
        return [item["toolSpec"]["name"] for item in config["tools"]], config["toolChoice"]["tool"]["name"]
    [declarations], config = sent["tools"], sent["toolConfig"]["functionCallingConfig"]
    return [item["name"] for item in declarations["functionDeclarations"]], config["allowedFunctionNames"][0]


@pytest.mark.parametrize("vendor", ALPHABETS)
@pytest.mark.parametrize("name", NAMES)
def test_names_fit_and_come_back(vendor: tuple[str, str], name: str) -> None:
    fields: dict[str, Any] = {
        "tools": [tool(each) for each in NAMES],
        "tool_choice": {"type": "function", "function": {"name": name}},
    }
    sent = body(vendor, messages=[USER, turn(call("c", name)), result("c", "x")], **fields)
    names, chosen = declared(vendor, sent)
    assert len(set(names)) == len(NAMES)
    assert all(map(ALPHABETS[vendor].fullmatch, names))
    assert names[NAMES.index(name)] == chosen
    called = {"anthropic": anthropic_calls, "bedrock": bedrock_calls, "gemini": gemini_calls}[vendor[0]](sent)[0]
    assert called[0][1] == chosen
    if ALPHABETS[vendor].fullmatch(name):
        assert chosen == name
    if vendor is BEDROCK:  # its recorded streams are tested in test_bedrock.py
        data = {
            "message": {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "c", "name": chosen, "input": {}}}],
            }
        }
        answer = {"output": data, "stopReason": "tool_use", "usage": {"inputTokens": 1, "outputTokens": 1}}
        assert called_names(completion_of("bedrock", json.dumps(answer).encode(), fields)) == [name]
    elif vendor is ANTHROPIC:
        block = {"type": "tool_use", "id": "c", "name": chosen, "input": {}}
        message: dict[str, Any] = {"id": "m", "content": [block], "stop_reason": "tool_use"}
        assert called_names(completion_of("anthropic", json.dumps(message).encode(), fields)) == [name]
        events = [
            {"type": "message_start", "message": {"id": "m", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ]
        assert streamed_names("anthropic", events, fields) == [name]
    else:
        parts = [{"functionCall": {"name": chosen, "args": {}}}]
        candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
        assert called_names(completion_of("gemini", json.dumps({"candidates": [candidate]}).encode(), fields)) == [
            name
        ]
        assert streamed_names("gemini", [{"candidates": [candidate]}], fields) == [name]


def called_names(completion: Any) -> list[str]:
    return [made["function"]["name"] for made in completion["choices"][0]["message"]["tool_calls"]]


def streamed_names(dialect: str, events: list[Any], fields: Mapping[str, Any]) -> list[str]:
    data = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    choices = [choice for chunk in chunks_of(dialect, data, fields) for choice in chunk["choices"]]
    calls = [made for choice in choices for made in choice["delta"].get("tool_calls", ())]
    return [made["function"]["name"] for made in calls if "name" in made["function"]]


# Answers


def answered(calls: list[dict[str, Any]], finish: str = "tool_calls") -> dict[str, Any]:
    """A completion of the OpenAI dialect."""
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return {"id": "x7", "created": 1, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def streamed(*pieces: list[dict[str, Any]], finish: str = "tool_calls") -> list[bytes]:
    """The same as a stream, with these pieces of calls."""
    deltas = [{"role": "assistant"}, *({"tool_calls": piece} for piece in pieces)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [json.dumps({"id": "x7", "created": 1, "choices": [choice]}) for choice in choices]
    return [f"data: {event}\n\n".encode() for event in [*events, "[DONE]"]]


def folded(chunks: list[Any]) -> list[tuple[str, str, str]]:
    """The calls of a stream, as SDKs put them together: id, name, arguments."""
    calls: dict[int, list[str]] = {}
    for piece in [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]:
        known = calls.setdefault(piece["index"], ["", "", ""])
        function = piece["function"]
        for place, text in enumerate((piece.get("id"), function.get("name"), function.get("arguments"))):
            known[place] += text or ""
    return [(known[0], known[1], known[2]) for _, known in sorted(calls.items())]


def whole(completion: Any) -> list[tuple[str, str, str]]:
    calls = completion["choices"][0]["message"]["tool_calls"]
    return [(made["id"], made["function"]["name"], made["function"]["arguments"]) for made in calls]


@pytest.mark.parametrize("arguments", ["", None, ...])
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    """https://github.com/Kilo-Org/cloud/pull/4753 https://github.com/agentgateway/agentgateway/pull/3002"""
    first = {"name": "f"} if arguments is ... else {"name": "f", "arguments": arguments}
    calls = [
        {"id": "a", "index": 0, "type": "function", "function": first},
        {"id": "b", "index": 1, "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
    ]
    expected = [("a", "f", "{}"), ("b", "g", '{"x":1}')]
    assert whole(completion_of("openai", json.dumps(answered(calls)).encode())) == expected
    assert folded(chunks_of("openai", streamed(calls))) == expected
    assert folded(chunks_of("openai", streamed(calls[:1], calls[1:]))) == expected


def test_arguments_that_come_after_a_finish_reason_are_not_preceded_by_an_empty_object() -> None:
    first = {"id": "a", "index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}
    *head, end, done = streamed([first])
    data = [*head, end, streamed([{"index": 0, "function": {"arguments": '{"x":1}'}}])[1], end, done]
    assert folded(chunks_of("openai", data)) == [("a", "f", '{"x":1}')]


@pytest.mark.parametrize(
    ("names", "ids"), [(("f", "g"), ("a", "a")), (("f", "f"), ("a", "a")), (("f", "g"), (None, ""))]
)
def test_calls_with_one_id_or_none_get_ids_of_their_own(names: tuple[str, str], ids: tuple[Any, Any]) -> None:
    """https://github.com/vectorize-io/hindsight/pull/4250"""
    calls = [
        {
            "id": id_,
            "index": index,
            "type": "function",
            "function": {"name": name, "arguments": f'{{"n":{index}}}'},
        }
        for index, (name, id_) in enumerate(zip(names, ids, strict=True))
    ]
    found = whole(completion_of("openai", json.dumps(answered(calls)).encode()))
    assert [(name, arguments) for _, name, arguments in found] == [(names[0], '{"n":0}'), (names[1], '{"n":1}')]
    assert found[0][0] == (ids[0] or "call_x7_0")
    assert found[1][0] == "call_x7_1"
    assert folded(chunks_of("openai", streamed(calls))) == found
    assert folded(chunks_of("openai", streamed(calls[:1], calls[1:]))) == found


def test_an_id_and_a_name_in_every_piece_are_one_call() -> None:
    pieces = [
        [{"id": "a", "index": 0, "function": {"name": "f", "arguments": text}}] for text in ("{", '"x"', ":1}")
    ]
    assert folded(chunks_of("openai", streamed(*pieces))) == [("a", "f", '{"x":1}')]


@pytest.mark.parametrize("finish", ["tool_calls", "tool_use", "function_call"])
def test_tool_calls_without_calls_is_stop(finish: str) -> None:
    """An agent would go on for ever. https://github.com/mastra-ai/mastra/pull/14187"""
    assert (
        completion_of("openai", json.dumps(answered([], finish)).encode())["choices"][0]["finish_reason"] == "stop"
    )
    assert chunks_of("openai", streamed(finish=finish))[-1]["choices"][0]["finish_reason"] == "stop"


def test_tool_use_without_calls_is_stop() -> None:
    message = {"id": "m", "content": [], "stop_reason": "tool_use"}
    assert completion_of("anthropic", json.dumps(message).encode())["choices"][0]["finish_reason"] == "stop"
    events = [
        {"type": "message_start", "message": {"id": "m", "content": []}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    chunks = chunks_of("anthropic", [f"data: {json.dumps(event)}\n\n".encode() for event in events])
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
