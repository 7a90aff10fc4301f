"""`messages[].name`, for providers that have no field for it."""

from __future__ import annotations

from collections.abc import Sequence

from lmchat.v1 import chat_pb2 as pb

from server.dialects.dropped import Dropped
from server.dialects.tool_ids import called_name


def named_content(message: pb.Message, path: str, dropped: Dropped) -> Sequence[pb.ContentPart]:
    """The content of `message`, with the user's name in front of the first text, or after content without text.

    Parts keep their indices. Only users' names are written out: a model imitates the form of the assistant's own
    turns, and a tool's name is that of its call. https://platform.openai.com/docs/api-reference/chat/create
    """
    if message.role != pb.ROLE_USER or not message.name:
        return message.content
    parts = list(message.content)
    for index, part in enumerate(parts):
        if part.text.strip():
            parts[index] = pb.ContentPart()
            parts[index].CopyFrom(part)
            parts[index].text = f"{message.name}: {part.text}"
            return parts
    if any(not part.HasField("text") for part in parts):
        parts.append(pb.ContentPart(text=f"(from {message.name})"))
    else:
        dropped.add(f"{path}.name")
    return parts


class ToolNames:
    """The names of the functions that have been called so far, by call id."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, call: pb.ToolCall) -> None:
        """Record a call."""
        self._names[call.id] = called_name(call)

    def drop_other(self, message: pb.Message, path: str, dropped: Dropped) -> None:
        """Report a tool result's `name` as dropped where it is not the name in the call, which is sent."""
        if message.name and message.name != self._names.get(message.tool_call_id):
            dropped.add(f"{path}.name")
