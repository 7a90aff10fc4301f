"""Server-sent events, sans-I/O: bytes in, events out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Lines end in CRLF, LF or CR, wherever the bytes are split; a leading BOM is
skipped; comments are dropped; the `data` lines of one event are joined by a line
feed. Two deviations, both seen in real traffic: a field may be indented, and an
event whose closing blank line is missing counts at the end. Time is linear in the
number of bytes, and what is kept of an event is bounded.
"""

from __future__ import annotations

import msgspec

from server.errors import ProviderError, Reason

#: Bytes of one event, and of one line, comments included. The largest seen in practice hold an image as base64.
MAX_EVENT_BYTES = 32 * 1024 * 1024

#: `data` lines of one event; each is an object in memory.
MAX_EVENT_LINES = 100_000

_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event; `event` is empty for the default type."""

    event: str
    data: bytes


class SSEDecoder:
    """Any split of the same bytes gives the same events. `max_event_bytes` bounds an event and a line."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial = bytearray()  # a line whose end has not come
        self._data: list[bytes] = []
        self._size = 0  # of the event's `data` lines
        self._event = ""
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises ProviderError for one that is too large."""
        if self._after_cr and data:  # a LF that belongs to the CR before it
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        if self._partial:
            data = bytes(self._partial + data)
            self._partial.clear()
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        if not data.endswith((b"\n", b"\r")):
            self._keep(lines.pop())
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
        return events

    def close(self) -> list[Event]:
        """The event that the end of the bytes completes, if any."""
        events: list[Event] = []
        if self._partial:
            self._line(bytes(self._partial), events)
            self._partial.clear()
        self._line(b"", events)
        return events

    def _keep(self, data: bytes) -> None:
        self._partial += data
        self._check(len(self._partial))

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise _too_large(f"{self._max_event_bytes} bytes")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(Event(self._event, b"\n".join(self._data) if len(self._data) > 1 else self._data[0]))
                self._data = []
                self._size = 0
            self._event = ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        field = field.strip()
        if field == b"data":
            self._size += len(value) + 1
            self._check(self._size)
            if len(self._data) >= MAX_EVENT_LINES:
                raise _too_large(f"{MAX_EVENT_LINES} lines")
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")


def _too_large(limit: str) -> ProviderError:
    return ProviderError(Reason.UPSTREAM_INVALID_RESPONSE, f"The provider sent an event of more than {limit}.")
