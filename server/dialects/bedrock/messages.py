"""Messages in Converse's form: `pb.Message` to system blocks and turns. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import at, decode, encode_text
from server.dialects.bedrock.media import Documents, audio, file, image
from server.dialects.bedrock.models import Family
from server.dialects.participants import named_content
from server.dialects.tool_ids import fit
from server.errors import InvalidRequest, unsupported

Block = dict[str, Any]

_TTLS = ("5m", "1h")  # not a set: callers may write lists and objects
#: Stand-ins where Converse requires text and refuses blank text.
_FIRST_TURN = "."
_EMPTY_RESULT = {"text": "(no output)"}


# Names and ids

#: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")


def tool_name(name: str) -> str:
    """`name` as Bedrock takes it."""
    return fit(name, _NOT_IN_NAMES)


def tool_names(request: pb.ChatCompletionRequest) -> dict[str, str]:
    """Bedrock's name -> the caller's, for the tools of `request` whose names are rewritten."""
    names = [tool.function.name for tool in request.tools if tool.HasField("function")]
    names += [_called_name(call) for message in request.messages for call in message.tool_calls]
    return {fitted: name for name in names if (fitted := tool_name(name)) != name}


def _called_name(call: pb.ToolCall) -> str:
    return call.custom.name if call.HasField("custom") else call.function.name


# Messages


def extra_fields(*extra_jsons: str) -> dict[str, Any]:
    """The fields of these `extra_json` texts; the first text wins."""
    found: dict[str, Any] = {}
    for text in extra_jsons:
        if text:
            found = {**decode(text), **found}
    return found


def cache_point(
    extra: dict[str, Any], row: Family, section: Literal["system", "messages", "tools"]
) -> list[Block]:
    """The block for the `cache_control` in `extra`, to stand after the block that has it; none without it.

    It is a hint, so it is left out where the model refuses cache points.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    control = extra.get("cache_control")
    if not isinstance(control, dict) or section not in row.cache:
        return []
    point = {"type": "default"}
    if row.cache_ttl and control.get("ttl") in _TTLS:
        point["ttl"] = control["ttl"]
    return [{"cachePoint": point}]


class _Turn:
    """One turn. `results` are the tools' results with their cache points; they come before all other blocks."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.results: list[Block] = []
        self.blocks: list[Block] = []

    def dump(self) -> dict[str, Any]:
        content = [*self.results, *self.blocks]
        _introduce_documents(content)
        return {"role": self.role, "content": content}


class Conversation:
    """Collects system blocks and turns; messages of one role that follow each other share a turn."""

    def __init__(self, row: Family) -> None:
        self.system: list[Block] = []
        #: Tools called in the history, by Bedrock's names; the values mean nothing.
        self.called: dict[str, None] = {}
        self.has_tool_blocks = False
        self._turns: list[_Turn] = []
        self._row = row
        self._documents = Documents()
        self._roles: dict[int, Callable[[pb.Message], None]] = {
            pb.ROLE_SYSTEM: self._add_system,
            pb.ROLE_DEVELOPER: self._add_system,
            pb.ROLE_ASSISTANT: self._add_assistant,
            pb.ROLE_TOOL: self._add_tool,
        }

    def add(self, message: pb.Message) -> None:
        """Add one message. Raises InvalidRequest, whose path is relative to the message."""
        self._roles.get(message.role, self._add_user)(message)

    def turns(self) -> list[dict[str, Any]]:
        """The turns as Converse takes them; the first is the user's."""
        turns = [turn.dump() for turn in self._turns]
        last = turns[-1] if turns else None
        if last and last["role"] == "assistant" and "text" in last["content"][-1]:
            # Claude: "final assistant content cannot end with trailing whitespace".
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
        if not turns or turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"text": _FIRST_TURN}]})
        return turns

    def _turn(self, role: str) -> _Turn:
        """The last turn, or a new one where that has another role."""
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role))
        return self._turns[-1]

    def _add_system(self, message: pb.Message) -> None:
        self.system += self._blocks(message, section="system", text_only=True)

    def _add_user(self, message: pb.Message) -> None:
        blocks = self._blocks(message)
        if blocks:
            self._turn("user").blocks += blocks

    def _add_assistant(self, message: pb.Message) -> None:
        if message.HasField("audio") and not message.content:
            raise unsupported("Audio of earlier answers cannot be sent to Bedrock.", "audio")
        blocks = self._blocks(message, text_only=True)
        if message.refusal.strip():
            blocks.append({"text": message.refusal})
        for call in message.tool_calls:
            name = tool_name(_called_name(call))
            self.called[name] = None
            self.has_tool_blocks = True
            use = {"toolUseId": fit(call.id, _NOT_IN_IDS), "name": name, "input": _arguments(call)}
            blocks.append({"toolUse": use})
            blocks += cache_point(extra_fields(call.extra_json), self._row, "messages")
        if blocks:
            self._turn("assistant").blocks += [*_replayed_reasoning(message, self._row.replays), *blocks]

    def _add_tool(self, message: pb.Message) -> None:
        self.has_tool_blocks = True
        extra = extra_fields(message.extra_json)
        blocks = self._blocks(message, message_cache_point=False)
        # Converse has no cache points inside a result; one goes after it.
        content = [block for block in blocks if "cachePoint" not in block] or [_EMPTY_RESULT]
        _introduce_documents(content)
        result = {"toolUseId": fit(message.tool_call_id, _NOT_IN_IDS), "content": content}
        if extra.get("is_error") is True or extra.get("status") == "error":
            result["status"] = "error"
        points = [block for block in blocks if "cachePoint" in block][-1:]
        points = points or cache_point(extra, self._row, "messages")
        self._turn("user").results += [{"toolResult": result}, *points]

    def _blocks(
        self,
        message: pb.Message,
        *,
        section: Literal["system", "messages"] = "messages",
        text_only: bool = False,
        message_cache_point: bool = True,
    ) -> list[Block]:
        """The blocks of a message's content, without blank text."""
        blocks: list[Block] = []
        for index, part in enumerate(named_content(message)):
            try:
                if text_only and not (part.HasField("text") or part.HasField("refusal")):
                    raise unsupported("Bedrock takes only text in this message.", "")
                block = self._block(part)
            except InvalidRequest as error:
                raise at(at(error, index), "content") from None
            if block is not None:
                blocks.append(block)
                blocks += cache_point(extra_fields(part.extra_json), self._row, section)
        if message_cache_point and message.extra_json and blocks:
            blocks += cache_point(extra_fields(message.extra_json), self._row, section)
        return blocks

    def _block(self, part: pb.ContentPart) -> Block | None:
        which = part.WhichOneof("part")
        if which == "image_url":
            return image(part.image_url, self._documents)
        if which == "input_audio":
            return audio(part.input_audio)
        if which == "file":
            return file(part.file, extra_fields(part.extra_json, part.file.extra_json), self._documents)
        if which == "other_json":
            raise unsupported("Bedrock takes no content of this kind.", "type")
        text = part.refusal if which == "refusal" else part.text
        return {"text": text} if text.strip() else None


def _introduce_documents(content: list[Block]) -> None:
    """Converse requires text beside documents."""
    place = next((i for i, block in enumerate(content) if "document" in block), None)
    if place is not None and not any("text" in block for block in content):
        content.insert(place, {"text": "See the attached document."})


def _arguments(call: pb.ToolCall) -> dict[str, Any]:
    """The input, which must be an object; anything else is wrapped in one."""
    if call.HasField("custom"):
        return {"input": call.custom.input}
    text = call.function.arguments
    if not text.strip():
        return {}
    try:
        value = decode(text)
    except msgspec.DecodeError:  # cut off by a token limit, for example
        return {"arguments": text}
    return value if isinstance(value, dict) else {"arguments": value}


# Reasoning


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


def _replayed_reasoning(message: pb.Message, replays: frozenset[str]) -> list[dict[str, Any]]:
    """The message's signed blocks in one of the formats `replays`, from its details or from its calls."""
    blocks = [_reasoning_block(d) for d in message.reasoning_details if d.format in replays and _is_signed(d)]
    if blocks:
        return blocks
    for call in message.tool_calls:
        if call.extra_json:
            kept = extra_fields(call.extra_json).get("extra_content")
            blocks += [_reasoning_block(d) for d in _details(kept) if d.format in replays]
    return blocks


def _is_signed(detail: pb.ReasoningDetail) -> bool:
    return bool(detail.redacted or (detail.HasField("text") and detail.signature))


def _details(content: Any) -> Iterable[pb.ReasoningDetail]:
    """The inverse of `extra_content`; anything of another form is left out."""
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
    if detail.format == "anthropic":  # Bedrock's bytes are Anthropic's text
        data = base64.b64encode(data.encode()).decode()
    return {"reasoningContent": {"redactedContent": data}}
