"""`tool_choice` beyond the plain modes, for dialects that are not OpenAI's."""

from __future__ import annotations

from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.dialects.dropped import Dropped
from server.errors import unsupported

_PATH = "tool_choice"
_LIST = f"{_PATH}.allowed_tools"


class AllowedTools(NamedTuple):
    """Tools of the request that may be called, or must be."""

    names: tuple[str, ...]
    required: bool


def allowed_tools(choice: pb.ToolChoice, dropped: Dropped) -> AllowedTools | None:
    """The choice of some functions among the tools; None for a choice of another kind that the contract knows.

    The form is `{"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}}` with the modes `auto`
    and `required`, where each tool is `{"type": "function", "function": {"name": ...}}`. Raises InvalidRequest
    (unsupported) for any other object.
    https://platform.openai.com/docs/guides/function-calling#tool-choice
    """
    if not choice.HasField("other_json"):
        return None
    match decode(choice.other_json):
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)} as inner,
            **rest,
        }:
            dropped.pick_from(_PATH, rest)
            dropped.pick_from(_LIST, {name: v for name, v in inner.items() if name not in ("mode", "tools")})
            names = [_function_name(tool, f"{_LIST}.tools[{i}]", dropped) for i, tool in enumerate(tools)]
            return AllowedTools(tuple(names), mode == "required")
    raise unsupported("This endpoint has no tool choice of this kind.", f"{_PATH}.type")


def _function_name(tool: Any, path: str, dropped: Dropped) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name), **inner}, **rest}:
            dropped.pick_from(path, rest)
            dropped.pick_from(f"{path}.function", inner)
            return name
    raise unsupported("This endpoint can allow functions only.", path)


def drop_extras(choice: pb.ToolChoice, dropped: Dropped) -> None:
    """Report as dropped the fields beside the name of a function that must be called."""
    extra = dropped.pick(_PATH, choice.extra_json, ("function",))
    dropped.pick_from(f"{_PATH}.function", extra.get("function"))


def drop_choice_without_tools(request: pb.ChatCompletionRequest, dropped: Dropped) -> None:
    """Report as dropped `tool_choice` and `parallel_tool_calls` of a request without tools.

    `none` is what happens anyway, and a choice of none of the request's tools is why there are none.
    """
    choice = request.tool_choice
    allows_none = choice.mode == pb.TOOL_CHOICE_MODE_NONE or (choice.HasField("other_json") and request.tools)
    if request.HasField("tool_choice") and not allows_none:
        dropped.add(_PATH)
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        dropped.add("parallel_tool_calls")
