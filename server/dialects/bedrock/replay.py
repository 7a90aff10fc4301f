"""Signed reasoning, as Converse gives it and as it goes back in an assistant's turn. Pure.

It stands in `reasoning_details` or, where a client keeps only the tool calls, in the `extra_content` of calls.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import encode_text
from server.dialects.anthropic.replay import thinking_blocks
from server.dialects.dropped import Dropped

Block = dict[str, Any]


def extra_content(details: Iterable[pb.ReasoningDetail]) -> str:
    """`extra_json` for a turn's first tool call: the turn's signed blocks, for clients that keep only calls.

    Claude's blocks are in Anthropic's form, others are opaque text.
    """
    thinking: list[dict[str, str]] = []
    opaque: list[str] = []
    for detail in details:
        if detail.format != "anthropic":
            opaque.append(detail.redacted)
        elif detail.HasField("redacted"):
            thinking.append({"type": "redacted_thinking", "data": detail.redacted})
        else:
            thinking.append({"type": "thinking", "thinking": detail.text, "signature": detail.signature})
    content: dict[str, Any] = {"anthropic": {"thinking": thinking}} if thinking else {}
    if opaque:
        content["bedrock"] = {"redacted": opaque}
    return encode_text({"extra_content": content}) if content else ""


class Reasoning:
    """The signed blocks of one message in one of the formats `replays`.

    What cannot be replayed is reported as dropped.
    The blocks in `reasoning_details` take precedence. Those of calls, and `reasoning_content`, are copies of them.
    """

    def __init__(self, message: pb.Message, path: str, replays: frozenset[str], dropped: Dropped) -> None:
        self._message = message
        self._path = path
        self._replays = replays
        self._dropped = dropped
        self._of_calls: list[Block] = []

    def add(self, path: str, content: Any) -> None:
        """Read the `extra_content` of a call, at `path`."""
        if content is None:
            return
        found = [detail for detail in _details(content) if detail.format in self._replays]
        self._of_calls += map(_reasoning_block, found)
        if not found:
            self._dropped.add(path)
            return
        formats = {detail.format for detail in found}
        self._dropped.pick_from(path, content, formats)
        for name in formats:
            self._dropped.pick_from(f"{path}.{name}", content[name], (_FIELDS[name],))

    def blocks(self, *, sent: bool) -> list[Block]:
        """The blocks, once all calls are read. `sent`: the turn has other blocks; without, it is not sent."""
        details = self._message.reasoning_details
        usable = [sent and detail.format in self._replays and _is_signed(detail) for detail in details]
        blocks = [_reasoning_block(d) for d, usable_ in zip(details, usable, strict=True) if usable_]
        path = f"{self._path}.reasoning_details"
        if details and not blocks:
            self._dropped.add(path)
        elif len(blocks) < len(details):
            for index, usable_ in enumerate(usable):
                if not usable_:
                    self._dropped.add(f"{path}[{index}]")
        blocks = blocks or self._of_calls
        if self._message.reasoning_content and not blocks:
            self._dropped.add(f"{self._path}.reasoning_content")
        return blocks


#: Name in `extra_content` -> the field of it that holds blocks.
_FIELDS = {"anthropic": "thinking", "bedrock": "redacted"}


def _is_signed(detail: pb.ReasoningDetail) -> bool:
    return bool(detail.redacted or (detail.HasField("text") and detail.signature))


def _details(content: Any) -> Iterator[pb.ReasoningDetail]:
    """The inverse of `extra_content`; anything of another form is left out."""
    if not isinstance(content, dict):
        return
    for block in thinking_blocks(content.get("anthropic")):
        if block["type"] == "thinking":
            yield pb.ReasoningDetail(text=block["thinking"], signature=block["signature"], format="anthropic")
        else:
            yield pb.ReasoningDetail(redacted=block["data"], format="anthropic")
    match content:
        case {"bedrock": {"redacted": list(items)}}:
            for item in items:
                if isinstance(item, str):
                    yield pb.ReasoningDetail(redacted=item, format="bedrock")


def _reasoning_block(detail: pb.ReasoningDetail) -> dict[str, Any]:
    if detail.HasField("text"):
        return {"reasoningContent": {"reasoningText": {"text": detail.text, "signature": detail.signature}}}
    data = detail.redacted
    if detail.format == "anthropic":  # Bedrock's bytes are Anthropic's text
        data = base64.b64encode(data.encode()).decode()
    return {"reasoningContent": {"redactedContent": data}}
