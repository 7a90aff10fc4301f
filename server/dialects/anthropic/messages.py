"""Messages in Anthropic's Messages dialect: `pb.Message` to system blocks and turns. Pure.

https://platform.claude.com/docs/en/build-with-claude/working-with-messages
System and developer turns become `system`, wherever they stand. What Anthropic signed or ran
itself is read in replay.py. Anthropic's fields beyond OpenAI's, such as `cache_control`, are
read from parts, messages and calls alike.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.dialects import data_url
from server.dialects.anthropic.limits import CacheMarkers
from server.dialects.anthropic.models import CONTINUE
from server.dialects.anthropic.replay import THINKING, Block, Thinking, server_side
from server.dialects.data_url import DataUrl
from server.dialects.dropped import Dropped
from server.dialects.participants import ToolNames, named_content
from server.dialects.tool_ids import CallIds, fit, renamed, tool_input
from server.errors import InvalidRequest, unsupported
from server.media.mime import by_name

_CACHE = frozenset({"cache_control"})
#: Block type -> Anthropic's fields that callers may set on it.
_NATIVE_FIELDS: Mapping[str, frozenset[str]] = {
    "text": _CACHE,
    "image": _CACHE,
    "document": _CACHE | {"citations", "context", "title"},
    "tool_result": _CACHE | {"is_error"},
}
#: Fields of a text block with nothing but text.
_PLAIN = 2
_CALL_FIELDS = _CACHE | {"extra_content"}
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
#: Sent as plain text beside `text/*`.
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
_PDF = "application/pdf"
_MAX_TITLE_LENGTH = 500
#: Where arguments that are no object stand.
#: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
_UNREADABLE_INPUT = "INVALID_JSON"
#: https://platform.claude.com/docs/en/api/messages/create (patterns of tool_use ids and of tools' names)
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_TOOL_NAME = 128


def _call_id(id_: str) -> str:
    return fit(id_, _FORBIDDEN)


def tool_name(name: str) -> str:
    """`name` as Anthropic takes it. https://github.com/BerriAI/litellm/pull/26788"""
    return fit(name, _FORBIDDEN, _MAX_TOOL_NAME)


def tool_names(request: pb.ChatCompletionRequest) -> dict[str, str]:
    """Anthropic's name -> the caller's, for the tools of `request` whose names are rewritten."""
    return renamed(request, tool_name)


class Conversation:
    """`system` blocks, and `turns`, which alternate between user and assistant.

    `container`: the id of the container in which code ran before, empty where there is none. `remote`: the
    platform fetches https URLs and keeps files. `ends_with_user`: the model refuses to continue an assistant's
    text that comes last. Raises InvalidRequest for content that Anthropic cannot read.
    """

    def __init__(
        self, messages: Sequence[pb.Message], dropped: Dropped, *, remote: bool, ends_with_user: bool
    ) -> None:
        self._remote = remote
        self._dropped = dropped
        #: Blocks with `cache_control`.
        self.markers = CacheMarkers[Block]()
        self._lasting = False  # in the system prompt
        self._replayed = False  # the last turn is whole, as Anthropic sent it
        self._tool_names = ToolNames()
        self._call_ids = CallIds(_call_id)
        self.container = ""
        self.system: list[Block] = []
        self.turns: list[Block] = []
        for index, message in enumerate(messages):
            self._add_message(message, f"messages[{index}]")
        if not self.turns:  # Anthropic requires a turn
            self._add("user", self.system)
            self.system = []
        if not self.turns:
            raise InvalidRequest("No message has any content.", "messages")
        for turn in self.turns:
            if turn["role"] == "user":  # results must directly follow the calls, so they come first
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = self.turns[-1]["content"][-1]
        if last["type"] == "text" and self.turns[-1]["role"] == "assistant":
            # A 400 from Anthropic: "final assistant content cannot end with trailing whitespace".
            last["text"] = last["text"].rstrip()
            if ends_with_user and not self._replayed:
                self._add("user", [{"type": "text", "text": CONTINUE}])

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
        return not continued or self.turns[-2]["content"][0]["type"] in THINKING

    def _add(self, role: str, blocks: list[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        elif blocks:
            self.turns.append({"role": role, "content": blocks})

    def _add_message(self, message: pb.Message, path: str) -> None:
        self._dropped.message(message, path)
        self._replayed = False
        self._lasting = message.role in (pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER)
        match message.role:
            case pb.ROLE_TOOL:
                self._add("user", [self._tool_result(message, path)])
            case pb.ROLE_ASSISTANT:
                self._add("assistant", self._assistant(message, path))
            case pb.ROLE_SYSTEM | pb.ROLE_DEVELOPER:
                self.system += self._marked(self._blocks(message, path), message, path)
            case _:
                self._add("user", self._marked(self._blocks(message, path), message, path))

    def _blocks(self, message: pb.Message, path: str) -> list[Block]:
        """The blocks of a message's content."""
        media = message.role in (pb.ROLE_USER, pb.ROLE_TOOL)
        parts = enumerate(named_content(message, path, self._dropped))
        blocks = (self._block(part, f"{path}.content[{index}]", media=media) for index, part in parts)
        return [block for block in blocks if block]

    def _assistant(self, message: pb.Message, path: str) -> list[Block]:
        """What Anthropic sent, where it is complete; else thinking before text before calls."""
        for call in message.tool_calls:
            self._tool_names.add(call)
        if message.HasField("audio"):
            if not message.content:
                raise unsupported("Anthropic keeps no audio to refer to.", f"{path}.audio")
            self._dropped.add(f"{path}.audio")
        replayed = server_side(message, path, self._dropped)
        self.container = replayed.container or self.container
        if replayed.blocks:
            self._replayed = True
            self._drop_markers(message, path)
            return self._marked(replayed.blocks, message, path)
        blocks = self._blocks(message, path)
        if message.refusal.strip():
            blocks.append({"type": "text", "text": message.refusal})
        thinking = Thinking(message, path, self._dropped)
        ids = self._call_ids.calls([call.id for call in message.tool_calls])
        for index, (call, id_) in enumerate(zip(message.tool_calls, ids, strict=True)):
            blocks.append(self._tool_use(call, id_, f"{path}.tool_calls[{index}]", thinking))
        return thinking.blocks() + self._marked(blocks, message, path)

    def _drop_markers(self, message: pb.Message, path: str) -> None:
        """Report as dropped what the caller added to the parts and calls of a turn sent back unchanged."""
        self._dropped.add_set(message, path, ("refusal",))
        for index, part in enumerate(message.content):
            self._dropped.pick(f"{path}.content[{index}]", part.extra_json)
        for index, call in enumerate(message.tool_calls):
            self._dropped.pick(f"{path}.tool_calls[{index}]", call.extra_json, ("extra_content",))

    def _marked(self, blocks: list[Block], message: pb.Message, path: str) -> list[Block]:
        """`blocks` with the message's own `cache_control` on the last of them, unless that has one."""
        if message.extra_json:
            known = _CACHE | {"extra_content"} if message.role == pb.ROLE_ASSISTANT else _CACHE
            marker = self._dropped.pick(path, message.extra_json, known).get("cache_control")
            if marker is not None and (not blocks or "cache_control" in blocks[-1]):
                self._dropped.add(f"{path}.cache_control")
            elif marker is not None:
                blocks[-1]["cache_control"] = marker
                self.markers.add(f"{path}.cache_control", blocks[-1], lasting=self._lasting)
        return blocks

    def _tool_use(self, call: pb.ToolCall, id_: str, path: str, thinking: Thinking) -> Block:
        if call.HasField("custom"):
            raise unsupported("Anthropic has no custom tools.", f"{path}.custom")
        self._dropped.pick(f"{path}.function", call.function.extra_json)
        extra = self._dropped.pick(path, call.extra_json, _CALL_FIELDS)
        own = thinking.add(f"{path}.extra_content", extra.pop("extra_content", None))
        block: Block = {
            "type": "tool_use",
            "id": id_,
            "name": tool_name(call.function.name),
            "input": tool_input(call.function.arguments, _UNREADABLE_INPUT, as_text=True),
            **own,
            **_present(extra),
        }
        self.note_marker(block, (path, call.extra_json), lasting=False)
        return block

    def _tool_result(self, message: pb.Message, path: str) -> Block:
        self._tool_names.drop_other(message, path, self._dropped)
        parts, blocks = message.content, self._blocks(message, path)
        plain = len(parts) == 1 and parts[0].HasField("text") and (not blocks or len(blocks[0]) == _PLAIN)
        block = {
            "type": "tool_result",
            "tool_use_id": self._call_ids.result(message.tool_call_id),
            "content": parts[0].text if plain else blocks,
            **_present(self._dropped.pick(path, message.extra_json, _NATIVE_FIELDS["tool_result"])),
        }
        self.note_marker(block, (path, message.extra_json), lasting=False)
        return block

    def _block(self, part: pb.ContentPart, path: str, *, media: bool) -> Block | None:
        """One block; None for blank text, which Anthropic refuses. `media`: more than text is allowed."""
        kind = part.WhichOneof("part")
        block: Block
        if kind in ("text", "refusal"):
            text = part.text or part.refusal
            if not text.strip():
                self._dropped.pick(path, part.extra_json)
                return None
            block = {"type": "text", "text": text}
            return self._native(block, (path, part.extra_json))
        if kind == "image_url" and media:
            block = self._image(part.image_url.url, f"{path}.image_url.url")
            self._dropped.detail(part.image_url, f"{path}.image_url")
            extras = (f"{path}.image_url", part.image_url.extra_json), (path, part.extra_json)
            return self._native(block, *extras)
        if kind == "file" and media:
            block = self._file(part.file, f"{path}.file")
            return self._native(block, (f"{path}.file", part.file.extra_json), (path, part.extra_json))
        field = "type" if kind in (None, "other_json") else kind
        raise unsupported("Anthropic takes no content of this kind in this message.", f"{path}.{field}")

    def _native(self, block: Block, *extras: tuple[str, str]) -> Block:
        """`block` with Anthropic's own fields among these objects, given by path and `extra_json`."""
        whole = block | self._dropped.merge(_NATIVE_FIELDS[block["type"]], *extras)
        self.note_marker(whole, *extras, lasting=self._lasting)
        return whole

    def note_marker(self, block: Block, *extras: tuple[str, str], lasting: bool) -> None:
        """Note `block` if it has `cache_control`, that of the last of these objects with one; see CacheMarkers."""
        if "cache_control" not in block:
            return
        marked = [path for path, text in extras if text and decode(text).get("cache_control") is not None]
        self.markers.add(f"{marked[-1]}.cache_control", block, lasting=lasting)

    def _image(self, url: str, path: str) -> Block:
        if data_url.is_data_url(url):
            inline = data_url.parse(url, path)
            if inline.media_type == _PDF:  # https://github.com/BerriAI/litellm/pull/39977
                return {"type": "document", "source": _document_source(inline, "", path)}
            return _inline_image(inline, path)
        return {"type": "image", "source": self._url_source(url, path)}

    def _file(self, file: pb.File, path: str) -> Block:
        """https://platform.claude.com/docs/en/build-with-claude/pdf-support"""
        if file.file_id:
            if not self._remote:
                raise unsupported("This platform keeps no files; send the data.", f"{path}.file_id")
            self._dropped.add_set(file, path, ("file_data", "filename"))
            return {"type": "document", "source": {"type": "file", "file_id": file.file_id}}
        data = f"{path}.file_data"
        url = data_url.as_url(file.file_data)
        if data_url.is_data_url(url):
            inline = data_url.parse(url, data)
            if inline.media_type in _IMAGES:
                self._dropped.add_set(file, path, ("filename",))
                return _inline_image(inline, data)
            source = _document_source(inline, file.filename, data)
        else:
            source = self._url_source(url, data)
        title = {"title": file.filename[:_MAX_TITLE_LENGTH]} if file.filename else {}
        return {"type": "document", "source": source, **title}

    def _url_source(self, url: str, path: str) -> Block:
        """Vertex answers "URL sources are not supported": https://github.com/anthropics/anthropic-sdk-typescript/issues/1038"""
        if not self._remote or url[:8].lower() != "https://":
            raise unsupported("Send a data: URL" + (" or an https: one." if self._remote else "."), path)
        return {"type": "url", "url": url}


def _present(fields: Block) -> Block:
    """`fields` without those that are null."""
    return {name: value for name, value in fields.items() if value is not None}


def _inline_image(inline: DataUrl, path: str) -> Block:
    if inline.media_type not in _IMAGES:
        raise unsupported(f"Anthropic reads JPEG, PNG, GIF and WebP images, not {inline.media_type[:80]!r}.", path)
    return {"type": "image", "source": {"type": "base64", "media_type": inline.media_type, "data": inline.data}}


def _document_source(inline: DataUrl, filename: str, path: str) -> Block:
    media_type = inline.media_type
    if media_type in data_url.UNTYPED:
        media_type = by_name(filename) or media_type or "text/plain"  # RFC 2397's default
    if media_type == _PDF:
        return {"type": "base64", "media_type": media_type, "data": inline.data}
    if media_type.startswith("text/") or media_type in _TEXTS:
        try:
            text = base64.b64decode(inline.data).decode()
        except ValueError:
            raise InvalidRequest("Expected text in UTF-8.", path) from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise unsupported(f"Anthropic reads PDF and text, not {media_type[:80]!r}.", path)
