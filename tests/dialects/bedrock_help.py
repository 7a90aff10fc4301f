"""What the tests of the Bedrock dialect share."""

from __future__ import annotations

import json
import re
import struct
from binascii import crc32
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.chat.openai_json.fields import decode
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


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame, built after the specification."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return message + struct.pack("!I", crc32(message))


def event(type_: str, payload: Any) -> bytes:
    headers = {":event-type": type_, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload, ensure_ascii=False).encode())


def exception(type_: str, payload: Any) -> bytes:
    headers = {":exception-type": type_, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps(payload).encode())


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def stream(
    pieces: Sequence[bytes], request: pb.ChatCompletionRequest | None = None
) -> tuple[list[pb.ChatCompletionChunk], str]:
    """All chunks, and the native finish reason. Asserts what every stream must keep to."""
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


def fold(chunks: Iterable[pb.ChatCompletionChunk]) -> pb.ChatCompletion:
    """What a client has at the end of a stream."""
    whole = pb.ChatCompletion()
    choice = whole.choices.add()
    message = choice.message
    text = ""
    extra: dict[str, Any] = {}
    for chunk in chunks:
        if chunk.HasField("usage"):
            whole.usage.CopyFrom(chunk.usage)
        if chunk.HasField("service_tier"):
            whole.service_tier = chunk.service_tier
        if chunk.extra_json:
            extra |= decode(chunk.extra_json)
        for piece in chunk.choices:
            delta = piece.delta
            message.role = message.role or delta.role
            text += delta.content
            if delta.HasField("reasoning_content"):
                message.reasoning_content += delta.reasoning_content
            message.reasoning_details.extend(delta.reasoning_details)
            message.annotations.extend(delta.annotations)
            for call in delta.tool_calls:
                if call.index == len(message.tool_calls):
                    message.tool_calls.add(id=call.id, extra_json=call.extra_json)
                function = message.tool_calls[call.index].function
                function.name += call.function.name
                function.arguments += call.function.arguments
            choice.finish_reason = choice.finish_reason or piece.finish_reason
    if text:
        message.content.add(text=text)
    whole.extra_json = encode_text(dict(sorted(extra.items()))) if extra else ""
    return whole


# Validation


def service_model(path: Path) -> ServiceModel:
    return ServiceModel(json.loads(path.read_bytes()))


def violations(model: ServiceModel, operation: str, model_id: str, sent: dict[str, Any]) -> list[str]:
    """What botocore, and the shapes' own limits, have against a request."""
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    params = {"modelId": model_id, **sent}
    report = ParamValidator().validate(params, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(_limits(shape, params, "")) + list(_rules(sent))


def _limits(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Patterns, enums, upper bounds and unions, which botocore leaves to the service."""
    if getattr(shape, "is_document_type", False):
        return
    meta = shape.metadata
    if shape.type_name == "structure":
        known = shape.members
        if getattr(shape, "is_tagged_union", False) and len(value) != 1:
            yield f"{path}: {len(value)} members in a union"
        for name, item in value.items():
            if name in known:
                yield from _limits(known[name], item, f"{path}.{name}")
    elif shape.type_name == "list":
        if "max" in meta and len(value) > meta["max"]:
            yield f"{path}: {len(value)} items"
        for index, item in enumerate(value):
            yield from _limits(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _limits(shape.key, key, f"{path}.{key}")
            yield from _limits(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not one of {shape.enum}"
        if "max" in meta and len(value) > meta["max"]:
            yield f"{path}: too long"
        if "pattern" in meta and not re.fullmatch(meta["pattern"], value):
            yield f"{path}: {value!r} does not match {meta['pattern']}"
    elif "max" in meta and shape.type_name in ("integer", "float") and value > meta["max"]:
        yield f"{path}: {value} is more than {meta['max']}"


def _rules(sent: dict[str, Any]) -> Iterator[str]:
    """What the service checks beyond the shapes."""
    messages = sent["messages"]
    roles = [message["role"] for message in messages]
    if roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
        yield f"roles do not alternate: {roles}"
    names: list[str] = []
    for index, message in enumerate(messages):
        content = message["content"]
        kinds = [kind for block in content for kind in block]
        if not content:
            yield f"messages[{index}] is empty"
        if any(not block["text"].strip() for block in content if "text" in block):
            yield f"messages[{index}] has blank text"
        if "document" in kinds and "text" not in kinds:
            yield f"messages[{index}] has a document and no text"
        others = [kind for kind in kinds if kind != "cachePoint"]
        if "toolResult" in others[others.count("toolResult") :]:
            yield f"messages[{index}] has results after other content"
        if {"toolUse", "toolResult"} & set(kinds) and "toolConfig" not in sent:
            yield "toolConfig is missing"
        inner = [b for block in content if "toolResult" in block for b in block["toolResult"]["content"]]
        names += [block["document"]["name"] for block in [*content, *inner] if "document" in block]
    if len(names) != len({name.lower() for name in names}):
        yield f"document names are not unique: {names}"
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9\-()\[\]]+( [A-Za-z0-9\-()\[\]]+)*", name):
            yield f"bad document name {name!r}"
    for tool in sent.get("toolConfig", {}).get("tools", []):
        if "toolSpec" in tool and tool["toolSpec"]["inputSchema"]["json"].get("type") != "object":
            yield "an inputSchema is no object's"
