"""Messages in Converse's form: turns merged and ordered, names and ids fitted, reasoning sent back.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import at, decode, encode_text
from server.dialects.bedrock.media import Documents, audio, file, image, unsupported
from server.dialects.bedrock.models import Family
from server.errors import InvalidRequest

_TTLS = frozenset({"5m", "1h"})
#: What stands where something must, and blank text is refused.
_FIRST_TURN = "."
_EMPTY_RESULT = {"text": "(no output)"}


# Names and ids


def _fit(text: str, forbidden: re.Pattern[str]) -> str:
    """`text` where it has at most 64 allowed characters; else the like of it, the same every time and its own."""
    fitted = forbidden.sub("_", text)
    if fitted == text and 0 < len(text) <= 64:
        return text
    return f"{fitted[:55]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")


def tool_name(name: str) -> str:
    """`name` as Bedrock takes it."""
    return _fit(name, _NOT_IN_NAMES)


def tool_names(request: pb.ChatCompletionRequest) -> dict[str, str]:
    """The way back from the names that had to be changed."""
    known = [tool.function.name for tool in request.tools if tool.HasField("function")]
    known += [_name(call) for message in request.messages for call in message.tool_calls]
    return {tool_name(name): name for name in known if tool_name(name) != name}


def _name(call: pb.ToolCall) -> str:
    return call.custom.name if call.HasField("custom") else call.function.name


# Messages


def further(*texts: str) -> dict[str, Any]:
    """The further fields kept in some `extra_json`, the first wins."""
    found: dict[str, Any] = {}
    for text in texts:
        if text:
            found = {**decode(text), **found}
    return found


def cache_point(extra: dict[str, Any]) -> list[dict[str, Any]]:
    """Anthropic's `cache_control` of one block as the block that says so after it; none where there is none.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    control = extra.get("cache_control")
    if not isinstance(control, dict):
        return []
    point = {"type": "default"}
    if control.get("ttl") in _TTLS:
        point["ttl"] = control["ttl"]
    return [{"cachePoint": point}]


class Conversation:
    """Gathers the turns: system apart, equals merged, results of tools before all else in their turn."""

    def __init__(self, row: Family) -> None:
        self.system: list[dict[str, Any]] = []
        #: Tools called in the history, by Bedrock's name.
        self.called: dict[str, None] = {}
        self.has_tool_blocks = False
        self._messages: list[dict[str, Any]] = []
        self._replays = row.replays
        self._documents = Documents()
        self._roles: dict[int, Callable[[pb.Message], None]] = {
            pb.ROLE_SYSTEM: self._system,
            pb.ROLE_DEVELOPER: self._system,
            pb.ROLE_ASSISTANT: self._assistant,
            pb.ROLE_TOOL: self._tool,
        }

    def add(self, message: pb.Message) -> None:
        """One message. The path in an InvalidRequest starts in it."""
        self._roles.get(message.role, self._user)(message)

    def finished(self) -> list[dict[str, Any]]:
        """The turns, starting with the user's."""
        for turn in self._messages:
            _introduce_documents(turn["content"])
        last = self._messages[-1] if self._messages else None
        if last and last["role"] == "assistant" and "text" in last["content"][-1]:
            # Claude: "final assistant content cannot end with trailing whitespace".
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
        if not self._messages or self._messages[0]["role"] != "user":
            self._messages.insert(0, {"role": "user", "content": [{"text": _FIRST_TURN}]})
        return self._messages

    def _turn(self, role: str) -> list[dict[str, Any]]:
        """The last turn's blocks, of a new turn unless the role goes on."""
        if not self._messages or self._messages[-1]["role"] != role:
            self._messages.append({"role": role, "content": []})
        content: list[dict[str, Any]] = self._messages[-1]["content"]
        return content

    def _system(self, message: pb.Message) -> None:
        self.system += self._blocks(message, text_only=True)

    def _user(self, message: pb.Message) -> None:
        blocks = self._blocks(message)
        if blocks:
            self._turn("user").extend(blocks)

    def _assistant(self, message: pb.Message) -> None:
        if message.HasField("audio") and not message.content:
            raise unsupported("Spoken turns cannot be sent back.", "audio")
        blocks = self._blocks(message, text_only=True)
        if message.refusal.strip():
            blocks.append({"text": message.refusal})
        for call in message.tool_calls:
            name = tool_name(_name(call))
            self.called[name] = None
            self.has_tool_blocks = True
            use = {"toolUseId": _fit(call.id, _NOT_IN_IDS), "name": name, "input": _arguments(call)}
            blocks.append({"toolUse": use})
            blocks += cache_point(further(call.extra_json))
        if blocks:
            self._turn("assistant").extend([*_reasoning(message, self._replays), *blocks])

    def _tool(self, message: pb.Message) -> None:
        self.has_tool_blocks = True
        extra = further(message.extra_json)
        blocks = self._blocks(message, own_cache_point=False)
        # Inside a result there is no place for cache points: they go after it.
        content = [block for block in blocks if "cachePoint" not in block] or [_EMPTY_RESULT]
        _introduce_documents(content)
        result = {"toolUseId": _fit(message.tool_call_id, _NOT_IN_IDS), "content": content}
        if extra.get("is_error") is True or extra.get("status") == "error":
            result["status"] = "error"
        points = [block for block in blocks if "cachePoint" in block][-1:] or cache_point(extra)
        turn = self._turn("user")
        place = max((i + 1 for i, block in enumerate(turn) if "toolResult" in block), default=0)
        while place < len(turn) and "cachePoint" in turn[place]:
            place += 1
        turn[place:place] = [{"toolResult": result}, *points]

    def _blocks(
        self, message: pb.Message, *, text_only: bool = False, own_cache_point: bool = True
    ) -> list[dict[str, Any]]:
        """The content, blank text left out."""
        blocks: list[dict[str, Any]] = []
        for index, part in enumerate(message.content):
            try:
                if text_only and not (part.HasField("text") or part.HasField("refusal")):
                    raise unsupported("Only text can be in this message here.", "")
                block = self._block(part)
            except InvalidRequest as error:
                raise at(at(error, index), "content") from None
            if block is not None:
                blocks.append(block)
                blocks += cache_point(further(part.extra_json))
        if own_cache_point and message.extra_json and blocks:
            blocks += cache_point(further(message.extra_json))
        return blocks

    def _block(self, part: pb.ContentPart) -> dict[str, Any] | None:
        which = part.WhichOneof("part")
        if which == "image_url":
            return image(part.image_url, self._documents)
        if which == "input_audio":
            return audio(part.input_audio)
        if which == "file":
            return file(part.file, further(part.extra_json, part.file.extra_json), self._documents)
        if which == "other_json":
            raise unsupported("A part of this kind cannot be sent here.", "type")
        text = part.refusal if which == "refusal" else part.text
        return {"text": text} if text.strip() else None


def _introduce_documents(content: list[dict[str, Any]]) -> None:
    """Documents want some text beside them."""
    place = next((i for i, block in enumerate(content) if "document" in block), None)
    if place is not None and not any("text" in block for block in content):
        content.insert(place, {"text": "See the attached document."})


def _arguments(call: pb.ToolCall) -> dict[str, Any]:
    """The input, which must be an object: what is none is wrapped in one."""
    if call.HasField("custom"):
        return {"input": call.custom.input}
    text = call.function.arguments
    if not text.strip():
        return {}
    try:
        value = decode(text)
    except msgspec.DecodeError:  # broken off by a token limit, say
        return {"arguments": text}
    return value if isinstance(value, dict) else {"arguments": value}


# Reasoning, out and back


def extra_content(details: Iterable[pb.ReasoningDetail]) -> str:
    """`extra_json` for a turn's first tool call: its signed blocks, for clients that keep only calls.

    Anthropic's blocks in Anthropic's own form, others as the opaque text they are.
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


def _reasoning(message: pb.Message, replays: frozenset[str]) -> list[dict[str, Any]]:
    """The turn's own signed blocks, from the message or from its calls; never those of other dialects."""
    blocks = [_reasoning_block(d) for d in message.reasoning_details if d.format in replays and _is_signed(d)]
    if blocks:
        return blocks
    for call in message.tool_calls:
        if call.extra_json:
            kept = further(call.extra_json).get("extra_content")
            blocks += [_reasoning_block(d) for d in _kept(kept) if d.format in replays]
    return blocks


def _is_signed(detail: pb.ReasoningDetail) -> bool:
    return bool(detail.redacted or (detail.HasField("text") and detail.signature))


def _kept(content: Any) -> Iterable[pb.ReasoningDetail]:
    """The way back from `extra_content`; what is not of its form is passed over."""
    match content:
        case {"anthropic": {"thinking": list(blocks)}}:
            for block in blocks:
                match block:
                    case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
                        yield pb.ReasoningDetail(text=text, signature=signature, format="anthropic")
                    case {"type": "redacted_thinking", "data": str(data)}:
                        yield pb.ReasoningDetail(redacted=data, format="anthropic")
    match content:
        case {"bedrock": {"redacted": list(items)}}:
            for item in items:
                if isinstance(item, str):
                    yield pb.ReasoningDetail(redacted=item, format="bedrock")


def _reasoning_block(detail: pb.ReasoningDetail) -> dict[str, Any]:
    if detail.HasField("text"):
        return {"reasoningContent": {"reasoningText": {"text": detail.text, "signature": detail.signature}}}
    data = detail.redacted
    if detail.format == "anthropic":  # Bedrock's blob is Anthropic's text
        data = base64.b64encode(data.encode()).decode()
    return {"reasoningContent": {"redactedContent": data}}
