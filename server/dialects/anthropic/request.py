"""Requests in Anthropic's Messages dialect, without what the platform adds. Pure.

https://platform.claude.com/docs/en/api/messages/create
A `temperature` above 1 is sent as 1. Sampling parameters are left out while the model
thinks and for models that refuse them; where a model refuses `temperature` and `top_p`
together, `top_p` is left out. `max_tokens` is the caller's, else the endpoint's, else
the model's maximum.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, kind
from server.dialects import reasoning
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.messages import Block, Conversation, native_fields
from server.dialects.anthropic.models import Claude
from server.dialects.base import Endpoint
from server.dialects.users import opaque_user
from server.errors import InvalidRequest, unsupported

#: Anthropic's top-level fields that callers may send in `extra_body_json`; others are left out.
EXTRA_BODY = frozenset({"cache_control", "container", "inference_geo", "output_config", "thinking", "top_k"})

_TOOL_FIELDS = frozenset(
    {"allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples"}
)

#: https://platform.claude.com/docs/en/api/service-tiers
_SERVICE_TIERS = {
    "auto": "auto",
    "priority": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}
_CHOICES = {
    pb.TOOL_CHOICE_MODE_AUTO: "auto",
    pb.TOOL_CHOICE_MODE_REQUIRED: "any",
    pb.TOOL_CHOICE_MODE_NONE: "none",
}
_ALLOWED_MODES = {"auto": "auto", "required": "any"}
_FORCED = ("any", "tool")
#: A 400 from Anthropic: "user_id appears to contain an email address. Please send a uuid or hash value".
#: https://github.com/BerriAI/litellm/issues/10106
_MAX_USER_LENGTH = 512
_LOCATION_FIELDS = frozenset({"city", "region", "country", "timezone"})


def body(request: pb.ChatCompletionRequest, endpoint: Endpoint, *, remote: bool) -> dict[str, Any]:
    """The request's JSON, without `model` and `stream`. `remote`: the platform fetches URLs and keeps files.

    Raises InvalidRequest for what Anthropic cannot do, and msgspec.DecodeError
    for a `*_json` field that does not hold JSON.
    """
    if "audio" in request.modalities:
        raise unsupported("Anthropic's models have no audio output.", "modalities")
    model = anthropic_models.of(endpoint.model)
    extra = native_fields(EXTRA_BODY, request.extra_body_json)
    conversation = Conversation(request.messages, remote=remote)
    limit = request.max_completion_tokens or request.max_tokens or endpoint.max_output_tokens or model.max_output
    out: dict[str, Any] = {"max_tokens": limit, "messages": conversation.turns}
    if conversation.system:
        out["system"] = conversation.system
    _add_tools(out, request, model, conversation)
    forced = "tool_choice" in out and out["tool_choice"]["type"] in _FORCED
    # "Thinking may not be enabled when tool_choice forces tool use."
    accepts_budget = not forced and conversation.accepts_budget()
    thinking, config = _reasoning(request, extra.pop("thinking", None), model, limit, accepts_budget)
    if thinking:
        out["thinking"] = thinking
    if request.HasField("response_format"):
        config |= _output_format(request.response_format, model)
    native = extra.pop("output_config", None)
    if isinstance(native, dict):
        config |= native
    if config:
        out["output_config"] = config
    top_k = extra.pop("top_k", None)
    if model.sampling != "none" and not (thinking and thinking.get("type") in ("enabled", "adaptive")):
        _add_sampling(out, request, model, top_k)
    if request.stop:
        out["stop_sequences"] = _stop(request.stop, endpoint.vendor.max_stop)
    if request.user:
        out["metadata"] = {"user_id": opaque_user(request.user, _MAX_USER_LENGTH)}
    if request.service_tier in _SERVICE_TIERS:
        out["service_tier"] = _SERVICE_TIERS[request.service_tier]
    return out | extra


def _add_sampling(out: dict[str, Any], request: pb.ChatCompletionRequest, model: Claude, top_k: Any) -> None:
    if request.HasField("temperature"):
        out["temperature"] = min(request.temperature, 1.0)
    if request.HasField("top_p") and not (model.sampling == "one" and "temperature" in out):
        out["top_p"] = request.top_p
    if top_k is not None:
        out["top_k"] = top_k


def _stop(stop: Sequence[str], max_stop: int) -> list[str]:
    if len(stop) > max_stop:
        raise InvalidRequest(f"At most {max_stop} sequences, got {len(stop)}.", "stop")
    for index, sequence in enumerate(stop):
        if not sequence.strip():  # a 400: "each stop sequence must contain non-whitespace"
            raise unsupported("Anthropic takes no stop sequence of white space only.", f"stop[{index}]")
    return list(stop)


def _reasoning(
    request: pb.ChatCompletionRequest, native: Any, model: Claude, limit: int, accepts_budget: bool
) -> tuple[Block | None, Block]:
    """`thinking`, and the effort for `output_config`. The caller's own `thinking` takes precedence."""
    effort = reasoning.EFFORTS.get(request.reasoning_effort, "")
    complete = isinstance(native, dict) and (native.get("type") != "enabled" or "budget_tokens" in native)
    if isinstance(native, dict) and not complete:
        effort = effort or "medium"  # `{"type": "enabled"}` turns thinking on at DeepSeek and others
    if effort == "none" and not complete:
        off = model.off in ("disabled", "between_tools")
        return ({"type": model.off}, {}) if off else (None, _effort(model, "low") if model.off == "never" else {})
    config = _effort(model, effort) if effort not in ("", "none") else {}
    if complete:
        return native, config
    if not effort:
        return None, config
    return anthropic_models.thinking(model, effort, limit, accepts_budget=accepts_budget), config


def _effort(model: Claude, wanted: str) -> Block:
    level = anthropic_models.effort(model, wanted)
    return {"effort": level} if level else {}


def _output_format(format_: pb.ResponseFormat, model: Claude) -> Block:
    """Anthropic enforces schemas only. https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return {}
    if which != "json_schema" or not model.structured:
        raise unsupported("This model has no such response format.", "response_format.type")
    param = "response_format.json_schema.schema"
    if not format_.json_schema.schema_json:
        raise unsupported("Anthropic needs a schema.", param)
    try:
        schema = anthropic_schema.strict(_object(format_.json_schema.schema_json, param))
    except anthropic_schema.InexpressibleError as error:
        raise unsupported(f"Anthropic's structured outputs do not support {error}.", param) from None
    return {"format": {"type": "json_schema", "schema": schema}}


def _object(text: str, param: str) -> dict[str, Any]:
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidRequest(f"Expected an object, got {kind(value)}.", param)
    return value


# Tools


def _add_tools(
    out: dict[str, Any], request: pb.ChatCompletionRequest, model: Claude, conversation: Conversation
) -> None:
    tools = [_tool(tool, f"tools[{index}]", model) for index, tool in enumerate(request.tools)]
    if request.HasField("web_search_options"):
        tools.append(_web_search(request.web_search_options))
    choice, names = _choice(request)
    if names is not None:
        tools = [tool for tool in tools if tool.get("name") in names]
    if not tools:
        # A 400 from Anthropic: "Requests which include `tool_use` or `tool_result` blocks must define tools."
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in conversation.called_tools()]
        choice = {"type": "none"}
    if not tools:
        return
    if choice and choice["type"] in _FORCED and not model.forced_tools:
        raise unsupported("This model cannot be forced to call a tool.", "tool_choice")
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    out["tools"] = tools
    if choice:
        out["tool_choice"] = choice


def _tool(tool: pb.Tool, param: str, model: Claude) -> Block:
    if tool.HasField("other_json"):
        native = _object(tool.other_json, param)
        # Anthropic's own tools carry their date: web_search_20250305.
        if re.search(r"_\d{8}$", str(native.get("type"))):
            return native
        raise unsupported("Anthropic has no tool of this kind.", f"{param}.type")
    function = tool.function
    schema: dict[str, Any] = {"properties": {}}
    if function.parameters_json:
        schema = _object(function.parameters_json, f"{param}.function.parameters")
    out: Block = {"name": function.name, "input_schema": {"type": "object", **anthropic_schema.tool_input(schema)}}
    if function.description:
        out["description"] = function.description
    if function.strict and model.structured:
        try:
            out["input_schema"] = anthropic_schema.strict(out["input_schema"])
            out["strict"] = True
        except anthropic_schema.InexpressibleError:
            pass  # sent as a tool that is not strict
    return out | native_fields(_TOOL_FIELDS, tool.extra_json, function.extra_json)


def _web_search(options: pb.WebSearchOptions) -> Block:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool"""
    out: Block = {"type": "web_search_20250305", "name": "web_search"}
    location = decode(options.user_location_json) if options.user_location_json else None
    match location:
        case {"approximate": dict(approximate)}:
            known = {name: value for name, value in approximate.items() if name in _LOCATION_FIELDS}
            out["user_location"] = {"type": "approximate", **known}
    return out


def _choice(request: pb.ChatCompletionRequest) -> tuple[Block | None, Container[str] | None]:
    """`tool_choice`, and the names of the allowed tools; None where all are."""
    choice = request.tool_choice
    match choice.WhichOneof("choice"):
        case None:
            return None, None
        case "mode":
            return {"type": _CHOICES.get(choice.mode, "auto")}, None
        case "function_name":
            return {"type": "tool", "name": choice.function_name}, None
    match decode(choice.other_json):
        case {"type": "allowed_tools", "allowed_tools": {"mode": str(mode), "tools": list(tools)}} if (
            mode in _ALLOWED_MODES
        ):
            return {"type": _ALLOWED_MODES[mode]}, {name for tool in tools if (name := _function_name(tool))}
    raise unsupported("Anthropic has no tool choice of this kind.", "tool_choice.type")


def _function_name(tool: Any) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    return ""
