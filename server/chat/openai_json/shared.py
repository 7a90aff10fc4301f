"""Objects of both requests and completions: tool calls, reasoning, annotations, audio."""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import fields as f

ROLES = f.names(pb.Role, "ROLE_")
ROLE_WORDS = f.words(ROLES)

_FUNCTION_CALL: f.Fields = {"name": f.text("name"), "arguments": f.text("arguments")}
_CUSTOM_CALL: f.Fields = {"name": f.text("name"), "input": f.text("input")}
TOOL_CALL: f.Fields = {
    "id": f.text("id"),
    "function": f.message("function", _FUNCTION_CALL),
    "custom": f.message("custom", _CUSTOM_CALL),
}


def tool_call(call: pb.ToolCall, value: Any) -> None:
    """Fill one call. `type` is redundant: the kind of call determines it."""
    f.fill(call, value, TOOL_CALL, skip="type")


def dump_call(call: pb.ToolCall | pb.ToolCallDelta, out: dict[str, Any]) -> None:
    """Add the function or custom call, and the unknown fields."""
    if call.HasField("function"):
        function: dict[str, Any] = {"arguments": call.function.arguments}
        if call.function.name or isinstance(call, pb.ToolCall):
            function = {"name": call.function.name, **function}
        out["function"] = f.with_extra(function, call.function.extra_json)
    elif call.HasField("custom"):
        custom: dict[str, Any] = {"input": call.custom.input}
        if call.custom.name or isinstance(call, pb.ToolCall):
            custom = {"name": call.custom.name, **custom}
        out["custom"] = f.with_extra(custom, call.custom.extra_json)
    if call.extra_json:
        f.merge_extra(out, call.extra_json)


def dump_tool_call(call: pb.ToolCall) -> dict[str, Any]:
    """One call as OpenAI's object."""
    out: dict[str, Any] = {"id": call.id, "type": "custom" if call.HasField("custom") else "function"}
    dump_call(call, out)
    return out


def reasoning_detail(block: pb.ReasoningDetail, value: Any) -> None:
    """Fill one block; OpenRouter's object is the common form of these.

    https://openrouter.ai/docs/use-cases/reasoning-tokens#reasoning_details-array-structure
    """
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    text = {"type", "text", "signature", "format"}
    hidden = {"type", "data", "signature", "format"}
    plain = all(v is None or v.__class__ is str for v in value.values())
    if plain and value.get("type") == "reasoning.text" and value.get("text") is not None and value.keys() <= text:
        block.text = value["text"]
    elif plain and value.get("type") == "reasoning.encrypted" and value.get("data") and value.keys() <= hidden:
        block.redacted = value["data"]
    else:
        block.other_json = f.encode_text(value)
        return
    for name in ("signature", "format"):
        if value.get(name) is not None:
            setattr(block, name, value[name])


def dump_reasoning_detail(block: pb.ReasoningDetail) -> dict[str, Any]:
    """One block as OpenRouter's object."""
    which = block.WhichOneof("block")
    if which == "other_json":
        return f.load(block.other_json)
    out: dict[str, Any]
    if which == "redacted":
        out = {"type": "reasoning.encrypted", "data": block.redacted}
    else:
        out = {"type": "reasoning.text", "text": block.text}
    for name in ("signature", "format"):
        if block.HasField(name):
            out[name] = getattr(block, name)
    return out


_CITATION: f.Fields = {
    "url": f.text("url"),
    "title": f.text("title"),
    "start_index": f.integer("start_index", 0, f.INT32_MAX),
    "end_index": f.integer("end_index", 0, f.INT32_MAX),
}


def annotation(item: pb.Annotation, value: Any) -> None:
    """Fill one annotation; one of an unknown type is kept whole."""
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    if value.get("type") == "url_citation" and value.keys() == {"type", "url_citation"}:
        item.url_citation.SetInParent()
        f.fill(item.url_citation, value["url_citation"], _CITATION)
    else:
        item.other_json = f.encode_text(value)


def dump_annotation(item: pb.Annotation) -> dict[str, Any]:
    """One annotation as OpenAI's object."""
    if item.HasField("other_json"):
        return f.load(item.other_json)
    c = item.url_citation
    out = {"url": c.url, "title": c.title, "start_index": c.start_index, "end_index": c.end_index}
    if c.extra_json:
        f.merge_extra(out, c.extra_json)
    return {"type": "url_citation", "url_citation": out}


_AUDIO: f.Fields = {
    "id": f.text("id"),
    "data": f.text("data"),
    "expires_at": f.integer("expires_at", 0, f.INT64_MAX),
    "transcript": f.text("transcript"),
}
set_audio = f.message("audio", _AUDIO)


def dump_audio(audio: pb.Audio) -> dict[str, Any]:
    """Audio output, or the reference to one."""
    out: dict[str, Any] = {"id": audio.id} if audio.id else {}
    for name in ("data", "expires_at", "transcript"):
        if audio.HasField(name):
            out[name] = getattr(audio, name)
    if audio.extra_json:
        f.merge_extra(out, audio.extra_json)
    return out
