"""`n` choices by parallel calls, for endpoints that return fewer per call.

Choices are numbered consecutively over the calls. Usage is the sum, prompt tokens included, since each call is
billed for its prompt. Each call gets a different `seed`, else all would return the same text. If one call fails,
all do; every task and connection is released when the completion ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest, copy
from server.chat.usage import add_usage
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, LmchatError, Reason
from server.upstream.boundary import unreadable
from server.upstream.ports import Caller, Chunks, Stream, gather, has_content

#: Bytes of all the requests that stand for one.
MAX_COPIED_BYTES = 256 * 1024 * 1024


class Choices:
    """A Caller that splits a call for `n` choices into several."""

    def __init__(self, inner: Caller) -> None:
        self._inner = inner

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """One completion with all choices."""
        parts = _split(request, endpoint.native_n)
        completions = await gather(self._inner.complete(endpoint, part, limit) for _, part in parts)
        whole = completions[0].to_proto()
        for (offset, _), completion in zip(parts[1:], completions[1:], strict=True):
            more = completion.to_proto()
            for choice in more.choices:
                choice.index += offset
            whole.choices.extend(more.choices)
            add_usage(whole.usage, more.usage)
        merged = ProtoCompletion(whole, completions[0].native_finish_reason)
        merged.dropped = completions[0].dropped
        return merged

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> _Interleaved:
        """One stream with the chunks of all choices, interleaved."""
        parts = _split(request, endpoint.native_n)
        streams = [(offset, self._inner.stream(endpoint, part)) for offset, part in parts]
        return _Interleaved(streams, endpoint.dialect)


def _split(request: ChatRequest, native_n: int) -> list[tuple[int, ChatRequest]]:
    """One request for each call, with the index of its first choice. A call gives up to `native_n` choices.

    Raises InvalidRequest where the calls together would hold too much memory.
    """
    calls = -(-request.choices // native_n)
    if calls * request.to_proto().ByteSize() > MAX_COPIED_BYTES:
        raise InvalidRequest(
            f"So large a request cannot be sent {calls} times: ask for fewer choices.",
            "n",
            reason=Reason.REQUEST_TOO_LARGE,
        )
    parts: list[tuple[int, ChatRequest]] = []
    for offset in range(0, request.choices, native_n):
        part = copy(request.to_proto())
        part.ClearField("n")
        if min(native_n, request.choices - offset) > 1:
            part.n = min(native_n, request.choices - offset)
        if offset and part.HasField("seed"):
            part.seed += offset if part.seed < 2**30 else -offset  # some providers accept 31 bits
        parts.append((offset, request.with_message(part)))
    return parts


class _Interleaved:
    """Merges several streams. One task reads each; the bounded queue gives backpressure.

    The queue holds lists of chunks, None for a stream that ended, and the error of one that failed.
    """

    def __init__(self, streams: Sequence[tuple[int, Stream]], dialect: str) -> None:
        self._streams = streams
        self._dialect = dialect
        self._queue: asyncio.Queue[Chunks | Exception | None] = asyncio.Queue(len(streams))
        self._deadline: asyncio.Future[float] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._running = self._unopened = len(streams)
        self._error: Exception | None = None
        self._last: pb.ChatCompletionChunk | None = None

    @property
    def native_finish_reason(self) -> str:
        """The finish reason of the first choice."""
        return self._streams[0][1].native_finish_reason

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._streams[0][1].dropped

    async def open(self, limit: float) -> Chunks:
        """All chunks up to and including the first content of any stream."""
        deadline = self._deadline = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._read(*stream, limit, deadline)) for stream in self._streams]
        held: Chunks = []
        try:
            while not any(map(has_content, held)) and (self._unopened or not self._queue.empty()):
                held += await self._take()
            if self._error is not None:
                raise self._error
        except BaseException:
            await self.aclose()
            raise
        return held

    async def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks; available ones are batched. The total usage is last."""
        if self._deadline is not None and not self._deadline.done():
            self._deadline.set_result(deadline)
        while self._running:
            batch = await self._take()
            if batch:
                yield batch
        if self._last is not None:
            yield [self._last]

    async def aclose(self) -> None:
        """End every task and close every stream."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for _, stream in self._streams:  # for those whose task never ran
                await stream.aclose()

    async def _take(self) -> Chunks:
        """Wait for chunks and take all available ones. Raises a stream's error after the chunks before it."""
        if self._error is not None:
            raise self._error
        taken: Chunks = []
        item = await self._queue.get()
        while True:
            if isinstance(item, Exception):
                if not taken:
                    raise item
                self._error = item
                return taken
            if item is None:
                self._running -= 1
            else:
                taken += item
            if self._queue.empty():
                return taken
            item = self._queue.get_nowait()

    async def _read(self, offset: int, stream: Stream, limit: float, deadline: asyncio.Future[float]) -> None:
        try:
            first = await stream.open(limit)
            self._unopened -= 1
            await self._put(offset, first)
            async with aclosing(stream.batches(await deadline)) as batches:
                async for batch in batches:
                    await self._put(offset, batch)
            await self._queue.put(None)
        except LmchatError as error:
            await self._queue.put(error)
        except Exception as error:  # what is renumbered and added is the provider's
            await self._queue.put(unreadable(self._dialect, "stream", error))
        finally:
            await stream.aclose()

    async def _put(self, offset: int, chunks: Chunks) -> None:
        """Queue the chunks with choices, renumbered; the usage is kept for the end."""
        out = []
        for chunk in chunks:
            if chunk.HasField("usage"):
                self._count(chunk)
                chunk.ClearField("usage")
            for choice in chunk.choices:
                choice.index += offset
            if chunk.choices:
                out.append(chunk)
        if out:
            await self._queue.put(out)

    def _count(self, chunk: pb.ChatCompletionChunk) -> None:
        if self._last is None:
            self._last = pb.ChatCompletionChunk()
            self._last.CopyFrom(chunk)
            del self._last.choices[:]
        else:
            add_usage(self._last.usage, chunk.usage)
