"""Tools and tool choices: OpenAI's JSON to protobuf and back, the deprecated `functions` included."""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json import fields as f
from server.errors import InvalidRequest

_TOOL_CHOICE = f.names(pb.ToolChoiceMode, "TOOL_CHOICE_MODE_")
_TOOL_CHOICE_WORDS = f.words(_TOOL_CHOICE)

_FUNCTION: f.Fields = {
    "name": f.required_text("name"),
    "description": f.text("description"),
    "parameters": f.json_text("parameters_json"),
    "strict": f.boolean("strict"),
}


def _function(msg: Any, value: Any) -> None:
    f.fill(msg, value, _FUNCTION)
    if not msg.name:
        raise InvalidRequest("Required.", "name")


_TOOL: f.Fields = {"function": lambda msg, value: _function(msg.function, value)}


def tool(msg: pb.Tool, value: Any) -> None:
    """Fill one tool; one of an unknown type is kept whole."""
    if value.__class__ is dict and value.get("type", "function") != "function":
        msg.other_json = f.encode_text(value)
        return
    f.fill(msg, value, _TOOL, skip="type")
    if not msg.HasField("function"):
        raise InvalidRequest("Required.", "function")


def dump_tool(tool: pb.Tool) -> dict[str, Any]:
    """One tool as OpenAI's object."""
    if tool.HasField("other_json"):
        return f.load(tool.other_json)
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.HasField("description"):
        function["description"] = tool.function.description
    if tool.function.HasField("parameters_json"):
        function["parameters"] = f.load(tool.function.parameters_json)
    if tool.function.HasField("strict"):
        function["strict"] = tool.function.strict
    return f.with_extra(
        {"type": "function", "function": f.with_extra(function, tool.function.extra_json)}, tool.extra_json
    )


def _chosen(function: Any) -> str:
    name = function.get("name") if function.__class__ is dict else None
    if name.__class__ is not str or not name:
        raise InvalidRequest("Required: the name of the function to call.", "name")
    return name


def tool_choice(msg: pb.ChatCompletionRequest, value: Any) -> None:
    """A mode, a function by name, or a choice of another kind."""
    if value.__class__ is str:
        f.enum("mode", _TOOL_CHOICE)(msg.tool_choice, value)
    elif value.__class__ is not dict:
        raise f.wrong_type("a string or an object", value)
    elif value.get("type", "function" if "function" in value else None) == "function":
        _named_choice(msg.tool_choice, value)
    else:
        msg.tool_choice.other_json = f.encode_text(value)


def _named_choice(choice: pb.ToolChoice, value: dict[str, Any]) -> None:
    """A function by name; some clients omit `type`. Further fields are kept unchanged."""
    try:
        choice.function_name = _chosen(value.get("function"))
    except InvalidRequest as error:
        raise f.at(error, "function") from None
    extra = {key: item for key, item in value.items() if key not in ("type", "function")}
    inner = {key: item for key, item in value["function"].items() if key != "name"}
    if inner:
        extra["function"] = inner
    if extra:
        choice.extra_json = f.encode_text(extra)


def dump_tool_choice(choice: pb.ToolChoice) -> Any:
    """The choice as OpenAI's string or object."""
    which = choice.WhichOneof("choice")
    if which == "other_json":
        return f.load(choice.other_json)
    if which == "function_name":
        extra = f.load(choice.extra_json) if choice.extra_json else {}
        function = {"name": choice.function_name, **extra.pop("function", {})}
        return {"type": "function", "function": function, **extra}
    return _TOOL_CHOICE_WORDS.get(choice.mode, "auto")


def legacy_functions(msg: pb.ChatCompletionRequest, value: Any) -> None:
    """The deprecated `functions`."""
    if value.__class__ is not list:
        raise f.wrong_type("an array", value)
    limits.check_length(len(value), limits.MAX_TOOLS)
    for index, function in enumerate(value):
        try:
            _function(msg.tools.add().function, function)
        except InvalidRequest as error:
            raise f.at(error, index) from None


def legacy_choice(msg: pb.ChatCompletionRequest, value: Any) -> None:
    """The deprecated `function_call`."""
    if value.__class__ is dict:
        msg.tool_choice.function_name = _chosen(value)
    else:
        tool_choice(msg, value)
