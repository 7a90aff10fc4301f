"""Requests in the OpenAI dialect: what vendors take differently from OpenAI, by the flags of their rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from server.chat.openai_json.request_fields import REQUEST_LEVEL
from server.chat.openai_json.unknown import Unknown, restore_unknown, separate_unknown
from server.dialects.base import Endpoint
from server.dialects.dropped import Dropped
from server.dialects.openai.messages import adapt_messages
from server.dialects.openai.parameters import adapt_parameters
from server.dialects.openai.tools import adapt_tools
from server.errors import InvalidRequest

#: Fields that the contract knows and OpenAI does not, which vendors take under `Vendor.extensions` only.
_REASONING = frozenset({"reasoning_content", "reasoning_details"})


def adapt(out: dict[str, Any], endpoint: Endpoint, *, extended: bool, stream: bool) -> tuple[str, ...]:
    """Change the body `out` to what the vendor takes; the paths of what had to be left out.

    `extended`: messages may have fields beyond OpenAI's. Raises InvalidRequest.
    """
    vendor = endpoint.vendor
    stop = out.get("stop")
    if stop and len(stop) > vendor.max_stop:
        raise InvalidRequest(f"At most {vendor.max_stop} sequences, got {len(stop)}.", "stop")
    dropped = Dropped()
    if extended and endpoint.foreign_formats:
        _drop_signatures(out["messages"], endpoint.foreign_formats, dropped)
    if vendor.reasoning_name:
        _rename_reasoning(out["messages"], vendor.reasoning_name)
    if vendor.extensions is not None:
        if extended:
            _drop_unknown(out, vendor.extensions, dropped)
        _drop_reasoning(out["messages"], vendor.extensions, dropped)
    if vendor.needs_reasoning:
        _add_reasoning(out["messages"])
    adapt_parameters(out, vendor, dropped, stream=stream)
    adapt_tools(out, vendor, dropped)
    adapt_messages(out["messages"], vendor, dropped)
    return dropped.paths


# Fields beyond OpenAI's


def _drop_signatures(messages: list[dict[str, Any]], formats: frozenset[str], dropped: Dropped) -> None:
    """Remove the signatures of other dialects: no vendor reads them, and some refuse fields they do not know."""
    for index, message in enumerate(messages):
        details = message.get("reasoning_details")
        if isinstance(details, list):
            foreign = {place for place, detail in enumerate(details) if _is_in(detail.get("format"), formats)}
            kept = [detail for place, detail in enumerate(details) if place not in foreign]
            paths = [f"[{place}]" for place in sorted(foreign)]
            _keep(message, "reasoning_details", kept, f"messages[{index}].reasoning_details", paths, dropped)
        for place, call in enumerate(message.get("tool_calls", ())):
            _drop_extra_content(call, formats, f"messages[{index}].tool_calls[{place}]", dropped)
        _drop_extra_content(message, formats, f"messages[{index}]", dropped)


def _is_in(format_: Any, formats: frozenset[str]) -> bool:
    """Whether a reasoning detail's `format`, which callers may set to any JSON, is one of `formats`."""
    return isinstance(format_, str) and format_ in formats


def _drop_extra_content(obj: dict[str, Any], formats: frozenset[str], path: str, dropped: Dropped) -> None:
    extra = obj.get("extra_content")
    if isinstance(extra, dict):
        kept = {name: value for name, value in extra.items() if name not in formats}
        foreign = [f".{name}" for name in extra if name in formats]
        _keep(obj, "extra_content", kept, f"{path}.extra_content", foreign, dropped)


def _keep(
    obj: dict[str, Any],
    key: str,
    kept: Collection[Any],
    path: str,
    foreign: Sequence[str],
    dropped: Dropped,
) -> None:
    """Set `key`, at `path`, to what is left without the items at `foreign`; remove it where nothing is."""
    if kept:
        obj[key] = kept
        for item in foreign:
            dropped.add(f"{path}{item}")
    elif foreign:
        del obj[key]
        dropped.add(path)


def _drop_unknown(out: dict[str, Any], extensions: frozenset[str], dropped: Dropped) -> None:
    """Remove fields that neither OpenAI nor the vendor knows from messages, parts, calls and tools.

    Those of the request itself stay: a caller who sends one means this vendor.
    """
    unknown: Unknown = []
    separate_unknown(out, REQUEST_LEVEL, unknown)
    for path, fields in unknown:
        kept = fields if not path else {name: value for name, value in fields.items() if name in extensions}
        restore_unknown(out, [(path, kept)])
        for name in fields:
            if name not in kept:
                dropped.add(_path(path, name))


def _drop_reasoning(messages: list[dict[str, Any]], extensions: frozenset[str], dropped: Dropped) -> None:
    names = _REASONING - extensions
    for index, message in enumerate(messages):
        if not names.isdisjoint(message) and message["role"] == "assistant":
            for name in sorted(names & message.keys()):
                if message.pop(name):
                    dropped.add(f"messages[{index}].{name}")


def _rename_reasoning(messages: list[dict[str, Any]], name: str) -> None:
    """Send reasoning under the vendor's name; one that the caller has under that name already stays."""
    for message in messages:
        if message["role"] == "assistant" and "reasoning_content" in message:
            reasoning = message.pop("reasoning_content")
            if reasoning:
                message.setdefault(name, reasoning)


def _add_reasoning(messages: list[dict[str, Any]]) -> None:
    """Empty reasoning for turns without any: of other models, or of clients that keep none."""
    for message in messages:
        if message["role"] == "assistant" and message.get("reasoning_content") is None:
            message["reasoning_content"] = ""


def _path(path: tuple[str | int, ...], name: str) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*path, name))
    return "".join(steps).removeprefix(".")
