"""Media types, recognized by the bytes of a file or by its name. Pure."""

from __future__ import annotations

import re

#: The first bytes of files -> media type, the first match counts.
_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), type_)
    for pattern, type_ in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"BM.{4}\0\0\0\0", "image/bmp"),
        (rb"II\*\0|MM\0\*", "image/tiff"),
        (rb".{4}ftypavi[fs]", "image/avif"),
        (rb".{4}ftyp(hei[cxms]|hev[cx])", "image/heic"),
        (rb".{4}ftyp(mif1|msf1)", "image/heif"),
        (rb".{4}ftypM4[AB] ", "audio/mp4"),
        (rb"(\xef\xbb\xbf)?\s*%PDF-", "application/pdf"),
        (rb"RIFF.{4}WAVE", "audio/wav"),
        (rb"ID3", "audio/mpeg"),
        (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),
        (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),
        (rb"OggS", "audio/ogg"),
        (rb"fLaC", "audio/flac"),
        (rb"FORM.{4}AIF[FC]", "audio/aiff"),
    )
)
#: File name extension -> media type.
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
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_TEXT = re.compile(r"text/[a-z0-9.+-]+")


def by_first_bytes(data: bytes) -> str:
    """The media type of `data` by its first bytes; empty where they are of no known kind."""
    return next((type_ for pattern, type_ in _MAGIC if pattern.match(data)), "")


def by_name(name: str) -> str:
    """The media type of a file name or of an extension; empty where it is unknown."""
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "")


def media_type(data: bytes, header: str) -> str:
    """The media type of `data`, in lower case and without parameters; empty where it is of no supported kind.

    `header` is the server's content-type. It decides what kind of text a text is, and nothing else.
    """
    found = by_first_bytes(data)
    if found:
        return found
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    if _CONTROL.search(text):
        return ""
    declared = header.partition(";")[0].strip().lower()
    return declared if _TEXT.fullmatch(declared) else "text/plain"
