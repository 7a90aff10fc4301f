"""Requests in Anthropic's Messages dialect: everything but what the platform adds.

https://platform.claude.com/docs/en/api/messages/create
What callers should know: `temperature` above 1 is sent as 1; sampling parameters
are left out while the model thinks, and for models that refuse them; of
`temperature` and `top_p` the former is sent where a model refuses both.
`max_tokens` is the caller's, else the endpoint's, else the model's maximum.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, kind
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.messages import Block, Conversation, own, unsupported
from server.dialects.anthropic.models import Claude
from server.dialects.base import Endpoint
from server.errors import InvalidRequest

#: Anthropic's own top-level fields that callers may send; the rest of `extra_body_json` is not for here.
EXTRA_BODY = frozenset({"cache_control", "container", "inference_geo", "output_config", "thinking", "top_k"})

_TOOL = frozenset({"allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples"})

#: Anthropic has no `minimal`; its lowest is `low`.
_EFFORTS = {
    pb.REASONING_EFFORT_NONE: "none",
    pb.REASONING_EFFORT_MINIMAL: "low",
    pb.REASONING_EFFORT_LOW: "low",
    pb.REASONING_EFFORT_MEDIUM: "medium",
    pb.REASONING_EFFORT_HIGH: "high",
    pb.REASONING_EFFORT_XHIGH: "xhigh",
    pb.REASONING_EFFORT_MAX: "max",
}
#: Tokens of thinking, for models that take a budget: as Google's OpenAI-compatible API has them, and above that
#: what Anthropic takes without advising batches. https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS = {"low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_MIN_BUDGET = 1_024

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
_PLACE = frozenset({"city", "region", "country", "timezone"})


def body(request: pb.ChatCompletionRequest, endpoint: Endpoint, *, remote: bool) -> dict[str, Any]:
    """The request's JSON, without `model` and `stream`. `remote`: the platform fetches URLs and keeps files.

    Raises InvalidRequest for what Anthropic cannot do, and msgspec.DecodeError
    for a `*_json` field that does not hold JSON.
    """
    if "audio" in request.modalities:
        raise unsupported("Anthropic's models do not speak.", "modalities")
    model = anthropic_models.of(endpoint.model)
    extra = own(EXTRA_BODY, request.extra_body_json)
    talk = Conversation(request.messages, remote=remote)
    limit = request.max_completion_tokens or request.max_tokens or endpoint.max_output_tokens or model.max_output
    out: dict[str, Any] = {"max_tokens": limit, "messages": talk.turns}
    if talk.system:
        out["system"] = talk.system
    _add_tools(out, request, model, talk)
    forced = "tool_choice" in out and out["tool_choice"]["type"] in _FORCED
    may_think = not forced and talk.may_think()  # "Thinking may not be enabled when tool_choice forces tool use."
    thinking, config = _reasoning(request, extra.pop("thinking", None), model, limit, may_think)
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
        out["metadata"] = {"user_id": request.user}
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


def _stop(stop: Sequence[str], most: int) -> list[str]:
    if len(stop) > most:
        raise InvalidRequest(f"At most {most} sequences, got {len(stop)}.", "stop")
    for index, sequence in enumerate(stop):
        if not sequence.strip():  # a 400: "each stop sequence must contain non-whitespace"
            raise unsupported("Anthropic takes no stop sequence of white space only.", f"stop[{index}]")
    return list(stop)


def _reasoning(
    request: pb.ChatCompletionRequest, native: Any, model: Claude, limit: int, may_think: bool
) -> tuple[Block | None, Block]:
    """`thinking`, and the effort for `output_config`. The caller's own `thinking` wins over reasoning_effort's.

    A budget counts towards max_tokens: a fifth of those stays for the answer,
    and where that leaves too little to think with, the model does not think.
    """
    wanted = _EFFORTS.get(request.reasoning_effort, "")
    complete = isinstance(native, dict) and (native.get("type") != "enabled" or "budget_tokens" in native)
    if isinstance(native, dict) and not complete:
        wanted = wanted or "medium"  # `{"type": "enabled"}`: DeepSeek's and others' way to turn it on
    if wanted == "none" and not complete:
        off = model.off in ("disabled", "between_tools")
        return ({"type": model.off}, {}) if off else (None, _effort(model, "low") if model.off == "never" else {})
    config = _effort(model, wanted) if wanted not in ("", "none") else {}
    if complete:
        return native, config
    if not wanted or not model.thinking:
        return None, config
    if model.thinking == "adaptive":
        # Newer models send empty thinking unless asked for a summary.
        return {"type": "adaptive", "display": "summarized"}, config
    budget = min(_BUDGETS[wanted], limit * 4 // 5)
    if budget < _MIN_BUDGET or not may_think:
        return None, config
    return {"type": "enabled", "budget_tokens": budget}, config


def _effort(model: Claude, wanted: str) -> Block:
    level = anthropic_models.effort(model, wanted)
    return {"effort": level} if level else {}


def _output_format(format_: pb.ResponseFormat, model: Claude) -> Block:
    """Only schemas are native. https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
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
        raise unsupported(f"Anthropic's structured outputs have no {error}.", param) from None
    return {"format": {"type": "json_schema", "schema": schema}}


def _object(text: str, param: str) -> dict[str, Any]:
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidRequest(f"Expected an object, got {kind(value)}.", param)
    return value


# Tools


def _add_tools(out: dict[str, Any], request: pb.ChatCompletionRequest, model: Claude, talk: Conversation) -> None:
    tools = [_tool(tool, f"tools[{index}]", model) for index, tool in enumerate(request.tools)]
    if request.HasField("web_search_options"):
        tools.append(_web_search(request.web_search_options))
    choice, names = _choice(request)
    if names is not None:
        tools = [tool for tool in tools if tool.get("name") in names]
    if not tools:
        # A 400 from Anthropic: "Requests which include `tool_use` or `tool_result` blocks must define tools."
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in talk.used_tools()]
        choice = {"type": "none"}
    if not tools:
        return
    if choice and choice["type"] in _FORCED and not model.forced_tools:
        raise unsupported("This model cannot be made to call a tool.", "tool_choice")
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
    out: Block = {"name": function.name, "input_schema": {"type": "object", **schema}}
    if function.description:
        out["description"] = function.description
    if function.strict and model.structured:
        try:
            out["input_schema"] = anthropic_schema.strict(out["input_schema"])
            out["strict"] = True
        except anthropic_schema.InexpressibleError:
            pass  # the arguments are then what the model makes them, as for any tool that is not strict
    return out | own(_TOOL, tool.extra_json, function.extra_json)


def _web_search(options: pb.WebSearchOptions) -> Block:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool"""
    out: Block = {"type": "web_search_20250305", "name": "web_search"}
    place = decode(options.user_location_json) if options.user_location_json else None
    match place:
        case {"approximate": dict(approximate)}:
            known = {name: value for name, value in approximate.items() if name in _PLACE}
            out["user_location"] = {"type": "approximate", **known}
    return out


def _choice(request: pb.ChatCompletionRequest) -> tuple[Block | None, list[str] | None]:
    """`tool_choice`, and the names of the only tools allowed where the choice names them."""
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
            return {"type": _ALLOWED_MODES[mode]}, [name for tool in tools if (name := _function_name(tool))]
    raise unsupported("Anthropic has no tool choice of this kind.", "tool_choice.type")


def _function_name(tool: Any) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    return ""
