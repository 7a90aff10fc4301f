"""Helpers of the tests of the OpenAI dialect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.config.model import ProviderSettings, Timeouts
from server.dialects.base import Endpoint, Vendor
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import ProviderError
from tests.support.typed import TypedTranslator

TRANSLATOR = TypedTranslator(OpenAITranslator())
PLAIN = Vendor(type="openai", dialect="openai")
DONE = b"data: [DONE]\n\n"


def endpoint(
    vendor: Vendor = PLAIN,
    base_url: str = "https://up.example/v1",
    timeouts: Timeouts | None = None,
    model: str = "up-model",
    **settings: Any,
) -> Endpoint:
    """An endpoint; `settings` are the provider's."""
    return Endpoint(
        name="up",
        model=model,
        public_model="public",
        vendor=vendor,
        provider=ProviderSettings(key="up", type=vendor.type, **settings),
        dialect="openai",
        base_url=base_url,
        timeouts=timeouts or Timeouts(),
    )


def ask(**fields: Any) -> pb.ChatCompletionRequest:
    """A small request."""
    request = pb.ChatCompletionRequest(model="public", **fields)
    if not request.messages:
        request.messages.add(role=pb.ROLE_USER).content.add(text="Hi")
    return request


def chunk(*choices: Any, **more: Any) -> dict[str, Any]:
    """A chunk as OpenAI sends it."""
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "up-model",
        "choices": list(choices), **more,
    }  # fmt: skip


def delta(finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """One choice of a chunk."""
    return {"index": index, "delta": fields, "finish_reason": finish}


def sse(*events: Any, end: str = "\n") -> bytes:
    """Events as bytes; bytes are passed on unchanged."""
    pieces = [
        event if isinstance(event, bytes) else f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}".encode()
        for event in events
    ]
    return b"".join(pieces)


def torn(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` split at the offsets `cuts`."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def decode(pieces: Sequence[bytes], n: int = 1) -> list[pb.ChatCompletionChunk]:
    """All chunks of a stream."""
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest(n=n))
    return [chunk for piece in pieces for chunk in decoder.feed(piece)] + decoder.close()


def outcome(pieces: Sequence[bytes], n: int = 1) -> tuple[list[pb.ChatCompletionChunk], ProviderError | None]:
    """All chunks of a stream, and its error."""
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest(n=n))
    chunks: list[pb.ChatCompletionChunk] = []
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except ProviderError as error:
        return chunks, error
    return chunks, None
