"""Requests in the OpenAI dialect: what vendors take differently from OpenAI, by the flags of their rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from server.chat.openai_json.request_fields import REQUEST_LEVEL
from server.chat.openai_json.unknown import Unknown, put_back, set_aside
from server.dialects.base import Endpoint, Vendor
from server.dialects.tool_ids import exact
from server.errors import InvalidRequest

#: Fields that the contract knows and OpenAI does not, which vendors take under `Vendor.extensions` only.
_REASONING = ("reasoning_content", "reasoning_details")


def adapt(out: dict[str, Any], endpoint: Endpoint, *, extended: bool) -> tuple[str, ...]:
    """Change the body `out` to what the vendor takes; the paths of what had to be left out.

    `extended`: messages may have fields beyond OpenAI's. Raises InvalidRequest.
    """
    vendor = endpoint.vendor
    stop = out.get("stop")
    if stop and len(stop) > vendor.max_stop:
        raise InvalidRequest(f"At most {vendor.max_stop} sequences, got {len(stop)}.", "stop")
    dropped: list[str] = []
    if extended and endpoint.foreign_formats:
        _drop_signatures(out["messages"], endpoint.foreign_formats, dropped)
    if vendor.extensions is not None:
        if extended:
            _drop_unknown(out, vendor.extensions, dropped)
        _drop_reasoning(out["messages"], vendor.extensions, dropped)
    _set_token_limit(out, vendor)
    if not vendor.stream_usage:
        out.pop("stream_options", None)
    for name, value in vendor.defaults.items():
        out.setdefault(name, value)
    if vendor.call_id_length:
        _fit_call_ids(out["messages"], vendor.call_id_length)
    if not vendor.developer_role or vendor.string_content:
        _adapt_turns(out["messages"], vendor)
    return tuple(dropped)


def _set_token_limit(out: dict[str, Any], vendor: Vendor) -> None:
    if vendor.token_limit:
        limits = [out.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
        limit = next((limit for limit in limits if limit is not None), None)
        if limit is not None:
            out[vendor.token_limit] = limit


def _adapt_turns(messages: list[dict[str, Any]], vendor: Vendor) -> None:
    for message in messages:
        if message["role"] == "developer" and not vendor.developer_role:
            message["role"] = "system"
        content = message.get("content")
        if vendor.string_content and isinstance(content, list) and all(p.get("type") == "text" for p in content):
            message["content"] = "\n".join(part["text"] for part in content)


# Fields beyond OpenAI's


def _drop_signatures(messages: list[dict[str, Any]], formats: frozenset[str], dropped: list[str]) -> None:
    """Remove the signatures of other dialects: no vendor reads them, and some refuse fields they do not know."""
    for index, message in enumerate(messages):
        details = message.get("reasoning_details")
        if isinstance(details, list):
            kept = [detail for detail in details if not _is_in(detail.get("format"), formats)]
            _keep(message, "reasoning_details", details, kept, f"messages[{index}].reasoning_details", dropped)
        for place, call in enumerate(message.get("tool_calls", ())):
            _drop_extra_content(call, formats, f"messages[{index}].tool_calls[{place}]", dropped)
        _drop_extra_content(message, formats, f"messages[{index}]", dropped)


def _is_in(format_: Any, formats: frozenset[str]) -> bool:
    """Whether a reasoning detail's `format`, which callers may set to any JSON, is one of `formats`."""
    return isinstance(format_, str) and format_ in formats


def _drop_extra_content(obj: dict[str, Any], formats: frozenset[str], path: str, dropped: list[str]) -> None:
    extra = obj.get("extra_content")
    if isinstance(extra, dict):
        kept = {name: value for name, value in extra.items() if name not in formats}
        _keep(obj, "extra_content", extra, kept, f"{path}.extra_content", dropped)


def _keep(
    obj: dict[str, Any], key: str, before: Collection[Any], kept: Collection[Any], path: str, dropped: list[str]
) -> None:
    """Set `key` to what is left of it, or remove it where nothing is."""
    if len(kept) == len(before):
        return
    dropped.append(path)
    if kept:
        obj[key] = kept
    else:
        del obj[key]


def _drop_unknown(out: dict[str, Any], extensions: frozenset[str], dropped: list[str]) -> None:
    """Remove fields that neither OpenAI nor the vendor knows from messages, parts, calls and tools.

    Those of the request itself stay: a caller who sends one means this vendor.
    """
    unknown: Unknown = []
    set_aside(out, REQUEST_LEVEL, unknown)
    for path, fields in unknown:
        kept = fields if not path else {name: value for name, value in fields.items() if name in extensions}
        put_back(out, [(path, kept)])
        dropped += [_path(path, name) for name in fields if name not in kept]


def _drop_reasoning(messages: list[dict[str, Any]], extensions: frozenset[str], dropped: list[str]) -> None:
    names = [name for name in _REASONING if name not in extensions]
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            dropped += [f"messages[{index}].{name}" for name in names if message.pop(name, None)]


def _path(path: tuple[str | int, ...], name: str) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*path, name))
    return "".join(steps).removeprefix(".")


# Tool call ids


def _fit_call_ids(messages: list[dict[str, Any]], length: int) -> None:
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["id"] = exact(call["id"], length)
        if "tool_call_id" in message:
            message["tool_call_id"] = exact(message["tool_call_id"], length)
