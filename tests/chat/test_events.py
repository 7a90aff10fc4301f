"""Chunks as events: the optimised encoding equals the general one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import EventWriter, dump_chunk, rewrite_legacy
from tests.chat.strategies import CHUNKS


def text_chunk(text: str, **more: Any) -> pb.ChatCompletionChunk:
    chunk = pb.ChatCompletionChunk(id="chatcmpl-1", created=7, model="m", **more)
    chunk.choices.add().delta.content = text
    return chunk


@given(st.lists(CHUNKS | st.builds(text_chunk, st.text(max_size=8)), max_size=12), st.booleans(), st.booleans())
def test_templated_events_equal_encoded_events(
    stream: list[pb.ChatCompletionChunk], include_usage: bool, legacy: bool
) -> None:
    written = EventWriter(include_usage=include_usage, legacy=legacy).events(stream)
    expected = []
    for chunk in stream:
        obj = dump_chunk(chunk, include_usage=include_usage)
        expected.append(rewrite_legacy(obj) if legacy else obj)
    events = written.decode().split("\n\n")
    assert events.pop() == ""
    assert [json.loads(event.removeprefix("data: ")) for event in events] == expected


def test_text_that_json_writes_otherwise() -> None:
    texts = ["a", 'say "hi"', "back\\slash", "\x00text\x00", "line\n", "é", "\u2028", "a"]
    written = EventWriter(include_usage=False, legacy=False).events([text_chunk(text) for text in texts])
    events = [json.loads(event.removeprefix("data: ")) for event in written.decode().split("\n\n")[:-1]]
    assert [event["choices"][0]["delta"]["content"] for event in events] == texts


def test_a_stream_without_similar_chunks() -> None:
    stream = [text_chunk("a", system_fingerprint=str(number)) for number in range(20)]
    written = EventWriter(include_usage=False, legacy=False).events(stream)
    events = [json.loads(event.removeprefix("data: ")) for event in written.decode().split("\n\n")[:-1]]
    assert [event["system_fingerprint"] for event in events] == [str(number) for number in range(20)]
