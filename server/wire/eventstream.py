"""`application/vnd.amazon.eventstream`, sans-I/O: bytes in, frames out.

botocore's buffer parses the frames and checks both CRCs, of the prelude and of the whole message; whatever it
raises becomes CorruptStream. https://smithy.io/2.0/aws/amazon-eventstream.html
The buffer copies all its bytes whenever some are added or a frame is taken out, so it only ever gets one whole
frame: time is linear in the bytes, however they are split.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from botocore.eventstream import EventStreamBuffer, ParserError

#: Bytes of one frame: botocore's limit for its payload.
MAX_FRAME_BYTES = 24 * 1024 * 1024
#: Bytes of a frame's headers. AWS sends three short ones; botocore's time is quadratic in them.
MAX_FRAME_HEADER_BYTES = 16 * 1024

#: The lengths of the frame and of its headers, and the CRC of both.
_PRELUDE = struct.Struct("!III")
#: Bytes of a frame without headers and payload: the prelude and the CRC of the frame.
_MIN_FRAME_BYTES = _PRELUDE.size + 4


class CorruptStream(Exception):
    """The bytes are not event-stream frames, or a checksum is wrong. Nothing after that can be trusted."""


class Frame(NamedTuple):
    """One message. Headers of type string are `str`; the names of the protocol's own start with a colon."""

    headers: Mapping[str, Any]
    payload: bytes


class EventStreamDecoder:
    """Any split of the same bytes gives the same frames."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._pieces: list[bytes] = []  # received, and not parsed yet
        self._size = 0  # of the pieces
        self._needed = _PRELUDE.size  # bytes of the pieces at which there is something to parse
        self._error: CorruptStream | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes, parsed one by one. Raises CorruptStream, also on every later call."""
        self._pieces.append(data)
        self._size += len(data)
        return self._complete() if self._size >= self._needed else iter(())

    def _complete(self) -> Iterator[Frame]:
        data = b"".join(self._pieces)
        start = 0
        try:
            if self._error is not None:
                raise self._error
            while len(data) - start >= _PRELUDE.size:
                length = _frame_length(data, start)
                if len(data) - start < length:
                    self._needed = length
                    break
                frame = self._parse(data[start : start + length])
                start += length
                self._needed = _PRELUDE.size
                yield frame
        except CorruptStream as error:
            self._error = error
            self._needed = 0
            raise
        finally:
            rest = data[start:]
            self._pieces = [rest] if rest else []
            self._size = len(rest)

    def _parse(self, data: bytes) -> Frame:
        """The frame in `data`, which holds nothing else."""
        try:
            self._buffer.add_data(data)
            message = next(self._buffer)
        except (ParserError, struct.error, LookupError, ValueError) as error:  # wrong lengths and header types
            raise CorruptStream(f"corrupt event stream: {error}") from None
        # The stubs say that headers are a number.
        return Frame(message.headers, message.payload)  # type: ignore[arg-type]


def _frame_length(data: bytes, start: int) -> int:
    """Bytes of the frame that begins at `start`, by its prelude. Raises CorruptStream."""
    length, headers, checksum = _PRELUDE.unpack_from(data, start)
    if crc32(data[start : start + 8]) != checksum:
        raise CorruptStream("corrupt event stream: the checksum of a frame's lengths is wrong")
    if not _MIN_FRAME_BYTES <= length <= MAX_FRAME_BYTES:
        raise CorruptStream(f"corrupt event stream: a frame of {length} bytes, the limit is {MAX_FRAME_BYTES}")
    if headers > MAX_FRAME_HEADER_BYTES:
        raise CorruptStream(
            f"corrupt event stream: a frame's headers of {headers} bytes, the limit is {MAX_FRAME_HEADER_BYTES}"
        )
    return int(length)
