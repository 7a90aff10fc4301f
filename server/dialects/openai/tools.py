"""Tools in the OpenAI dialect, by the flags of the vendors' rows: `tool_choice`, `strict`, call ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from server.dialects.base import Vendor
from server.dialects.dropped import Dropped
from server.dialects.tool_ids import CallIds, FittedNames, exact

#: The kinds of `tool_choice` that OpenAI had first; vendors' own words and later kinds are passed on.
_KINDS = frozenset({"none", "auto", "required", "function"})


def adapt_tools(out: dict[str, Any], vendor: Vendor, dropped: Dropped) -> None:
    """Change tools, their choice and the calls of earlier turns to what the vendor takes."""
    if "tool_choice" in out and not vendor.tool_choices >= _KINDS:
        _adapt_choice(out, vendor, dropped)
    if vendor.strict_tools != "any" and out.get("tools"):
        _adapt_strict(out["tools"], vendor, dropped)
    if vendor.needs_parameters:
        _add_parameters(out.get("tools", ()))
    if vendor.call_id_length:
        _fit_call_ids(out["messages"], vendor.call_id_length)


def fit_names(out: dict[str, Any]) -> dict[str, str]:
    """Rewrite the names of tools that vendors refuse, in place; rewritten name -> the caller's."""
    names = FittedNames()
    tools = [*(out.get("tools") or ()), *_chosen(out.get("tool_choice"))]
    for message in out["messages"]:
        tools += message.get("tool_calls") or ()
        if message["role"] == "tool" and message.get("name"):
            names.fit(message)
    for tool in tools:
        if isinstance(tool, dict):
            names.fit(tool.get("function"))
            names.fit(tool.get("custom"))
    return names.originals


def _chosen(choice: Any) -> Iterator[Any]:
    """The tools that a `tool_choice`, which may be any JSON, names."""
    if isinstance(choice, dict):
        yield choice
        allowed = choice.get("allowed_tools")
        listed = allowed.get("tools") if isinstance(allowed, dict) else None
        yield from listed if isinstance(listed, list) else ()


def _adapt_choice(out: dict[str, Any], vendor: Vendor, dropped: Dropped) -> None:
    """Say the choice in words that the vendor takes where some mean the same, else leave it out.

    Without tools no tool can be called, and a required call of the only tool is a call of this tool.
    """
    choice = out["tool_choice"]
    kind = choice if isinstance(choice, str) else choice.get("type", "function")
    if kind not in _KINDS or kind in vendor.tool_choices:
        return
    if kind == "none":
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            out.pop(name, None)
        return
    if kind == "function" and "required" in vendor.tool_choices:
        wanted = choice.get("function", {}).get("name")
        named = [tool for tool in out.get("tools", ()) if tool.get("function", {}).get("name") == wanted]
        if named:
            out["tools"], out["tool_choice"] = named, "required"
            return
    del out["tool_choice"]
    dropped.add("tool_choice")


def _adapt_strict(tools: list[dict[str, Any]], vendor: Vendor, dropped: Dropped) -> None:
    """Leave `strict` out where it is refused, or where the tools differ and must not."""
    functions = [(index, tool["function"]) for index, tool in enumerate(tools) if "function" in tool]
    strict = [bool(function.get("strict")) for _, function in functions]
    if vendor.strict_tools == "same" and (all(strict) or not any(strict)):
        return
    for index, function in functions:
        if function.pop("strict", None):
            dropped.add(f"tools[{index}].function.strict")


def _add_parameters(tools: Iterable[dict[str, Any]]) -> None:
    """Say of functions without parameters that they take none."""
    for tool in tools:
        if "function" in tool:
            tool["function"].setdefault("parameters", {"type": "object", "properties": {}})


def _fit_call_ids(messages: list[dict[str, Any]], length: int) -> None:
    ids = CallIds(lambda id_: exact(id_, length))
    for message in messages:
        calls = message.get("tool_calls", ())
        for call, id_ in zip(calls, ids.calls([call["id"] for call in calls]), strict=True):
            call["id"] = id_
        if "tool_call_id" in message:
            message["tool_call_id"] = ids.result(message["tool_call_id"])
