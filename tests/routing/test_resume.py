"""Streams that break in the middle of their text and are continued by a fallback: the parts, and the router."""

from __future__ import annotations

from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.request import ProtoRequest, read
from server.config.model import Config, EndpointSettings, ModelSettings, ProviderSettings, Secret, Timeouts
from server.dialects.base import Endpoint
from server.errors import LmchatError, ProviderError, Reason
from server.routing import resume
from server.routing.catalog import Catalog
from tests.routing.router_rig import (
    DONE,
    FOR_EVER,
    RESET,
    ROLE,
    STOP,
    USAGE,
    Behaviour,
    Rig,
    attempts,
    chunk,
    drain,
    event,
    sends,
    silent,
    status,
)
from tests.routing.routing_help import request, run

SENT = "The quick brown fox"
HALF = [ROLE, chunk(content="The quick"), chunk(content=" brown fox")]
REST = [ROLE, chunk(content=" jumps."), STOP, USAGE, DONE]
RESUME = {"resume_streams": True}
OVERLOADED = event({"error": {"message": "overloaded", "code": 529}})


def resumable(routing: dict[str, Any] | None = None, **fields: Any) -> pb.ChatCompletionRequest:
    return request({**RESUME, **(routing or {})}, **fields)


def endpoint(vendor: str = "openai", model: str = "up", dialect: str = "") -> Endpoint:
    """The endpoint of a catalogue that has no other."""
    provider = ProviderSettings(
        key="a", type=vendor, api_key=Secret("k"), base_url="https://a.test", region="r", project="p", location="l"
    )
    settings = EndpointSettings(name="a", provider="a", model=model, dialect=dialect)
    config = Config(providers={"a": provider}, models={"m": ModelSettings(id="m", endpoints=(settings,))})
    return Catalog(config, {}).resolve("m").endpoints[0]


def text(chunks: list[pb.ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content for chunk in chunks for choice in chunk.choices)


DEATHS = [
    pytest.param([RESET], "stream_truncated", id="reset"),
    pytest.param([], "stream_truncated", id="ends as if complete"),
    pytest.param([FOR_EVER], "timeout", id="idle"),
    pytest.param([event(b"{")], "upstream_invalid_response", id="malformed"),
    pytest.param([OVERLOADED], "overloaded", id="an error in the stream"),
]


@pytest.mark.parametrize(("death", "reason"), DEATHS)
def test_a_fallback_continues_the_stream(death: list[Any], reason: str) -> None:
    async def main() -> None:
        # A pause between the text and the error, since both in one read would be another case.
        rig = Rig({"a": [sends(*HALF, 0.1, *death)], "b": [sends(*REST)]}, timeouts=Timeouts(idle=5.0))
        chunks = await rig.stream(resumable())
        assert text(chunks) == "The quick brown fox jumps."
        assert len({chunk.id for chunk in chunks}) == 1
        roles = [choice.delta.role for chunk in chunks for choice in chunk.choices if choice.delta.role]
        assert roles == [pb.ROLE_ASSISTANT]
        finishes = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
        assert finishes == [pb.FINISH_REASON_STOP]
        report = chunks[-1].lmchat
        assert (report.resumed, report.provider, report.tries) == (True, "b", 2)
        assert attempts(report) == [("a", 200, reason), ("b", 200, "ok")]
        assert rig.names() == "ab"
        turns = rig.calls[1][2]["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert (turns[1]["content"], turns[2]["content"]) == (SENT, resume.INSTRUCTION)
        rig.check_closed()

    run(main())


def test_usage_is_that_of_the_last_call() -> None:
    async def main() -> None:
        rig = Rig({"a": [sends(*HALF, RESET)], "b": [sends(*REST)]})
        chunks = await rig.stream(resumable(stream_options=pb.StreamOptions(include_usage=True)))
        assert [chunk.usage.completion_tokens for chunk in chunks if chunk.HasField("usage")] == [40]

    run(main())


def test_throughput_counts_only_the_fallbacks_tokens() -> None:
    async def main() -> None:
        slow = sends(ROLE, chunk(content=" jumps"), chunk(content=" over"), 2.0, chunk(content=" it."), STOP, DONE)
        rig = Rig({"a": [sends(*HALF, RESET)], "b": [slow]})
        await rig.stream(resumable())
        assert rig.health.throughput("b/b/up") == pytest.approx(1.5)

    run(main())


def test_a_resumed_stream_can_break_again() -> None:
    async def main() -> None:
        more: list[Any] = [ROLE, chunk(content=" jumps"), RESET]
        last = [ROLE, chunk(content=" over."), STOP, DONE]
        rig = Rig({"a": [sends(*HALF, RESET)], "b": [sends(*more)], "c": [sends(*last)]})
        chunks = await rig.stream(resumable())
        assert text(chunks) == "The quick brown fox jumps over."
        assert attempts(chunks[-1].lmchat) == [
            ("a", 200, "stream_truncated"),
            ("b", 200, "stream_truncated"),
            ("c", 200, "ok"),
        ]

    run(main())


CALL = chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}])


def never(
    first: list[Any], second: Behaviour, called: str = "a", *, routing: Any = None, id: str, **fields: Any
) -> Any:
    return pytest.param(sends(*first), second, called, {**RESUME, **(routing or {})}, fields, id=id)


NEVER = [
    never([*HALF, RESET], sends(*REST), routing={"resume_streams": False}, id="resume_streams off"),
    never([*HALF, CALL, RESET], sends(*REST), id="tool calls"),
    never([ROLE, chunk(reasoning_content="hm"), RESET], sends(*REST), id="reasoning"),
    never([ROLE, chunk(content="  "), RESET], sends(*REST), id="white space only"),
    never([*HALF, RESET], sends(*REST), n=2, id="two choices"),
    never([*HALF, RESET], sends(*REST), routing={"max_provider_tries": 1}, id="no try left"),
    never([*HALF, RESET], sends(*REST), routing={"allow_fallbacks": False}, id="no fallbacks"),
    never([*HALF, RESET], status(400), "ab", id="the fallback refuses"),
    never([*HALF, RESET], status(503), "abb", id="the fallback is down"),
    never([*HALF, RESET], silent, "ab", id="the fallback is silent"),
    never([*HALF, RESET], status(401), "ab", id="no credentials for the fallback"),
]


@pytest.mark.parametrize(("first", "second", "called", "routing", "fields"), NEVER)
def test_the_caller_gets_the_error(
    first: Behaviour, second: Behaviour, called: str, routing: Any, fields: Any
) -> None:
    async def main() -> None:
        rig = Rig({"a": [first], "b": [second]})
        chunks: list[pb.ChatCompletionChunk] = []
        with pytest.raises(ProviderError) as raised:
            await drain(await rig.open(request(routing, **fields), None), chunks)
        assert raised.value.reason is Reason.STREAM_TRUNCATED
        assert rig.names() == called
        assert "".join(attempt.provider for attempt in raised.value.attempts) == called
        assert raised.value.attempts[0].reason == "stream_truncated"
        assert not any(chunk.HasField("lmchat") for chunk in chunks)
        rig.check_closed()

    run(main())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"lmchat": {}}, False),
        ({"n": 2}, False),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": {"type": "json_object"}}, False),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, False),
        ({"modalities": ["text", "audio"]}, False),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, False),
    ],
)
def test_may_resume(fields: dict[str, Any], expected: bool) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "lmchat": {"routing": RESUME}, **fields}
    assert resume.may_resume(read(openai_json.encode_text(body).encode())) is expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (endpoint("anthropic", "claude-sonnet-4-5-20250929"), True),
        (endpoint("anthropic", "claude-3-haiku-20240307"), True),
        (endpoint("anthropic", "claude-opus-4-6"), False),
        (endpoint("anthropic", "claude-next"), False),
        (endpoint("anthropic", "deepseek-chat"), False),
        (endpoint("vertex", "claude-haiku-4-5@20251001", dialect="anthropic"), True),
        (endpoint("vllm"), True),
        (endpoint("llamacpp"), True),
        (endpoint("local"), True),
        (endpoint("openai"), False),
        (endpoint("deepseek"), False),
        (endpoint("mistral"), False),
        (endpoint("gemini"), False),
    ],
)
def test_prefills(where: Endpoint, expected: bool) -> None:
    assert where.prefills is expected


def test_a_prefill_comes_last() -> None:
    request = ProtoRequest(resumable(extra_body_json='{"top_k":3}'))
    sent = resume.continuation(request, endpoint("vllm"), "Hello \n", 1).to_proto()
    assert [(m.role, m.content[0].text) for m in sent.messages][1:] == [(pb.ROLE_ASSISTANT, "Hello")]
    assert openai_json.decode_json(sent.extra_body_json) == {
        "top_k": 3,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_prefill_fields_override_the_callers() -> None:
    mine = '{"chat_template_kwargs":{"enable_thinking":true,"x":1}}'
    request = ProtoRequest(resumable(extra_body_json=mine))
    sent = resume.continuation(request, endpoint("llamacpp"), "Hello", 1).to_proto()
    assert openai_json.decode_json(sent.extra_body_json) == {
        "chat_template_kwargs": {"enable_thinking": False, "x": 1}
    }


@pytest.mark.parametrize(("limit", "spent", "left"), [(100, 40, 60), (10, 10, 1), (10, 40, 1)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_token_limits_are_reduced(name: str, limit: int, spent: int, left: int) -> None:
    limits: dict[str, Any] = {name: limit}
    original = resumable(**limits)
    sent = resume.continuation(ProtoRequest(original), endpoint(), SENT, spent).to_proto()
    assert getattr(sent, name) == left
    assert (getattr(original, name), len(original.messages)) == (limit, 1)


def delta(text: str = "", finish: bool = False, **more: Any) -> pb.ChatCompletionChunk:
    choice = pb.ChunkChoice(delta=pb.Delta(content=text, **more))
    if finish:
        choice.finish_reason = pb.FINISH_REASON_STOP
    return pb.ChatCompletionChunk(choices=[choice])


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        pytest.param(SENT, [" jumps"], " jumps", id="a plain continuation"),
        pytest.param(SENT + " ", [" jumps"], "jumps", id="the space was already sent"),
        pytest.param(SENT + " ", ["jumps"], "jumps", id="without the space"),
        pytest.param(SENT + "\n\n", ["\n", "\nNext"], "Next", id="white space in pieces"),
        pytest.param(SENT + "\n", [" x"], " x", id="other white space"),
        pytest.param(SENT, [SENT + " jumps"], " jumps", id="the whole text repeated"),
        pytest.param(SENT, ["The", " quick brown", " fox", " jumps"], " jumps", id="repeated in pieces"),
        pytest.param(SENT + " ", ["The quick brown fox", " jumps"], "jumps", id="repeated, space already sent"),
        pytest.param(SENT, ["The", " end"], "The end", id="only the beginning is the same"),
        pytest.param(SENT, ["The", None], "The", id="ends within a possible repetition"),
        pytest.param("ha", ["ha", " ha"], "ha ha", id="too short to detect a repetition"),
    ],
)
def test_splices(before: str, after: list[str | None], new: str) -> None:
    splice = resume.Splice()
    splice.feed([delta(before, role=pb.ROLE_ASSISTANT)])
    splice.resume()
    chunks = [delta(role=pb.ROLE_ASSISTANT)]
    chunks += [delta(finish=True) if text is None else delta(text) for text in after]
    out = splice.feed(chunks)
    assert "".join(chunk.choices[0].delta.content for chunk in out) == new
    assert not any(chunk.choices[0].delta.role for chunk in out)
    assert splice.text == before + new


def test_splicing_takes_linear_time() -> None:
    """Of a megabyte of white space, or of repeated text in small pieces, each step copied all of it."""
    spaces = " " * 1_000_000
    splice = resume.Splice()
    splice.feed([delta(SENT)])
    splice.feed([delta(spaces[:10])] * 100_000)
    splice.resume()
    [chunk] = splice.feed([delta(spaces[:-1]), delta("  x")])
    assert chunk.choices[0].delta.content == " x"
    splice.resume()
    text = SENT + spaces + " x"
    pieces = [text[start : start + 10] for start in range(0, len(text), 10)]
    assert splice.feed([delta(piece) for piece in pieces]) == []
    assert splice.text == text


def test_usage_of_both_is_added() -> None:
    def used(tokens: int) -> pb.ChatCompletionChunk:
        return pb.ChatCompletionChunk(usage=pb.Usage(prompt_tokens=10, completion_tokens=tokens))

    splice = resume.Splice()
    splice.feed([delta(SENT), used(4)])
    splice.resume()
    [chunk] = splice.feed([used(6)])
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (20, 10)
    splice.resume()
    [chunk] = splice.feed([used(1)])
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (30, 11)


def test_no_reasoning_once_there_is_text() -> None:
    splice = resume.Splice()
    splice.feed([delta(SENT)])
    splice.resume()
    assert splice.feed([delta(reasoning_content="hm")]) == []


def test_a_deadline_that_passed_leaves_the_original_error() -> None:
    async def main() -> None:
        rig = Rig({"a": [sends(*HALF, 5.0, RESET)], "b": [silent]})
        with pytest.raises(LmchatError) as raised:
            await rig.stream(resumable(), timeout=8.0)
        assert raised.value.reason is Reason.STREAM_TRUNCATED
        assert rig.now() == pytest.approx(8.0, abs=0.1)

    run(main())
