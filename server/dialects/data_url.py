"""`data:` URLs (RFC 2397) and bare base64, as callers write them.

Parsing is as lenient as browsers are (https://fetch.spec.whatwg.org/#data-url-processor): the scheme and `;base64`
in any case, white space, missing padding and percent-encoding inside the base64. Time is linear in the URL.
"""

from __future__ import annotations

import base64
import binascii
import string
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from server.errors import InvalidRequest
from server.media.mime import by_first_bytes

_SCHEME = "data:"
#: Not registered with IANA, but widely written; providers refuse them.
_ALIASES = {"image/jpg": "image/jpeg"}
#: Characters of base64 that hold what a file is recognized by.
_SIGNATURE = 64
#: Characters within which a URL has the end of its scheme; base64 has no colon.
_MAX_SCHEME = 32
#: Media types that say nothing about the data.
UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})

_SPACE = string.whitespace.encode()
#: Characters; a multiple of four, so that each piece of base64 is base64.
_PIECE_LENGTH = 1 << 22


class DataUrl(NamedTuple):
    """`media_type`: lower case, without parameters, empty where the URL has none. `data`: base64, not empty."""

    media_type: str
    data: str


def is_data_url(url: str) -> bool:
    """Whether `url` has the scheme `data:`."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def as_url(file_data: str) -> str:
    """A `file_data` as a URL: it may also be bare base64, as OpenAI's reference has it."""
    return file_data if not file_data or ":" in file_data[:_MAX_SCHEME] else f"{_SCHEME};base64,{file_data}"


def parse(url: str, param: str) -> DataUrl:
    """The parts of a data URL. Raises InvalidRequest, with the path `param`, where it has no comma, or no data.

    The bytes of an image or a PDF count for more than what the URL says of them.
    """
    head, comma, data = url[len(_SCHEME) :].partition(",")
    if not comma:
        raise InvalidRequest("A data URL needs a comma before its data: data:<media type>;base64,<data>.", param)
    media_type, *parameters = (part.strip().lower() for part in head.split(";"))
    decoded = unquote_to_bytes(data) if "%" in data else data
    if "base64" in parameters:
        data = checked_base64(decoded if isinstance(decoded, str) else decoded.decode("latin-1"), param)
    else:
        data = base64.b64encode(decoded if isinstance(decoded, bytes) else decoded.encode()).decode()
        _require_data(data, param)
    return DataUrl(_true_type(_ALIASES.get(media_type, media_type), data), data)


def _true_type(media_type: str, data: str) -> str:
    """The media type of base64 `data` that is labelled `media_type`, recognized by its bytes.

    Screenshots and downloads are often labelled by a file name, and Anthropic and Bedrock refuse wrong labels.
    https://github.com/BerriAI/litellm/issues/24900
    """
    if media_type in UNTYPED or media_type.startswith("image/") or media_type == "application/pdf":
        return by_first_bytes(base64.b64decode(data[:_SIGNATURE])) or media_type
    return media_type


def checked_base64(data: str, param: str) -> str:
    """`data` without white space and with its padding. Raises InvalidRequest where it is empty or not base64."""
    if not data.isascii():
        raise InvalidRequest("The data is not valid base64.", param)
    if any(space in data for space in string.whitespace):
        data = "".join([piece.encode().translate(None, _SPACE).decode() for piece in _pieces(data)])
    _require_data(data, param)
    if len(data) % 4 in (2, 3):
        data += "=" * (-len(data) % 4)
    if not _is_base64(data):
        raise InvalidRequest("The data is not valid base64.", param)
    return data


def _is_base64(data: str) -> bool:
    """Whether `data` is base64 with its padding."""
    padding = data.find("=")
    if 0 <= padding < len(data) - 2:
        return False
    try:
        for piece in _pieces(data):
            binascii.a2b_base64(piece, strict_mode=True)
    except ValueError:  # binascii.Error is one
        return False
    return True


def _pieces(data: str) -> Iterator[str]:
    """`data` in pieces of a bounded length, so that no step of what is done with them takes long."""
    return (data[start : start + _PIECE_LENGTH] for start in range(0, len(data), _PIECE_LENGTH))


def _require_data(data: str, param: str) -> None:
    if not data:
        raise InvalidRequest("The data must not be empty.", param)
