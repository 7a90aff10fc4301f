"""Templates of text events decode them as the decoder itself does."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.dialects.openai import stream as openai_stream
from server.dialects.openai.stream import OpenAIDecoder
from server.dialects.openai.text_template import TextTemplate
from server.errors import ProviderError
from tests.dialects.openai_help import chunk, delta

TEXTS = st.text(max_size=6) | st.sampled_from(
    ["", "text", " the", 'say "hi"', "a\\b", "line\n", "é", "\u2028", "\x7f", "0"]
)


@st.composite
def events(draw: st.DrawFn) -> list[bytes]:
    """A stream whose events mostly have the same form, with other events and errors in between."""
    envelope: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "system_fingerprint": st.just("fp") | st.none(),
                "usage": st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
                "provider": st.just("text"),
                "service_tier": st.just("default"),
            },
        )
    )
    field = draw(st.sampled_from(["content", "reasoning_content", "reasoning"]))
    beside: dict[str, Any] = draw(
        st.sampled_from([{}, {"role": "assistant"}, {"content": None}, {"note": "text"}, {"refusal": None}])
    )
    spaced = draw(st.booleans())
    ascii_only = draw(st.booleans())

    def event(*choices: Any, **more: Any) -> bytes:
        body = chunk(*choices, **{**envelope, **more})
        separators = None if spaced else (",", ":")
        return f"data: {json.dumps(body, separators=separators, ensure_ascii=ascii_only)}\n\n".encode()

    kinds = ["text"] * 8 + ["finish", "usage", "other", "both", "tool", "padding", "second", "named", "broken"]
    found = [event(delta(role="assistant", content=""))]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=14)):
        text = draw(TEXTS)
        match kind:
            case "text":
                found.append(event(delta(**{**beside, field: text})))
            case "finish":
                found.append(event(delta(draw(st.sampled_from(["stop", "length"])), content=text)))
            case "usage":
                found.append(event(usage={"prompt_tokens": 3, "completion_tokens": len(found), "total_tokens": 9}))
            case "other":
                found.append(event(prompt_filter_results=[text]))
            case "both":
                found.append(event(delta(content=text, reasoning_content=text)))
            case "tool":
                call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": text}}
                found.append(event(delta(content=text, tool_calls=[call])))
            case "padding":
                found.append(event(delta(content=text), obfuscation=text))
            case "second":
                found.append(event(delta(index=1, content=text)))
            case "named":
                found.append(b"event: message\n" + event(delta(content=text)))
            case "broken":
                found.append(event(delta(content=text)).replace(b'"index"', b'"index'))
    return found


def decoded(data: bytes, splits: list[int], max_templates: int) -> tuple[list[pb.ChatCompletionChunk], str]:
    """The chunks of `data` split at `splits`, and the error."""
    out: list[pb.ChatCompletionChunk] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_stream, "_MAX_TEMPLATES", max_templates)
        decoder = OpenAIDecoder(1)
        try:
            places = [0, *sorted(splits), len(data)]
            for start, end in pairwise(places):
                out += decoder.feed(data[start:end])
            out += decoder.close()
        except ProviderError as error:
            return out + error.decoded, repr(error)
    return out, decoder.native_finish_reason


@given(st.data())
def test_templates_change_nothing(data: st.DataObject) -> None:
    stream = b"".join(data.draw(events())) + b"data: [DONE]\n\n"
    splits = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))
    assert decoded(stream, splits, 4) == decoded(stream, splits, 0)


def text_event(text: str, finish: str | None = None) -> bytes:
    return f"data: {json.dumps(chunk(delta(finish, content=text)))}\n\n".encode()


USAGE = f"data: {json.dumps(chunk(prompt_filter_results=['x']))}\n\n".encode()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param([text_event("d", "stop"), text_event("")], id="an empty text after the end"),
        pytest.param([text_event("d", "stop"), text_event("e")], id="a text after the end"),
        pytest.param([b"event: error\n" + text_event("d")], id="the same as an error"),
        pytest.param([USAGE, text_event("d"), text_event("e", "stop")], id="a field kept for the next chunk"),
        pytest.param([text_event("d")], id="no end"),
    ],
)
def test_events_after_texts(end: list[bytes]) -> None:
    stream = b"".join([text_event("a"), text_event("b"), text_event("c"), *end])
    assert decoded(stream, [], 4) == decoded(stream, [], 0)


def plain(data: bytes) -> pb.ChatCompletionChunk:
    return OpenAIDecoder(1)._parse_text(data)


EVENT = b'{"id":"1","choices":[{"index":0,"delta":{"content":" cat"},"finish_reason":null}],"x":" cat"}'


def test_matching_events() -> None:
    template = TextTemplate.learn(EVENT, plain(EVENT), plain)
    assert template is not None
    for text in (b" dog", b"", "Grüße".encode(), b" cat"):
        event = EVENT.replace(b'content":" cat', b'content":"' + text)
        assert template.chunk(event) == plain(event)


@pytest.mark.parametrize(
    "event",
    [
        EVENT.replace(b'content":" cat', b'content":" \\"cat'),
        EVENT.replace(b'content":" cat', b'content":" cat","refusal":"no'),
        EVENT.replace(b'content":" cat', b'content":" c\x01t'),
        EVENT.replace(b'content":" cat', b'content":" c\xfft'),
        EVENT.replace(b'"id":"1"', b'"id":"2"'),
        EVENT.replace(b'"x":" cat"', b'"x":" dog"'),
        EVENT[:-40],
        b"",
    ],
)
def test_events_that_do_not_match(event: bytes) -> None:
    template = TextTemplate.learn(EVENT, plain(EVENT), plain)
    assert template is not None
    assert template.chunk(event) is None


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"delta":{"content":"a\\nb"}}]}',
        b'{"choices":[{"delta":{"content":""}}]}',
        b'{"choices":[{"delta":{"refusal":"no"}}]}',
        b'{"choices":[{"delta":{"content":"a"}}],"usage":{"content":"a"}}',
        b'{"choices":[{"delta":{"content":"b","content":"a"}}],"content":"a"}',
        b'{"choices":[{"delta":{"reasoning":"a"}}]}',
        b'{"choices":[{"delta":{"content":"\\u0061"}}],"more":{"content":"a"}}',
        b'{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}',
    ],
)
def test_events_without_a_template(event: bytes) -> None:
    assert TextTemplate.learn(event, plain(event), plain) is None
