"""Messages in Anthropic's Messages dialect: `pb.Message` to system blocks and turns. Pure.

https://platform.claude.com/docs/en/build-with-claude/working-with-messages
System and developer turns become `system`, wherever they stand. Thinking is replayed
as signed blocks: those in `reasoning_details` or, where a client keeps only the tool
calls, those in the first call's `extra_content.anthropic.thinking`. Anthropic's fields
beyond OpenAI's, such as `cache_control`, are read from parts, messages and calls alike.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.dialects import data_url
from server.dialects.data_url import DataUrl
from server.dialects.participants import named_content
from server.dialects.tool_ids import fit
from server.errors import InvalidRequest, unsupported

Block = dict[str, Any]

#: `ReasoningDetail.format` of blocks that can be replayed to Anthropic.
FORMAT = "anthropic"

_CACHE = frozenset({"cache_control"})
#: Block type -> Anthropic's fields that callers may set on it.
_NATIVE_FIELDS: Mapping[str, frozenset[str]] = {
    "text": _CACHE,
    "image": _CACHE,
    "document": _CACHE | {"citations", "context", "title"},
    "tool_use": _CACHE,
    "tool_result": _CACHE | {"is_error"},
}
_THINKING = frozenset({"thinking", "redacted_thinking"})

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
#: Sent as plain text beside `text/*`.
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
_MAX_TITLE_LENGTH = 500
#: https://platform.claude.com/docs/en/api/messages/create (pattern of tool_use ids)
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def native_fields(names: frozenset[str], *extra_jsons: str) -> dict[str, Any]:
    """The fields in `names` that any of these `extra_json` texts has; the last text wins."""
    found: dict[str, Any] = {}
    for text in extra_jsons:
        fields = decode(text) if text else None
        if isinstance(fields, dict):
            found |= {name: value for name, value in fields.items() if name in names}
    return found


class Conversation:
    """`system` blocks, and `turns`, which alternate between user and assistant.

    `remote`: the platform fetches https URLs and keeps files. Raises
    InvalidRequest for content that Anthropic cannot read.
    """

    def __init__(self, messages: Sequence[pb.Message], *, remote: bool) -> None:
        self._remote = remote
        self.system: list[Block] = []
        self.turns: list[Block] = []
        for index, message in enumerate(messages):
            self._add_message(message, f"messages[{index}]")
        if not self.turns:  # Anthropic requires a turn
            self._add("user", self.system)
            self.system = []
        for turn in self.turns:
            if turn["role"] == "user":  # results must directly follow the calls, so they come first
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = self.turns[-1]["content"][-1] if self.turns else {}
        if last.get("type") == "text" and self.turns[-1]["role"] == "assistant":
            # A 400 from Anthropic: "final assistant content cannot end with trailing whitespace".
            last["text"] = last["text"].rstrip()

    def called_tools(self) -> list[str]:
        """The names of the tools in the assistant's calls, in order, each once."""
        blocks = (block for turn in self.turns for block in turn["content"])
        return list({block["name"]: None for block in blocks if block["type"] == "tool_use"})

    def accepts_budget(self) -> bool:
        """Whether Anthropic accepts a thinking budget with these turns.

        An assistant turn that is continued must then begin with a thinking block; one without is a 400.
        https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks
        """
        if not self.turns or self.turns[-1]["role"] == "assistant":
            return False
        continued = self.turns[-1]["content"][0]["type"] == "tool_result" and len(self.turns) > 1
        return not continued or self.turns[-2]["content"][0]["type"] in _THINKING

    def _add(self, role: str, blocks: list[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        elif blocks:
            self.turns.append({"role": role, "content": blocks})

    def _add_message(self, message: pb.Message, path: str) -> None:
        match message.role:
            case pb.ROLE_TOOL:
                self._add("user", [self._tool_result(message, path)])
            case pb.ROLE_ASSISTANT:
                self._add("assistant", self._assistant(message, path))
            case pb.ROLE_SYSTEM | pb.ROLE_DEVELOPER:
                self.system += _marked(self._blocks(message, path), message)
            case _:
                self._add("user", _marked(self._blocks(message, path), message))

    def _blocks(self, message: pb.Message, path: str) -> list[Block]:
        """The blocks of a message's content."""
        media = message.role in (pb.ROLE_USER, pb.ROLE_TOOL)
        parts = enumerate(named_content(message))
        blocks = (self._block(part, f"{path}.content[{index}]", media=media) for index, part in parts)
        return [block for block in blocks if block]

    def _assistant(self, message: pb.Message, path: str) -> list[Block]:
        """Thinking before text before calls."""
        blocks = self._blocks(message, path)
        if message.refusal.strip():
            blocks.append({"type": "text", "text": message.refusal})
        blocks += [_tool_use(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]
        return _replayed_thinking(message) + _marked(blocks, message)

    def _tool_result(self, message: pb.Message, path: str) -> Block:
        parts = message.content
        plain = len(parts) == 1 and parts[0].HasField("text") and not parts[0].extra_json
        return {
            "type": "tool_result",
            "tool_use_id": fit(message.tool_call_id, _NOT_IN_IDS),
            "content": parts[0].text if plain else self._blocks(message, path),
            **native_fields(_NATIVE_FIELDS["tool_result"], message.extra_json),
        }

    def _block(self, part: pb.ContentPart, path: str, *, media: bool) -> Block | None:
        """One block; None for blank text, which Anthropic refuses. `media`: more than text is allowed."""
        kind = part.WhichOneof("part")
        block: Block
        if kind in ("text", "refusal"):
            text = part.text or part.refusal
            if not text.strip():
                return None
            block = {"type": "text", "text": text}
            return block | native_fields(_NATIVE_FIELDS["text"], part.extra_json)
        if kind == "image_url" and media:
            block = self._image(part.image_url.url, f"{path}.image_url.url")
            return block | native_fields(_NATIVE_FIELDS["image"], part.image_url.extra_json, part.extra_json)
        if kind == "file" and media:
            block = self._file(part.file, f"{path}.file")
            return block | native_fields(_NATIVE_FIELDS[block["type"]], part.file.extra_json, part.extra_json)
        field = "type" if kind in (None, "other_json") else kind
        raise unsupported("Anthropic takes no content of this kind in this message.", f"{path}.{field}")

    def _image(self, url: str, path: str) -> Block:
        if data_url.is_data_url(url):
            return _inline_image(data_url.parse(url, path), path)
        return {"type": "image", "source": self._url_source(url, path)}

    def _file(self, file: pb.File, path: str) -> Block:
        """https://platform.claude.com/docs/en/build-with-claude/pdf-support"""
        if file.file_id:
            if not self._remote:
                raise unsupported("This platform keeps no files; send the data.", f"{path}.file_id")
            return {"type": "document", "source": {"type": "file", "file_id": file.file_id}}
        path = f"{path}.file_data"
        if data_url.is_data_url(file.file_data):
            inline = data_url.parse(file.file_data, path)
            if inline.media_type in _IMAGES:
                return _inline_image(inline, path)
            source = _document_source(inline, path)
        else:
            source = self._url_source(file.file_data, path)
        title = {"title": file.filename[:_MAX_TITLE_LENGTH]} if file.filename else {}
        return {"type": "document", "source": source, **title}

    def _url_source(self, url: str, path: str) -> Block:
        """Vertex answers "URL sources are not supported": https://github.com/anthropics/anthropic-sdk-typescript/issues/1038"""
        if not self._remote or url[:8].lower() != "https://":
            raise unsupported("Send a data: URL" + (" or an https: one." if self._remote else "."), path)
        return {"type": "url", "url": url}


def _marked(blocks: list[Block], message: pb.Message) -> list[Block]:
    """`blocks` with the message's own `cache_control` on the last of them."""
    if blocks and message.extra_json:
        blocks[-1] |= native_fields(_CACHE, message.extra_json)
    return blocks


def _inline_image(inline: DataUrl, path: str) -> Block:
    if inline.media_type not in _IMAGES:
        raise unsupported(f"Anthropic reads JPEG, PNG, GIF and WebP images, not {inline.media_type[:80]!r}.", path)
    return {"type": "image", "source": {"type": "base64", "media_type": inline.media_type, "data": inline.data}}


def _document_source(inline: DataUrl, path: str) -> Block:
    media_type = inline.media_type or "text/plain"  # RFC 2397's default
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": inline.data}
    if media_type.startswith("text/") or media_type in _TEXTS:
        try:
            text = base64.b64decode(inline.data).decode()
        except ValueError:
            raise InvalidRequest("Expected text in UTF-8.", path) from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise unsupported(f"Anthropic reads PDF and text, not {media_type[:80]!r}.", path)


def _tool_use(call: pb.ToolCall, path: str) -> Block:
    if call.HasField("custom"):
        raise unsupported("Anthropic has no custom tools.", f"{path}.custom")
    return {
        "type": "tool_use",
        "id": fit(call.id, _NOT_IN_IDS),
        "name": call.function.name,
        "input": _tool_input(call.function.arguments),
        **native_fields(_NATIVE_FIELDS["tool_use"], call.extra_json),
    }


def _tool_input(arguments: str) -> Block:
    """The arguments as an object; blank ones are an empty object, and text that is none is wrapped.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    try:
        value = decode(arguments) if arguments.strip() else {}
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _replayed_thinking(message: pb.Message) -> list[Block]:
    """The message's signed thinking blocks; those of other dialects are left out."""
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
            return [block for item in native if (block := _thinking_block(item))]
    return []


def _thinking_block(item: Any) -> Block | None:
    """A thinking block as the client sent it back; None where it is not one."""
    match item:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return {"type": "thinking", "thinking": text, "signature": signature}
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "redacted_thinking", "data": data}
    return None
