"""Tools and tool choices in Converse's form. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, kind
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.limits import Limits
from server.dialects.bedrock.messages import CachePoints, Conversation, tool_name
from server.dialects.bedrock.models import Family, additional_fields, grammar
from server.dialects.dropped import Dropped
from server.dialects.schemas import of_object
from server.dialects.tool_choice import allowed_tools, drop_choice_without_tools, drop_extras
from server.errors import InvalidRequest, unsupported

#: Replaces `tool_choice: none` where tools must be listed because the history has calls.
_NO_TOOLS = {"text": "Answer in text. Do not call any tool."}
_MODES: dict[int, dict[str, Any]] = {pb.TOOL_CHOICE_MODE_REQUIRED: {"any": {}}}


def config(
    request: pb.ChatCompletionRequest, conversation: Conversation, row: Family, limits: Limits, dropped: Dropped
) -> dict[str, Any] | None:
    """`toolConfig`. A history with tool blocks requires tools, and there is no choice `none`.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html
    """
    choice, allowed = _choice(request.tool_choice, dropped)
    none = request.tool_choice.mode == pb.TOOL_CHOICE_MODE_NONE
    tools: list[dict[str, Any]] = []
    if not none or conversation.has_tool_blocks:
        for index, tool in enumerate(request.tools):
            if allowed is None or tool.function.name in allowed:
                tools += _tool(tool, f"tools[{index}]", conversation.cache, row, limits, dropped)
    if not tools and not none:
        drop_choice_without_tools(request, dropped)
    if conversation.has_tool_blocks:
        if none:
            conversation.system.append(_NO_TOOLS)
        if not tools:
            return {"tools": [_stub(name) for name in conversation.called or ("unknown",)]}
    if not tools:
        return None
    if choice and not row.forced_tools:
        raise unsupported("This model cannot be forced to call a tool.", "tool_choice")
    return {"tools": tools, "toolChoice": choice} if choice else {"tools": tools}


def _stub(name: str) -> dict[str, Any]:
    """The definition of a tool that the history calls and the request does not define."""
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}


def _tool(
    tool: pb.Tool, path: str, cache: CachePoints, row: Family, limits: Limits, dropped: Dropped
) -> list[dict[str, Any]]:
    """The tool, and after it the cache point for its `cache_control`."""
    if tool.HasField("other_json"):
        match decode(tool.other_json):
            case {"systemTool": {"name": str()} as system_tool, **rest}:  # Nova's own, e.g. nova_grounding
                dropped.pick_from(path, rest, ("type",))
                return [{"systemTool": system_tool}]
        raise unsupported("Bedrock has no tool of this kind.", f"{path}.type")
    function = tool.function
    schema = decode(function.parameters_json) if function.parameters_json else {"properties": {}}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"Expected an object, got {kind(schema)}.", f"{path}.function.parameters")
    if not row.combined_tools:
        schema = anthropic_schema.tool_input(schema)
    schema = of_object(schema)
    enforced = grammar(row, schema, limits, tool=True) if function.strict else None
    if function.strict and enforced is None:
        dropped.add(f"{path}.function.strict")
    spec: dict[str, Any] = {"name": tool_name(function.name)}
    if function.description.strip():
        spec["description"] = function.description
    spec["inputSchema"] = {"json": enforced or schema}
    if enforced is not None:
        spec["strict"] = True
    return [{"toolSpec": spec}, *_cache_point(tool, path, cache, dropped)]


def _cache_point(tool: pb.Tool, path: str, cache: CachePoints, dropped: Dropped) -> list[dict[str, Any]]:
    controls = {
        f"{place}.cache_control": fields["cache_control"]
        for place, text in ((f"{path}.function", tool.function.extra_json), (path, tool.extra_json))
        if (fields := dropped.pick(place, text, ("cache_control",)))
    }
    *unused, last = controls or [""]
    for place in unused:
        dropped.add(place)
    return cache.after(last, controls.get(last), "tools")


def _choice(choice: pb.ToolChoice, dropped: Dropped) -> tuple[dict[str, Any] | None, Collection[str] | None]:
    """`toolChoice`, None for the default, and the names of the allowed tools, None where all are."""
    allowed = allowed_tools(choice, dropped)
    if allowed is not None:
        return ({"any": {}} if allowed.required else None), allowed.names
    if choice.HasField("function_name"):
        drop_extras(choice, dropped)
        return {"tool": {"name": tool_name(choice.function_name)}}, None
    return _MODES.get(choice.mode), None


def forbid_parallel_calls(
    body: dict[str, Any], request: pb.ChatCompletionRequest, row: Family, dropped: Dropped
) -> None:
    """`parallel_tool_calls: false`, unless there is a toolChoice: it would be a second one.

    https://github.com/BerriAI/litellm/issues/36536
    """
    if not request.HasField("parallel_tool_calls") or request.parallel_tool_calls:
        return
    if "parallel_tool_calls" in dropped.paths:  # the tools are those of the history only
        return
    fields = body.get("additionalModelRequestFields", {})
    possible = row.one_call and "toolConfig" in body and "toolChoice" not in body["toolConfig"]
    if possible and "tool_choice" not in fields:
        additional_fields(body)["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    else:
        dropped.add("parallel_tool_calls")
