"""Native structured output first, and emulation where the provider says that the model has none.

The models that have it change too often for a table; the vendor's 400 costs one call that returns at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from server.chat.completion import Completion
from server.chat.request import ChatRequest
from server.dialects.base import Endpoint
from server.errors import ProviderError, Reason
from server.upstream.ports import Caller, Chunks, Stream


class FormatFallback:
    """A Caller that calls `native`, and `emulated` where the provider then refuses `response_format`."""

    def __init__(self, native: Caller, emulated: Caller) -> None:
        self._native = native
        self._emulated = emulated

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """The whole answer, within `limit` seconds. Raises ProviderError, or InvalidRequest."""
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        try:
            return await self._native.complete(endpoint, request, limit)
        except ProviderError as error:
            if not _refuses_format(error):
                raise
        return await self._emulated.complete(endpoint, request, deadline - now())

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """A streamed answer, not yet opened."""
        return _Stream(self._native.stream(endpoint, request), self._emulated, endpoint, request)


class _Stream:
    """See `ports.Stream`. `open` chooses between the native and the emulated stream."""

    def __init__(self, native: Stream, emulated: Caller, endpoint: Endpoint, request: ChatRequest) -> None:
        self._stream = native
        self._emulated = emulated
        self._endpoint = endpoint
        self._request = request

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason."""
        return self._stream.native_finish_reason

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of parameters that were left out."""
        return self._stream.dropped

    async def open(self, limit: float) -> Chunks:
        """All chunks up to and with the first content, within `limit` seconds. Raises ProviderError."""
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        try:
            return await self._stream.open(limit)
        except ProviderError as error:
            if not _refuses_format(error):
                raise
        await self._stream.aclose()
        self._stream = self._emulated.stream(self._endpoint, self._request)
        return await self._stream.open(deadline - now())

    def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks. Raises ProviderError."""
        return self._stream.batches(deadline)

    async def aclose(self) -> None:
        """Release every connection."""
        await self._stream.aclose()


def _refuses_format(error: ProviderError) -> bool:
    return error.reason is Reason.UNSUPPORTED_FEATURE and error.param == "response_format"
