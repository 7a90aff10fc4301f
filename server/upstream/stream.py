"""One streamed provider call.

It holds all chunks until the first with content, so that until then the router can fall back to another endpoint
unnoticed by the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx

from server.chat.completion import Completion
from server.chat.large import LARGE_BYTES, in_thread
from server.config.model import Timeouts
from server.dialects.base import StreamDecoder
from server.dialects.errors import invalid_response
from server.errors import ProviderError, StreamTruncated
from server.upstream.body import timeout_error, transport_error
from server.upstream.joined import as_chunks
from server.upstream.ports import Chunks, Stream, has_content
from server.wire.deadlines import Deadlines
from server.wire.exchange import Body, Response

#: Seconds to wait for usage and the end mark after the last finish_reason.
TAIL_TIMEOUT = 5.0
#: The most chunks without content that are held until the first with content.
MAX_HELD_CHUNKS = 1024
#: Bytes of one read that are decoded in one step, with other calls between: they may hold hundreds of chunks.
MAX_STEP_BYTES = 32 * 1024


class UpstreamStream:
    """See `ports.Stream`. `send` sends the request; some providers answer it with all of the completion at once.

    https://github.com/lidge-jun/opencodex/pull/1006
    """

    def __init__(
        self,
        send: Callable[[], Awaitable[Response | Completion]],
        decoder: StreamDecoder,
        timeouts: Timeouts,
        deadlines: Deadlines,
        *,
        dropped: tuple[str, ...] = (),
    ) -> None:
        self.dropped = dropped
        self._send: Callable[[], Awaitable[Response | Completion]] | None = send
        self._decoder = decoder
        self._timeouts = timeouts
        self._deadlines = deadlines
        self._body: Body | None = None
        #: Bytes since the last chunk: what may be decoded with the next ones.
        self._undecoded = 0
        #: The rest of a read.
        self._unread = b""
        self._ended = False
        self._whole: Completion | None = None

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason; empty until the end."""
        return (self._whole or self._decoder).native_finish_reason

    async def open(self, limit: float) -> Chunks:
        """All chunks up to and including the first content, within `limit` and `first_token` seconds.

        Response headers do not count as content. Raises ProviderError.
        """
        send, self._send = (
            self._send,
            None,
        )  # frees the request, which may be large, for the duration of the stream
        if send is None:
            raise RuntimeError("opened twice")
        held: Chunks = []
        try:
            with self._deadlines.after(min(limit, self._timeouts.first_token)):
                response = await send()
                del send
                if isinstance(response, Completion):
                    self._whole, self._ended = response, True
                    return as_chunks(response.to_proto())
                self._body = response.body
                while True:
                    chunks = await self._read()
                    held += chunks
                    if self._ended or any(map(has_content, chunks)):
                        return held
                    if len(held) > MAX_HELD_CHUNKS:
                        raise invalid_response(f"more than {MAX_HELD_CHUNKS} chunks without content")
        except TimeoutError:
            raise timeout_error("sent no content in time") from None

    async def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks, a list for each read, until `deadline`, a time of the event loop's clock.

        Raises ProviderError; StreamTruncated where the stream broke.
        """
        idle = self._timeouts.idle
        now = asyncio.get_running_loop().time
        while not self._ended:
            complete = self._decoder.finished
            try:
                with self._deadlines.until(min(now() + (min(idle, TAIL_TIMEOUT) if complete else idle), deadline)):
                    chunks = await self._read()
            except (TimeoutError, ProviderError) as error:
                # Every finish reason has arrived: how the connection ends is irrelevant. The decoder of a large
                # event may still be running.
                if complete and self._undecoded <= LARGE_BYTES:
                    chunks = self._close()
                elif isinstance(error, TimeoutError):
                    raise timeout_error("did not finish its answer in time") from None
                else:
                    if error.decoded:
                        yield error.decoded
                    if error.http_status is None:
                        raise StreamTruncated from None
                    raise
            if chunks:
                yield chunks

    async def aclose(self) -> None:
        """Release the connection; closes the socket unless the response was read to its end."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _read(self) -> Chunks:
        """The chunks that one read completes, or a part of it."""
        if self._body is None:
            raise RuntimeError("not open")
        data: bytes | None
        if self._unread:
            data, self._unread = self._unread, b""
            await asyncio.sleep(0)
        else:
            try:
                data = await anext(self._body, None)
            except httpx.TransportError as error:
                raise transport_error(error) from None
            if data is None:
                return self._close()
        if len(data) > MAX_STEP_BYTES and self._undecoded <= LARGE_BYTES:
            data, self._unread = data[:MAX_STEP_BYTES], data[MAX_STEP_BYTES:]
        self._undecoded += len(data)
        if self._undecoded <= LARGE_BYTES:
            chunks = self._decoder.feed(data)
        else:
            chunks = await in_thread(self._decoder.feed, data)
        if chunks:
            self._undecoded = 0
        return chunks

    def _close(self) -> Chunks:
        self._ended = True
        return self._decoder.close()


class PreparedStream:
    """A stream that `prepare` makes within so many seconds when it opens: of a large request, or URLs to fetch."""

    def __init__(self, prepare: Callable[[float], Awaitable[Stream]]) -> None:
        self._prepare: Callable[[float], Awaitable[Stream]] | None = prepare
        self._stream: Stream | None = None

    @property
    def native_finish_reason(self) -> str:
        return self._stream.native_finish_reason if self._stream else ""

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._stream.dropped if self._stream else ()

    async def open(self, limit: float) -> Chunks:
        """Prepare the stream, then open it, both within `limit` seconds. Raises what either does."""
        prepare, self._prepare = self._prepare, None  # frees the request for the duration of the stream
        if prepare is None:
            raise RuntimeError("opened twice")
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        self._stream = await prepare(limit)
        del prepare
        return await self._stream.open(deadline - now())

    def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks."""
        if self._stream is None:
            raise RuntimeError("not open")
        return self._stream.batches(deadline)

    async def aclose(self) -> None:
        """Release every connection."""
        if self._stream is not None:
            await self._stream.aclose()
