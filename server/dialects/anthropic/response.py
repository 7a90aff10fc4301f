"""Answers and errors of Anthropic's Messages dialect in the contract's terms.

Visible reasoning is `reasoning_content`; each signed block is also in `reasoning_details`. For clients that keep
only tool calls, the signed blocks before the first call are also in its `extra_content.anthropic.thinking`, as
Anthropic sent them. A message in which tools ran at Anthropic has all of its blocks, and the container, in
`extra_content.anthropic`; replay.py sends them back. What they found is cited in `annotations`. Fields that the
contract does not have and that are not sent back are in the choice's `extra_content.anthropic` and in `usage`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import encode_text
from server.dialects import errors as failures
from server.dialects import usage as tiers
from server.dialects.anthropic.replay import FORMAT, THINKING
from server.dialects.base import completion_id
from server.dialects.choices import settled_finish
from server.dialects.reading import read_error_body, read_object, reading
from server.errors import ProviderError, Reason

#: stop_reason -> finish_reason; any other word is read as `stop`, or as `tool_calls` if there are calls.
#: https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
_FINISH: Mapping[str, pb.FinishReason.ValueType] = {
    "end_turn": pb.FINISH_REASON_STOP,
    "stop_sequence": pb.FINISH_REASON_STOP,
    "pause_turn": pb.FINISH_REASON_STOP,
    "tool_use": pb.FINISH_REASON_TOOL_CALLS,
    "max_tokens": pb.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": pb.FINISH_REASON_LENGTH,
    "refusal": pb.FINISH_REASON_CONTENT_FILTER,
}

#: The HTTP status of each error type, for errors inside a 200. https://platform.claude.com/docs/en/api/errors
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
#: An `invalid_request_error` that is the gateway's account's.
_NO_CREDIT = "credit balance is too low"

#: Types of blocks that the contract has; those of other types are of tools that ran at Anthropic.
_CONTRACT_BLOCKS = THINKING | {"text", "tool_use"}
#: Fields of a message that are read; the others go into the choice's `extra_content`.
MESSAGE = frozenset(
    {"id", "type", "role", "model", "content", "container", "stop_reason", "stop_sequence", "usage"}
)
#: Fields of a `tool_use` block that a call of the contract has; the others go into its `extra_content`.
_CALL = frozenset({"type", "id", "name", "input"})
#: The default `caller` of a `tool_use` block: the model itself, not code that ran at Anthropic.
_MODEL_CALLER = {"type": "direct"}
#: Fields of Anthropic's usage that `Usage` or the envelope has; the others go into `extra_json`.
_COUNTED = frozenset(
    {
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
        "output_tokens_details",
        "service_tier",
    }
)


def read(data: bytes) -> dict[str, Any]:
    """The JSON object of an answer or of a stream's event. Raises ProviderError for an error in it or nonsense."""
    obj = read_object(data)
    if obj.get("type") == "error" or obj.get("error"):
        raise _classify(obj, 0)
    return obj


# Errors


def error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """What a non-2xx answer means."""
    return _classify(read_error_body(body), status, failures.retry_after(headers))


def _classify(obj: Any, status: int, retry_after: float | None = None) -> ProviderError:
    """`status` 0 stands for that of the error's type."""
    error = obj.get("error") if isinstance(obj, dict) else None
    if not isinstance(error, dict):
        error = {"message": error}
    code = failures.text(error.get("type")) or failures.text(error.get("status"))
    message = failures.text(error.get("message"))
    reason = Reason.UPSTREAM_AUTHENTICATION if _NO_CREDIT in message.lower() else None
    status = status or _STATUSES.get(code, 500)
    return failures.classify(status, code=code, message=message, reason=reason, retry_after=retry_after)


# Answers


def completion(body: bytes, names: Mapping[str, str]) -> tuple[pb.ChatCompletion, str]:
    """The answer, and Anthropic's `stop_reason`. Raises ProviderError for an error in a 200 or nonsense.

    `names` maps tool names that were changed for Anthropic to the caller's.
    """
    obj = read(body)
    with reading(body):
        return _completion(obj, names)


def _completion(obj: dict[str, Any], names: Mapping[str, str]) -> tuple[pb.ChatCompletion, str]:
    out = pb.ChatCompletion(id=completion_id(obj.get("id") or ""), model=failures.text(obj.get("model")))
    choice = out.choices.add()
    message = choice.message
    message.role = pb.ROLE_ASSISTANT
    text: list[str] = []
    thinking: list[str] = []
    length = 0  # of the text, in characters
    replay: list[dict[str, Any]] = []
    for block in obj["content"]:
        match block["type"]:
            case "text":
                text.append(block["text"])
                start, length = length, length + len(block["text"])
                message.annotations.extend(cited(block.get("citations"), start, length))
            case "thinking" | "redacted_thinking":
                thinking.append(block.get("thinking", ""))
                replay += signed(block)
            case "tool_use":
                extra_json = call_extra(block, () if message.tool_calls else replay)
                call = message.tool_calls.add(id=block["id"], extra_json=extra_json)
                call.function.name = names.get(block["name"], block["name"])
                call.function.arguments = encode_text(block["input"])
    if length:
        message.content.add().text = "".join(text)
    if any(thinking):
        message.reasoning_content = "".join(thinking)
    message.reasoning_details.extend(map(detail, replay))
    message.extra_json = server_side(obj["content"], obj.get("container"))
    explanation = refusal(obj)
    if explanation:
        message.refusal = explanation
    native = failures.text(obj.get("stop_reason"))
    choice.finish_reason = finish_reason(native, bool(message.tool_calls))
    fill_end(choice, obj.get("stop_sequence"), further(obj, MESSAGE))
    counts = obj.get("usage")
    if counts:
        out.usage.CopyFrom(usage(counts))
        if counts.get("service_tier"):
            out.service_tier = tiers.service_tier(counts["service_tier"])
    return out, native


def finish_reason(native: str, calls: bool) -> pb.FinishReason.ValueType:
    """What Anthropic's `stop_reason` means; `calls`: the answer has tool calls."""
    return settled_finish(_FINISH.get(native, pb.FINISH_REASON_UNSPECIFIED), calls)


def refusal(obj: dict[str, Any]) -> str:
    """Why Anthropic's classifiers stopped the answer. https://platform.claude.com/docs/en/build-with-claude/refusals"""
    return (obj.get("stop_details") or {}).get("explanation") or ""


def signed(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The reasoning block in the form in which it must be sent back; empty for one without a signature."""
    if block["type"] == "redacted_thinking":
        return [{"type": "redacted_thinking", "data": block["data"]}]
    if not block.get("signature"):
        return []
    return [{"type": "thinking", "thinking": block["thinking"], "signature": block["signature"]}]


def detail(block: dict[str, Any]) -> pb.ReasoningDetail:
    """The `reasoning_details` entry for a block of `signed`."""
    if block["type"] == "redacted_thinking":
        return pb.ReasoningDetail(redacted=block["data"], format=FORMAT)
    return pb.ReasoningDetail(text=block["thinking"], signature=block["signature"], format=FORMAT)


def call_extra(block: dict[str, Any], replay: Sequence[dict[str, Any]]) -> str:
    """The `extra_json` of the call in a `tool_use` block.

    `replay`: the signed blocks before a turn's first call, for clients that keep only calls.
    """
    own: dict[str, Any] = {"thinking": list(replay)} if replay else {}
    if block.keys() > _CALL:
        own |= further(block, _CALL)
        if own.get("caller") == _MODEL_CALLER:
            del own["caller"]
    return _extra_content(own)


def further(fields: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields that are not `known`; null is absence."""
    return {name: value for name, value in fields.items() if name not in known and value is not None}


def _extra_content(own: dict[str, Any]) -> str:
    """Anthropic's own fields of an object as its `extra_json`."""
    return encode_text({"extra_content": {FORMAT: own}}) if own else ""


def fill_end(choice: pb.Choice | pb.ChunkChoice, stop_sequence: str | None, rest: dict[str, Any]) -> None:
    """Set what a message has beside the stop_reason: the sequence that came, and `rest`, fields beyond MESSAGE."""
    if stop_sequence is not None:
        choice.stop_sequence = stop_sequence
    choice.extra_json = _extra_content(rest)


def server_side(blocks: list[dict[str, Any]], container: Any) -> str:
    """The `extra_json` of a message: its blocks where tools ran at Anthropic, and the container; empty without.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools
    """
    own: dict[str, Any] = {}
    if any(block["type"] not in _CONTRACT_BLOCKS for block in blocks):
        own["content"] = blocks
    if container:
        own["container"] = container
    return _extra_content(own)


def cited(citations: Any, start: int, end: int) -> list[pb.Annotation]:
    """The citations of one text block, at the characters `start:end` of the answer.

    https://platform.claude.com/docs/en/build-with-claude/citations
    """
    out = []
    for citation in citations or ():
        annotation = pb.Annotation()
        if citation.get("type") == "web_search_result_location":
            rest = {name: value for name, value in citation.items() if name not in ("type", "url", "title")}
            page = annotation.url_citation
            page.url = citation["url"]
            page.title = citation.get("title") or ""
            page.start_index = start
            page.end_index = end
            page.extra_json = encode_text(rest)
        else:
            annotation.other_json = encode_text({**citation, "start_index": start, "end_index": end})
        out.append(annotation)
    return out


def usage(counts: dict[str, Any]) -> pb.Usage:
    """The token counts. Anthropic's `input_tokens` exclude the cache; `prompt_tokens` include it."""
    out = pb.Usage()
    cached, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    out.prompt_tokens = (counts.get("input_tokens") or 0) + (cached or 0) + (written or 0)
    out.completion_tokens = counts.get("output_tokens") or 0
    out.total_tokens = out.prompt_tokens + out.completion_tokens
    if cached is not None:
        out.prompt_tokens_details.cached_tokens = cached
    if written is not None:
        out.prompt_tokens_details.cache_write_tokens = written
    details = counts.get("output_tokens_details")
    if details:
        if details.get("thinking_tokens") is not None:
            out.completion_tokens_details.reasoning_tokens = details["thinking_tokens"]
        rest = further(details, ("thinking_tokens",))
        if rest:
            out.completion_tokens_details.extra_json = encode_text(rest)
    rest = further(counts, _COUNTED)
    if rest:
        out.extra_json = encode_text(rest)
    return out
