"""`messages[].name` of users, for providers that have no field for it."""

from __future__ import annotations

from collections.abc import Sequence

from lmchat.v1 import chat_pb2 as pb


def named_content(message: pb.Message) -> Sequence[pb.ContentPart]:
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
    return parts
