"""Answers for callers of `functions`: the old form of completions and chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import dump_chunk, dump_completion, parse, rewrite_legacy

CALL = pb.FunctionCall(name="f", arguments='{"x":1}')
OLD = {"name": "f", "arguments": '{"x":1}'}


def completion(**message: Any) -> pb.ChatCompletion:
    message = {"role": pb.ROLE_ASSISTANT, **message}
    finish = pb.FINISH_REASON_TOOL_CALLS if "tool_calls" in message else pb.FINISH_REASON_STOP
    return pb.ChatCompletion(choices=[pb.Choice(message=pb.Message(**message), finish_reason=finish)])


def old(answer: pb.ChatCompletion) -> dict[str, Any]:
    choice: dict[str, Any] = rewrite_legacy(dump_completion(answer))["choices"][0]
    return choice


def test_a_tool_call_is_a_function_call() -> None:
    choice = old(completion(tool_calls=[pb.ToolCall(id="call_1", function=CALL)]))
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == OLD
    assert choice["message"]["content"] is None
    assert "tool_calls" not in choice["message"]


def test_the_first_of_several_calls_is_returned() -> None:
    second = pb.ToolCall(id="call_2", function=pb.FunctionCall(name="g", arguments="{}"))
    choice = old(completion(tool_calls=[pb.ToolCall(id="call_1", function=CALL), second]))
    assert choice["message"]["function_call"] == OLD


def test_custom_calls_are_not_converted() -> None:
    choice = old(completion(tool_calls=[pb.ToolCall(id="1", custom=pb.CustomToolCall(name="c", input="in"))]))
    assert "function_call" not in choice["message"]
    assert "tool_calls" not in choice["message"]


def test_a_text_completion_is_unchanged() -> None:
    answer = completion(content=[pb.ContentPart(text="Hi")])
    assert rewrite_legacy(dump_completion(answer)) == dump_completion(answer)


DELTAS = [
    (pb.Delta(role=pb.ROLE_ASSISTANT), 0, {"role": "assistant"}, None),
    (
        pb.Delta(tool_calls=[pb.ToolCallDelta(index=0, id="call_1", function=pb.FunctionCall(name="f"))]),
        0,
        {"function_call": {"name": "f", "arguments": ""}},
        None,
    ),
    (
        pb.Delta(tool_calls=[pb.ToolCallDelta(index=0, function=pb.FunctionCall(arguments='{"x":'))]),
        0,
        {"function_call": {"arguments": '{"x":'}},
        None,
    ),
    (pb.Delta(tool_calls=[pb.ToolCallDelta(index=1, function=pb.FunctionCall(name="g"))]), 0, {}, None),
    (pb.Delta(), pb.FINISH_REASON_TOOL_CALLS, {}, "function_call"),
    (pb.Delta(content="Hi"), pb.FINISH_REASON_STOP, {"content": "Hi"}, "stop"),
]


@pytest.mark.parametrize(("delta", "finish", "expected", "word"), DELTAS)
def test_chunks(
    delta: pb.Delta, finish: pb.FinishReason.ValueType, expected: dict[str, Any], word: str | None
) -> None:
    chunk = pb.ChatCompletionChunk(choices=[pb.ChunkChoice(delta=delta, finish_reason=finish)])
    [choice] = rewrite_legacy(dump_chunk(chunk, include_usage=False))["choices"]
    assert choice["delta"] == expected
    assert choice["finish_reason"] == word


def test_a_chunk_of_usage_stays() -> None:
    chunk = pb.ChatCompletionChunk(usage=pb.Usage(total_tokens=1))
    assert rewrite_legacy(dump_chunk(chunk, include_usage=True)) == dump_chunk(chunk, include_usage=True)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        pytest.param(
            dump_chunk(
                pb.ChatCompletionChunk(
                    choices=[pb.ChunkChoice(delta=DELTAS[1][0], extra_json='{"message":{"content":""}}')]
                ),
                include_usage=False,
            ),
            "delta",
            id="a message beside the delta",
        ),
        pytest.param(
            dump_completion(
                pb.ChatCompletion(
                    choices=[
                        pb.Choice(
                            message=pb.Message(
                                tool_calls=[pb.ToolCall(id="1", function=pb.FunctionCall(name="f"))]
                            ),
                            extra_json='{"delta":{"content":""}}',
                        )
                    ]
                )
            ),
            "message",
            id="a delta beside the message",
        ),
    ],
)
def test_perplexity_has_both_a_message_and_a_delta(answer: dict[str, Any], key: str) -> None:
    [choice] = rewrite_legacy(answer)["choices"]
    assert choice[key]["function_call"] == {"name": "f", "arguments": ""}


def test_an_old_answer_can_be_sent_back() -> None:
    message = old(completion(tool_calls=[pb.ToolCall(id="call_1", function=CALL)]))["message"]
    history = [{"role": "user", "content": "Hi"}, message, {"role": "function", "name": "f", "content": "1"}]
    request = parse(json.dumps({"model": "m", "messages": history}).encode()).request
    [call] = request.messages[1].tool_calls
    assert call.function == CALL
    assert request.messages[2].tool_call_id == call.id
