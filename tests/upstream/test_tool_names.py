"""Names of tools that a provider refuses: rewritten in the request, the caller's own in the answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.request import ProtoRequest
from server.dialects.openai.dialect import OpenAITranslator
from server.vendors.registry import VENDORS
from tests.dialects.openai_help import DONE, chunk, delta, endpoint, sse
from tests.upstream.test_upstream import Provider, run

GROQ = endpoint(VENDORS["groq"])
NAME = "files.read"
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": NAME, "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "r", "name": NAME},
    ],
    "tools": [
        {"type": "function", "function": {"name": NAME, "parameters": {"type": "object", "properties": {}}}},
        {"type": "function", "function": {"name": "plain_name-1", "parameters": {"type": "object"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": NAME}},
}


def request(**fields: Any) -> pb.ChatCompletionRequest:
    return openai_json.parse(json.dumps({**BODY, **fields}).encode()).request


@pytest.mark.parametrize("vendor", ["groq", "openai", "deepseek", "mistral"])
def test_every_place_has_the_same_name(vendor: str) -> None:
    call = OpenAITranslator().request(ProtoRequest(request()), endpoint(VENDORS[vendor]), stream=False)
    body = json.loads(call.body)
    names = {
        body["tools"][0]["function"]["name"],
        body["messages"][1]["tool_calls"][0]["function"]["name"],
        body["messages"][2].get("name", next(iter(call.tool_names))),
    }
    if isinstance(body.get("tool_choice"), dict):
        names.add(body["tool_choice"]["function"]["name"])
    (name,) = names
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)
    assert call.tool_names == {name: NAME}
    assert body["tools"][-1]["function"]["name"] in ("plain_name-1", name)


def test_allowed_tools() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": NAME}}]}
    sent = request(tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    call = OpenAITranslator().request(ProtoRequest(sent), endpoint(VENDORS["openai"]), stream=False)
    body = json.loads(call.body)
    assert body["tool_choice"]["allowed_tools"]["tools"][0]["function"]["name"] in call.tool_names


@pytest.mark.parametrize("vendor", ["vllm", "llamacpp", "ollama", "litellm"])
def test_ones_own_servers_get_names_as_they_are(vendor: str) -> None:
    call = OpenAITranslator().request(ProtoRequest(request()), endpoint(VENDORS[vendor]), stream=False)
    assert call.tool_names == {}
    assert json.loads(call.body)["tools"][0]["function"]["name"] == NAME


def fitted() -> str:
    call = OpenAITranslator().request(ProtoRequest(request()), GROQ, stream=False)
    return next(iter(call.tool_names))


def test_a_call_in_an_answer() -> None:
    calls = [{"id": "c2", "type": "function", "function": {"name": fitted(), "arguments": "{}"}}]
    choice = {"index": 0, "message": {"role": "assistant", "tool_calls": calls}, "finish_reason": "tool_calls"}
    answer = json.dumps({"id": "1", "model": "m", "created": 1, "choices": [choice]}).encode()
    provider = Provider(answer, type="application/json")
    typed = request()
    completion, _ = run(provider.complete(GROQ, tools=typed.tools))
    assert completion.choices[0].message.tool_calls[0].function.name == NAME
    assert NAME.encode() not in provider.requests[0].content


def test_a_call_in_a_stream() -> None:
    call = {"index": 0, "id": "c2", "type": "function", "function": {"name": fitted(), "arguments": "{}"}}
    body = sse(chunk(delta(tool_calls=[call])), chunk(delta("tool_calls"))) + DONE
    provider = Provider(body)

    async def names() -> list[str]:
        typed = request(messages=BODY["messages"][:1])
        stream = provider.upstream.stream(GROQ, typed)
        chunks = await stream.open(10.0)
        async for batch in stream.batches(1e6):
            chunks += batch
        await stream.aclose()
        return [c.function.name for each in chunks for x in each.choices for c in x.delta.tool_calls]

    assert run(names()) == [NAME]
