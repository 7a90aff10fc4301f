"""Errors of the OpenAI dialect: `{"error": {...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": ...}`.

One inside a 200, whole or as an event of a stream, means what it would mean with its status.
https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from server.chat import openai_json
from server.dialects import errors as failures
from server.dialects.openai.codes import REASONS
from server.dialects.reading import read_error_body
from server.errors import ProviderError, Reason

#: The HTTP status of an error's `type`, for errors inside a 200 that have no status.
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,  # vLLM, SGLang
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "rate_limit_error": 429,
    "requests": 429,  # OpenAI's and Groq's rate limits have the unit as their type
    "tokens": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
    "engine_overloaded_error": 503,  # Moonshot
    "service_unavailable": 503,
    "timeout_error": 504,
}
#: Cohere's status for a refused prompt. https://github.com/cohere-ai/cohere-developer-experience/pull/189
_UNSAFE_REQUEST = 498
#: A context that is too long, in words of GitHub's and MiniMax's.
#: https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts
_TOO_LONG = re.compile(
    r"token count of \d+ exceeds the limit|token limit exceeded|context window exceeds limit", re.I
)
#: MiniMax's code at the end of a message, such as "insufficient balance (1008)".
_CODE_AT_END = re.compile(r"\((\d{4})\)$")
#: Keys of an error that may hold an HTTP status: Groq's streams, Azure, OpenRouter, MiniMax.
_STATUS_KEYS = ("status_code", "status", "code", "http_code")
#: Fields of an error that callers get otherwise, or that say nothing more.
_KNOWN = frozenset({"message", "msg", "detail", "type", "param", "code", "object", *_STATUS_KEYS})
#: A code in words; numbers are HTTP statuses, or mean nothing to callers.
_WORD = re.compile(r"[A-Za-z][\w.:-]{0,63}").fullmatch


#: A 400 that says that the model has no `response_format`, or not this kind: its name, and that it is not there.
#: A schema that is refused is not meant. By whom, and where the words are from:
#: Groq "This model does not support response format `json_schema`", DeepSeek "This response_format type is
#: unavailable now" (https://github.com/crewAIInc/crewAI/pull/6357), OpenAI "'response_format' of type
#: 'json_schema' is not supported with this model", "does not support 'json_schema' response format"
#: (https://github.com/caura-ai/caura/pull/1475), Groq "'response_format.type' : value is not one of the allowed
#: values" (https://github.com/dzhng/deep-research/pull/162), LM Studio "'response_format.type' must be"
#: (https://github.com/willmiao/ComfyUI-Lora-Manager/issues/1033), Azure "enabled only for api versions".
_FORMAT = re.compile(r"response.?format|json_schema|json_object|json mode|structured.outputs?", re.IGNORECASE)
_ABSENT = re.compile(
    r"not? (currently )?(support|available|enabled|implemented)|(un|not )supported|unavailable|enabled only"
    r"|not one of the allowed values|response_format\.type' must be",
    re.IGNORECASE,
)
_BAD_SCHEMA = re.compile(r"invalid schema|\bschema (for|at|contains|is)\b|keyword|in context=", re.IGNORECASE)
#: A 400 about a schema of which the vendor's grammars cannot express a part; emulation checks it all. Cerebras
#: (https://github.com/musistudio/claude-code-router/issues/708), vLLM
#: (https://github.com/vllm-project/vllm/issues/26421), llama.cpp
#: (https://github.com/ggml-org/llama.cpp/blob/master/common/json-schema-to-grammar.cpp).
_PARTLY = re.compile(
    r"unsupported json schema fields|json schema contains features not supported|json schema conversion failed",
    re.IGNORECASE,
)


class _Parts(NamedTuple):
    """An error taken apart. `own_code` is the provider's `code` if it is a word; `details` are further fields."""

    code: str
    message: str
    param: str | None
    own_code: str
    details: Mapping[str, Any]
    status: int
    reason: Reason | None


def error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error of a response that is not a 2xx; `headers` are in lower case."""
    obj = read_error_body(body)
    parts = _parts(obj if isinstance(obj, dict) else {})
    if parts.reason is None and status in (400, 422) and _lacks_format(parts.message):
        parts = parts._replace(reason=Reason.UNSUPPORTED_FEATURE, param="response_format")
    if status == _UNSAFE_REQUEST:
        parts = parts._replace(reason=Reason.CONTENT_POLICY_VIOLATION)
    return _classify(status, parts, failures.retry_after(headers))


def raise_error(obj: dict[str, Any]) -> None:
    """Raise ProviderError for an error inside a 200."""
    base = obj.get("base_resp")
    failed = isinstance(base, dict) and base.get("status_code")
    if (
        obj.get("error")
        or obj.get("object") == "error"
        or failed
        or (obj.get("success") is False and obj.get("errors"))
    ):
        parts = _parts(obj)
        raise _classify(parts.status or _STATUSES.get(parts.code.lower(), 200), parts)


def _classify(status: int, parts: _Parts, retry_after: float | None = None) -> ProviderError:
    return failures.classify(
        status,
        code=parts.code,
        message=parts.message,
        param=parts.param,
        reason=parts.reason,
        retry_after=retry_after,
        own_code=parts.own_code,
        details=parts.details,
    )


def _parts(obj: dict[str, Any]) -> _Parts:
    error = obj.get("error") or _in_other_places(obj) or obj
    if not isinstance(error, dict):  # x.ai, Ollama, Hugging Face: a text, with the code beside it
        message = obj.get("message") or error  # Scaleway has a title in `error`
        error = {"code": obj.get("code"), "type": obj.get("error_type"), "message": message}
    own = code = failures.text(error.get("code"))
    type_ = failures.text(error.get("type")) or failures.text(error.get("reason"))
    inner = error.get("innererror")
    if isinstance(inner, dict):  # Azure's content filter
        code = failures.text(inner.get("code")) or code
    known = {code.lower(), type_.lower()}
    if type_ and not _is_known(code) and (not _WORD(code) or known & failures.CODES.keys() or _is_known(type_)):
        code = type_
    message, place = _message(error)
    return _Parts(
        code=code,
        message=message,
        param=failures.text(error.get("param")) or place,
        own_code=own if _WORD(own) else "",
        details={name: value for name, value in error.items() if name not in _KNOWN},
        status=_status(error) or _STATUSES.get(type_.lower(), 0),
        reason=_moderated(error.get("metadata")) or _reason(code, message),
    )


def _is_known(code: str) -> bool:
    return code.lower() in failures.CODES or code.lower() in REASONS


def _message(error: dict[str, Any]) -> tuple[str, str | None]:
    """The message of an error, and the path of the field that it is about if that is found with it."""
    for key in ("message", "detail", "msg"):
        found = error.get(key)
        text = failures.text(found)
        if text:
            return text, None
        if isinstance(found, dict) and found.get("detail"):  # Mistral puts it into `message`
            found = found["detail"]
        if isinstance(found, list):
            faults = list(_faults(found))
            if faults:
                return "; ".join(f"{path}: {text}" if path else text for path, text in faults), faults[0][
                    0
                ] or None
        if found:
            return openai_json.encode_text(found), None
    return "", None


def _faults(detail: list[Any]) -> Iterator[tuple[str, str]]:
    """Path and text of each fault that FastAPI found, as with NVIDIA, Mistral, DeepInfra, vLLM.

    https://fastapi.tiangolo.com/tutorial/handling-errors/
    """
    for fault in detail:
        if isinstance(fault, str):
            yield "", fault
        elif isinstance(fault, dict) and isinstance(fault.get("msg"), str):
            place = fault.get("loc")
            steps = place[1:] if isinstance(place, list) and place[:1] == ["body"] else place
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps or ())
            yield path.removeprefix("."), fault["msg"]


def _in_other_places(obj: dict[str, Any]) -> dict[str, Any] | None:
    """The error where it is not under `error`: MiniMax, Cloudflare, Databricks, Fireworks."""
    base, errors, word, fault = obj.get("base_resp"), obj.get("errors"), obj.get("error_code"), obj.get("fault")
    if isinstance(base, dict) and base.get("status_code"):
        return {"code": f"base_resp_{base['status_code']}", "message": base.get("status_msg")}
    if isinstance(errors, list) and errors:
        return errors[0] if isinstance(errors[0], dict) else {"message": errors[0]}
    if isinstance(fault, dict):
        return {"message": fault.get("faultstring")}
    return {**obj, "code": word} if isinstance(word, str) else None


def _reason(code: str, message: str) -> Reason | None:
    if _TOO_LONG.search(message):
        return Reason.CONTEXT_LENGTH_EXCEEDED
    at_end = _CODE_AT_END.search(message)
    found = REASONS.get(f"base_resp_{at_end[1]}") if at_end else None
    return found or REASONS.get(code.lower())


def _status(error: dict[str, Any]) -> int:
    """The HTTP status in an error; 0 if there is none."""
    for key in _STATUS_KEYS:
        value = failures.text(error.get(key))
        if len(value) == 3 and value.isascii() and value.isdigit() and 400 <= int(value) < 600:
            return int(value)
    return 0


def _lacks_format(message: str) -> bool:
    """Whether a refusal says that the model has no structured output, not of this kind, or not for this schema."""
    if _PARTLY.search(message):
        return True
    return bool(_FORMAT.search(message) and _ABSENT.search(message)) and not _BAD_SCHEMA.search(message)


def _moderated(metadata: Any) -> Reason | None:
    """OpenRouter names why it refused a prompt. https://openrouter.ai/docs/api/reference/errors-and-debugging"""
    flagged = isinstance(metadata, dict) and (metadata.get("reasons") or metadata.get("flagged_input"))
    return Reason.CONTENT_POLICY_VIOLATION if flagged else None
