"""What the tests of the OpenAI dialect share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    """Events as bytes; those that are bytes go as they are."""
    pieces = [
        event if isinstance(event, bytes) else f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}".encode()
        for event in events
    ]
    return b"".join(pieces)


def torn(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at some places."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def decode(pieces: Sequence[bytes], n: int = 1) -> list[pb.ChatCompletionChunk]:
    """All chunks of a stream."""
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest(n=n))
    return [chunk for piece in pieces for chunk in decoder.feed(piece)] + decoder.close()


def outcome(pieces: Sequence[bytes], n: int = 1) -> tuple[list[pb.ChatCompletionChunk], ProviderError | None]:
    """All chunks of a stream, and how it failed."""
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest(n=n))
    chunks: list[pb.ChatCompletionChunk] = []
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except ProviderError as error:
        return chunks, error
    return chunks, None


def fold(chunks: Iterable[pb.ChatCompletionChunk]) -> pb.ChatCompletion:
    """The answer a stream adds up to, put together as OpenAI's SDKs do, with the contract's rules checked."""
    whole = pb.ChatCompletion()
    choices: dict[int, pb.Choice] = {}
    for chunk in chunks:
        assert not whole.id or chunk.id == whole.id
        assert not whole.HasField("usage"), "usage is last"
        whole.id = chunk.id
        whole.created = chunk.created
        whole.model = whole.model or chunk.model
        for name in ("system_fingerprint", "service_tier"):
            if chunk.HasField(name):
                setattr(whole, name, getattr(chunk, name))
        whole.extra_json = _merged(whole.extra_json, chunk.extra_json)
        if chunk.HasField("usage"):
            assert not chunk.choices
            whole.usage.CopyFrom(chunk.usage)
        for piece in chunk.choices:
            first = piece.index not in choices
            choice = choices.setdefault(piece.index, pb.Choice(index=piece.index))
            assert (piece.delta.role == pb.ROLE_ASSISTANT) == first, "the role comes first, and once"
            assert not choice.finish_reason, "nothing comes after the finish reason"
            choice.finish_reason = piece.finish_reason
            _append(choice, piece)
    whole.choices.extend(choices[index] for index in sorted(choices))
    return whole


def _append(choice: pb.Choice, piece: pb.ChunkChoice) -> None:
    message, delta = choice.message, piece.delta
    message.role = pb.ROLE_ASSISTANT
    if delta.HasField("content"):
        if not message.content:
            message.content.add(text="")
        message.content[0].text += delta.content
    for name in ("refusal", "reasoning_content"):
        if delta.HasField(name):
            setattr(message, name, getattr(message, name) + getattr(delta, name))
    for call in delta.tool_calls:
        assert call.index <= len(message.tool_calls), "indices have no gaps"
        if call.index == len(message.tool_calls):
            assert call.id, "the first piece has an id"
            message.tool_calls.add(id=call.id)
        else:
            assert not call.HasField("id"), "and the others have none"
        known = message.tool_calls[call.index]
        if call.HasField("function"):
            known.function.name += call.function.name
            known.function.arguments += call.function.arguments
            known.function.extra_json = _merged(known.function.extra_json, call.function.extra_json)
        if call.HasField("custom"):
            known.custom.name += call.custom.name
            known.custom.input += call.custom.input
            known.custom.extra_json = _merged(known.custom.extra_json, call.custom.extra_json)
        known.extra_json = _merged(known.extra_json, call.extra_json)
    message.reasoning_details.extend(delta.reasoning_details)
    message.annotations.extend(delta.annotations)
    if delta.HasField("audio"):
        message.audio.SetInParent()
        message.audio.id = message.audio.id or delta.audio.id
        message.audio.extra_json = _merged(message.audio.extra_json, delta.audio.extra_json)
        for name in ("data", "transcript"):
            if delta.audio.HasField(name):  # type: ignore[arg-type]
                setattr(message.audio, name, getattr(message.audio, name) + getattr(delta.audio, name))
        if delta.audio.HasField("expires_at"):
            message.audio.expires_at = delta.audio.expires_at
    message.extra_json = _merged(message.extra_json, delta.extra_json)
    if piece.HasField("logprobs"):
        choice.logprobs.SetInParent()
        choice.logprobs.MergeFrom(piece.logprobs)
    choice.extra_json = _merged(choice.extra_json, piece.extra_json)


def _merged(one: str, other: str) -> str:
    """Further fields of two pieces; texts are appended, anything else is replaced."""
    if not one or not other:
        return one or other
    merged: dict[str, Any] = json.loads(one)
    more: Mapping[str, Any] = json.loads(other)
    for key, value in more.items():
        both = isinstance(value, str) and isinstance(merged.get(key), str)
        merged[key] = merged[key] + value if both else value
    return json.dumps(merged, ensure_ascii=False, separators=(",", ":"))
