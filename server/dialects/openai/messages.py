"""Messages in the OpenAI dialect, by the flags of the vendors' rows: roles, names, content, image detail."""

from __future__ import annotations

from typing import Any

from server.dialects.base import Vendor
from server.dialects.dropped import Dropped


def adapt_messages(messages: list[dict[str, Any]], vendor: Vendor, dropped: Dropped) -> None:
    """Change messages to what the vendor takes, in place."""
    if vendor.refused_in_messages:
        _drop_refused(messages, vendor.refused_in_messages, dropped)
    if vendor.image_details is not None:
        _drop_details(messages, vendor.image_details, dropped)
    if not vendor.developer_role or vendor.string_content:
        _adapt_turns(messages, vendor)
    if vendor.audio_as_url:
        _make_data_urls(messages)
    if vendor.alternating:
        messages[:] = _merged(messages)
    if vendor.last_turn and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
        messages[-1].update({**vendor.last_turn, **messages[-1]})


def _adapt_turns(messages: list[dict[str, Any]], vendor: Vendor) -> None:
    for message in messages:
        if message["role"] == "developer" and not vendor.developer_role:
            message["role"] = "system"
        content = message.get("content")
        if vendor.string_content and isinstance(content, list) and all(p.get("type") == "text" for p in content):
            message["content"] = "\n".join(part["text"] for part in content)


def _drop_refused(messages: list[dict[str, Any]], refused: frozenset[str], dropped: Dropped) -> None:
    """Remove fields of OpenAI's that the vendor refuses; a user's name is written in front of the text.

    A model imitates the form of the assistant's own turns, so that names of others are not written out.
    """
    for index, message in enumerate(messages):
        if refused.isdisjoint(message):
            continue
        for field in sorted(refused & message.keys()):
            if field == "name" and message["role"] == "tool":
                continue
            value = message.pop(field)
            if value and field == "name" and message["role"] == "user":
                _write_name(message, value)
            elif value:
                dropped.add(f"messages[{index}].{field}")


def _write_name(message: dict[str, Any], name: str) -> None:
    content = message["content"]
    if isinstance(content, str):
        message["content"] = f"{name}: {content}"
        return
    for place, part in enumerate(content):
        if part.get("type") == "text":
            content[place] = {**part, "text": f"{name}: {part['text']}"}
            return
    content.append({"type": "text", "text": f"(from {name})"})


def _drop_details(messages: list[dict[str, Any]], known: frozenset[str], dropped: Dropped) -> None:
    for index, message in enumerate(messages):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            image = part.get("image_url")
            if isinstance(image, dict) and "detail" in image and image["detail"] not in known:
                detail = image.pop("detail")
                if detail != "auto":
                    dropped.add(f"messages[{index}].content[{place}].image_url.detail")


def _make_data_urls(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            audio = part.get("input_audio")
            if isinstance(audio, dict) and not audio["data"].startswith(("data:", "http:", "https:")):
                audio["data"] = f"data:;base64,{audio['data']}"


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of the same role that follow one another as one; tool calls and results stay apart."""
    out: list[dict[str, Any]] = []
    for message in messages:
        last = out[-1] if out else {}
        if message["role"] in ("user", "assistant") and _plain(message) and _plain(last, message["role"]):
            last["content"] = _joined(last["content"], message["content"])
        else:
            out.append({**message})
    return out


def _plain(message: dict[str, Any], role: str = "") -> bool:
    """Whether a message, of this role if one is given, has nothing but content."""
    fields = {name for name, value in message.items() if value}
    return fields == {"role", "content"} and message["role"] == (role or message["role"])


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [
        part
        for content in (one, other)
        for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]
