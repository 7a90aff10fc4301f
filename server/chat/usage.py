"""Token counts of several provider calls as one."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json.fields import INT64_MAX


def add_usage(total: pb.Usage, more: pb.Usage) -> None:
    """Add the counts of `more` to `total`, those of vendors in `extra_json` too."""
    _add(total, more)


def _add(total: Message, more: Message) -> None:
    for field, value in more.ListFields():
        if field.name == "extra_json":
            kept = openai_json.decode_json(getattr(total, "extra_json") or "{}")  # noqa: B009
            both = _sum(kept, openai_json.decode_json(value))
            setattr(total, "extra_json", openai_json.encode_text(both))  # noqa: B010
        elif field.message_type is not None:
            getattr(total, field.name).SetInParent()
            _add(getattr(total, field.name), value)
        else:
            count = getattr(total, field.name) + value
            setattr(total, field.name, max(-INT64_MAX, min(count, INT64_MAX)))


def _sum(one: Any, other: Any) -> Any:
    """Numbers added, inside objects too; of anything else, the first."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**other, **{key: _sum(value, other[key]) if key in other else value for key, value in one.items()}}
    if isinstance(one, bool) or isinstance(other, bool):
        return one
    return one + other if isinstance(one, int | float) and isinstance(other, int | float) else one
