"""Messages in Gemini's form: `pb.Message` to `contents` and `systemInstruction`. Pure.

https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

import itertools
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import decode_json, encode_text
from server.dialects import data_url
from server.dialects.data_url import UNTYPED
from server.dialects.participants import named_content
from server.errors import InvalidRequest, unsupported

#: The signature of calls that Gemini did not make; Gemini 3 refuses calls without one.
#: https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"
#: `ReasoningDetail.format` of blocks that can be replayed to Gemini.
FORMAT = "gemini"

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


def json_object(text: str) -> dict[str, Any]:
    """The object in one of the contract's `*_json` fields; empty where it is none. Raises InvalidRequest."""
    try:
        value = decode_json(text) if text else {}
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
    return value if value.__class__ is dict else {}


class Contents:
    """The `contents` and `system` parts of a conversation.

    `old`: for models before Gemini 3. `ids`: calls and results have ids. Vertex AI
    refuses them and matches by order, so results always have the order of their calls.
    https://github.com/pydantic/pydantic-ai/issues/5081
    """

    def __init__(self, *, old: bool, ids: bool) -> None:
        self.contents: list[dict[str, Any]] = []
        self.system: list[dict[str, Any]] = []
        self._old = old
        self._ids = ids
        #: Call id -> its number in the conversation, and the function's name.
        self._calls: dict[str, tuple[int, str]] = {}
        self._call_count = 0

    def add_all(self, request: pb.ChatCompletionRequest) -> None:
        """Add every message of `request`; system messages go to `system` wherever they stand."""
        turns = enumerate(request.messages)
        for role, group in itertools.groupby(turns, lambda turn: _ROLES.get(turn[1].role, "user")):
            if role == "tool":
                self._add("user", self._results(list(group)))
                continue
            for index, message in group:
                path = f"messages[{index}]"
                if role == "system":
                    self.system += _texts(message, path)
                elif role == "user":
                    self._add(role, _parts(message, path))
                else:
                    self._add(role, self._answer(message, path))
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
        signatures, parts = _replayed(message.reasoning_details)
        parts += _parts(message, path)
        if message.refusal:
            parts.append({"text": message.refusal})
        parts += _images(message, path)
        # Calls come last and so do their signatures; one before them belongs to the text.
        of_calls = signatures[-len(message.tool_calls) :] if message.tool_calls else []
        of_parts = signatures[: len(signatures) - len(of_calls)]
        if of_parts and parts:
            parts[-1].setdefault("thoughtSignature", of_parts[-1])
        for place, call in enumerate(message.tool_calls):
            part = self._call(call)
            # A signature on the call itself is certain. Only the first of parallel calls is signed.
            signature = _signature(call.extra_json) or (of_calls[place] if place < len(of_calls) else "")
            if not signature and place == 0 and not self._old:
                signature = UNSIGNED
            if signature:
                part["thoughtSignature"] = signature
            parts.append(part)
        return parts

    def _call(self, call: pb.ToolCall) -> dict[str, Any]:
        if call.HasField("custom"):
            name, args = call.custom.name, {"input": call.custom.input}
        else:
            name, args = call.function.name, _arguments(call.function.arguments)
        self._calls[call.id] = (self._call_count, name)
        self._call_count += 1
        function: dict[str, Any] = {"name": name, "args": args}
        if self._ids and call.id:
            function["id"] = call.id
        return {"functionCall": function}

    def _results(self, group: list[tuple[int, pb.Message]]) -> list[dict[str, Any]]:
        """The results in one content, in the order of their calls, and after them media that they cannot hold."""
        results: list[tuple[int, dict[str, Any]]] = []
        media: list[dict[str, Any]] = []
        for index, message in group:
            path = f"messages[{index}]"
            call = self._calls.get(message.tool_call_id)
            if call is None and not message.name:
                raise InvalidRequest("No call before it has this id.", f"{path}.tool_call_id")
            number, name = call or (self._call_count, message.name)
            parts = _parts(message, path)
            text = "\n".join(part["text"] for part in parts if "text" in part)
            response: dict[str, Any] = {"name": name, "response": _response(text)}
            if self._ids and message.tool_call_id:
                response["id"] = message.tool_call_id
            held: list[dict[str, Any]] = []
            for part in parts:
                if "text" not in part:
                    (held if not self._old and _fits_response(part) else media).append(part)
            if held:
                response["parts"] = held
            results.append((number, {"functionResponse": response}))
        return [part for _, part in sorted(results, key=lambda result: result[0])] + media


def _texts(message: pb.Message, path: str) -> list[dict[str, Any]]:
    for index, part in enumerate(message.content):
        if not part.HasField("text"):
            raise unsupported("Gemini's system instruction is text only.", f"{path}.content[{index}]")
    return _parts(message, path)


def _replayed(details: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The signatures in Gemini's reasoning details, in order, and the parts that are sent back whole."""
    signatures: list[str] = []
    parts: list[dict[str, Any]] = []
    for block in details:
        if block.HasField("other_json"):
            other = json_object(block.other_json)
            if other.get("format") == FORMAT and other.get("part").__class__ is dict:
                parts.append(other["part"])
        elif block.format == FORMAT and (block.signature or block.redacted):
            signatures.append(block.signature or block.redacted)
    return signatures, parts


def _signature(extra_json: str) -> str:
    """`{"extra_content": {"google": {"thought_signature": "..."}}}`, as Google's OpenAI-compatible API has it."""
    match json_object(extra_json):
        case {"extra_content": {"google": {"thought_signature": str(signature)}}}:
            return signature
    return ""


def _images(message: pb.Message, path: str) -> list[dict[str, Any]]:
    """Images of an earlier answer that the caller sends back."""
    parts = []
    images = json_object(message.extra_json).get("images")
    for index, image in enumerate(images if images.__class__ is list else []):
        match image:
            case {"image_url": {"url": str(url)}}:
                part = _media(url, "", f"{path}.images[{index}].image_url.url")
                signature = _signature(encode_text(image))
                parts.append({**part, "thoughtSignature": signature} if signature else part)
    return parts


def _arguments(text: str) -> dict[str, Any]:
    """A call's arguments, which must be an object; anything else is wrapped in one."""
    if not text.strip():
        return {}
    try:
        value = decode_json(text)
    except msgspec.DecodeError:
        value = text
    return value if value.__class__ is dict else {"arguments": value}


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


# Parts

#: File name extension -> media type; Vertex AI requires a media type with every URI.
_MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "avif": "image/avif",
    "pdf": "application/pdf", "json": "application/json", "txt": "text/plain", "md": "text/markdown",
    "html": "text/html", "htm": "text/html", "css": "text/css", "csv": "text/csv", "xml": "text/xml",
    "rtf": "text/rtf", "js": "text/javascript", "py": "text/x-python",
    "mp3": "audio/mp3", "wav": "audio/wav", "ogg": "audio/ogg", "flac": "audio/flac", "aac": "audio/aac",
    "aiff": "audio/aiff", "m4a": "audio/m4a",
    "mp4": "video/mp4", "mov": "video/mov", "mpeg": "video/mpeg", "mpg": "video/mpg", "webm": "video/webm",
    "avi": "video/avi", "wmv": "video/wmv", "3gp": "video/3gpp",
}  # fmt: skip
_AUDIO_TYPES = {"pcm16": "audio/pcm", "mpeg": "audio/mp3", "opus": "audio/ogg"}
#: Fields that callers may set on a part -> Gemini's fields.
_PART_EXTRA = {"video_metadata": "videoMetadata", "media_resolution": "mediaResolution"}


def _parts(message: pb.Message, path: str) -> list[dict[str, Any]]:
    """The parts of a message's content, without empty text, which Gemini refuses."""
    parts = (_part(part, f"{path}.content[{index}]") for index, part in enumerate(named_content(message)))
    return [part for part in parts if part.get("text") != ""]


def _part(part: pb.ContentPart, path: str) -> dict[str, Any]:
    which = part.WhichOneof("part")
    extra = json_object(part.extra_json)
    if which == "image_url":
        out = _media(part.image_url.url, _type_hint(part.image_url.extra_json), f"{path}.image_url.url")
    elif which == "input_audio":
        format_ = part.input_audio.format.lower()
        media_type = _AUDIO_TYPES.get(format_, f"audio/{format_}")
        out = {"inlineData": {"mimeType": media_type, "data": part.input_audio.data}}
    elif which == "file":
        out = _file(part.file, f"{path}.file")
    elif which == "other_json":
        extra = json_object(part.other_json)
        out = _other(extra, path)
    else:
        return {"text": part.refusal if which == "refusal" else part.text}
    return out | {native: extra[name] for name, native in _PART_EXTRA.items() if name in extra}


def _other(part: dict[str, Any], path: str) -> dict[str, Any]:
    """A part that other vendors have and OpenAI has not: `video_url`, `file_url`, `document_url`, ..."""
    kind = str(part.get("type"))
    if kind == "thinking":  # Mistral's reasoning, replayed
        return {"text": ""}
    match part.get(kind) if kind.endswith("_url") else None:
        case str(url) | {"url": str(url)}:
            return _media(url, "", f"{path}.{kind}")
    raise unsupported(f"Gemini has no content of type {kind[:40]!r}.", path)


def _file(file: pb.File, path: str) -> dict[str, Any]:
    hint = _type_hint(file.extra_json) or _guess(file.filename)
    if file.file_data:
        return _media(file.file_data, hint, f"{path}.file_data")
    if file.file_id.startswith("files/"):  # a name; Gemini requires the URI
        return _media(f"https://generativelanguage.googleapis.com/v1beta/{file.file_id}", hint, f"{path}.file_id")
    return _media(file.file_id, hint, f"{path}.file_id")


def _media(url: str, hint: str, path: str) -> dict[str, Any]:
    """Inline data or the URI of a file. `hint`: the media type of a URL that has none."""
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return _inline(url, hint, path)
    if scheme not in ("gs", "https"):
        raise unsupported("Gemini takes data:, https: and gs: URLs.", path)
    media_type = hint or _guess(_path(url))
    if not media_type and not native_uri(url):
        raise unsupported(
            "Gemini requires a media type with a URL; send `mime_type`, or a URL with a file name extension.", path
        )
    return {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}


def _path(url: str) -> str:
    """The path of `url`; empty where it has none, or brackets where no IPv6 address is."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def native_uri(url: str) -> bool:
    """Whether only Google can fetch `url`: Cloud Storage, its Files API, YouTube."""
    return bool(
        re.match(r"gs://|https://(generativelanguage\.googleapis\.com|(www\.|m\.)?youtube\.com|youtu\.be)/", url)
    )


def _inline(url: str, hint: str, path: str) -> dict[str, Any]:
    media_type, data = data_url.parse(url, path)
    media_type = hint if media_type in UNTYPED else media_type
    if not media_type:
        raise InvalidRequest("Expected a media type: data:<media type>;base64,<data>.", path)
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _type_hint(extra_json: str) -> str:
    """The media type in the caller's `mime_type` or `format` beside a URL; empty where there is none."""
    extra = json_object(extra_json)
    hint = str(extra.get("mime_type") or extra.get("format") or "")
    return hint if "/" in hint else _guess(hint)


def _guess(name: str) -> str:
    """The media type of a file name or of an extension; empty where it is unknown."""
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "")
