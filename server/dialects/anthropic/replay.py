"""What Anthropic signed or ran itself, as it goes back to Anthropic in an assistant's turn. Pure.

Signed thinking stands in `reasoning_details` or, where a client keeps only the tool calls, in a call's
`extra_content.anthropic.thinking`. A turn in which Anthropic's own tools ran stands whole, block by block, in the
message's `extra_content.anthropic.content`, and the container in which they ran beside it.
https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks
https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool#container-reuse
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.dialects.dropped import Dropped

Block = dict[str, Any]

#: `ReasoningDetail.format` of blocks that can be replayed to Anthropic, and its name in `extra_content`.
FORMAT = "anthropic"
#: Types of blocks that hold thinking.
THINKING = frozenset({"thinking", "redacted_thinking"})


class Replayed(NamedTuple):
    """`blocks`: the whole turn; empty where there is none. `container`: an id, or empty."""

    blocks: list[Block]
    container: str


def server_side(message: pb.Message, path: str, dropped: Dropped) -> Replayed:
    """The turn as Anthropic sent it, unless the caller has changed its text or its calls since.

    Fields of `extra_content` that are not used are reported as dropped.
    """
    fields = decode(message.extra_json) if message.extra_json else None
    content = fields.get("extra_content") if isinstance(fields, dict) else None
    if content is None:
        return Replayed([], "")
    path = f"{path}.extra_content"
    own = content.get(FORMAT) if isinstance(content, dict) else None
    blocks = _unchanged_turn(own, message)
    container = _container_id(own)
    if not blocks and not container:
        dropped.add(path)
        return Replayed([], "")
    dropped.pick_from(path, content, (FORMAT,))
    used = [name for name, value in (("content", blocks), ("container", container)) if value]
    dropped.pick_from(f"{path}.{FORMAT}", own, used)
    return Replayed(blocks, container)


def _unchanged_turn(own: Any, message: pb.Message) -> list[Block]:
    match own:
        case {"content": [*blocks]} if all(map(_is_block, blocks)):
            text = "".join(block["text"] for block in blocks if block["type"] == "text")
            calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
            if text == "".join(part.text for part in message.content) and calls == [
                call.id for call in message.tool_calls
            ]:  # blank text is a 400
                return [block for block in blocks if block["type"] != "text" or block["text"].strip()]
    return []


def _is_block(block: Any) -> bool:
    match block:
        case {"type": "text"}:
            return isinstance(block.get("text"), str)
        case {"type": "tool_use"}:
            return isinstance(block.get("id"), str) and isinstance(block.get("name"), str)
        case {"type": str()}:
            return True
    return False


def _container_id(own: Any) -> str:
    match own:
        case {"container": str(id_) | {"id": str(id_)}}:
            return id_
    return ""


class Thinking:
    """The signed thinking of one message; what cannot be replayed is reported as dropped.

    The blocks in `reasoning_details` take precedence. Those of calls, and `reasoning_content`, are copies of them.
    """

    def __init__(self, message: pb.Message, path: str, dropped: Dropped) -> None:
        self._message = message
        self._path = path
        self._dropped = dropped
        self._details = [_of_detail(detail) for detail in message.reasoning_details]
        self._of_calls: list[Block] = []

    def add(self, path: str, content: Any) -> Block:
        """Read the `extra_content` of a call, at `path`; returns the fields of it that the call's block takes."""
        if content is None:
            return {}
        own = content.get(FORMAT) if isinstance(content, dict) else None
        found = thinking_blocks(own)
        fields = {name: own[name] for name in _OF_CALLS if own.get(name)} if isinstance(own, dict) else {}
        if not found and not fields:
            self._dropped.add(path)
            return {}
        self._of_calls += found
        self._dropped.pick_from(path, content, (FORMAT,))
        self._dropped.pick_from(f"{path}.{FORMAT}", own, [*fields, *(["thinking"] if found else [])])
        return fields

    def blocks(self) -> list[Block]:
        """The blocks, once all calls are read."""
        details = [block for block in self._details if block]
        replayed = details or self._of_calls
        path = f"{self._path}.reasoning_details"
        if self._details and not details:
            self._dropped.add(path)
        elif len(details) < len(self._details):
            for index, block in enumerate(self._details):
                if not block:
                    self._dropped.add(f"{path}[{index}]")
        if self._message.reasoning_content and not replayed:
            self._dropped.add(f"{self._path}.reasoning_content")
        return replayed


def _of_detail(detail: pb.ReasoningDetail) -> Block | None:
    if detail.format != FORMAT:
        return None
    if detail.HasField("redacted"):
        return {"type": "redacted_thinking", "data": detail.redacted}
    if detail.signature:
        return {"type": "thinking", "thinking": detail.text, "signature": detail.signature}
    return None


#: Anthropic's own fields of a call. https://platform.claude.com/docs/en/api/messages/create (tool_use blocks)
_OF_CALLS = frozenset({"caller", "toolset_name"})


def thinking_blocks(own: Any) -> list[Block]:
    """The blocks in `extra_content.anthropic`; empty where it has another form."""
    match own:
        case {"thinking": [*items]}:
            return [block for item in items if (block := _thinking_block(item))]
    return []


def _thinking_block(item: Any) -> Block | None:
    """A thinking block as the client sent it back; None where it is not one."""
    match item:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return {"type": "thinking", "thinking": text, "signature": signature}
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "redacted_thinking", "data": data}
    return None
