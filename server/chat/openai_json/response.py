"""Completions and chunks: OpenAI's JSON to protobuf and back.

Parsing accepts numbers as strings or floats, and null for absent fields, and keeps unknown fields; other quirks
of vendors are handled in dialects/openai. Dumping writes every field that the contract requires, as null where it
is not set. `parse(dump(x)) == x`.
"""

from __future__ import annotations

from typing import Any, Literal

from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json import fields as f
from server.chat.openai_json.messages import content, dump_content_part
from server.chat.openai_json.response_objects import (
    LOGPROBS,
    REPORT,
    USAGE,
    count,
    dump_logprobs,
    dump_report,
    dump_usage,
)
from server.chat.openai_json.shared import (
    ROLE_WORDS,
    ROLES,
    TOOL_CALL,
    annotation,
    dump_annotation,
    dump_audio,
    dump_call,
    dump_reasoning_detail,
    dump_tool_call,
    reasoning_detail,
    set_audio,
    tool_call,
)

FINISH_REASONS = f.names(pb.FinishReason, "FINISH_REASON_")
FINISH_REASON_WORDS = f.words(FINISH_REASONS)


def _index(msg: Any, value: Any) -> None:
    if value.__class__ is not int or not 0 <= value <= f.INT32_MAX:
        raise f.wrong_type("an index", value)
    msg.index = value


# Completions

_MESSAGE: f.Fields = {
    "role": f.enum("role", ROLES),
    "content": content,
    "refusal": f.text("refusal"),
    "tool_calls": f.each("tool_calls", tool_call),
    "reasoning_content": f.text("reasoning_content"),
    "reasoning_details": f.each("reasoning_details", reasoning_detail),
    "annotations": f.each("annotations", annotation),
    "audio": set_audio,
}
#: Fields of a choice beside its message or delta.
_CHOICE_ENVELOPE: f.Fields = {
    "index": _index,
    "finish_reason": f.enum("finish_reason", FINISH_REASONS),
    "logprobs": f.message("logprobs", LOGPROBS),
    "stop_sequence": f.text("stop_sequence"),
}
_CHOICE: f.Fields = {**_CHOICE_ENVELOPE, "message": f.message("message", _MESSAGE)}
_COMPLETION: f.Fields = {
    "id": f.text("id"),
    "created": count("created"),
    "model": f.text("model"),
    "choices": f.each("choices", lambda msg, value: f.fill(msg, value, _CHOICE), limits.MAX_CHOICES),
    "usage": f.message("usage", USAGE),
    "system_fingerprint": f.text("system_fingerprint"),
    "service_tier": f.text("service_tier"),
    "lmchat": f.message("lmchat", REPORT, None),
}


def parse_completion(obj: Any) -> pb.ChatCompletion:
    """A decoded completion. Raises InvalidRequest with the path of the invalid field."""
    completion = pb.ChatCompletion()
    f.fill(completion, obj, _COMPLETION, skip="object")
    return completion


def _answer_content(parts: Any) -> Any:
    """Text as one string, as OpenAI sends it; other parts as an array."""
    if len(parts) == 1 and parts[0].HasField("text") and not parts[0].extra_json:
        return parts[0].text
    if all(part.HasField("text") and not part.extra_json for part in parts):
        return "".join(part.text for part in parts) if parts else None
    return [dump_content_part(part) for part in parts]


def _dump_message(msg: pb.Message) -> dict[str, Any]:
    out: dict[str, Any] = {
        "role": ROLE_WORDS.get(msg.role, "assistant"),
        "content": _answer_content(msg.content),
        "refusal": msg.refusal if msg.HasField("refusal") else None,
        "annotations": [],  # OpenAI's answers always have it
    }
    if msg.HasField("reasoning_content"):
        out["reasoning_content"] = msg.reasoning_content
    if msg.tool_calls:
        out["tool_calls"] = [dump_tool_call(call) for call in msg.tool_calls]
    _dump_rich(msg, out)
    return out


def _dump_rich(msg: pb.Message | pb.Delta, out: dict[str, Any]) -> None:
    """Rare fields."""
    if msg.reasoning_details:
        out["reasoning_details"] = [dump_reasoning_detail(block) for block in msg.reasoning_details]
    if msg.annotations:
        out["annotations"] = [dump_annotation(item) for item in msg.annotations]
    if msg.HasField("audio"):
        out["audio"] = dump_audio(msg.audio)
    if msg.extra_json:
        f.merge_extra(out, msg.extra_json)


def dump_completion(completion: pb.ChatCompletion) -> dict[str, Any]:
    """OpenAI's `chat.completion` object."""
    choices = [_dump_choice(choice, "message", _dump_message(choice.message)) for choice in completion.choices]
    return _dump_envelope(completion, "chat.completion", choices, null_usage=False)


def _dump_choice(
    choice: pb.Choice | pb.ChunkChoice, key: Literal["message", "delta"], content: dict[str, Any]
) -> dict[str, Any]:
    """The choice with `content`, its message or delta, under `key`."""
    out: dict[str, Any] = {
        "index": choice.index,
        key: content,
        "logprobs": dump_logprobs(choice),
        "finish_reason": FINISH_REASON_WORDS.get(choice.finish_reason),
    }
    if choice.HasField("stop_sequence"):
        out["stop_sequence"] = choice.stop_sequence
    if choice.extra_json:
        f.merge_extra(out, choice.extra_json)
    return out


def _dump_envelope(
    msg: pb.ChatCompletion | pb.ChatCompletionChunk,
    type_: Literal["chat.completion", "chat.completion.chunk"],
    choices: list[dict[str, Any]],
    *,
    null_usage: bool,
) -> dict[str, Any]:
    """A completion or a chunk with these `choices`. `null_usage`: absent usage is written as null."""
    out: dict[str, Any] = {
        "id": msg.id,
        "object": type_,
        "created": msg.created,
        "model": msg.model,
        "choices": choices,
    }
    if msg.HasField("usage"):
        out["usage"] = dump_usage(msg.usage)
    elif null_usage:
        out["usage"] = None
    if msg.HasField("system_fingerprint"):
        out["system_fingerprint"] = msg.system_fingerprint
    if msg.HasField("service_tier"):
        out["service_tier"] = msg.service_tier
    if msg.HasField("lmchat"):
        out["lmchat"] = dump_report(msg.lmchat)
    if msg.extra_json:
        f.merge_extra(out, msg.extra_json)
    return out


# Chunks

_TOOL_CALL_DELTA: f.Fields = {**TOOL_CALL, "index": _index}
_DELTA: f.Fields = {
    **_MESSAGE,
    "content": f.text("content"),
    "tool_calls": f.each("tool_calls", lambda msg, value: f.fill(msg, value, _TOOL_CALL_DELTA, skip="type")),
}
_CHUNK_CHOICE: f.Fields = {**_CHOICE_ENVELOPE, "delta": f.message("delta", _DELTA)}
_CHUNK: f.Fields = {
    **_COMPLETION,
    "choices": f.each("choices", lambda msg, value: f.fill(msg, value, _CHUNK_CHOICE), limits.MAX_CHOICES),
}


def parse_chunk(obj: Any) -> pb.ChatCompletionChunk:
    """A decoded chunk. Raises InvalidRequest with the path of the invalid field."""
    chunk = pb.ChatCompletionChunk()
    f.fill(chunk, obj, _CHUNK, skip="object")
    return chunk


def _dump_tool_call_delta(call: pb.ToolCallDelta) -> dict[str, Any]:
    out: dict[str, Any] = {"index": call.index}
    if call.HasField("id"):
        out["id"] = call.id
        out["type"] = "custom" if call.HasField("custom") else "function"
    dump_call(call, out)
    return out


def _dump_delta(delta: pb.Delta) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if delta.role:
        out["role"] = ROLE_WORDS[delta.role]
    if delta.HasField("content"):
        out["content"] = delta.content
    if delta.HasField("refusal"):
        out["refusal"] = delta.refusal
    if delta.HasField("reasoning_content"):
        out["reasoning_content"] = delta.reasoning_content
    if delta.tool_calls:
        out["tool_calls"] = [_dump_tool_call_delta(call) for call in delta.tool_calls]
    _dump_rich(delta, out)
    return out


def dump_chunk(chunk: pb.ChatCompletionChunk, *, include_usage: bool) -> dict[str, Any]:
    """OpenAI's `chat.completion.chunk` object; with `include_usage` a chunk without usage says null."""
    choices = [_dump_choice(choice, "delta", _dump_delta(choice.delta)) for choice in chunk.choices]
    return _dump_envelope(chunk, "chat.completion.chunk", choices, null_usage=include_usage)
