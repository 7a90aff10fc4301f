"""Messages and their content parts: OpenAI's JSON to protobuf and back."""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import fields as f
from server.chat.openai_json.shared import (
    ROLE_WORDS,
    ROLES,
    annotation,
    dump_annotation,
    dump_audio,
    dump_reasoning_detail,
    dump_tool_call,
    reasoning_detail,
    set_audio,
    tool_call,
)
from server.errors import InvalidRequest

_IMAGE_DETAIL = f.names(pb.ImageDetail, "IMAGE_DETAIL_")
_IMAGE_DETAIL_WORDS = f.words(_IMAGE_DETAIL)

# Content parts

_IMAGE = {"url": f.required_text("url"), "detail": f.enum("detail", _IMAGE_DETAIL)}
_AUDIO_IN = {"data": f.text("data"), "format": f.text("format")}
_FILE = {name: f.text(name) for name in ("file_data", "file_id", "filename")}


def _image(part: pb.ContentPart, value: Any) -> None:
    image = part.image_url
    image.SetInParent()
    if value.__class__ is str:  # Mistral's spelling
        value = {"url": value}
    f.fill(image, value, _IMAGE)
    if not image.url:
        raise InvalidRequest("Required.", "url")


def _input_audio(part: pb.ContentPart, value: Any) -> None:
    part.input_audio.SetInParent()
    f.fill(part.input_audio, value, _AUDIO_IN)
    for name in ("data", "format"):
        if not getattr(part.input_audio, name):
            raise InvalidRequest("Required.", name)


_PARTS: dict[str, f.Fields] = {
    "text": {"text": f.text("text")},
    "image_url": {"image_url": _image},
    "input_audio": {"input_audio": _input_audio},
    "file": {"file": f.message("file", _FILE)},
    "refusal": {"refusal": f.text("refusal")},
}


def content_part(part: pb.ContentPart, value: Any) -> None:
    """Fill one part; one of an unknown type is kept whole."""
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    type_ = value.get("type")
    if type_.__class__ is not str:
        raise InvalidRequest("Required." if type_ is None else f"Expected a string, got {f.kind(type_)}.", "type")
    fields = _PARTS.get(type_)
    if fields is None:
        part.other_json = f.encode_text(value)
        return
    f.fill(part, value, fields, skip="type")
    if part.WhichOneof("part") is None:
        raise InvalidRequest("Required.", type_)


def content(msg: Any, value: Any) -> None:
    """A string, or an array of parts."""
    if value.__class__ is str:
        msg.content.add().text = value
    elif value.__class__ is list:
        _content_parts(msg, value)
    else:
        raise f.wrong_type("a string or an array of content parts", value)


_content_parts = f.each("content", content_part)


def dump_content_part(part: pb.ContentPart) -> dict[str, Any]:
    """One part as OpenAI's object."""
    which = part.WhichOneof("part")
    out: dict[str, Any]
    if which == "other_json":
        return f.load(part.other_json)
    if which == "image_url":
        image: dict[str, Any] = {"url": part.image_url.url}
        if part.image_url.detail:
            image["detail"] = _IMAGE_DETAIL_WORDS[part.image_url.detail]
        out = {"type": "image_url", "image_url": f.with_extra(image, part.image_url.extra_json)}
    elif which == "input_audio":
        audio = {"data": part.input_audio.data, "format": part.input_audio.format}
        out = {"type": "input_audio", "input_audio": f.with_extra(audio, part.input_audio.extra_json)}
    elif which == "file":
        file = {name: getattr(part.file, name) for name in _FILE if part.file.HasField(name)}  # type: ignore[arg-type]
        out = {"type": "file", "file": f.with_extra(file, part.file.extra_json)}
    elif which == "refusal":
        out = {"type": "refusal", "refusal": part.refusal}
    else:
        out = {"type": "text", "text": part.text}
    return f.with_extra(out, part.extra_json)


def dump_content(parts: Any) -> Any:
    """A lone text part as a string, more as an array, none as null."""
    if len(parts) == 1:
        [part] = parts
        if part.HasField("text") and not part.extra_json:
            return part.text
    return [dump_content_part(part) for part in parts] if parts else None


# Messages

_ROLES_IN = ROLES | {"function": pb.ROLE_TOOL}


def _tool_call(call: pb.ToolCall, value: Any) -> None:
    tool_call(call, value)
    if not call.id:
        raise InvalidRequest("Required.", "id")
    if call.WhichOneof("call") is None:
        raise InvalidRequest("Required.", "function")


def _legacy_call(msg: pb.Message, value: Any) -> None:
    """`function_call` of an assistant message: one tool call, whose id `tie_legacy_calls` sets."""
    call = msg.tool_calls.add()
    f.fill(call.function, value, {"name": f.required_text("name"), "arguments": f.text("arguments")})
    if not call.function.name:
        raise InvalidRequest("Required.", "name")


_MESSAGE: f.Fields = {
    "role": f.enum("role", _ROLES_IN),
    "content": content,
    "name": f.text("name"),
    "refusal": f.text("refusal"),
    "tool_calls": f.each("tool_calls", _tool_call),
    "tool_call_id": f.text("tool_call_id"),
    "function_call": _legacy_call,
    "reasoning_content": f.text("reasoning_content"),
    "reasoning_details": f.each("reasoning_details", reasoning_detail),
    "annotations": f.each("annotations", annotation),
    "audio": set_audio,
}


def message(msg: pb.Message, value: Any) -> None:
    """Fill one message and check the fields that its role requires."""
    if value.__class__ is dict and len(value) == 2:  # fast path: only a role and content
        role, content = value.get("role"), value.get("content")
        code = ROLES.get(role, pb.ROLE_TOOL) if role.__class__ is str else pb.ROLE_TOOL
        if content.__class__ is str and code != pb.ROLE_TOOL:  # tool messages need an id
            msg.role = code  # type: ignore[assignment]  # the table has plain numbers
            msg.content.add().text = content
            return
    f.fill(msg, value, _MESSAGE)
    role = msg.role
    if not role:
        raise InvalidRequest("Required.", "role")
    if role == pb.ROLE_ASSISTANT:
        return
    if not msg.content:
        raise InvalidRequest("Required: a string, or an array of at least one content part.", "content")
    if role == pb.ROLE_TOOL and not msg.tool_call_id and value["role"] != "function":
        raise InvalidRequest("Required on a tool message.", "tool_call_id")


def tie_legacy_calls(request: pb.ChatCompletionRequest) -> None:
    """Set ids of `function_call` messages, and the `tool_call_id` of `function` messages, matched by name."""
    last: dict[str, str] = {}
    for index, msg in enumerate(request.messages):
        for call in msg.tool_calls:
            call.id = call.id or f"call_{index}"
            last[call.function.name] = call.id
        if msg.role == pb.ROLE_TOOL and not msg.tool_call_id:
            msg.tool_call_id = last.get(msg.name, f"call_{msg.name}")


def dump_message(msg: pb.Message) -> dict[str, Any]:
    """One message as OpenAI's object; an assistant's without content gets null."""
    out: dict[str, Any] = {"role": ROLE_WORDS[msg.role], "content": dump_content(msg.content)}
    if out["content"] is not None and len(msg.ListFields()) == 2:  # only role and content
        return out
    for name in ("name", "refusal", "tool_call_id", "reasoning_content"):
        if msg.HasField(name):
            out[name] = getattr(msg, name)
    if msg.tool_calls:
        out["tool_calls"] = [dump_tool_call(call) for call in msg.tool_calls]
    if msg.reasoning_details:
        out["reasoning_details"] = [dump_reasoning_detail(block) for block in msg.reasoning_details]
    if msg.annotations:
        out["annotations"] = [dump_annotation(item) for item in msg.annotations]
    if msg.HasField("audio"):
        out["audio"] = dump_audio(msg.audio)
    return f.with_extra(out, msg.extra_json)
