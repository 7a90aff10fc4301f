"""The states of choices and streams, and the bounds on what a provider may send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.dialects import choices as choices_module
from server.dialects import decoding
from server.dialects.anthropic.stream import AnthropicDecoder
from server.dialects.bedrock.stream import BedrockDecoder
from server.dialects.choices import ChoiceState, ChunkBuilder
from server.dialects.gemini.stream import GeminiDecoder
from server.dialects.openai.stream import OpenAIDecoder
from server.errors import ProviderError, Reason, StreamTruncated
from tests.dialects.openai_help import DONE, chunk, delta, sse
from tests.support import streams

STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH
S = ChoiceState

#: Pieces of a choice: `r` its role, `c` content, `s` and `l` the reasons stop and length, `C` content with stop.
#: The state after them, whether the stream may end without an end mark, and whether a break is ignored.
STATES: list[tuple[str, ChoiceState, bool, bool]] = [
    ("r", S.WAITING, False, False),
    ("rc", S.STREAMING, False, False),
    ("rcc", S.STREAMING, False, False),
    ("rcs", S.FINISHED, True, True),
    ("rcss", S.FINISHED, True, True),
    ("rcsr", S.FINISHED, True, True),  # an empty piece is no content
    ("rcsl", S.FINISHED, True, True),
    ("C", S.FINISHED, True, True),
    ("rs", S.DOUBTFUL, True, False),
    ("s", S.DOUBTFUL, True, False),
    ("rsc", S.REOPENED, False, False),
    ("rcsc", S.REOPENED, False, False),
    ("rcscc", S.REOPENED, False, False),
    ("rscs", S.DOUBTFUL, True, False),
    ("rcscl", S.DOUBTFUL, True, False),
    ("CC", S.DOUBTFUL, True, False),
    ("CCs", S.DOUBTFUL, True, False),
    ("CCc", S.REOPENED, False, False),
]


def build(pieces: str) -> tuple[ChunkBuilder, list[pb.ChatCompletionChunk]]:
    builder = ChunkBuilder()
    chunks: list[pb.ChatCompletionChunk] = []
    for piece in pieces:
        chunk = pb.ChatCompletionChunk()
        choice = chunk.choices.add(delta=pb.Delta(content="x" if piece in "cC" else ""))
        if piece in "slC":
            choice.finish_reason = LENGTH if piece == "l" else STOP
        builder.add(chunk, chunks)
    return builder, chunks


@pytest.mark.parametrize(("pieces", "state", "may_end", "finished"), STATES)
def test_states(pieces: str, state: ChoiceState, may_end: bool, finished: bool) -> None:
    builder, chunks = build(pieces)
    assert builder._choices[0].state is state
    assert builder.finished is finished
    assert not any(choice.finish_reason for each in chunks for choice in each.choices)
    if may_end:
        builder.end(chunks, marked=False)
        reasons = [choice.finish_reason for each in chunks for choice in each.choices if choice.finish_reason]
        last = [LENGTH if piece == "l" else STOP for piece in pieces if piece in "slC"][-1]
        assert reasons == [last]
        assert chunks[-1].choices[0].finish_reason
    else:
        with pytest.raises(StreamTruncated):
            builder.end(chunks, marked=False)


@given(st.text("rcslC", min_size=1, max_size=12))
def test_content_goes_out_at_once_and_the_last_reason_last(pieces: str) -> None:
    builder, chunks = build(pieces)
    assert sum(len(each.choices[0].delta.content) for each in chunks) == sum(piece in "cC" for piece in pieces)
    builder.end(chunks, marked=True)
    roles = [each.choices[0].delta.role for each in chunks]
    assert roles == [pb.ROLE_ASSISTANT, *[pb.ROLE_UNSPECIFIED] * (len(chunks) - 1)]
    assert [bool(each.choices[0].finish_reason) for each in chunks] == [False] * (len(chunks) - 1) + [True]
    reasons = [LENGTH if piece == "l" else STOP for piece in pieces if piece in "slC"]
    assert chunks[-1].choices[0].finish_reason == (reasons[-1] if reasons else STOP)


def test_fields_beside_a_reason_are_kept() -> None:
    builder, chunks = ChunkBuilder(), []  # type: tuple[ChunkBuilder, list[pb.ChatCompletionChunk]]
    for extra, fingerprint in (('{"a":1}', "f"), ('{"b":2}', "")):
        chunk = pb.ChatCompletionChunk(extra_json=extra, system_fingerprint=fingerprint or None)
        chunk.choices.add(finish_reason=STOP, extra_json=extra)
        builder.add(chunk, chunks)
    builder.end(chunks, marked=False)
    assert [each.extra_json for each in chunks] == ['{"a":1,"b":2}']
    assert chunks[0].choices[0].extra_json == '{"a":1,"b":2}'
    assert chunks[0].system_fingerprint == "f"


def failed(decoder: Any, pieces: Sequence[bytes]) -> ProviderError:
    def decode() -> None:
        for piece in pieces:
            decoder.feed(piece)
        decoder.close()

    with pytest.raises(ProviderError) as caught:
        decode()
    with pytest.raises(ProviderError) as again:  # also on later calls
        decoder.feed(b"data: {}\n\n")
    assert again.value is caught.value or again.value.reason is caught.value.reason
    return caught.value


HI = sse(chunk(delta(content="Hi")))
#: Streams of the OpenAI dialect that break after a finish reason that was premature or is unreadable.
EARLY: list[tuple[str, list[bytes], Reason]] = [
    ("an error after content that follows a reason",
     [sse(chunk(delta("stop", content=""))), HI, sse({"error": {"code": 503}})], Reason.OVERLOADED),
    ("the end of the bytes after it", [sse(chunk(delta("stop", content=""))), HI], Reason.STREAM_TRUNCATED),
    ("a torn event after it", [HI, sse(chunk(delta("stop"))), HI, b"data: {"], Reason.STREAM_TRUNCATED),
    ("an error after a reason before any content",
     [sse(chunk(delta("stop", content=""))), sse({"error": {"code": 503}})], Reason.OVERLOADED),
    ("an error after a reason with every piece",
     [sse(chunk(delta("stop", content="a"))) * 2, sse({"error": {"code": 503}})],
     Reason.OVERLOADED),
    ("a reason in an event that cannot be read",
     [HI, sse(chunk(delta("stop", content=5)))], Reason.UPSTREAM_INVALID_RESPONSE),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "reason"), [row[1:] for row in EARLY], ids=[row[0] for row in EARLY])
def test_an_early_reason_is_no_end(pieces: list[bytes], reason: Reason) -> None:
    assert failed(OpenAIDecoder(1), pieces).reason is reason


def test_an_early_reason_and_done() -> None:
    decoder = OpenAIDecoder(1)
    stream = sse(chunk(delta("stop", content="")), chunk(delta(content="Hi")), DONE)
    assert [each.choices[0].finish_reason for each in decoder.feed(stream)] == [0, STOP]


# Bounds


def test_endless_choices() -> None:
    pieces = [sse(chunk(delta(index=index, content="x"))) for index in range(choices_module.MAX_CHOICES + 1)]
    assert failed(OpenAIDecoder(2), pieces).reason is Reason.UPSTREAM_INVALID_RESPONSE
    candidates = [
        {"index": i, "content": {"parts": [{"text": "x"}]}} for i in range(choices_module.MAX_CHOICES + 1)
    ]
    assert failed(GeminiDecoder(), [sse({"candidates": candidates})]).reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_endless_calls() -> None:
    most = choices_module.MAX_TOOL_CALLS + 1
    openai = [{"index": i, "id": f"c{i}", "function": {"name": "f", "arguments": ""}} for i in range(most)]
    gemini = [{"functionCall": {"name": "f", "args": {}}}] * most
    anthropic = [sse({"type": "message_start", "message": {"id": "m", "usage": {}}})] + [
        sse(
            {
                "type": "content_block_start",
                "index": i,
                "content_block": {"type": "tool_use", "id": "c", "name": "f"},
            }
        )
        for i in range(most)
    ]
    bedrock = [
        streams.frame_of_event(
            "contentBlockStart",
            {"contentBlockIndex": i, "start": {"toolUse": {"toolUseId": "c", "name": "f"}}},
        )
        for i in range(most)
    ]
    for decoder, pieces in (
        (OpenAIDecoder(1), [sse(chunk(delta(tool_calls=openai)))]),
        (GeminiDecoder(), [sse({"candidates": [{"content": {"parts": gemini}}]})]),
        (AnthropicDecoder(), anthropic),
        (BedrockDecoder({}), bedrock),
    ):
        assert failed(decoder, pieces).reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_endless_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_EVENT_BYTES", 1000)
    for decoder in (OpenAIDecoder(1), GeminiDecoder(), AnthropicDecoder()):
        assert failed(decoder, [b"data: x\n"] + [b"data: " + b"x" * 90] * 12).reason is (
            Reason.UPSTREAM_INVALID_RESPONSE
        )
    whole = OpenAIDecoder(1)
    for _ in range(100):
        whole.feed(HI)  # events end the count
    frame = streams.frame_of_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x" * 2000}})
    pieces = [frame[i : i + 90] for i in range(0, len(frame), 90)]
    assert failed(BedrockDecoder({}), pieces).reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_endless_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "MAX_HELD", 10_000)
    monkeypatch.setattr("server.dialects.gemini.candidate.MAX_HELD", 10_000)
    text = "x" * 500
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": text}}
    thought = {"candidates": [{"content": {"parts": [{"text": text, "thought": True}]}}]}
    reasoning = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": text}}}
    for decoder, pieces in (
        (AnthropicDecoder(), [sse(block), *[sse(piece)] * 30]),
        (GeminiDecoder(), [sse(thought)] * 30),
        (BedrockDecoder({}), [streams.frame_of_event("contentBlockDelta", reasoning)] * 30),
    ):
        assert failed(decoder, pieces).reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_endless_fields_after_a_reason() -> None:
    """They are merged into the held last chunk up to a limit."""
    decoder = OpenAIDecoder(1)
    decoder.feed(HI + sse(chunk(delta("stop"))))
    for n in range(100):
        decoder.feed(sse(chunk(delta()) | {f"x{n}": "x" * 1000}))
    [last] = decoder.close()
    assert 50_000 < len(last.extra_json) <= choices_module.MAX_HELD_FIELDS


def test_nothing_is_decoded_after_the_end() -> None:
    decoder = OpenAIDecoder(1)
    assert decoder.feed(HI + sse(chunk(delta("stop"))) + DONE)
    assert decoder.finished
    assert decoder.feed(HI + b"data: oops\n\n") == []
    assert decoder.close() == []
