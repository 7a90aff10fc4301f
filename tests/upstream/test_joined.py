"""A whole stream as one completion, for models that answer in streams only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.errors import ProviderError, Reason, StreamTruncated
from server.upstream.joined import joined, merged_json
from server.vendors.registry import VENDORS
from tests.dialects.openai_help import DONE, chunk, delta, endpoint, sse
from tests.upstream.test_upstream import BYE, COMPLETION, HI, ROLE, STOP, USAGE, Provider, run

QWQ = endpoint(VENDORS["dashscope"].for_model("qwq-plus"), model="qwq-plus")

FIELDS = st.sampled_from(["content", "reasoning_content"])
PIECES = st.lists(st.tuples(st.integers(0, 2), FIELDS, st.text(max_size=3)))


def _delta(name: str, text: str) -> pb.Delta:
    return pb.Delta(content=text) if name == "content" else pb.Delta(reasoning_content=text)


@given(PIECES)
def test_texts_are_joined_by_choice(pieces: list[tuple[int, str, str]]) -> None:
    whole = joined(
        pb.ChatCompletionChunk(choices=[pb.ChunkChoice(index=index, delta=_delta(name, text))])
        for index, name, text in pieces
    )
    assert [choice.index for choice in whole.choices] == sorted({index for index, _, _ in pieces})
    for choice in whole.choices:
        own = [(name, text) for index, name, text in pieces if index == choice.index]
        message = choice.message
        assert "".join(part.text for part in message.content) == "".join(t for n, t in own if n == "content")
        assert message.reasoning_content == "".join(t for n, t in own if n == "reasoning_content")


def test_a_stream_of_all_kinds() -> None:
    def call(index: int, **fields: Any) -> pb.ToolCallDelta:
        return pb.ToolCallDelta(index=index, **fields)

    deltas = [
        pb.Delta(role=pb.ROLE_ASSISTANT, reasoning_content="Hm"),
        pb.Delta(reasoning_content="m.", extra_json='{"a":[1]}'),
        pb.Delta(content="A", extra_json='{"a":[2],"b":3}'),
        pb.Delta(tool_calls=[call(0, id="1", function=pb.FunctionCall(name="f", arguments="{"))]),
        pb.Delta(tool_calls=[call(0, function=pb.FunctionCall(arguments="}"))]),
        pb.Delta(tool_calls=[call(1, id="2", custom=pb.CustomToolCall(name="g", input="x"))]),
        pb.Delta(tool_calls=[call(1, custom=pb.CustomToolCall(input="y"))]),
        pb.Delta(audio=pb.Audio(id="s", data="AA==", transcript="a")),
        pb.Delta(audio=pb.Audio(data="AQ==", transcript="b")),
    ]
    stream = [
        pb.ChatCompletionChunk(id="i", created=1, model="m", choices=[pb.ChunkChoice(delta=d)]) for d in deltas
    ]
    stream.append(pb.ChatCompletionChunk(choices=[pb.ChunkChoice(finish_reason=pb.FINISH_REASON_TOOL_CALLS)]))
    stream.append(pb.ChatCompletionChunk(usage=pb.Usage(total_tokens=3)))
    whole = joined(stream)
    message = whole.choices[0].message
    assert (whole.id, whole.created, whole.model, whole.usage.total_tokens) == ("i", 1, "m", 3)
    assert (message.reasoning_content, message.content[0].text) == ("Hmm.", "A")
    assert message.extra_json == '{"a":[1,2],"b":3}'
    assert message.tool_calls[0].function == pb.FunctionCall(name="f", arguments="{}")
    assert message.tool_calls[1].custom == pb.CustomToolCall(name="g", input="xy")
    assert (message.audio.id, message.audio.data, message.audio.transcript) == ("s", "AAE=", "ab")
    assert whole.choices[0].finish_reason == pb.FINISH_REASON_TOOL_CALLS


def test_fields_that_every_chunk_repeats_come_once() -> None:
    fields = '{"citations":["https://a.example/"]}'
    end = pb.ChunkChoice(finish_reason=pb.FINISH_REASON_STOP, stop_sequence="END")
    whole = joined(
        pb.ChatCompletionChunk(choices=[choice], extra_json=fields)
        for choice in (pb.ChunkChoice(delta=pb.Delta(content="a")), end)
    )
    assert whole.extra_json == fields
    assert whole.choices[0].stop_sequence == "END"


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ("", '{"a":1}', '{"a":1}'),
        ('{"a":1}', "", '{"a":1}'),
        ('{"a":{"b":1}}', '{"a":{"c":2}}', '{"a":{"b":1,"c":2}}'),
    ],
)
def test_merged_json(first: str, second: str, merged: str) -> None:
    assert merged_json(first, second) == merged


def test_a_unary_call_of_a_model_that_only_streams() -> None:
    provider = Provider(ROLE, sse(chunk(delta(reasoning_content="Hm."))), HI, BYE, STOP, USAGE, DONE)
    completion, native = run(provider.complete(QWQ))
    assert completion.choices[0].message.content[0].text == "Hi bye"
    assert completion.choices[0].message.reasoning_content == "Hm."
    assert completion.usage.total_tokens == 2
    assert native == "stop"
    assert b'"stream":true' in provider.requests[0].content
    assert provider.requests[0].headers["accept"] == "text/event-stream"


def test_a_stream_that_breaks_off() -> None:
    with pytest.raises(StreamTruncated):
        run(Provider(ROLE, HI).complete(QWQ))


def test_an_error_in_the_stream() -> None:
    failing = Provider(ROLE, HI, sse({"error": {"code": "data_inspection_failed", "message": "No."}}))
    completion, _ = run(failing.complete(QWQ))
    assert completion.choices[0].finish_reason == pb.FINISH_REASON_CONTENT_FILTER
    with pytest.raises(ProviderError) as caught:
        run(Provider(sse({"error": {"code": "data_inspection_failed", "message": "No."}})).complete(QWQ))
    assert caught.value.reason is Reason.CONTENT_POLICY_VIOLATION


def test_json_instead_of_a_stream() -> None:
    completion, _ = run(Provider(COMPLETION, type="application/json").complete(QWQ))
    assert completion.choices[0].message.content[0].text == "Hi"
