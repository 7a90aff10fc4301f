"""Tools and tool choices in Anthropic's Messages dialect. Pure.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, kind
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.limits import Limits
from server.dialects.anthropic.messages import Conversation, tool_name
from server.dialects.anthropic.models import Claude
from server.dialects.anthropic.replay import Block
from server.dialects.dropped import Dropped
from server.dialects.schemas import of_object
from server.dialects.tool_choice import allowed_tools, drop_choice_without_tools, drop_extras
from server.errors import InvalidRequest, unsupported

#: Anthropic's fields of a tool that callers may set.
_TOOL_FIELDS = frozenset(
    {"allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples"}
)
_CHOICES = {
    pb.TOOL_CHOICE_MODE_AUTO: "auto",
    pb.TOOL_CHOICE_MODE_REQUIRED: "any",
    pb.TOOL_CHOICE_MODE_NONE: "none",
}
_FORCED = ("any", "tool")
_LOCATION_FIELDS = frozenset({"city", "region", "country", "timezone"})


def tools(
    request: pb.ChatCompletionRequest, model: Claude, conversation: Conversation, limits: Limits, dropped: Dropped
) -> dict[str, Any]:
    """`tools` and `tool_choice`, as far as the request needs them."""
    choice, names = _choice(request.tool_choice, dropped)
    listed: list[Block] = []
    for index, tool in enumerate(request.tools):
        if names is None or tool.function.name in names:
            listed.append(_tool(tool, f"tools[{index}]", model, conversation, limits, dropped))
    if request.HasField("web_search_options"):
        listed.append(_web_search(request.web_search_options, dropped))
    if not listed:
        drop_choice_without_tools(request, dropped)
        # A 400 from Anthropic: "Requests which include `tool_use` or `tool_result` blocks must define tools."
        stubs = [{"name": name, "input_schema": {"type": "object"}} for name in conversation.called_tools()]
        return {"tools": stubs, "tool_choice": {"type": "none"}} if stubs else {}
    if choice and choice["type"] in _FORCED and not model.forced_tools:
        raise unsupported("This model cannot be forced to call a tool.", "tool_choice")
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        choice = choice or {"type": "auto"}
        if choice["type"] == "none":
            dropped.add("parallel_tool_calls")
        else:
            choice["disable_parallel_tool_use"] = True
    return {"tools": listed, "tool_choice": choice} if choice else {"tools": listed}


def is_forced(body: Mapping[str, Any]) -> bool:
    """Whether the request `body` makes the model call a tool."""
    return "tool_choice" in body and body["tool_choice"]["type"] in _FORCED


def _tool(
    tool: pb.Tool, path: str, model: Claude, conversation: Conversation, limits: Limits, dropped: Dropped
) -> Block:
    if tool.HasField("other_json"):
        native = _object(tool.other_json, path)
        # Anthropic's own tools carry their date: web_search_20250305.
        if re.search(r"_\d{8}$", str(native.get("type"))):
            return native
        raise unsupported("Anthropic has no tool of this kind.", f"{path}.type")
    function = tool.function
    schema: dict[str, Any] = {"properties": {}}
    if function.parameters_json:
        schema = _object(function.parameters_json, f"{path}.function.parameters")
    schema = of_object(anthropic_schema.tool_input(schema))
    out: Block = {"name": tool_name(function.name), "input_schema": schema}
    if function.description:
        out["description"] = function.description
    if function.strict:
        strict = limits.enforced(out["input_schema"], tool=True) if model.structured else None
        if strict is None:
            dropped.add(f"{path}.function.strict")
        else:
            out |= {"input_schema": strict, "strict": True}
    extras = (path, tool.extra_json), (f"{path}.function", function.extra_json)
    out |= dropped.merge(_TOOL_FIELDS, *extras)
    conversation.note_marker(out, *extras, lasting=True)
    return out


def _object(text: str, param: str) -> dict[str, Any]:
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidRequest(f"Expected an object, got {kind(value)}.", param)
    return value


def _web_search(options: pb.WebSearchOptions, dropped: Dropped) -> Block:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool"""
    path = "web_search_options"
    out: Block = {"type": "web_search_20250305", "name": "web_search"}
    dropped.add_set(options, path, ("search_context_size",))
    dropped.pick(path, options.extra_json)
    if options.user_location_json:
        place = f"{path}.user_location"
        match decode(options.user_location_json):
            case {"type": "approximate", "approximate": dict(approximate), **rest}:
                dropped.pick_from(place, rest)
                known = dropped.pick_from(f"{place}.approximate", approximate, _LOCATION_FIELDS)
                out["user_location"] = {"type": "approximate", **known}
            case _:
                dropped.add(place)
    return out


def _choice(choice: pb.ToolChoice, dropped: Dropped) -> tuple[Block | None, Collection[str] | None]:
    """`tool_choice`, and the names of the allowed tools; None where all are."""
    allowed = allowed_tools(choice, dropped)
    if allowed is not None:
        return {"type": "any" if allowed.required else "auto"}, allowed.names
    match choice.WhichOneof("choice"):
        case "mode":
            return {"type": _CHOICES.get(choice.mode, "auto")}, None
        case "function_name":
            drop_extras(choice, dropped)
            return {"type": "tool", "name": tool_name(choice.function_name)}, None
    return None, None
