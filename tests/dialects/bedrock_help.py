"""Helpers of the tests of the Bedrock dialect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.config.model import ProviderSettings, Timeouts
from server.dialects.base import Endpoint
from server.dialects.bedrock.dialect import BedrockTranslator
from server.vendors.registry import PLAIN
from tests.support.typed import TypedTranslator

SHARED = Path(__file__).parents[3] / "shared"
TRANSLATOR = TypedTranslator(BedrockTranslator())
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
OPUS_5 = "global.anthropic.claude-opus-5-20260401-v1:0"


def endpoint(model: str = HAIKU, base_url: str = "", **settings: Any) -> Endpoint:
    return Endpoint(
        name="x",
        model=model,
        public_model="public",
        vendor=PLAIN["bedrock"],
        provider=ProviderSettings(key="k", type="bedrock", region="eu-west-1"),
        dialect="bedrock",
        base_url=base_url,
        timeouts=Timeouts(),
        **settings,
    )


def body(request: pb.ChatCompletionRequest, model: str = HAIKU, **settings: Any) -> Any:
    """The JSON that is sent."""
    return json.loads(TRANSLATOR.request(request, endpoint(model, **settings), stream=False).body)


# Streams


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def stream(
    pieces: Sequence[bytes], request: pb.ChatCompletionRequest | None = None
) -> tuple[list[pb.ChatCompletionChunk], str]:
    """All chunks, and the native finish reason. Asserts the contract of streams."""
    decoder = TRANSLATOR.decoder(request or pb.ChatCompletionRequest())
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)] + decoder.close()
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [c.delta.role for c in choices] == [pb.ROLE_ASSISTANT] + [pb.ROLE_UNSPECIFIED] * (len(choices) - 1)
    assert [bool(c.finish_reason) for c in choices] == [False] * (len(choices) - 1) + [True]
    assert all(not chunk.HasField("usage") or not chunk.choices for chunk in chunks)
    assert all(not chunk.HasField("usage") for chunk in chunks[:-1])
    assert all(len(chunk.choices) <= 1 for chunk in chunks)
    seen: set[int] = set()
    for call in (call for choice in choices for call in choice.delta.tool_calls):
        assert bool(call.id) == bool(call.function.name) == (call.index not in seen)
        assert call.index in (seen or {0}) or call.index == max(seen) + 1
        seen.add(call.index)
    return chunks, decoder.native_finish_reason
