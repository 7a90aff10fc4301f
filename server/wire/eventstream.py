"""`application/vnd.amazon.eventstream`, sans-I/O: bytes in, frames out.

botocore's buffer parses the frames, at most 24 MiB each, and checks both CRCs, of the
prelude and of the whole message; whatever it raises becomes CorruptStream. https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from botocore.eventstream import EventStreamBuffer, ParserError


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

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes, parsed one by one. Raises CorruptStream, also on every later call."""
        self._buffer.add_data(data)
        return self._complete()

    def _complete(self) -> Iterator[Frame]:
        try:
            for message in self._buffer:
                # The stubs say that headers are a number.
                yield Frame(message.headers, message.payload)  # type: ignore[arg-type]
        except (ParserError, struct.error, LookupError, ValueError) as error:  # wrong lengths and header types
            raise CorruptStream(f"corrupt event stream: {error}") from None
