"""Images, documents, audio and video as Converse's blocks: inline bytes with a format, or an object in S3. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.dialects import data_url
from server.dialects.data_url import UNTYPED, checked_base64
from server.dialects.dropped import Dropped
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

#: Fields of a file that callers may set, as at Anthropic, with their types: `{"enabled": true}`, and text for the
#: model to read.
DOCUMENT_FIELDS: Mapping[str, type] = {"citations": dict, "context": str}

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

    @property
    def source(self) -> dict[str, Any]:
        """Converse's source."""
        return {"s3Location": {"uri": self.uri}} if self.uri else {"bytes": self.data}

    @property
    def filename(self) -> str:
        """The last segment of the URI; empty for inline bytes."""
        return self.uri.rpartition("/")[2]


class MediaBlocks:
    """Makes the blocks of one conversation; fields without an equivalent are reported as dropped."""

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._documents = Documents()

    def image(self, value: pb.ImageUrl, path: str) -> dict[str, Any]:
        """The block for what a data URL or an object in S3 holds, an image or not."""
        self._dropped.detail(value, path)
        self._dropped.pick(path, value.extra_json)
        media = _media(value.url, f"{path}.url")
        kind, format_ = _kind(media, "", f"{path}.url")
        return self._document(media, format_, "", {}) if kind == "document" else _block(kind, format_, media)

    def audio(self, value: pb.InputAudio, path: str) -> dict[str, Any]:
        """The block for audio."""
        self._dropped.pick(path, value.extra_json)
        if value.format not in _AUDIO_FORMATS:
            raise unsupported(f"Bedrock takes no audio of format {value.format[:40]!r}.", f"{path}.format")
        data = checked_base64(value.data, f"{path}.data")
        return {"audio": {"format": value.format, "source": {"bytes": data}}}

    def file(self, value: pb.File, path: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The block for a document, or for an image, audio or video that is sent as a file.

        `path`: of the part. `extra`: its fields among DOCUMENT_FIELDS; they take precedence over those of `value`.
        """
        inner = f"{path}.file"
        own = self._dropped.pick(inner, value.extra_json, DOCUMENT_FIELDS)
        if not value.file_data:
            if not value.file_id.startswith("s3://"):
                raise unsupported("Bedrock keeps no files; send the data, or an s3:// URI.", f"{inner}.file_id")
            media = _media(value.file_id, f"{inner}.file_id")
        else:
            self._dropped.add_set(value, inner, ("file_id",))
            media = _media(data_url.as_url(value.file_data), f"{inner}.file_data")
        kind, format_ = _kind(media, value.filename, f"{inner}.file_data")
        fields = {name: (f"{inner}.{name}", field) for name, field in own.items()}
        for name, field in extra.items():
            if name in fields:
                self._dropped.add(fields[name][0])
            fields[name] = f"{path}.{name}", field
        for name, (place, field) in fields.items():
            if kind != "document" or not isinstance(field, DOCUMENT_FIELDS[name]):
                self._dropped.add(place)
            elif isinstance(field, dict):
                self._dropped.pick_from(place, field, ("enabled",))
        if kind == "document":
            return self._document(media, format_, value.filename, {name: f for name, (_, f) in fields.items()})
        if value.filename and media.type not in UNTYPED:
            self._dropped.add(f"{inner}.filename")
        return _block(kind, format_, media)

    def _document(self, media: _Media, format_: str, filename: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        name = self._documents.name(filename or media.filename)
        document: dict[str, Any] = {"format": format_, "name": name, "source": media.source}
        if isinstance(extra.get("context"), str):
            document["context"] = extra["context"]
        if isinstance(extra.get("citations"), dict):
            document["citations"] = {"enabled": extra["citations"].get("enabled") is True}
            if format_ == "txt" and not media.uri:  # plain text can be cited from a text source only
                document["source"] = {"text": base64.b64decode(media.data).decode("utf-8", "replace")}
        return {"document": document}


def _kind(media: _Media, filename: str, param: str) -> tuple[str, str]:
    """The kind of block and Bedrock's name of the format. Raises InvalidRequest (unsupported)."""
    found = _FORMATS.get(media.type)
    if found is None and media.type in UNTYPED:
        found = _EXTENSIONS.get((filename or media.filename).rpartition(".")[2].lower())
    if found is None and media.type.startswith("text/"):
        found = ("document", "txt")
    if found is None:
        raise unsupported(f"Bedrock takes no media of type {media.type[:80]!r}.", param)
    return found


def _block(kind: str, format_: str, media: _Media) -> dict[str, Any]:
    return {kind: {"format": format_, "source": media.source}}


def _media(url: str, param: str) -> _Media:
    if url.startswith("s3://"):
        return _Media("", "", url)
    if not data_url.is_data_url(url):
        raise unsupported("Bedrock fetches no URLs but s3:// ones; send a data: URL.", param)
    return _Media(*data_url.parse(url, param))
