"""Helpers of the tests of the Gemini dialect."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.config.model import ProviderSettings, Timeouts
from server.dialects.base import Endpoint
from server.dialects.gemini.dialect import GeminiTranslator
from server.vendors.registry import VENDORS
from tests.support.typed import TypedTranslator

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
TRANSLATOR = TypedTranslator(GeminiTranslator())


def endpoint(
    model: str = "gemini-3-flash-preview",
    vendor: str = "gemini",
    base_url: str = "",
    **settings: Any,
) -> Endpoint:
    """An endpoint; `settings` are the provider's."""
    if vendor == "vertex":
        settings = {"project": "proj", "location": "us-east1", **settings}
    return Endpoint(
        name="x",
        model=model,
        public_model="public",
        vendor=VENDORS[vendor],
        provider=ProviderSettings(key="k", type=vendor, **settings),
        dialect="gemini",
        base_url=base_url,
        timeouts=Timeouts(),
    )


def whole(obj: Any) -> pb.ChatCompletion:
    """The completion for one GenerateContentResponse."""
    return TRANSLATOR.completion(json.dumps(obj).encode(), pb.ChatCompletionRequest())[0]


def sse(events: Iterable[Any], end: str = "\r\n") -> bytes:
    """Responses as Google streams them."""
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events).encode()


def stream(pieces: Sequence[bytes]) -> list[pb.ChatCompletionChunk]:
    """All chunks of a stream read in these pieces."""
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest())
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return chunks + decoder.close()


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """`data` split at the offsets `at`."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]
