"""Messages in Converse's form: `pb.Message` to system blocks and turns. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from lmchat.v1 import chat_pb2 as pb

from server.dialects.anthropic.limits import CacheMarkers
from server.dialects.anthropic.models import CONTINUE
from server.dialects.bedrock.media import DOCUMENT_FIELDS, MediaBlocks
from server.dialects.bedrock.models import Family
from server.dialects.bedrock.replay import Block, Reasoning
from server.dialects.dropped import Dropped
from server.dialects.participants import ToolNames, named_content
from server.dialects.tool_ids import CallIds, called_name, fit, renamed, tool_input
from server.errors import unsupported

#: The sections of a request that take cache points.
Section = Literal["system", "messages", "tools"]

_CACHE = frozenset({"cache_control"})
_DEFAULT_TTL = "5m"
_TTLS = (_DEFAULT_TTL, "1h")  # not a set: callers may write lists and objects
_FILE_FIELDS = _CACHE | DOCUMENT_FIELDS.keys()
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
    return renamed(request, tool_name)


def _call_id(id_: str) -> str:
    return fit(id_, _NOT_IN_IDS)


# Messages


class CachePoints:
    """Cache points for the `cache_control` of callers; those that the model cannot take are reported as dropped.

    They are a hint, so they are left out where the model refuses them.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """

    def __init__(self, row: Family, dropped: Dropped) -> None:
        self._row = row
        self._dropped = dropped
        self._markers = CacheMarkers[Block]()

    def after(self, path: str, control: Any, section: Section) -> list[Block]:
        """The block that stands after the block with this `cache_control`, at `path`; none without it."""
        if control is None:
            return []
        if not isinstance(control, dict) or section not in self._row.cache:
            self._dropped.add(path)
            return []
        point = {"type": "default"}
        self._dropped.pick_from(path, control, ("type", "ttl"))
        if self._row.cache_ttl and control.get("ttl") in _TTLS:
            point["ttl"] = control["ttl"]
        elif control.get("ttl") not in (None, _DEFAULT_TTL):
            self._dropped.add(f"{path}.ttl")
        block: Block = {"cachePoint": point}
        self._markers.add(path, block, lasting=section != "messages")
        return [block]

    def limit(self, *lists: list[Block]) -> None:
        """Remove cache points beyond what a request may have from these lists of blocks."""
        excess = self._markers.excess()
        for path, _ in excess:
            self._dropped.add(path)
        refused = {id(block) for _, block in excess}
        for blocks in lists:
            blocks[:] = [block for block in blocks if id(block) not in refused]


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

    def __init__(self, row: Family, dropped: Dropped) -> None:
        self.system: list[Block] = []
        #: Tools called in the history, by Bedrock's names; the values mean nothing.
        self.called: dict[str, None] = {}
        self.has_tool_blocks = False
        self._turns: list[_Turn] = []
        self._row = row
        self._dropped = dropped
        self.cache = CachePoints(row, dropped)
        self._tool_names = ToolNames()
        self._call_ids = CallIds(_call_id)
        self._media = MediaBlocks(dropped)
        self._roles: dict[int, Callable[[pb.Message, str], None]] = {
            pb.ROLE_SYSTEM: self._add_system,
            pb.ROLE_DEVELOPER: self._add_system,
            pb.ROLE_ASSISTANT: self._add_assistant,
            pb.ROLE_TOOL: self._add_tool,
        }

    def add(self, message: pb.Message, path: str) -> None:
        """Add the message at `path`. Raises InvalidRequest."""
        self._dropped.message(message, path)
        self._roles.get(message.role, self._add_user)(message, path)

    def turns(self) -> list[dict[str, Any]]:
        """The turns as Converse takes them; the first is the user's."""
        turns = [turn.dump() for turn in self._turns]
        last = turns[-1] if turns else None
        if last and last["role"] == "assistant" and "text" in last["content"][-1]:
            # Claude: "final assistant content cannot end with trailing whitespace".
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
            if self._row.ends_with_user:
                turns.append({"role": "user", "content": [{"text": CONTINUE}]})
        if not turns or turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"text": _FIRST_TURN}]})
        return turns

    def _turn(self, role: str) -> _Turn:
        """The last turn, or a new one where that has another role."""
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role))
        return self._turns[-1]

    def _add_system(self, message: pb.Message, path: str) -> None:
        self.system += self._marked(self._blocks(message, path, "system", text_only=True), message, path, "system")

    def _add_user(self, message: pb.Message, path: str) -> None:
        blocks = self._marked(self._blocks(message, path), message, path)
        if blocks:
            self._turn("user").blocks += blocks

    def _add_assistant(self, message: pb.Message, path: str) -> None:
        if message.HasField("audio"):
            if not message.content:
                raise unsupported("Audio of earlier answers cannot be sent to Bedrock.", f"{path}.audio")
            self._dropped.add(f"{path}.audio")
        blocks = self._marked(self._blocks(message, path, text_only=True), message, path)
        if message.refusal.strip():
            blocks.append({"text": message.refusal})
        reasoning = Reasoning(message, path, self._row.replays, self._dropped)
        ids = self._call_ids.calls([call.id for call in message.tool_calls])
        for index, (call, id_) in enumerate(zip(message.tool_calls, ids, strict=True)):
            blocks += self._tool_use(call, id_, f"{path}.tool_calls[{index}]", reasoning)
        replayed = reasoning.blocks(sent=bool(blocks))
        if blocks:
            self._turn("assistant").blocks += [*replayed, *blocks]

    def _tool_use(self, call: pb.ToolCall, id_: str, path: str, reasoning: Reasoning) -> list[Block]:
        """The call, and after it the cache point for its `cache_control`."""
        self._tool_names.add(call)
        name = tool_name(called_name(call))
        self.called[name] = None
        self.has_tool_blocks = True
        kind = "custom" if call.HasField("custom") else "function"
        self._dropped.pick(f"{path}.{kind}", getattr(call, kind).extra_json)
        extra = self._dropped.pick(path, call.extra_json, {"cache_control", "extra_content"})
        reasoning.add(f"{path}.extra_content", extra.get("extra_content"))
        use = {"toolUseId": id_, "name": name, "input": _input(call)}
        points = self.cache.after(f"{path}.cache_control", extra.get("cache_control"), "messages")
        return [{"toolUse": use}, *points]

    def _add_tool(self, message: pb.Message, path: str) -> None:
        self.has_tool_blocks = True
        self._tool_names.drop_other(message, path, self._dropped)
        extra = self._dropped.pick(path, message.extra_json, {"cache_control", "is_error", "status"})
        # Converse has no cache points inside a result; one goes after it.
        controls: list[tuple[str, Any]] = []
        content = self._blocks(message, path, controls=controls) or [_EMPTY_RESULT]
        _introduce_documents(content)
        result = {"toolUseId": self._call_ids.result(message.tool_call_id), "content": content}
        if extra.get("is_error") is True or extra.get("status") == "error":
            result["status"] = "error"
        if extra.get("cache_control") is not None:
            controls.insert(0, (f"{path}.cache_control", extra["cache_control"]))
        for place, _ in controls[:-1]:
            self._dropped.add(place)
        points = self.cache.after(*controls[-1], "messages") if controls else []
        self._turn("user").results += [{"toolResult": result}, *points]

    def _blocks(
        self,
        message: pb.Message,
        path: str,
        section: Section = "messages",
        *,
        text_only: bool = False,
        controls: list[tuple[str, Any]] | None = None,
    ) -> list[Block]:
        """The blocks of a message's content, without blank text, each with its cache point after it.

        `controls`: collects the parts' `cache_control`, each with its path, in place of cache points.
        """
        blocks: list[Block] = []
        for index, part in enumerate(named_content(message, path, self._dropped)):
            place = f"{path}.content[{index}]"
            if text_only and not (part.HasField("text") or part.HasField("refusal")):
                raise unsupported("Bedrock takes only text in this message.", place)
            known = _FILE_FIELDS if part.HasField("file") else _CACHE
            extra = self._dropped.pick(place, part.extra_json, known)
            control = extra.pop("cache_control", None)
            block = self._block(part, place, extra)
            if block is None:
                if control is not None:
                    self._dropped.add(f"{place}.cache_control")
                continue
            blocks.append(block)
            if controls is None:
                blocks += self.cache.after(f"{place}.cache_control", control, section)
            elif control is not None:
                controls.append((f"{place}.cache_control", control))
        return blocks

    def _marked(
        self, blocks: list[Block], message: pb.Message, path: str, section: Section = "messages"
    ) -> list[Block]:
        """`blocks`, and after them the cache point for the message's own `cache_control`, unless there is one."""
        control = self._dropped.pick(path, message.extra_json, _CACHE).get("cache_control")
        if control is not None and (not blocks or "cachePoint" in blocks[-1]):
            self._dropped.add(f"{path}.cache_control")
            return blocks
        return blocks + self.cache.after(f"{path}.cache_control", control, section)

    def _block(self, part: pb.ContentPart, path: str, extra: dict[str, Any]) -> Block | None:
        which = part.WhichOneof("part")
        if which == "image_url":
            return self._media.image(part.image_url, f"{path}.image_url")
        if which == "input_audio":
            return self._media.audio(part.input_audio, f"{path}.input_audio")
        if which == "file":
            return self._media.file(part.file, path, extra)
        if which == "other_json":
            raise unsupported("Bedrock takes no content of this kind.", f"{path}.type")
        text = part.refusal if which == "refusal" else part.text
        return {"text": text} if text.strip() else None


def _introduce_documents(content: list[Block]) -> None:
    """Converse requires text beside documents."""
    place = next((i for i, block in enumerate(content) if "document" in block), None)
    if place is not None and not any("text" in block for block in content):
        content.insert(place, {"text": "See the attached document."})


def _input(call: pb.ToolCall) -> dict[str, Any]:
    if call.HasField("custom"):
        return {"input": call.custom.input}
    return tool_input(call.function.arguments, "arguments")
