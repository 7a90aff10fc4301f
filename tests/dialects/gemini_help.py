"""What the tests of the Gemini dialect share."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import decode_json, encode_text
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
    """`data` torn at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def fold(chunks: Sequence[pb.ChatCompletionChunk]) -> pb.ChatCompletion:
    """A stream's chunks as one answer; checks what the contract says of chunks on the way."""
    out = pb.ChatCompletion()
    choices: dict[int, pb.Choice] = {}
    for place, chunk in enumerate(chunks):
        assert chunk.id == chunks[0].id
        assert chunk.created == chunks[0].created
        assert not chunk.model
        out.id, out.created = chunk.id, chunk.created
        if chunk.HasField("service_tier"):
            out.service_tier = chunk.service_tier
        if chunk.HasField("usage"):
            assert place == len(chunks) - 1
            assert not chunk.choices
            out.usage.CopyFrom(chunk.usage)
        else:
            assert chunk.choices
        for piece in chunk.choices:
            choice = choices.get(piece.index)
            if choice is None:
                assert piece.delta.role == pb.ROLE_ASSISTANT
                choice = choices[piece.index] = out.choices.add(index=piece.index)
                choice.message.role = piece.delta.role
            else:
                assert not piece.delta.role
            assert not (choice.finish_reason and piece.finish_reason), "one finish reason"
            _fold_piece(choice, piece)
    for choice in out.choices:
        assert choice.finish_reason
    return out


def _fold_piece(choice: pb.Choice, piece: pb.ChunkChoice) -> None:
    message, delta = choice.message, piece.delta
    if piece.finish_reason:
        choice.finish_reason = piece.finish_reason
    if delta.HasField("content"):
        if not message.content:
            message.content.add(text="")
        message.content[0].text += delta.content
    if delta.HasField("reasoning_content"):
        message.reasoning_content += delta.reasoning_content
    for call in delta.tool_calls:
        assert call.index == len(message.tool_calls)
        assert call.id
        assert call.function.name
        message.tool_calls.add(id=call.id, function=call.function, extra_json=call.extra_json)
    message.reasoning_details.extend(delta.reasoning_details)
    message.annotations.extend(delta.annotations)
    choice.logprobs.content.extend(piece.logprobs.content)
    if not choice.logprobs.content:
        choice.ClearField("logprobs")
    if delta.HasField("audio"):
        message.audio.id = delta.audio.id
        data = base64.b64decode(message.audio.data) + base64.b64decode(delta.audio.data)
        message.audio.data = base64.b64encode(data).decode()
    if delta.extra_json:
        images = decode_json(message.extra_json)["images"] if message.extra_json else []
        message.extra_json = encode_text({"images": images + decode_json(delta.extra_json)["images"]})
    if piece.extra_json:
        choice.extra_json = piece.extra_json
