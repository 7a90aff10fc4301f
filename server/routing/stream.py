"""The stream that the APIs read: from the first content to the end, resumed after a break if requested."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Self

from server.errors import AttemptRecord, ProviderError, Reason
from server.routing import resume
from server.routing.attempts import CLOCK_TOLERANCE, Success
from server.routing.chunks import StreamFinisher
from server.routing.report import Report
from server.routing.stats import EndpointStats
from server.upstream.ports import Chunks


class RoutedStream:
    """A stream committed to an endpoint: an iterator over lists of chunks, for one iteration.

    The caller must close it, read or not: `async with aclosing(routed.batches())`. A break raises ProviderError
    with every attempt so far.
    """

    def __init__(
        self,
        success: Success[resume.Opened],
        finisher: StreamFinisher,
        report: Report,
        stats: EndpointStats,
        clock: Callable[[], float],
        deadline: float,
        resumption: resume.Resumption | None,
    ) -> None:
        self._success = success
        self._stream, self._first = success.result
        self._finisher = finisher
        self._stats = stats
        self._clock = clock
        self._deadline = deadline
        self._resumption = resumption
        self._chunks = self._read()
        #: Tokens and text deltas of the calls before this one.
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
        """Release the connection to the provider; the socket is closed if the stream had not ended."""
        try:
            await self._chunks.aclose()
        finally:  # the generator's cleanup does not run if it was never started
            await self._stream.aclose()

    async def _read(self) -> AsyncGenerator[Chunks, None]:
        try:
            while True:
                first = self._feed(self._first)
                if first:
                    yield first
                until = asyncio.get_running_loop().time() + self._call_deadline() - self._clock()
                try:
                    async with aclosing(self._stream.batches(until)) as batches:
                        async for batch in batches:
                            out = self._feed(batch)
                            if out:
                                yield out
                    break
                except ProviderError as error:
                    await self._stream.aclose()
                    self._record_break(error)
                    await self._resume(error)
        finally:
            await self._stream.aclose()
        self._stats.stream_completed(self._success.attempt, self._tokens())
        self.report.native_finish_reason = self._stream.native_finish_reason
        self.report.native_model = self._finisher.native_model
        last = self._finisher.end(self.report.to_proto())
        if last:
            yield last

    def _tokens(self) -> int:
        """Output tokens of the last call; text deltas where the provider reports no tokens."""
        tokens, pieces = self._carried
        return max(0, self._finisher.tokens - tokens) or self._finisher.pieces - pieces

    def _call_deadline(self) -> float:
        """The deadline of the current call, by the clock."""
        timeouts = self._success.candidate.endpoint.timeouts
        return min(self._deadline, self._success.attempt.begun + timeouts.total)

    def _feed(self, chunks: Chunks) -> Chunks:
        if self._resumption is not None:
            chunks = self._resumption.splice.feed(chunks)
        return self._finisher.feed(chunks)

    async def _resume(self, error: ProviderError) -> None:
        """Continue with a fallback; raises `error` if none succeeds."""
        if self._resumption is None:
            raise error
        self._success = await self._resumption.run(self._success, error)
        self._stream, self._first = self._success.result
        self._carried = (self._resumption.splice.carried.completion_tokens, self._finisher.pieces)
        self._finisher.model = self._success.candidate.endpoint.public_model
        self.report.resume(self._success)

    def _record_break(self, error: ProviderError) -> None:
        """Count the break as a failure of the endpoint, unless its deadline passed, and add it to the attempts."""
        now = self._clock()
        attempt = self._success.attempt
        if error.reason is not Reason.TIMEOUT or now < self._call_deadline() - CLOCK_TOLERANCE:
            self._stats.failed(attempt, error)
        *before, last = self._success.attempts
        ms = round((now - attempt.begun) * 1000)
        error.attempts = (*before, AttemptRecord(last.provider, last.model, last.status, str(error.reason), ms))
