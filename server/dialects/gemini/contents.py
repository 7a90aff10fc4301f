"""Messages in Gemini's form: `pb.Message` to `contents` and `systemInstruction`. Pure.

https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import decode_json
from server.dialects.dropped import Dropped
from server.dialects.gemini.json_object import json_object
from server.dialects.gemini.media import audio_part, file_part, media_part, type_hints
from server.dialects.gemini.names import tool_name
from server.dialects.gemini.replay import Signatures, thought_signature
from server.dialects.participants import named_content
from server.dialects.tool_ids import CallIds, tool_input
from server.errors import InvalidRequest, unsupported

#: The signature of calls that Gemini did not make; Gemini 3 refuses calls without one.
#: https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"

#: Kinds of parts that hold media.
_MEDIA = ("image_url", "input_audio", "file")
#: Fields that callers may set on them -> Gemini's fields.
_PART_EXTRA = {"video_metadata": "videoMetadata", "media_resolution": "mediaResolution"}
_ROLES = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_DEVELOPER: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "model",
    pb.ROLE_TOOL: "tool",
}
#: Media types that a function's response may hold, from Gemini 3 on.
#: https://ai.google.dev/gemini-api/docs/function-calling
_RESPONSE_MEDIA = frozenset({"image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain"})
#: A `$ref` in a function's response would refer to media, and numbers are doubles: such JSON is sent as text.
_AS_TEXT = re.compile(r'"\$ref"|[0-9]{16}')


class Contents:
    """The `contents` and `system` parts of a conversation.

    `old`: for models before Gemini 3. `ids`: calls and results have ids. Vertex AI
    refuses them and matches by order, so results always have the order of their calls.
    https://github.com/pydantic/pydantic-ai/issues/5081
    """

    def __init__(self, dropped: Dropped, *, old: bool, ids: bool) -> None:
        self.contents: list[dict[str, Any]] = []
        self.system: list[dict[str, Any]] = []
        self._dropped = dropped
        self._old = old
        self._ids = ids
        self._call_ids = CallIds(str)
        #: Call id, as sent -> its number in the conversation, and the function's name as the caller has it.
        self._calls: dict[str, tuple[int, str]] = {}

    def add_all(self, request: pb.ChatCompletionRequest) -> None:
        """Add every message of `request`; system messages go to `system` wherever they stand."""
        turns = enumerate(request.messages)
        for role, group in itertools.groupby(turns, lambda turn: _ROLES.get(turn[1].role, "user")):
            if role == "tool":
                self._add("user", self._results(list(group)))
                continue
            for index, message in group:
                path = f"messages[{index}]"
                self._dropped.message(message, path)
                if role == "model":
                    self._add(role, self._answer(message, path))
                    continue
                self._dropped.pick(path, message.extra_json)
                if role == "system":
                    self.system += self._texts(message, path)
                else:
                    self._add(role, self._parts(message, path))
        if not self.contents:  # Gemini does not answer a system instruction alone
            self.contents, self.system = [{"role": "user", "parts": self.system}], []
        if not self.contents[0]["parts"]:
            raise InvalidRequest("No message has any content.", "messages")

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"] += parts
        else:
            self.contents.append({"role": role, "parts": parts})

    def _answer(self, message: pb.Message, path: str) -> list[dict[str, Any]]:
        """The parts of an assistant's message, with the signatures that Gemini sent with them."""
        if message.audio.id:
            raise unsupported("Gemini keeps no audio to refer to.", f"{path}.audio")
        if message.HasField("audio"):
            self._dropped.add(f"{path}.audio")
        reasoning = Signatures(message, path, self._dropped)
        parts = reasoning.parts + self._parts(message, path)
        if message.refusal:
            parts.append({"text": message.refusal})
        parts += self._images(message, path)
        ids = self._call_ids.calls([call.id for call in message.tool_calls])
        calls = [
            self._call(call, id_, f"{path}.tool_calls[{index}]", reasoning)
            for index, (call, id_) in enumerate(zip(message.tool_calls, ids, strict=True))
        ]
        reasoning.sign(parts, calls)
        if calls and not self._old:
            calls[0].setdefault("thoughtSignature", UNSIGNED)
        return parts + calls

    def _call(self, call: pb.ToolCall, id_: str, path: str, reasoning: Signatures) -> dict[str, Any]:
        if call.HasField("custom"):
            name, args = call.custom.name, {"input": call.custom.input}
            self._dropped.pick(f"{path}.custom", call.custom.extra_json)
        else:
            name, args = call.function.name, tool_input(call.function.arguments, "arguments")
            self._dropped.pick(f"{path}.function", call.function.extra_json)
        extra = self._dropped.pick(path, call.extra_json, ("extra_content",))
        signature = reasoning.read(f"{path}.extra_content", extra.get("extra_content"))
        self._calls[id_] = (len(self._calls), name)
        function: dict[str, Any] = {"name": tool_name(name), "args": args}
        if self._ids and call.id:
            function["id"] = id_
        part: dict[str, Any] = {"functionCall": function}
        return {**part, "thoughtSignature": signature} if signature else part

    def _results(self, group: list[tuple[int, pb.Message]]) -> list[dict[str, Any]]:
        """The results in one content, in the order of their calls, and after them media that they cannot hold."""
        results: list[tuple[int, dict[str, Any]]] = []
        media: list[dict[str, Any]] = []
        for index, message in group:
            path = f"messages[{index}]"
            self._dropped.message(message, path)
            self._dropped.pick(path, message.extra_json)
            id_ = self._call_ids.result(message.tool_call_id)
            call = self._calls.get(id_)
            if call is None and not message.name:
                raise InvalidRequest("No call before it has this id.", f"{path}.tool_call_id")
            number, name = call or (len(self._calls), message.name)
            if message.name not in ("", name):
                self._dropped.add(f"{path}.name")
            parts = self._parts(message, path)
            text = "\n".join(part["text"] for part in parts if "text" in part)
            response: dict[str, Any] = {"name": tool_name(name), "response": _response(text)}
            if self._ids and id_:
                response["id"] = id_
            held: list[dict[str, Any]] = []
            for part in parts:
                if "text" not in part:
                    (held if not self._old and _fits_response(part) else media).append(part)
            if held:
                response["parts"] = held
            results.append((number, {"functionResponse": response}))
        return [part for _, part in sorted(results, key=lambda result: result[0])] + media

    def _texts(self, message: pb.Message, path: str) -> list[dict[str, Any]]:
        for index, part in enumerate(message.content):
            if not part.HasField("text"):
                raise unsupported("Gemini's system instruction is text only.", f"{path}.content[{index}]")
        return self._parts(message, path)

    def _images(self, message: pb.Message, path: str) -> list[dict[str, Any]]:
        """Images of an earlier answer that the caller sends back."""
        extra = self._dropped.pick(path, message.extra_json, ("images",))
        images = extra.get("images")
        parts = []
        for index, image in enumerate(images if images.__class__ is list else []):
            place = f"{path}.images[{index}]"
            match image:
                case {"image_url": {"url": str(url), **inner}, **rest}:
                    part = media_part(url, [], f"{place}.image_url.url", self._dropped)
                    signature = thought_signature(rest.get("extra_content"))
                    used = ("type", "index", "extra_content") if signature else ("type", "index")
                    self._dropped.pick_from(place, rest, used)
                    self._dropped.pick_from(f"{place}.image_url", inner)
                    parts.append({**part, "thoughtSignature": signature} if signature else part)
                case _:
                    self._dropped.add(place)
        return parts

    def _parts(self, message: pb.Message, path: str) -> list[dict[str, Any]]:
        """The parts of a message's content, without empty text, which Gemini refuses."""
        content = enumerate(named_content(message, path, self._dropped))
        parts = (self._part(part, f"{path}.content[{index}]") for index, part in content)
        return [part for part in parts if part.get("text") != ""]

    def _part(self, part: pb.ContentPart, path: str) -> dict[str, Any]:
        which = part.WhichOneof("part")
        if which == "other_json":
            return self._other(json_object(part.other_json), path)
        if which not in _MEDIA:
            self._dropped.pick(path, part.extra_json)
            return {"text": part.refusal if which == "refusal" else part.text}
        extra = self._dropped.pick(path, part.extra_json, _PART_EXTRA)
        if which == "image_url":
            place = f"{path}.image_url"
            self._dropped.detail(part.image_url, place)
            hints = type_hints(place, json_object(part.image_url.extra_json), self._dropped)
            out = media_part(part.image_url.url, hints, f"{place}.url", self._dropped)
        elif which == "input_audio":
            self._dropped.pick(f"{path}.input_audio", part.input_audio.extra_json)
            out = audio_part(part.input_audio)
        else:
            out = file_part(part.file, f"{path}.file", self._dropped)
        return out | _native(extra)

    def _other(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        """A part that other vendors have and OpenAI has not: `video_url`, `file_url`, `document_url`, ..."""
        kind = str(part.get("type"))
        if kind == "thinking":  # Mistral's reasoning, replayed
            self._dropped.add(path)
            return {"text": ""}
        extra = self._dropped.pick_from(path, part, {"type", kind, *_PART_EXTRA})
        media: Any = part.get(kind) if kind.endswith("_url") else None
        match media:
            case str(url):
                return media_part(url, [], f"{path}.{kind}", self._dropped) | _native(extra)
            case {"url": str(url)}:
                fields = {name: value for name, value in media.items() if name != "url"}
                hints = type_hints(f"{path}.{kind}", fields, self._dropped)
                return media_part(url, hints, f"{path}.{kind}", self._dropped) | _native(extra)
        raise unsupported(f"Gemini has no content of type {kind[:40]!r}.", path)


def _native(extra: dict[str, Any]) -> dict[str, Any]:
    return {native: extra[name] for name, native in _PART_EXTRA.items() if extra.get(name) is not None}


def _response(text: str) -> dict[str, Any]:
    """A result, which must be an object; anything else goes into `output`, as in Google's documentation."""
    if _AS_TEXT.search(text):
        return {"output": text}
    try:
        value = decode_json(text) if text else ""
    except msgspec.DecodeError:
        value = text
    return value if value.__class__ is dict else {"output": value}


def _fits_response(part: dict[str, Any]) -> bool:
    return "inlineData" in part and part["inlineData"]["mimeType"] in _RESPONSE_MEDIA
