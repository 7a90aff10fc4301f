"""A substitute for the network: httpx's MockTransport with the interface of `upstream.Sender`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Self

import httpx

from server.wire.exchange import Response


class MockSender:
    """Answers with `handler`."""

    def __init__(self, handler: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]) -> None:
        self._transport = httpx.MockTransport(handler)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, connect: float
    ) -> Response:
        """See `upstream.Sender`."""
        timeout = {"timeout": {"connect": connect}}
        request = httpx.Request(method, url, headers=headers, content=body, extensions=timeout)
        response = await self._transport.handle_async_request(request)
        return Response(response.status_code, response.headers.raw, _Body(response))


class _Body:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._reads: AsyncIterator[bytes] = aiter(response.stream)  # type: ignore[arg-type]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._reads)

    def whole(self) -> bytes | None:
        return None

    async def aclose(self) -> None:
        if isinstance(self._reads, AsyncGenerator):  # else the loop closes it later, in another task
            await self._reads.aclose()
        await self._response.aclose()
