"""Images, documents, audio and video as Converse's blocks: inline bytes with a format, or an object in S3. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.dialects import data_url
from server.dialects.data_url import UNTYPED, checked_base64
from server.errors import unsupported

#: Media type -> kind of block and Bedrock's name of the format.
_FORMATS: dict[str, tuple[str, str]] = {
    "image/png": ("image", "png"),
    "image/jpeg": ("image", "jpeg"),
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
#: File name extension -> the same, for files without a media type.
_EXTENSIONS = {format_: (kind, format_) for kind, format_ in _FORMATS.values()} | {
    "jpg": ("image", "jpeg"),
    "htm": ("document", "html"),
    "json": ("document", "txt"),
    "xml": ("document", "txt"),
    "yaml": ("document", "txt"),
}
_AUDIO_FORMATS = frozenset(
    {
        "aac", "flac", "m4a", "mka", "mkv", "mp3", "mp4", "mpeg", "mpga", "ogg", "opus", "pcm", "wav", "webm",
        "x-aac",
    }
)  # fmt: skip


#: Bedrock allows 200 characters; what is left is for a number.
_MAX_NAME_LENGTH = 180
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\-()\[\]]+")


class Documents:
    """Names for the documents of one conversation: of Bedrock's alphabet, and unique whatever their case.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
    """

    def __init__(self) -> None:
        #: Names in use, in lower case -> the number that the last document of this name got.
        self._numbers: dict[str, int] = {}

    def name(self, filename: str) -> str:
        """A name that resembles `filename`."""
        stem = filename.rpartition(".")[0] or filename
        plain = " ".join(_NOT_IN_NAMES.sub(" ", stem).split())[:_MAX_NAME_LENGTH].rstrip() or "document"
        key = plain.lower()
        name, number = plain, self._numbers.get(key, 0)
        while name.lower() in self._numbers:
            number += 1
            name = f"{plain} {number}"
        self._numbers[key] = max(number, 1)
        self._numbers.setdefault(name.lower(), 1)
        return name


class _Media(NamedTuple):
    type: str
    #: Base64, or empty where `uri` is given.
    data: str
    uri: str = ""


def image(value: pb.ImageUrl, documents: Documents) -> dict[str, Any]:
    """The block for what a data URL or an object in S3 holds, an image or not."""
    return _block(_media(value.url, "image_url.url"), "", {}, documents, "image_url.url")


def audio(value: pb.InputAudio) -> dict[str, Any]:
    """The block for audio."""
    if value.format not in _AUDIO_FORMATS:
        raise unsupported(f"Bedrock takes no audio of format {value.format[:40]!r}.", "input_audio.format")
    data = checked_base64(value.data, "input_audio.data")
    return {"audio": {"format": value.format, "source": {"bytes": data}}}


def file(value: pb.File, extra: dict[str, Any], documents: Documents) -> dict[str, Any]:
    """The block for a document, or for an image, audio or video that is sent as a file.

    `extra` may hold `citations` (`{"enabled": true}`) and `context`, as at Anthropic.
    """
    if not value.file_data:
        if not value.file_id.startswith("s3://"):
            raise unsupported("Bedrock keeps no files; send the data, or an s3:// URI.", "file.file_id")
        media = _media(value.file_id, "file.file_id")
    elif _is_url(value.file_data):
        media = _media(value.file_data, "file.file_data")
    else:  # bare base64
        media = _Media("", checked_base64(value.file_data, "file.file_data"))
    return _block(media, value.filename, extra, documents, "file.file_data")


def _is_url(text: str) -> bool:
    return text.startswith(("s3:", "http:", "https:")) or data_url.is_data_url(text)


def _block(
    media: _Media, filename: str, extra: dict[str, Any], documents: Documents, param: str
) -> dict[str, Any]:
    filename = filename or media.uri.rpartition("/")[2]
    found = _FORMATS.get(media.type)
    if found is None and media.type in UNTYPED:
        found = _EXTENSIONS.get(filename.rpartition(".")[2].lower())
    if found is None and media.type.startswith("text/"):
        found = ("document", "txt")
    if found is None:
        raise unsupported(f"Bedrock takes no media of type {media.type[:80]!r}.", param)
    kind, format_ = found
    source: dict[str, Any] = {"s3Location": {"uri": media.uri}} if media.uri else {"bytes": media.data}
    if kind != "document":
        return {kind: {"format": format_, "source": source}}
    document: dict[str, Any] = {"format": format_, "name": documents.name(filename), "source": source}
    if isinstance(extra.get("context"), str):
        document["context"] = extra["context"]
    if isinstance(extra.get("citations"), dict):
        document["citations"] = {"enabled": extra["citations"].get("enabled") is True}
        if format_ == "txt" and not media.uri:  # plain text can be cited from a text source only
            document["source"] = {"text": base64.b64decode(media.data).decode("utf-8", "replace")}
    return {"document": document}


def _media(url: str, param: str) -> _Media:
    if url.startswith("s3://"):
        return _Media("", "", url)
    if not data_url.is_data_url(url):
        raise unsupported("Bedrock fetches no URLs but s3:// ones; send a data: URL.", param)
    return _Media(*data_url.parse(url, param))
