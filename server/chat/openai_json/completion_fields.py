"""The fields of a completion in OpenAI's JSON, checked by typed structs.

The structs accept completions that can be returned to REST callers unchanged, but for the
fields that the gateway sets. All others (log probabilities, audio, citations, vendors' own
enum values and types) fall back to protobuf decoding in `response.parse_completion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, field

from server.chat import limits
from server.chat.openai_json.fields import INT32_MAX, INT64_MAX
from server.chat.openai_json.request_fields import written_null
from server.chat.openai_json.unknown import KnownDecoder, Level, Unknown, fields_at
from server.errors import InvalidRequest

_Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_Index = Annotated[int, Meta(ge=0, le=INT32_MAX)]
_Empty = Annotated[list[Any], Meta(max_length=0)] | None


def _completion_object() -> Literal["chat.completion"]:
    return "chat.completion"


class _Object(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A JSON object, encoded without null fields, except those that OpenAI always sends."""


class _PromptDetails(_Object):
    cached_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    text_tokens: _Count | None = None
    image_tokens: _Count | None = None
    video_tokens: _Count | None = None


class _CompletionDetails(_Object):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None
    text_tokens: _Count | None = None
    image_tokens: _Count | None = None


class UsageFields(_Object):
    """Token counts."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(_Object):
    name: str
    arguments: Annotated[str, Meta(min_length=1)]


class _ToolCall(_Object):
    id: Annotated[str, Meta(min_length=1)]
    type: Literal["function"]
    function: _Function


class _Message(_Object):
    role: Literal["assistant"]
    content: str | None = field(default_factory=written_null)
    refusal: str | None = field(default_factory=written_null)
    annotations: _Empty = field(default_factory=written_null)
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    audio: None = None
    function_call: None = None
    reasoning_details: _Empty = None


class _Choice(_Object, kw_only=True):
    index: _Index
    message: _Message
    logprobs: None = field(default_factory=written_null)
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    stop_sequence: str | None = None


class CompletionFields(_Object, kw_only=True):
    """A completion; `lmchat` is the gateway's report and replaces a provider's field of that name."""

    id: str = ""
    object: Literal["chat.completion"] = field(default_factory=_completion_object)
    created: _Count = 0
    model: str = ""
    choices: Annotated[list[_Choice], Meta(min_length=1, max_length=limits.MAX_CHOICES)]
    usage: UsageFields | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    lmchat: Any = UNSET


_LEVEL = Level.of(
    CompletionFields,
    choices=Level.of(
        _Choice, message=Level.of(_Message, tool_calls=Level.of(_ToolCall, function=Level.of(_Function)))
    ),
    usage=Level.of(
        UsageFields,
        prompt_tokens_details=Level.of(_PromptDetails),
        completion_tokens_details=Level.of(_CompletionDetails),
    ),
)

_decoder = KnownDecoder(CompletionFields, _LEVEL)


def stop_sequence(choice: Mapping[str, Any]) -> str | None:
    """The stop sequence that SGLang names in a choice; it may also be the id of a token.

    https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/protocol.py
    """
    matched = choice.get("matched_stop")
    return matched if matched.__class__ is str else None


def read(body: bytes) -> tuple[CompletionFields, Unknown] | None:
    """The known and the unknown fields of a completion; None if it needs protobuf decoding."""
    try:
        decoded = _decoder.decode(body)
    except InvalidRequest:  # an object has too many unknown fields
        return None
    if decoded is None:
        return None
    fields, unknown = decoded
    if unknown and "error" in fields_at(unknown, ()):
        return None
    fields.lmchat = UNSET
    for index, choice in enumerate(fields.choices):
        message = choice.message
        message.annotations = []  # OpenAI's answers always have it
        message.reasoning_details = None
        message.tool_calls = message.tool_calls or None
        if unknown and message.reasoning_content is None:  # Ollama, Groq, OpenRouter, vLLM
            reasoning = fields_at(unknown, ("choices", index, "message")).get("reasoning")
            message.reasoning_content = reasoning if reasoning.__class__ is str else None
        if unknown and choice.stop_sequence is None:
            choice.stop_sequence = stop_sequence(fields_at(unknown, ("choices", index)))
    return fields, unknown
