"""Completions that go to REST as they came: what a provider of the OpenAI dialect says, checked and no more.

Most answers of that dialect are what the REST door would write, up to a few
fields. For these the way through protobuf and back is a detour that costs
several times as much as all else that happens to them. `read` takes only what
it knows to come out the same (tests compare the two), and leaves the rest to
the long way: logprobs, audio, annotations, wrong types, vendors' fields that
are not listed here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from server.chat.openai_json.fields import INT32_MAX, INT64_MAX

_Count = Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]
_Index = Annotated[int, Meta(ge=0, le=INT32_MAX)]
#: A vendor's own, passed on whatever it is.
_Kept = Any | UnsetType
#: What must not say anything.
_Empty = Annotated[list[Any], Meta(max_length=0)] | None


#: Makes a default that, unlike None itself, is written.
written_null = type(None)


def _object() -> Literal["chat.completion"]:
    return "chat.completion"


class _Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Without its defaults when written: most fields that are null are left out."""


class _PromptDetails(_Part):
    cached_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    image_tokens: _Kept = UNSET
    text_tokens: _Kept = UNSET
    video_tokens: _Kept = UNSET


class _CompletionDetails(_Part):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None
    image_tokens: _Kept = UNSET
    text_tokens: _Kept = UNSET


class _Usage(_Part):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    audio_prompt_tokens: _Kept = UNSET
    completion_time: _Kept = UNSET
    cost: _Kept = UNSET
    cost_details: _Kept = UNSET
    is_byok: _Kept = UNSET
    latency_checkpoint: _Kept = UNSET
    num_sources_used: _Kept = UNSET
    prompt_cache_hit_tokens: _Kept = UNSET
    prompt_cache_miss_tokens: _Kept = UNSET
    prompt_time: _Kept = UNSET
    queue_time: _Kept = UNSET
    search_context_size: _Kept = UNSET
    service_tier: _Kept = UNSET
    total_time: _Kept = UNSET


class _Function(_Part):
    name: str
    arguments: str


class _ToolCall(_Part):
    id: Annotated[str, Meta(min_length=1)]
    type: Literal["function"]
    function: _Function
    index: _Kept = UNSET


class _Message(_Part):
    role: Literal["assistant"]
    content: str | None = field(default_factory=written_null)
    refusal: str | None = field(default_factory=written_null)
    annotations: _Empty = field(default_factory=written_null)
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    audio: None = None
    function_call: None = None
    reasoning: _Kept = UNSET
    reasoning_details: _Empty = None


class _Choice(_Part, kw_only=True):
    index: _Index
    message: _Message
    logprobs: None = field(default_factory=written_null)
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    content_filter_results: _Kept = UNSET
    delta: _Kept = UNSET
    native_finish_reason: str | UnsetType = UNSET
    stop_reason: _Kept = UNSET
    token_ids: _Kept = UNSET


class PlainCompletion(_Part, kw_only=True):
    """A completion that is encoded as `dump_completion` would have it; what is the gateway's is yet to be set."""

    id: str = ""
    object: Literal["chat.completion"] = field(default_factory=_object)
    created: _Count = 0
    model: str = ""
    choices: Annotated[list[_Choice], Meta(min_length=1)]
    usage: _Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    lmchat: Any = UNSET
    citations: _Kept = UNSET
    kv_transfer_params: _Kept = UNSET
    prompt_filter_results: _Kept = UNSET
    prompt_logprobs: _Kept = UNSET
    prompt_token_ids: _Kept = UNSET
    provider: _Kept = UNSET
    search_results: _Kept = UNSET
    timings: _Kept = UNSET
    x_groq: _Kept = UNSET

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word for why the first choice ended."""
        first = self.choices[0]
        return first.native_finish_reason or first.finish_reason


_decode = msgspec.json.Decoder(PlainCompletion).decode


def read(body: bytes) -> PlainCompletion | None:
    """The completion in a provider's answer; None if it must go the long way."""
    try:
        completion = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for choice in completion.choices:
        message = choice.message
        message.annotations = []  # OpenAI's answers always have it
        message.reasoning_details = None
        if message.tool_calls is not None and not message.tool_calls:
            message.tool_calls = None
        if message.reasoning_content is None and message.reasoning.__class__ is str:
            message.reasoning_content = message.reasoning
    return completion
