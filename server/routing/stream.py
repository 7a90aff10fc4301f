"""A stream as callers get it: from its first content to its end, over a break if need be, and accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Self

from server.errors import AttemptRecord, ProviderError, Reason
from server.routing import resume
from server.routing.attempts import SLACK, Success
from server.routing.chunks import StreamFinisher
from server.routing.circuit import EndpointHealth
from server.routing.report import Report
from server.upstream.ports import Chunks


class RoutedStream:
    """A stream committed to an endpoint: lists of chunks as they come, to be iterated once.

    Whoever has it closes it, read or not: `async with aclosing(routed.batches())`
    does. A break raises ProviderError, with every attempt so far.
    """

    def __init__(
        self,
        success: Success[resume.Opened],
        finisher: StreamFinisher,
        report: Report,
        health: EndpointHealth,
        clock: Callable[[], float],
        deadline: float,
        resumption: resume.Resumption | None,
    ) -> None:
        self._success = success
        self._stream, self._first = success.result
        self._finisher = finisher
        self._health = health
        self._clock = clock
        self._deadline = deadline
        self._resumption = resumption
        self._chunks = self._read()
        #: Tokens and pieces of the answer that calls before this one gave.
        self._carried = (0, 0)
        self.report = report
        self.upstream_seconds = success.upstream_seconds

    def batches(self) -> Self:
        """The stream itself."""
        return self

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Chunks]:
        return anext(self._chunks)

    async def aclose(self) -> None:
        """Let go of the provider without reading on; the socket closes if it was not done."""
        try:
            await self._chunks.aclose()
        finally:  # a generator that never ran has nothing of its own to clean up
            await self._stream.aclose()

    async def _read(self) -> AsyncGenerator[Chunks, None]:
        try:
            while True:
                first = self._feed(self._first)
                if first:
                    yield first
                until = asyncio.get_running_loop().time() + self._until() - self._clock()
                try:
                    async with aclosing(self._stream.batches(until)) as batches:
                        async for batch in batches:
                            out = self._feed(batch)
                            if out:
                                yield out
                    break
                except ProviderError as error:
                    await self._stream.aclose()
                    self._broke(error)
                    await self._resume(error)
        finally:
            await self._stream.aclose()
        self._health.success(self._success.call, self._tokens())
        self.report.native_finish_reason = self._stream.native_finish_reason
        last = self._finisher.end(self.report.to_proto())
        if last:
            yield last

    def _tokens(self) -> int:
        """What the call that ended the stream gave; pieces stand for tokens where the provider counts none."""
        tokens, pieces = self._carried
        return max(0, self._finisher.tokens - tokens) or self._finisher.pieces - pieces

    def _until(self) -> float:
        """When the call under way must be done, by the clock."""
        call, timeouts = self._success.call, self._success.candidate.endpoint.timeouts
        return min(self._deadline, call.begun + timeouts.total)

    def _feed(self, chunks: Chunks) -> Chunks:
        if self._resumption is not None:
            chunks = self._resumption.splice.feed(chunks)
        return self._finisher.feed(chunks)

    async def _resume(self, error: ProviderError) -> None:
        """Go on with a fallback; raises `error` where there is none."""
        if self._resumption is None:
            raise error
        self._success = await self._resumption.run(self._success, error)
        self._stream, self._first = self._success.result
        self._carried = (self._resumption.splice.carried.completion_tokens, self._finisher.pieces)
        self._finisher.model = self._success.candidate.endpoint.public_model
        self.report.resume(self._success)

    def _broke(self, error: ProviderError) -> None:
        """Hold it against the endpoint, unless only the time was up, and put it on the account."""
        now = self._clock()
        call = self._success.call
        if error.reason is not Reason.TIMEOUT or now < self._until() - SLACK:
            self._health.failure(call, error)
        *before, this = self._success.attempts
        ms = round((now - call.begun) * 1000)
        error.attempts = (*before, AttemptRecord(this.provider, this.model, this.status, str(error.reason), ms))
