"""Answers of the OpenAI dialect: where vendors differ from OpenAI's JSON, for whole answers and for streams.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.completion import JsonCompletion
from server.chat.openai_json.completion_fields import stop_sequence
from server.dialects import errors as failures
from server.dialects import usage
from server.dialects.base import completion_id
from server.dialects.choices import NO_ARGUMENTS, settled_finish
from server.dialects.openai.errors import raise_error
from server.dialects.reading import read_object, reading
from server.dialects.tool_ids import call_id

#: Vendors' words -> OpenAI's four; any other non-empty word is read as `stop`.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "sensitive": "content_filter",  # Z.ai
}
#: The provider gave up: a failure, not an answer.
_FAILED = frozenset({"error", "insufficient_system_resource", "abort", "network_error"})
#: No reason, spelled out. https://github.com/open-webui/open-webui/issues/16377
_NONE = frozenset({"null", "none"})


def completion(body: bytes) -> tuple[pb.ChatCompletion, str]:
    """The completion, and the first choice's native finish reason. Raises ProviderError."""
    with reading(body):
        return _completion(body)


def _completion(body: bytes) -> tuple[pb.ChatCompletion, str]:
    obj = read_object(body)
    raise_error(obj)
    choices = obj.get("choices")
    if not isinstance(choices, list) or not choices:
        raise failures.invalid_response(f"no choices: {body[:500]!r}")
    natives = [normalise(choice, "message", position) for position, choice in enumerate(choices)]
    normalise_envelope(obj)
    counts = obj.pop("usage", None) or groq_usage(obj)
    out = openai_json.parse_completion(obj)
    if counts:
        out.usage.CopyFrom(parse_usage(counts))
    for choice in out.choices:
        if not choice.HasField("message") and choice.finish_reason != pb.FINISH_REASON_CONTENT_FILTER:
            # Azure leaves the message out of a choice that was filtered whole.
            # https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
            raise failures.invalid_response(f"a choice without a message: {body[:500]!r}")
        choice.message.role = pb.ROLE_ASSISTANT
        _complete_calls(choice.message.tool_calls, out.id)
        choice.finish_reason = settled_finish(choice.finish_reason, bool(choice.message.tool_calls))
    out.id = completion_id(out.id)
    return out, natives[0]


def _complete_calls(calls: Iterable[pb.ToolCall], answer_id: str) -> None:
    """Give each call an id of its own and arguments."""
    seen: set[str] = set()
    for index, call in enumerate(calls):
        if not call.id or call.id in seen:
            call.id = call_id(answer_id, index)
        seen.add(call.id)
        if not call.HasField("custom"):
            call.function.arguments = call.function.arguments or NO_ARGUMENTS


def is_plain(completion: JsonCompletion) -> bool:
    """Whether calls, counts and the service tier of an answer mean what OpenAI's do, and need no reading."""
    fields = completion.fields
    for choice in fields.choices:
        calls = choice.message.tool_calls or ()
        if len({call.id for call in calls}) < len(calls) or (choice.finish_reason == "tool_calls" and not calls):
            return False
    if fields.service_tier is not None and fields.service_tier not in usage.TIERS:
        return False
    counts = fields.usage
    if counts is None:
        return not completion.unknown or not groq_usage(completion.unknown_at(()))
    prompt, details = counts.prompt_tokens_details, counts.completion_tokens_details
    cached = prompt.cached_tokens if prompt is not None else None
    reasoning = details.reasoning_tokens if details is not None else None
    return (
        counts.total_tokens == counts.prompt_tokens + counts.completion_tokens
        and (reasoning or 0) <= counts.completion_tokens
        and (cached or 0) <= counts.prompt_tokens
        and not (completion.unknown and _has_other_counts(completion))
    )


def _has_other_counts(completion: JsonCompletion) -> bool:
    places = (("usage",), ("usage", "prompt_tokens_details"))
    return any(usage.has_other_names(completion.unknown_at(place)) for place in places)


# Usage and service tier


def parse_usage(counts: dict[str, Any]) -> pb.Usage:
    """A vendor's usage object in OpenAI's terms. Raises one of UNREADABLE for nonsense."""
    usage.place_counts(counts)
    parsed = openai_json.parse_chunk({"usage": counts}).usage
    usage.add_up(parsed)
    return parsed


def groq_usage(obj: Mapping[str, Any]) -> Any:
    """The usage in Groq's separate field. https://console.groq.com/docs/api-reference"""
    groq = obj.get("x_groq")
    return groq.get("usage") if groq.__class__ is dict else None


def normalise_envelope(obj: dict[str, Any]) -> None:
    """Bring what is beside the choices to OpenAI's form, in place."""
    obj.pop("lmchat", None)  # from a gateway behind this one
    tier = obj.get("service_tier")
    if tier.__class__ is str:
        obj["service_tier"] = usage.service_tier(tier)


# Choices


def normalise(choice: Any, key: str, position: int) -> str:
    """Bring one choice's JSON to OpenAI's form, in place; returns the native finish reason, empty if none.

    `key` is `message` or `delta`; `position` is the index of a choice that has none. Raises ProviderError.
    """
    if choice.__class__ is not dict:
        raise failures.invalid_response(f"a choice is {type(choice).__name__}")
    if choice.get("index") is None:
        choice["index"] = position
    message = choice.get(key)
    if message.__class__ is dict:
        _normalise_message(message)
    native = str(choice.get("finish_reason") or "")
    word = native.lower()
    if word in _FAILED:
        raise_error(choice)
        raise failures.classify(502, message=f"finish_reason {native}")
    if not native or word in _NONE:
        choice["finish_reason"] = None
        return ""
    choice["finish_reason"] = _FINISH.get(word, "stop")
    if "matched_stop" in choice:
        choice.setdefault("stop_sequence", stop_sequence(choice))
    return str(choice.get("native_finish_reason") or native)


def _normalise_message(message: dict[str, Any]) -> None:
    message.pop("role", None)  # an answer's is always `assistant`
    content = message.get("content")
    if content.__class__ is list:
        _split_parts(message, content)
    reasoning = message.get("reasoning")  # Ollama, Groq, OpenRouter, vLLM
    if reasoning.__class__ is str and message.get("reasoning_content") is None:
        message["reasoning_content"] = reasoning
    calls = message.get("tool_calls") or []
    if calls.__class__ is not list:
        raise failures.invalid_response("tool_calls is not a list")
    for call in calls:
        if call.__class__ is not dict:
            raise failures.invalid_response("a tool call is not an object")
        function = call.get("function")
        if function.__class__ is dict and function.get("arguments").__class__ in (dict, list):
            function["arguments"] = openai_json.encode_text(function["arguments"])
    legacy = message.pop("function_call", None)
    if legacy and not calls:
        message["tool_calls"] = [{"type": "function", "function": legacy}]


def _split_parts(message: dict[str, Any], parts: list[Any]) -> None:
    """Split content that is a list, as from reasoning models at Mistral and Databricks, into text and reasoning.

    https://docs.mistral.ai/capabilities/reasoning  https://github.com/tidyverse/ellmer/issues/822
    """
    text, thinking, other = [], [], []
    for part in parts:
        match part:
            case {"type": "text", "text": str(piece)} | str(piece):
                text.append(piece)
            case {"type": "thinking", "thinking": str(piece)}:
                thinking.append(piece)
            case {"type": "reasoning", "text": str(piece)}:
                thinking.append(piece)
            case {"type": "thinking", "thinking": list(pieces)} | {"type": "reasoning", "summary": list(pieces)}:
                thinking += [p["text"] for p in pieces if isinstance(p, dict) and isinstance(p.get("text"), str)]
            case _:
                other.append(part)
    message["content"] = "".join(text) if text else None
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if other:
        notes = message.get("annotations")
        message["annotations"] = [*(notes if isinstance(notes, list) else ()), *other]
