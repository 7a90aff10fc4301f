"""Conversations in Anthropic's Messages dialect: the contract's messages to system blocks and turns.

https://platform.claude.com/docs/en/build-with-claude/working-with-messages
System and developer turns are lifted out, wherever they stand. Thinking goes back
to Anthropic as signed blocks: those in `reasoning_details` or, where a client
keeps only the tool calls, those in the first call's
`extra_content.anthropic.thinking`. Fields beyond OpenAI's that Anthropic knows,
such as `cache_control`, are taken from parts, messages and calls alike.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.errors import InvalidRequest, Reason

Block = dict[str, Any]

#: The format of reasoning details that can be replayed here.
FORMAT = "anthropic"

_CACHE = frozenset({"cache_control"})
#: Anthropic's own fields of each block.
_OWN: Mapping[str, frozenset[str]] = {
    "text": _CACHE,
    "image": _CACHE,
    "document": _CACHE | {"citations", "context", "title"},
    "tool_use": _CACHE,
    "tool_result": _CACHE | {"is_error"},
}

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
#: Read as plain text beside `text/*`.
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


def unsupported(message: str, param: str) -> InvalidRequest:
    """The error for what Anthropic, or this model or platform, cannot do."""
    return InvalidRequest(message, param, reason=Reason.UNSUPPORTED_FEATURE)


def own(names: frozenset[str], *texts: str) -> dict[str, Any]:
    """Those of `names` that stand in any of the `extra_json` texts."""
    found: dict[str, Any] = {}
    for text in texts:
        fields = decode(text) if text else None
        if isinstance(fields, dict):
            found |= {name: value for name, value in fields.items() if name in names}
    return found


class Conversation:
    """`system` blocks, and `turns`, which alternate between user and assistant.

    `remote`: the platform fetches https URLs and keeps files. Raises
    InvalidRequest for content Anthropic cannot read.
    """

    def __init__(self, messages: Sequence[pb.Message], *, remote: bool) -> None:
        self._remote = remote
        self.system: list[Block] = []
        self.turns: list[Block] = []
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        if not self.turns:  # Anthropic wants a turn
            self._add("user", self.system)
            self.system = []
        for turn in self.turns:
            if turn["role"] == "user":  # results come first, whatever was said between the calls and them
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = self.turns[-1]["content"][-1] if self.turns else {}
        if last.get("type") == "text" and self.turns[-1]["role"] == "assistant":
            # A 400 from Anthropic: "final assistant content cannot end with trailing whitespace".
            last["text"] = last["text"].rstrip()

    def used_tools(self) -> list[str]:
        """The names of the tools that were called, in order."""
        blocks = (block for turn in self.turns for block in turn["content"])
        return list({block["name"]: None for block in blocks if block["type"] == "tool_use"})

    def may_think(self) -> bool:
        """Whether the model may be given a budget to think with now.

        An assistant turn that goes on must then begin with a thinking block, and one without is a 400.
        https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks
        """
        if not self.turns or self.turns[-1]["role"] == "assistant":
            return False
        goes_on = self.turns[-1]["content"][0]["type"] == "tool_result" and len(self.turns) > 1
        return not goes_on or self.turns[-2]["content"][0]["type"] in ("thinking", "redacted_thinking")

    def _add(self, role: str, blocks: list[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        elif blocks:
            self.turns.append({"role": role, "content": blocks})

    def _message(self, message: pb.Message, at: str) -> None:
        match message.role:
            case pb.ROLE_TOOL:
                self._add("user", [self._result(message, at)])
            case pb.ROLE_ASSISTANT:
                self._add("assistant", self._assistant(message, at))
            case pb.ROLE_SYSTEM | pb.ROLE_DEVELOPER:
                self.system += self._parts(message, at)
            case _:
                self._add("user", self._parts(message, at))

    def _parts(self, message: pb.Message, at: str) -> list[Block]:
        """The blocks of a turn; its own marker for the cache goes to the last."""
        media = message.role in (pb.ROLE_USER, pb.ROLE_TOOL)
        parts = (self._part(part, f"{at}.content[{i}]", media=media) for i, part in enumerate(message.content))
        blocks = [block for block in parts if block]
        if blocks and message.extra_json and message.role != pb.ROLE_TOOL:
            blocks[-1] |= own(_CACHE, message.extra_json)
        return blocks

    def _assistant(self, message: pb.Message, at: str) -> list[Block]:
        """Thinking before text before calls."""
        blocks = _thinking(message) + self._parts(message, at)
        if message.refusal.strip():
            blocks.append({"type": "text", "text": message.refusal})
        return blocks + [_use(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]

    def _result(self, message: pb.Message, at: str) -> Block:
        parts = message.content
        plain = len(parts) == 1 and parts[0].HasField("text") and not parts[0].extra_json
        return {
            "type": "tool_result",
            "tool_use_id": _id(message.tool_call_id),
            "content": parts[0].text if plain else self._parts(message, at),
            **own(_OWN["tool_result"], message.extra_json),
        }

    def _part(self, part: pb.ContentPart, at: str, *, media: bool) -> Block | None:
        """One block; None for blank text, which Anthropic refuses. `media`: the turn may hold more than text."""
        kind = part.WhichOneof("part")
        block: Block
        if kind in ("text", "refusal"):
            text = part.text or part.refusal
            if not text.strip():
                return None
            block = {"type": "text", "text": text}
            return block | own(_OWN["text"], part.extra_json)
        if kind == "image_url" and media:
            block = self._image(part.image_url.url, f"{at}.image_url.url")
            return block | own(_OWN["image"], part.image_url.extra_json, part.extra_json)
        if kind == "file" and media:
            block = self._file(part.file, f"{at}.file")
            return block | own(_OWN[block["type"]], part.file.extra_json, part.extra_json)
        where = "type" if kind in (None, "other_json") else kind
        raise unsupported("Anthropic takes no content of this kind here.", f"{at}.{where}")

    def _image(self, url: str, at: str) -> Block:
        data = _data_url(url)
        if data is None:
            return {"type": "image", "source": self._url(url, at)}
        media, encoded = data
        if media not in _IMAGES:
            raise unsupported(f"Anthropic reads JPEG, PNG, GIF and WebP images, not {media!r}.", at)
        return {"type": "image", "source": {"type": "base64", "media_type": media, "data": encoded}}

    def _file(self, file: pb.File, at: str) -> Block:
        """https://platform.claude.com/docs/en/build-with-claude/pdf-support"""
        if file.file_id:
            if not self._remote:
                raise unsupported("This platform keeps no files.", f"{at}.file_id")
            return {"type": "document", "source": {"type": "file", "file_id": file.file_id}}
        at = f"{at}.file_data"
        data = _data_url(file.file_data)
        if data is not None and data[0] in _IMAGES:
            return self._image(file.file_data, at)
        source = self._url(file.file_data, at) if data is None else _document(*data, at)
        title = {"title": file.filename[:500]} if file.filename else {}
        return {"type": "document", "source": source, **title}

    def _url(self, url: str, at: str) -> Block:
        """Vertex answers "URL sources are not supported": https://github.com/anthropics/anthropic-sdk-typescript/issues/1038"""
        if not self._remote or not url.startswith("https://"):
            raise unsupported("Give a data: URL" + (" or an https: one." if self._remote else "."), at)
        return {"type": "url", "url": url}


def _data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a data: URL; None for any other."""
    if not url.startswith("data:"):
        return None
    head, _, data = url.partition(",")
    media, *parameters = head.removeprefix("data:").split(";")
    if "base64" not in parameters:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    media = media.lower() or "text/plain"
    return "image/jpeg" if media == "image/jpg" else media, data


def _document(media: str, data: str, at: str) -> Block:
    if media == "application/pdf":
        return {"type": "base64", "media_type": media, "data": data}
    if media.startswith("text/") or media in _TEXTS:
        try:
            text = base64.b64decode(data).decode()
        except ValueError:
            raise InvalidRequest("Expected the base64 of UTF-8 text.", at) from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise unsupported(f"Anthropic reads PDF and text, not {media!r}.", at)


def _id(call_id: str) -> str:
    """Anthropic takes ids of these characters only; other providers' ids may hold dots and colons."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)


def _use(call: pb.ToolCall, at: str) -> Block:
    if call.HasField("custom"):
        raise unsupported("Anthropic has no custom tools.", f"{at}.custom")
    function = call.function
    out = {"type": "tool_use", "id": _id(call.id), "name": function.name, "input": _input(function.arguments)}
    return out | own(_OWN["tool_use"], call.extra_json)


def _input(arguments: str) -> Block:
    """A call without arguments may have none at all. What is not an object goes back the way Anthropic advises.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    try:
        value = decode(arguments) if arguments.strip() else {}
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _thinking(message: pb.Message) -> list[Block]:
    """The signed blocks to replay. Those of other dialects mean nothing to Anthropic."""
    blocks: list[Block] = []
    for detail in message.reasoning_details:
        if detail.format != FORMAT:
            continue
        if detail.HasField("redacted"):
            blocks.append({"type": "redacted_thinking", "data": detail.redacted})
        elif detail.signature:
            blocks.append({"type": "thinking", "thinking": detail.text, "signature": detail.signature})
    if blocks or not message.tool_calls or not message.tool_calls[0].extra_json:
        return blocks
    match decode(message.tool_calls[0].extra_json):
        case {"extra_content": {"anthropic": {"thinking": list(native)}}}:
            return [block for item in native if (block := _native(item))]
    return []


def _native(item: Any) -> Block | None:
    """A thinking block that has been at the client's; what is not one is left out."""
    match item:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return {"type": "thinking", "thinking": text, "signature": signature}
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "redacted_thinking", "data": data}
    return None
