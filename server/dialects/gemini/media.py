"""Images, audio, video and documents as Gemini's parts: inline bytes with a media type, or a file's URI. Pure.

https://ai.google.dev/api/caching#Part
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lmchat.v1 import chat_pb2 as pb

from server.dialects import data_url
from server.dialects.data_url import UNTYPED
from server.dialects.dropped import Dropped
from server.dialects.gemini.json_object import json_object
from server.errors import InvalidRequest, unsupported
from server.media.mime import by_name

_AUDIO_TYPES = {"pcm16": "audio/pcm", "mpeg": "audio/mp3", "opus": "audio/ogg"}


class TypeHint(NamedTuple):
    """What a field beside a URL says of its media type; `media_type` is empty where that is unknown."""

    path: str
    media_type: str


def type_hints(path: str, fields: Mapping[str, Any], dropped: Dropped) -> list[TypeHint]:
    """The hints among the further fields of the object at `path`; its others are reported as dropped."""
    found = dropped.pick_from(path, fields, ("mime_type", "format"))
    hints = []
    for name in ("mime_type", "format"):
        if found.get(name) is not None:
            value = str(found[name])
            hints.append(TypeHint(f"{path}.{name}", value if "/" in value else by_name(value)))
    return hints


def audio_part(audio: pb.InputAudio) -> dict[str, Any]:
    """Inline audio."""
    format_ = audio.format.lower()
    return {"inlineData": {"mimeType": _AUDIO_TYPES.get(format_, f"audio/{format_}"), "data": audio.data}}


def file_part(file: pb.File, path: str, dropped: Dropped) -> dict[str, Any]:
    """The part for a file: its data, or the id or URI of one that Google keeps."""
    hints = type_hints(path, json_object(file.extra_json), dropped)
    name, url = "file_data", file.file_data
    if url:
        url = data_url.as_url(url)
        dropped.add_set(file, path, ("file_id",))
    else:
        name, url = "file_id", file.file_id
    if url.startswith("files/"):  # a name; Gemini requires the URI
        url = f"https://generativelanguage.googleapis.com/v1beta/{url}"
    if file.filename:  # a URL's own extension takes precedence
        known = by_name(_path(url)) if url.startswith(("https:", "gs:")) else ""
        hints.append(TypeHint(f"{path}.filename", "" if known else by_name(file.filename)))
    return media_part(url, hints, f"{path}.{name}", dropped)


def media_part(url: str, hints: Sequence[TypeHint], path: str, dropped: Dropped) -> dict[str, Any]:
    """Inline data, or the URI of a file. The first known type of `hints` is that of a URL without a media type."""
    hint = next((hint for hint in hints if hint.media_type), None)
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        media_type, data = data_url.parse(url, path)
        if media_type not in UNTYPED:
            hint = None
        media_type = hint.media_type if hint else media_type
        if not media_type:
            raise InvalidRequest("Expected a media type: data:<media type>;base64,<data>.", path)
        part = {"inlineData": {"mimeType": media_type, "data": data}}
    elif scheme in ("gs", "https"):
        media_type = hint.media_type if hint else by_name(_path(url))
        if not media_type and not native_uri(url):
            raise unsupported(
                "Gemini requires a media type with a URL; send `mime_type`, or a URL with a file name extension.",
                path,
            )
        part = {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}
    else:
        raise unsupported("Gemini takes data:, https: and gs: URLs.", path)
    for other in hints:
        if other is not hint:
            dropped.add(other.path)
    return part


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
