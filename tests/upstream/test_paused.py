"""Turns that Anthropic pauses, continued: whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from server.upstream.emulation.paused import MAX_CONTINUATIONS
from tests.support.faults import Behaviour, FaultServer, fault_server, reply
from tests.support.fold import fold
from tests.support.gateway import Gateway, ask, run_gateway

CONFIGURATION = """
providers:
  a: {{type: anthropic, base_url: "{origin}", api_key: k}}
models:
  m: {{endpoints: [{{provider: a, model: claude-sonnet-4-5}}]}}
"""
Block = dict[str, Any]
SEARCH: Block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND: Block = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://example.com/", "encrypted_content": "ZQ=="}],
}
CITATION: Block = {"type": "web_search_result_location", "url": "https://example.com/", "title": "t"}
TOOLS = [
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
]
FIRST: list[Block] = [{"type": "text", "text": "Let me search."}, SEARCH]
SECOND: list[Block] = [
    FOUND,
    {"type": "text", "text": " It is 42.", "citations": [CITATION]},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
]


def whole(blocks: list[Block], stop: str, *, id_: str) -> Behaviour:
    answer: dict[str, Any] = {"id": id_, "type": "message", "role": "assistant", "model": "claude"}
    answer["content"] = blocks
    answer["context_management"] = {"applied_edits": [{"id": id_}]}
    usage = {"input_tokens": 10, "output_tokens": 5}
    return reply(200, json.dumps({**answer, "stop_reason": stop, "usage": usage}).encode())


def streamed(blocks: list[Block], stop: str, *, id_: str) -> Behaviour:
    events: list[Any] = [{"type": "message_start", "message": {"id": id_, "usage": {"input_tokens": 10}}}]
    for index, block in enumerate(blocks):
        events += pieces(index, block)
    edits = {"applied_edits": [{"id": id_}]}
    end = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}}
    events.append({**end, "context_management": edits})
    events.append({"type": "message_stop"})
    return reply(200, b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events), "text/event-stream")


def pieces(index: int, block: Block) -> list[Any]:
    start, deltas = block, []
    if block["type"] == "text":
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": block["text"]}]
        deltas += [{"type": "citations_delta", "citation": c} for c in block.get("citations", ())]
    elif "input" in block:
        start = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


class Rig(NamedTuple):
    gateway: Gateway
    upstream: FaultServer


@pytest.fixture(name="rig")
async def rig_fixture(tmp_path: Path) -> AsyncIterator[Rig]:
    async with fault_server() as upstream:
        configuration = CONFIGURATION.format(origin=upstream.base_url.removesuffix("/v1"))
        async with run_gateway(tmp_path, configuration) as started:
            yield Rig(started, upstream)


async def answer(rig: Rig, *, stream: bool) -> Any:
    got = await rig.gateway.post(ask("m", tools=TOOLS, stream=stream, stream_options={"include_usage": True}))
    assert got.status == 200, got.body
    if not stream:
        return got.json()
    events = got.events()
    assert events[-1] == "[DONE]"
    reasons = [c["finish_reason"] for e in events[:-1] for c in e["choices"] if c["finish_reason"]]
    assert len(reasons) == 1
    return fold(events[:-1])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_paused_turn_is_continued(rig: Rig, stream: bool) -> None:
    part = streamed if stream else whole
    rig.upstream.script(
        "claude-sonnet-4-5", part(FIRST, "pause_turn", id_="msg_1"), part(SECOND, "tool_use", id_="msg_2")
    )
    got = await answer(rig, stream=stream)
    assert got["id"] == "chatcmpl-msg_1"
    [choice] = got["choices"]
    message = choice["message"]
    assert message["content"] == "Let me search. It is 42."
    assert choice["finish_reason"] == "tool_calls"
    [citation] = message["annotations"]
    assert (citation["url_citation"]["start_index"], citation["url_citation"]["end_index"]) == (14, 24)
    [call] = message["tool_calls"]
    assert (call["id"], json.loads(call["function"]["arguments"])) == ("toolu_1", {"x": 1})
    assert message["extra_content"] == {"anthropic": {"content": FIRST + SECOND}}
    edits = {"applied_edits": [{"id": "msg_1"}, {"id": "msg_2"}]}
    assert choice["extra_content"] == {"anthropic": {"context_management": edits}}
    assert (got["usage"]["prompt_tokens"], got["usage"]["completion_tokens"]) == (20, 10)
    first, second = rig.upstream.calls
    assert second.body == {
        **first.body,
        "messages": [*first.body["messages"], {"role": "assistant", "content": FIRST}],
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_is_paused_without_end(rig: Rig, stream: bool) -> None:
    part = streamed if stream else whole
    behaviours = [part([SEARCH], "pause_turn", id_=f"msg_{n}") for n in range(MAX_CONTINUATIONS + 1)]
    rig.upstream.script("claude-sonnet-4-5", *behaviours)
    got = await answer(rig, stream=stream)
    assert got["choices"][0]["finish_reason"] == "stop"
    assert got["usage"]["completion_tokens"] == 5 * (MAX_CONTINUATIONS + 1)
    assert len(rig.upstream.calls) == MAX_CONTINUATIONS + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_turn_goes_back_as_it_came(rig: Rig, stream: bool) -> None:
    part = streamed if stream else whole
    rig.upstream.script(
        "claude-sonnet-4-5",
        part([*FIRST, *SECOND], "tool_use", id_="msg_1"),
        whole(FIRST, "end_turn", id_="msg_2"),
    )
    message = (await answer(rig, stream=stream))["choices"][0]["message"]
    turns = [
        {"role": "user", "content": "hello"},
        message,
        {"role": "tool", "tool_call_id": "toolu_1", "content": "1"},
    ]
    got = await rig.gateway.post(ask("m", tools=TOOLS, messages=turns))
    assert got.status == 200, got.body
    assert rig.upstream.calls[1].body["messages"][1] == {"role": "assistant", "content": FIRST + SECOND}
