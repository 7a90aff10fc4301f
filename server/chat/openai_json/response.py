"""Completions and chunks: OpenAI's JSON to protobuf and back.

Reading forgives what vendors get wrong in numbers and nulls, and keeps what it
does not know; a vendor's other quirks are for its dialect (dialects/openai).
Writing is exact to the contract: keys that must be there are there, with null
where there is nothing. `parse(dump(x)) == x`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json import fields as f
from server.chat.openai_json.messages import content, dump_content_part
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
from server.errors import InvalidRequest

FINISH_REASONS = f.names(pb.FinishReason, "FINISH_REASON_")
FINISH_REASON_WORDS = f.words(FINISH_REASONS)


def _count(name: str) -> f.Setter:
    """A token count or a time; some vendors send floats, or numbers as strings."""

    def set_count(msg: Any, value: Any) -> None:
        if value.__class__ is str or value.__class__ is float:
            try:
                value = int(float(value))
            except (ValueError, OverflowError):
                raise f.wrong_type("an integer", value) from None
        if value.__class__ is not int or not -f.INT64_MAX <= value <= f.INT64_MAX:
            raise f.wrong_type("an integer", value)
        setattr(msg, name, value)

    return set_count


def _index(msg: Any, value: Any) -> None:
    if value.__class__ is not int or not 0 <= value <= f.INT32_MAX:
        raise f.wrong_type("an index", value)
    msg.index = value


# Usage

_PROMPT_DETAILS: f.Fields = {
    n: _count(n)
    for n in ("cached_tokens", "audio_tokens", "cache_write_tokens", "text_tokens", "image_tokens", "video_tokens")
}
_COMPLETION_DETAILS: f.Fields = {
    n: _count(n)
    for n in (
        "reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
        "text_tokens", "image_tokens",
    )
}  # fmt: skip
_DETAILS: Mapping[Literal["prompt_tokens_details", "completion_tokens_details"], f.Fields] = {
    "prompt_tokens_details": _PROMPT_DETAILS,
    "completion_tokens_details": _COMPLETION_DETAILS,
}
_USAGE: f.Fields = {
    **{n: _count(n) for n in ("prompt_tokens", "completion_tokens", "total_tokens")},
    **{name: f.message(name, fields) for name, fields in _DETAILS.items()},
}


def _dump_details(details: Any, names: Iterable[str]) -> dict[str, Any]:
    out = {name: getattr(details, name) for name in names if details.HasField(name)}
    if details.extra_json:
        f.merge_extra(out, details.extra_json)
    return out


def dump_usage(usage: pb.Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    out: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    for name, fields in _DETAILS.items():
        if usage.HasField(name):
            out[name] = _dump_details(getattr(usage, name), fields)
    if usage.extra_json:
        f.merge_extra(out, usage.extra_json)
    return out


# Log probabilities


def _token(msg: pb.TokenLogprob, value: Any) -> None:
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    try:
        msg.token = value.get("token") or ""
        msg.logprob = value["logprob"]
        if value.get("bytes") is not None:
            msg.bytes = bytes(iter(value["bytes"]))  # bytes(int) would return zeros
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidRequest("Expected a token, its logprob and its bytes.") from None


def _position(msg: pb.TokenLogprob, value: Any) -> None:
    """A token with its most likely alternatives."""
    _token(msg, value)
    if value.get("top_logprobs") is not None:
        try:
            _alternatives(msg, value["top_logprobs"])
        except InvalidRequest as error:
            raise f.at(error, "top_logprobs") from None


_alternatives = f.each("top_logprobs", _token)
#: Tokens of an answer; in answers the number of all values is limited.
_LOGPROBS: f.Fields = {name: f.each(name, _position, limits.MAX_ANSWER_VALUES) for name in ("content", "refusal")}


def _dump_token(token: pb.TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.bytes) if token.HasField("bytes") else None,
    }


def _dump_tokens(tokens: Any) -> list[dict[str, Any]] | None:
    rows = [_dump_token(t) | {"top_logprobs": [_dump_token(a) for a in t.top_logprobs]} for t in tokens]
    return rows or None


def _dump_logprobs(choice: pb.Choice | pb.ChunkChoice) -> dict[str, Any] | None:
    if not choice.HasField("logprobs"):
        return None
    out: dict[str, Any] = {
        "content": _dump_tokens(choice.logprobs.content),
        "refusal": _dump_tokens(choice.logprobs.refusal),
    }
    if choice.logprobs.extra_json:
        f.merge_extra(out, choice.logprobs.extra_json)
    return out


# The gateway's report

_SKIPPED: f.Fields = {name: f.text(name) for name in ("provider", "model", "reason")}
_ATTEMPT: f.Fields = {**_SKIPPED, **{name: f.integer(name, 0, f.INT32_MAX) for name in ("status", "ms")}}
_REPORT: f.Fields = {
    "provider": f.text("provider"),
    "tries": f.integer("tries", 0, f.INT32_MAX),
    "native_finish_reason": f.text("native_finish_reason"),
    "dropped_params": f.texts("dropped_params"),
    "attempts": f.each("attempts", lambda msg, value: f.fill(msg, value, _ATTEMPT, None)),
    "skipped": f.each("skipped", lambda msg, value: f.fill(msg, value, _SKIPPED, None)),
    "resumed": f.boolean("resumed"),
    "native_model": f.text("native_model"),
}


def dump_report(report: pb.RoutingReport) -> dict[str, Any]:
    """The `lmchat` object of a completion."""
    out: dict[str, Any] = {
        "provider": report.provider,
        "tries": report.tries,
        "native_finish_reason": report.native_finish_reason,
        "dropped_params": list(report.dropped_params),
    }
    if report.attempts:
        out["attempts"] = [
            {"provider": a.provider, "model": a.model, "status": a.status, "reason": a.reason, "ms": a.ms}
            for a in report.attempts
        ]
    if report.skipped:
        out["skipped"] = [{"provider": s.provider, "model": s.model, "reason": s.reason} for s in report.skipped]
    if report.resumed:
        out["resumed"] = True
    if report.native_model:
        out["native_model"] = report.native_model
    return out


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
_CHOICE: f.Fields = {
    "index": _index,
    "message": f.message("message", _MESSAGE),
    "finish_reason": f.enum("finish_reason", FINISH_REASONS),
    "logprobs": f.message("logprobs", _LOGPROBS),
    "stop_sequence": f.text("stop_sequence"),
}
_COMPLETION: f.Fields = {
    "id": f.text("id"),
    "created": _count("created"),
    "model": f.text("model"),
    "choices": f.each("choices", lambda msg, value: f.fill(msg, value, _CHOICE), limits.MAX_CHOICES),
    "usage": f.message("usage", _USAGE),
    "system_fingerprint": f.text("system_fingerprint"),
    "service_tier": f.text("service_tier"),
    "lmchat": f.message("lmchat", _REPORT, None),
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
    out: dict[str, Any] = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [_dump_choice(choice) for choice in completion.choices],
    }
    if completion.HasField("usage"):
        out["usage"] = dump_usage(completion.usage)
    _dump_envelope(completion, out)
    return out


def _dump_choice(choice: pb.Choice) -> dict[str, Any]:
    out: dict[str, Any] = {
        "index": choice.index,
        "message": _dump_message(choice.message),
        "logprobs": _dump_logprobs(choice),
        "finish_reason": FINISH_REASON_WORDS.get(choice.finish_reason),
    }
    if choice.HasField("stop_sequence"):
        out["stop_sequence"] = choice.stop_sequence
    if choice.extra_json:
        f.merge_extra(out, choice.extra_json)
    return out


def _dump_envelope(msg: pb.ChatCompletion | pb.ChatCompletionChunk, out: dict[str, Any]) -> None:
    if msg.HasField("system_fingerprint"):
        out["system_fingerprint"] = msg.system_fingerprint
    if msg.HasField("service_tier"):
        out["service_tier"] = msg.service_tier
    if msg.HasField("lmchat"):
        out["lmchat"] = dump_report(msg.lmchat)
    if msg.extra_json:
        f.merge_extra(out, msg.extra_json)


# Chunks

_TOOL_CALL_DELTA: f.Fields = {**TOOL_CALL, "index": _index}
_DELTA: f.Fields = {
    **_MESSAGE,
    "content": f.text("content"),
    "tool_calls": f.each("tool_calls", lambda msg, value: f.fill(msg, value, _TOOL_CALL_DELTA, skip="type")),
}
_CHUNK_CHOICE: f.Fields = {
    "index": _index,
    "delta": f.message("delta", _DELTA),
    "finish_reason": f.enum("finish_reason", FINISH_REASONS),
    "logprobs": f.message("logprobs", _LOGPROBS),
    "stop_sequence": f.text("stop_sequence"),
}
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


def _dump_chunk_choice(choice: pb.ChunkChoice) -> dict[str, Any]:
    out: dict[str, Any] = {
        "index": choice.index,
        "delta": _dump_delta(choice.delta),
        "logprobs": _dump_logprobs(choice),
        "finish_reason": FINISH_REASON_WORDS.get(choice.finish_reason),
    }
    if choice.HasField("stop_sequence"):
        out["stop_sequence"] = choice.stop_sequence
    if choice.extra_json:
        f.merge_extra(out, choice.extra_json)
    return out


def dump_chunk(chunk: pb.ChatCompletionChunk, *, include_usage: bool) -> dict[str, Any]:
    """OpenAI's `chat.completion.chunk` object; with `include_usage` a chunk without usage says null."""
    out: dict[str, Any] = {
        "id": chunk.id,
        "object": "chat.completion.chunk",
        "created": chunk.created,
        "model": chunk.model,
        "choices": [_dump_chunk_choice(choice) for choice in chunk.choices],
    }
    if chunk.HasField("usage"):
        out["usage"] = dump_usage(chunk.usage)
    elif include_usage:
        out["usage"] = None
    _dump_envelope(chunk, out)
    return out
