"""Server-sent events of a REST stream: the writer with its keep-alive comments, and the error event."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
from google.api.httpbody_pb2 import HttpBody
from lmchat.v1 import chat_pb2 as pb

from server.api.call import Context
from server.api.public_error import PublicError

_encode = msgspec.json.Encoder().encode
_SSE = "text/event-stream"
#: Not followed by a blank line, which would dispatch an event: some clients would see an empty one.
_KEEP_ALIVE = b": keep-alive\n"
DONE = b"data: [DONE]\n\n"


class SseWriter:
    """Writes events to `context`, and inside `async with` a comment after `keep_alive` seconds without one."""

    def __init__(self, context: Context, keep_alive: float) -> None:
        self._context = context
        self._keep_alive = keep_alive
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Send `data` as one message."""
        async with self._lock:
            await self._context.write(HttpBody(content_type=_SSE, data=data))
            self._last = self._loop.time()

    async def __aenter__(self) -> None:
        self._tick()

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()
            with suppress(asyncio.CancelledError):
                await self._comment

    def _tick(self) -> None:
        """Write a comment if it is due, and schedule the next check. A timer uses less memory than a task."""
        due = self._last + self._keep_alive
        if self._loop.time() >= due:
            if self._comment is None or self._comment.done():
                self._comment = self._loop.create_task(self.write(_KEEP_ALIVE))
            due = self._loop.time() + self._keep_alive
        self._timer = self._loop.call_at(due, self._tick)


def error_event(error: PublicError, last: pb.ChatCompletionChunk | None) -> bytes:
    """The event of an error inside a stream, after the chunk `last`; it is not followed by [DONE]."""
    event = {
        "id": last.id if last is not None else "",
        "object": "chat.completion.chunk",
        "created": last.created if last is not None else 0,
        "model": last.model if last is not None else "",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
        **error.body(),
    }
    return b"data: %b\n\n" % _encode(event)
