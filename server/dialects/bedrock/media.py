"""Images, documents, sound and video as Converse's blocks: inline bytes with a format, or a place in S3.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from lmchat.v1 import chat_pb2 as pb

from server.errors import InvalidRequest, Reason

#: Media type -> kind of block and Bedrock's word for the format.
_FORMATS: dict[str, tuple[str, str]] = {
    "image/png": ("image", "png"),
    "image/jpeg": ("image", "jpeg"),
    "image/jpg": ("image", "jpeg"),
    "image/gif": ("image", "gif"),
    "image/webp": ("image", "webp"),
    "application/pdf": ("document", "pdf"),
    "text/csv": ("document", "csv"),
    "application/msword": ("document", "doc"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("document", "docx"),
    "application/vnd.ms-excel": ("document", "xls"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("document", "xlsx"),
    "text/html": ("document", "html"),
    "text/plain": ("document", "txt"),
    "text/markdown": ("document", "md"),
    "application/json": ("document", "txt"),
    "application/xml": ("document", "txt"),
    "application/yaml": ("document", "txt"),
    "application/javascript": ("document", "txt"),
    "audio/wav": ("audio", "wav"),
    "audio/x-wav": ("audio", "wav"),
    "audio/mpeg": ("audio", "mp3"),
    "audio/mp3": ("audio", "mp3"),
    "audio/flac": ("audio", "flac"),
    "audio/ogg": ("audio", "ogg"),
    "audio/aac": ("audio", "aac"),
    "video/mp4": ("video", "mp4"),
    "video/quicktime": ("video", "mov"),
    "video/webm": ("video", "webm"),
    "video/x-matroska": ("video", "mkv"),
    "video/mpeg": ("video", "mpeg"),
}
#: A file name's ending -> the same, for files whose type is not said.
_ENDINGS = {format_: (kind, format_) for kind, format_ in _FORMATS.values()} | {
    "jpg": ("image", "jpeg"),
    "htm": ("document", "html"),
    "json": ("document", "txt"),
    "xml": ("document", "txt"),
    "yaml": ("document", "txt"),
}
#: What a type says that says nothing.
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_AUDIO_FORMATS = frozenset(
    {
        "aac", "flac", "m4a", "mka", "mkv", "mp3", "mp4", "mpeg", "mpga", "ogg", "opus", "pcm", "wav", "webm",
        "x-aac",
    }
)  # fmt: skip


def unsupported(message: str, param: str) -> InvalidRequest:
    """The error for what cannot be said here, but may elsewhere."""
    return InvalidRequest(message, param, reason=Reason.UNSUPPORTED_FEATURE)


class Documents:
    """Names for a conversation's documents: of a restricted alphabet, and no two alike whatever their case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, filename: str) -> str:
        """A name that resembles `filename`."""
        stem = filename.rpartition(".")[0] or filename
        plain = " ".join(re.sub(r"[^a-zA-Z0-9\-()\[\]]+", " ", stem).split())[:180].rstrip() or "document"
        name, count = plain, 1
        while name.lower() in self._taken:
            count += 1
            name = f"{plain} {count}"
        self._taken.add(name.lower())
        return name


class _Media(NamedTuple):
    type: str
    #: Base64, or empty where `uri` is given.
    data: str
    uri: str = ""


def image(value: pb.ImageUrl, documents: Documents) -> dict[str, Any]:
    """A picture, or whatever else a data URL holds."""
    return _block(_media(value.url, "image_url.url"), "", {}, documents, "image_url.url")


def audio(value: pb.InputAudio) -> dict[str, Any]:
    """Sound."""
    if value.format not in _AUDIO_FORMATS:
        raise unsupported(f"Sound of format {value.format[:40]!r} cannot be sent here.", "input_audio.format")
    data = _base64(value.data, "input_audio.data")
    return {"audio": {"format": value.format, "source": {"bytes": data}}}


def file(value: pb.File, extra: dict[str, Any], documents: Documents) -> dict[str, Any]:
    """A document, or a picture, sound or video given as a file.

    `extra` may hold `citations` (`{"enabled": true}`) and `context`, as at Anthropic.
    """
    if not value.file_data:
        if not value.file_id.startswith("s3://"):
            raise unsupported("Bedrock keeps no files; send the data, or the s3:// address.", "file.file_id")
        media = _media(value.file_id, "file.file_id")
    elif value.file_data.startswith(("data:", "s3:", "http:", "https:")):
        media = _media(value.file_data, "file.file_data")
    else:  # bare base64
        media = _Media("", _base64(value.file_data, "file.file_data"))
    return _block(media, value.filename, extra, documents, "file.file_data")


def _block(
    media: _Media, filename: str, extra: dict[str, Any], documents: Documents, param: str
) -> dict[str, Any]:
    filename = filename or media.uri.rpartition("/")[2]
    found = _FORMATS.get(media.type)
    if found is None and media.type in _UNTYPED:
        found = _ENDINGS.get(filename.rpartition(".")[2].lower())
    if found is None and media.type.startswith("text/"):
        found = ("document", "txt")
    if found is None:
        raise unsupported(f"Media of type {media.type[:80]!r} cannot be sent here.", param)
    kind, format_ = found
    source: dict[str, Any] = {"s3Location": {"uri": media.uri}} if media.uri else {"bytes": media.data}
    if kind != "document":
        return {kind: {"format": format_, "source": source}}
    document: dict[str, Any] = {"format": format_, "name": documents.name(filename), "source": source}
    if isinstance(extra.get("context"), str):
        document["context"] = extra["context"]
    if isinstance(extra.get("citations"), dict):
        document["citations"] = {"enabled": extra["citations"].get("enabled") is True}
        if format_ == "txt" and not media.uri:  # of plain text, only text can be cited
            document["source"] = {"text": base64.b64decode(media.data).decode("utf-8", "replace")}
    return {"document": document}


def _media(url: str, param: str) -> _Media:
    if url.startswith("s3://"):
        return _Media("", "", url)
    if not url.startswith("data:"):
        raise unsupported("Bedrock takes data, not addresses; only s3:// ones.", param)
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise InvalidRequest("A data URL has a comma before its data.", param)
    type_, *parameters = head.split(";")
    if "base64" not in parameters:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    data = _base64(data, param)
    return _Media(type_.strip().lower(), data)


def _base64(data: str, param: str) -> str:
    """`data` as it is, checked; line breaks are taken out."""
    data = "".join(data.split())
    try:
        good = bool(binascii.a2b_base64(data, strict_mode=True))
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise InvalidRequest("Not base64." if data else "Must not be empty.", param)
    return data
