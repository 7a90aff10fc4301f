"""Server-sent events, sans-I/O: bytes in, events out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Rules kept here: lines end in CRLF, LF or CR, wherever the bytes are split; a
leading BOM is skipped; comments are dropped; `data` lines of one event are
joined by a line feed. Two liberties, both seen in real traffic: a field may be
indented, and an event whose closing blank line is missing counts at the end.
"""

from __future__ import annotations

import msgspec

_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event; `event` is empty for the default type."""

    event: str
    data: bytes


class SSEDecoder:
    """Any split of the same bytes gives the same events."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._data: list[bytes] = []
        self._event = ""
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[Event]:
        """Events that `data` completes."""
        if self._after_cr and data:  # a LF that belongs to the CR before it
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\n" not in data and b"\r" not in data:
            if data:
                self._pieces.append(data)
            return []
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        if not data.endswith((b"\n", b"\r")):
            self._pieces.append(lines.pop())
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
        return events

    def close(self) -> list[Event]:
        """The event the end of the bytes completes, if any."""
        events: list[Event] = []
        if self._pieces:
            self._line(b"".join(self._pieces), events)
            self._pieces.clear()
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(Event(self._event, b"\n".join(self._data) if len(self._data) > 1 else self._data[0]))
                self._data = []
            self._event = ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        field = field.strip()
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")
