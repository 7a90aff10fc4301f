"""Tools and tool choices in Gemini's generateContent form. Pure.

https://ai.google.dev/gemini-api/docs/function-calling
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.dialects.dropped import Dropped
from server.dialects.gemini import schema as gemini_schema
from server.dialects.gemini.json_object import json_object
from server.dialects.gemini.names import camel, tool_name
from server.dialects.tool_choice import allowed_tools, drop_choice_without_tools, drop_extras
from server.errors import unsupported

_NATIVE_TOOLS = frozenset(
    {
        "googleSearch",
        "urlContext",
        "codeExecution",
        "googleMaps",
        "fileSearch",
        "computerUse",
        "enterpriseWebSearch",
    }
)
_MODES = {
    pb.TOOL_CHOICE_MODE_NONE: "NONE",
    pb.TOOL_CHOICE_MODE_AUTO: "AUTO",
    pb.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}
#: Modes in which arguments follow their schema whatever the functions say, or in which there are none.
_ENFORCED = ("ANY", "VALIDATED", "NONE")


def tools(
    request: pb.ChatCompletionRequest, dropped: Dropped, *, validated: bool, combined: bool
) -> dict[str, Any]:
    """`tools` and `toolConfig`, as far as the request needs them.

    `validated`: the platform and the model have the mode VALIDATED, which is AUTO with schemas enforced.
    `combined`: the model can use Google's own tools beside functions; that has to be turned on.
    https://ai.google.dev/gemini-api/docs/tool-combination
    """
    choice, allowed = _calling_config(request.tool_choice, dropped)
    declared = {
        index: tool.function
        for index, tool in enumerate(request.tools)
        if tool.HasField("function") and (allowed is None or tool.function.name in allowed)
    }
    native = [
        _native_tool(json_object(tool.other_json), f"tools[{index}]", dropped)
        for index, tool in enumerate(request.tools)
        if tool.HasField("other_json")
    ]
    if request.HasField("web_search_options"):
        dropped.add_set(request.web_search_options, "web_search_options", ("search_context_size",))
        if request.web_search_options.user_location_json:
            dropped.add("web_search_options.user_location")
        dropped.pick("web_search_options", request.web_search_options.extra_json)
        native.append({"googleSearch": {}})
    if not declared:  # a config without functions is refused
        drop_choice_without_tools(request, dropped)
        return {"tools": native} if native else {}
    if validated and choice in ({}, {"mode": "AUTO"}) and all(function.strict for function in declared.values()):
        choice = {"mode": "VALIDATED"}
    for index, function in declared.items():
        if function.strict and choice.get("mode") not in _ENFORCED:
            dropped.add(f"tools[{index}].function.strict")
        dropped.pick(f"tools[{index}]", request.tools[index].extra_json)
        dropped.pick(f"tools[{index}].function", function.extra_json)
    declarations = {"functionDeclarations": [_declaration(function) for function in declared.values()]}
    config: dict[str, Any] = {"functionCallingConfig": choice} if choice else {}
    if native and combined:
        config["includeServerSideToolInvocations"] = True
    return {"tools": [declarations, *native], **({"toolConfig": config} if config else {})}


def _declaration(function: pb.FunctionDefinition) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool_name(function.name)}
    if function.HasField("description"):
        out["description"] = function.description
    schema = json_object(function.parameters_json)
    if schema:
        out["parametersJsonSchema"] = gemini_schema.parameters(schema)
    return out


def _native_tool(tool: dict[str, Any], path: str, dropped: Dropped) -> dict[str, Any]:
    """`{"type": "google_search", "google_search": {...}}`; the options may be missing."""
    type_ = str(tool.get("type"))
    name = camel(type_)
    if name not in _NATIVE_TOOLS:
        raise unsupported(f"Gemini has no tool of type {type_[:40]!r}.", path)
    options = type_ if tool.get(type_) else name
    dropped.pick_from(path, tool, ("type", options))
    return {name: tool.get(options) or {}}


def _calling_config(choice: pb.ToolChoice, dropped: Dropped) -> tuple[dict[str, Any], Collection[str] | None]:
    """`functionCallingConfig`, and the names of the functions to declare, None for all."""
    allowed = allowed_tools(choice, dropped)
    if allowed is not None and allowed.required:
        return {"mode": "ANY", "allowedFunctionNames": list(map(tool_name, allowed.names))}, None
    if allowed is not None:
        return {"mode": "AUTO"}, allowed.names
    if choice.HasField("function_name"):
        drop_extras(choice, dropped)
        return {"mode": "ANY", "allowedFunctionNames": [tool_name(choice.function_name)]}, None
    return ({"mode": _MODES[choice.mode]} if choice.mode else {}), None
