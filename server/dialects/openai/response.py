"""Answers of the OpenAI dialect, whole and in pieces: where vendors stray from OpenAI's JSON, and their errors."""

from __future__ import annotations

from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json.fields import decode
from server.dialects import errors as failures
from server.dialects.base import completion_id
from server.errors import InvalidRequest, Reason

#: Vendors' words for the four of OpenAI's; any other non-empty word is read as `stop`.
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
#: Words that say the provider gave up: the answer is not one.
_FAILED = frozenset({"error", "insufficient_system_resource", "abort", "network_error"})


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body or an event. Raises ProviderError."""
    try:
        obj = decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise failures.invalid_response(f"not JSON: {data[:500]!r}") from None
    if obj.__class__ is not dict:
        raise failures.invalid_response(f"not a JSON object: {data[:500]!r}")
    return obj


def read(parse: Any, obj: dict[str, Any]) -> Any:
    """What `parse` makes of a provider's JSON, whose mistakes are not the caller's."""
    try:
        return parse(obj)
    except InvalidRequest as error:
        raise failures.invalid_response(f"{error.param}: {error.message}") from None


# Completions


def completion(body: bytes) -> tuple[pb.ChatCompletion, str]:
    """The completion, and the first choice's native finish reason. Raises ProviderError."""
    obj = read_object(body)
    raise_error(obj)
    choices = obj.get("choices")
    if not isinstance(choices, list) or not choices:
        raise failures.invalid_response(f"no choices: {body[:500]!r}")
    natives = [normalise(choice, "message", position) for position, choice in enumerate(choices)]
    obj.pop("lmchat", None)  # from a gateway behind this one
    out: pb.ChatCompletion = read(openai_json.parse_completion, obj)
    for choice in out.choices:
        if not choice.HasField("message"):
            raise failures.invalid_response(f"a choice without a message: {body[:500]!r}")
        choice.message.role = pb.ROLE_ASSISTANT
        for index, call in enumerate(choice.message.tool_calls):
            call.id = call.id or f"call_{index}"
        if not choice.finish_reason:
            choice.finish_reason = default_finish(bool(choice.message.tool_calls))
    out.id = completion_id(out.id)
    return out, natives[0]


# Errors


def error_parts(body: bytes) -> tuple[str, str, str | None]:
    """Code, message and param, wherever the vendor put them."""
    try:
        obj = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", "", None
    if isinstance(obj, list) and obj:
        obj = obj[0]
    if not isinstance(obj, dict):
        return "", "", None
    return _parts(obj)


def _parts(obj: dict[str, Any]) -> tuple[str, str, str | None]:
    error = obj.get("error") or obj
    if not isinstance(error, dict):  # x.ai, Ollama: a text, with the code beside it
        error = {"code": obj.get("code"), "message": error}
    code = failures.text(error.get("code"))
    inner = error.get("innererror")
    if isinstance(inner, dict):  # Azure's content filter
        code = failures.text(inner.get("code")) or code
    if code not in failures.CODES and failures.text(error.get("type")) in failures.CODES:
        code = failures.text(error.get("type"))
    detail = error.get("detail")
    message = failures.text(error.get("message")) or (detail if isinstance(detail, str) else "")
    if not message and (detail or error.get("message")):
        message = openai_json.encode_text(detail or error["message"])
    return code, message, failures.text(error.get("param")) or None


def raise_error(obj: dict[str, Any]) -> None:
    """Raise for an error inside a 200. Its code may be an HTTP status (OpenRouter)."""
    error = obj.get("error")
    if not error and obj.get("object") != "error":
        return
    code, message, param = _parts(obj)
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else 200
    reason = None if status != 200 or code.lower() in failures.CODES else Reason.UPSTREAM_ERROR
    raise failures.classify(status, code=code, message=message, param=param, reason=reason)


# What vendors do to choices


def normalise(choice: Any, key: str, position: int) -> str:
    """Bring one choice's JSON to OpenAI's form, in place; the vendor's own finish reason."""
    if choice.__class__ is not dict:
        raise failures.invalid_response(f"a choice is {type(choice).__name__}")
    if choice.get("index") is None:
        choice["index"] = position
    message = choice.get(key)
    if message.__class__ is dict:
        _normalise_message(message)
    native = str(choice.get("finish_reason") or "")
    if native.lower() in _FAILED:
        raise_error(choice)
        raise failures.classify(502, message=f"finish_reason {native}")
    choice["finish_reason"] = _FINISH.get(native.lower(), "stop") if native else None
    return native and str(choice.get("native_finish_reason") or native)


def _normalise_message(message: dict[str, Any]) -> None:
    message.pop("role", None)  # whoever answers is the assistant
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
            function["arguments"] = read(openai_json.encode_text, function["arguments"])
    legacy = message.pop("function_call", None)
    if legacy and not calls:
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": legacy}]


def _split_parts(message: dict[str, Any], parts: list[Any]) -> None:
    """Content as a list, from Mistral's reasoning models: thinking apart from text.

    https://docs.mistral.ai/capabilities/reasoning
    """
    text, thinking, other = [], [], []
    for part in parts:
        match part:
            case {"type": "text", "text": str(piece)} | str(piece):
                text.append(piece)
            case {"type": "thinking", "thinking": str(piece)}:
                thinking.append(piece)
            case {"type": "thinking", "thinking": list(pieces)}:
                thinking += [p["text"] for p in pieces if isinstance(p, dict) and isinstance(p.get("text"), str)]
            case _:
                other.append(part)
    message["content"] = "".join(text) if text else None
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if other:
        notes = message.get("annotations")
        message["annotations"] = [*(notes if isinstance(notes, list) else ()), *other]


def default_finish(has_calls: bool) -> pb.FinishReason.ValueType:
    """The finish reason of an answer whose vendor gave none."""
    return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP
