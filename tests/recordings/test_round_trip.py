"""A tool conversation begun on one dialect and finished on another, each way, by a client of OpenAI's.

The client sends back the message of the REST API: whole, or reduced to role,
content and tool calls. The request to the provider is checked against the
provider's published schema, and for the signatures in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.dialects import bedrock_help
from tests.support import needs, specs
from tests.support.faults import FaultServer, fault_server, reply
from tests.support.gateway import Gateway, run_gateway


class Call(NamedTuple):
    """A tool call, and the tool's result."""

    name: str
    arguments: dict[str, Any]
    result: str


#: The model's calls in the first two turns; in the third it answers.
TURNS = [
    [Call("weather", {"city": "Rome"}, '{"temp": 18}'), Call("now", {}, "12:00")],
    [Call("weather", {"city": "Ærø", "days": [1, 2.5]}, "It is {raining")],
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "number"}}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time"}},
]


def signature(party: str, turn: int) -> str:
    """A signature that names its party and turn."""
    return base64.b64encode(f"<signed by {party}, turn {turn}>".encode()).decode()


# What providers answer


def openai_answer(turn: int, calls: list[Call]) -> dict[str, Any]:
    tool_calls = [
        {
            "id": f"functions.{call.name}:{turn}{i}",  # as Kimi writes them
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments) if call.arguments else ""},
        }
        for i, call in enumerate(calls)
    ]
    details = [
        {
            "type": "reasoning.text", "text": "Hm.", "signature": signature("openai", turn),
            "format": "anthropic-claude-v1", "index": 0,
        }
    ]  # fmt: skip
    message = {"role": "assistant", "content": "Let me see." if calls else "Done."}
    thoughts = {"reasoning": "Hm.", "reasoning_details": details}  # as OpenRouter writes it
    return {
        "id": "gen-1", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [
            {
                "index": 0,
                "message": message | ({"tool_calls": tool_calls} if tool_calls else {}) | thoughts,
                "finish_reason": "tool_calls" if tool_calls else "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


def anthropic_answer(turn: int, calls: list[Call]) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "up", "stop_sequence": None,
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": signature("anthropic", turn)},
            {"type": "text", "text": "Let me see." if calls else "Done."},
            *(
                {"type": "tool_use", "id": f"toolu_{turn}{i}", "name": call.name, "input": call.arguments}
                for i, call in enumerate(calls)
            ),
        ],
        "stop_reason": "tool_use" if calls else "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip


def gemini_answer(turn: int, calls: list[Call]) -> dict[str, Any]:
    """Its calls have no ids, and only the first of them is signed."""
    tool_calls: list[dict[str, Any]] = [
        {"functionCall": {"name": call.name, "args": call.arguments}} for call in calls
    ]
    signed = [part | {"thoughtSignature": signature("gemini", turn)} for part in tool_calls[:1]] + tool_calls[1:]
    text = {"text": "Let me see." if calls else "Done."}
    parts = [{"text": "Hm.", "thought": True}, text, *signed]
    return {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "responseId": f"r{turn}",
    }


def converse_answer(turn: int, calls: list[Call], thought: dict[str, Any]) -> dict[str, Any]:
    content = [
        {"reasoningContent": thought},
        {"text": "Let me see." if calls else "Done."},
        *(
            {"toolUse": {"toolUseId": f"tooluse_{turn}{i}", "name": call.name, "input": call.arguments}}
            for i, call in enumerate(calls)
        ),
    ]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if calls else "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
        "metrics": {"latencyMs": 1},
    }


def claude_answer(turn: int, calls: list[Call]) -> dict[str, Any]:
    return converse_answer(
        turn, calls, {"reasoningText": {"text": "Hm.", "signature": signature("bedrock-claude", turn)}}
    )


def opaque_answer(turn: int, calls: list[Call]) -> dict[str, Any]:
    return converse_answer(turn, calls, {"redactedContent": signature("bedrock-gpt", turn)})


# Requests to providers: validation, and the calls and results in them

Calls = list[tuple[str, str, Any]]  # id, name, arguments
Results = list[tuple[str, str]]  # id, result


def openai_sent(body: Any) -> tuple[Calls, Results]:
    assert specs.openai(body) == []
    calls = [call for message in body["messages"] for call in message.get("tool_calls", [])]
    return (
        [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"] or "{}")) for c in calls],
        [(m["tool_call_id"], m["content"]) for m in body["messages"] if m["role"] == "tool"],
    )


def anthropic_sent(body: Any) -> tuple[Calls, Results]:
    assert specs.anthropic(body) == []
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"] * (len(body["messages"]) // 2) + [
        "user"
    ]
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    # A continued turn begins with thinking where there is a budget for it.
    thinks = body["messages"][-2]["content"][0]["type"] == "thinking"
    assert ("thinking" in body) == thinks
    return (
        [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"],
        [(b["tool_use_id"], b["content"]) for b in blocks if b["type"] == "tool_result"],
    )


def gemini_sent(body: Any) -> tuple[Calls, Results]:
    assert specs.gemini(body) == []
    parts = [part for content in body["contents"] for part in content["parts"]]
    for content in body["contents"]:  # Gemini 3 refuses a turn whose first call is not signed
        tool_calls = [part for part in content["parts"] if "functionCall" in part]
        assert all(part["thoughtSignature"] for part in tool_calls[:1])
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]

    def output(response: dict[str, Any]) -> str:
        return response["output"] if response.keys() == {"output"} else json.dumps(response)

    return (
        [(call["id"], call["name"], call["args"]) for call in calls],
        [(result["id"], output(result["response"])) for result in results],
    )


def converse_sent(body: Any) -> tuple[Calls, Results]:
    assert specs.bedrock(body) == []
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    uses = [block["toolUse"] for block in blocks if "toolUse" in block]
    results = [block["toolResult"] for block in blocks if "toolResult" in block]

    def output(content: Any) -> str:
        [block] = content
        return block["text"] if "text" in block else json.dumps(block["json"])

    return (
        [(use["toolUseId"], use["name"], use["input"]) for use in uses],
        [(result["toolUseId"], output(result["content"])) for result in results],
    )


class Party(NamedTuple):
    """One dialect, with a vendor and a model of it."""

    provider: str
    model: str
    answer: Callable[[int, list[Call]], dict[str, Any]]
    sent: Callable[[Any], tuple[Calls, Results]]
    #: The parties whose signatures it accepts: its own, and those of the same models elsewhere.
    takes: frozenset[str]
    #: Characters that ids must not contain.
    forbidden: str = "$^"


_KEYS = "region: eu-west-1, credentials: {access_key_id: AKIA, secret_access_key: s}"
#: Claude signs for every platform that has it.
#: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
_CLAUDE = frozenset({"anthropic", "bedrock-claude"})
PARTIES = {
    "openai": Party("type: openrouter, api_key: k", "o/m", openai_answer, openai_sent, frozenset({"openai"})),
    "anthropic": Party(
        "type: anthropic, api_key: k",
        "claude-haiku-4-5",
        anthropic_answer,
        anthropic_sent,
        _CLAUDE,
        forbidden="[^A-Za-z0-9_-]",
    ),
    "gemini": Party(
        "type: gemini, api_key: k", "gemini-3-flash-preview", gemini_answer, gemini_sent, frozenset({"gemini"})
    ),
    "bedrock-claude": Party(f"type: bedrock, {_KEYS}", bedrock_help.HAIKU, claude_answer, converse_sent, _CLAUDE),
    "bedrock-gpt": Party(
        f"type: bedrock, {_KEYS}", "openai.gpt-5.5", opaque_answer, converse_sent, frozenset({"bedrock-gpt"})
    ),
}


@pytest.fixture(name="upstream")
async def upstream_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        yield server


@pytest.fixture(name="gateway")
async def gateway_fixture(upstream: FaultServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    origin = upstream.base_url.removesuffix("/v1")
    lines = ["providers:"]
    for name, party in PARTIES.items():
        lines.append(f'  {name}: {{{party.provider}, base_url: "{origin}"}}')
    lines.append("models:")
    for name, party in PARTIES.items():
        lines.append(f'  {name}: {{endpoints: [{{provider: {name}, model: "{party.model}"}}]}}')
    async with run_gateway(tmp_path, "\n".join(lines)) as gateway:
        yield gateway


def whole(message: dict[str, Any]) -> dict[str, Any]:
    """A client that sends back the whole message."""
    return message


def reduced(message: dict[str, Any]) -> dict[str, Any]:
    """A client that keeps OpenAI's own fields only."""
    return {name: message[name] for name in ("role", "content", "tool_calls")}


async def turn(
    gateway: Gateway, upstream: FaultServer, party: str, number: int, messages: list[Any]
) -> dict[str, Any]:
    """One call of the model; its message."""
    calls = TURNS[number] if number < len(TURNS) else []
    answer = reply(200, PARTIES[party].answer(number, calls))
    for name in ("", PARTIES[party].model):  # Gemini and Bedrock have the model in the path
        upstream.script(name, answer)
    request = {"model": party, "messages": messages, "tools": TOOLS, "reasoning_effort": "low"}
    got = await gateway.post(request)
    assert got.status == 200, got.body
    message: dict[str, Any] = got.json()["choices"][0]["message"]
    tool_calls = [(c["function"]["name"], json.loads(c["function"]["arguments"] or "{}"))
            for c in message.get("tool_calls", [])]  # fmt: skip
    assert tool_calls == [(call.name, call.arguments) for call in calls]
    return message


def signers(body: Any) -> list[tuple[str, int]]:
    """The parties and turns of all signatures in a body, in order and each once."""
    text = json.dumps(body, ensure_ascii=False)
    found = [
        (text.index(value), (party, number))
        for party in PARTIES
        for number in range(len(TURNS))
        for value in (signature(party, number), base64.b64encode(signature(party, number).encode()).decode())
        if value in text
    ]
    return [who for _, who in sorted(found)]


@pytest.mark.parametrize("client", [whole, reduced])
@pytest.mark.parametrize("last", PARTIES)
@pytest.mark.parametrize("first", PARTIES)
async def test_conversations_continue_at_another_vendor(
    gateway: Gateway,
    upstream: FaultServer,
    first: str,
    last: str,
    client: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    needs.specs()
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Rome, and what time is it?"},
    ]
    calls: Calls = []
    results: Results = []
    for number, (party, specs_) in enumerate(zip((first, last), TURNS, strict=True)):
        message = await turn(gateway, upstream, party, number, messages)
        messages.append(client(message))
        for call, spec in zip(message["tool_calls"], specs_, strict=True):
            calls.append((call["id"], spec.name, spec.arguments))
            results.append((call["id"], spec.result))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": spec.result})
        assert len({id_ for id_, _, _ in calls}) == len(calls)
        # The next call of the same conversation goes to `last`, in both rounds.
        answer = await turn(gateway, upstream, last, number + 1, messages)
        party_last = PARTIES[last]
        body = upstream.calls[-1].body
        sent_calls, sent_results = party_last.sent(body)

        def fit(id_: str, forbidden: str = party_last.forbidden) -> str:
            fitted = re.sub(forbidden, "_", id_)
            return id_ if fitted == id_ else f"{fitted}_{hashlib.sha256(id_.encode()).hexdigest()[:8]}"

        assert sent_calls == [(fit(id_), name, arguments) for id_, name, arguments in calls]
        assert sent_results == [(fit(id_), result) for id_, result in results]
        # Of OpenRouter's, a client that knows OpenAI's fields alone keeps none.
        signed = [(who, n) for n, who in enumerate((first, last)[: number + 1]) if who in party_last.takes]
        if client is reduced:
            signed = [(who, n) for who, n in signed if who != "openai"]
        assert signers(body) == signed
        assert answer["content"] in ("Let me see.", "Done.")
    assert answer["content"] == "Done."
    assert "tool_calls" not in answer
