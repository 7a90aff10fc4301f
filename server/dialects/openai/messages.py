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
            if isinstance(image, dict) and image.get("detail", "auto") not in known:
                del image["detail"]
                dropped.add(f"messages[{index}].content[{place}].image_url.detail")
