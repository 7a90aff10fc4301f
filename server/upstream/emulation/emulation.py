"""Emulation of features that endpoints lack, between the router and the upstream.

`Emulation` wraps an Upstream. An endpoint's `emulates` lists the features to emulate: `json_object`, `json_schema`
(structured.py), `n` (choices.py), `image_url` and `file_url` (media_urls.py). Turns that a provider pauses are
continued (paused.py). Requests that need none of them are passed on unchanged. An emulated call counts as one try,
however many provider calls it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from server.chat.completion import Completion
from server.chat.request import ChatRequest
from server.dialects.base import Dialect, Endpoint
from server.dialects.registry import DIALECTS
from server.errors import LmchatError
from server.upstream.boundary import unreadable
from server.upstream.emulation.choices import Choices
from server.upstream.emulation.fallback import FormatFallback
from server.upstream.emulation.media_urls import Fetch, inlined, remote_parts
from server.upstream.emulation.paused import Continuing
from server.upstream.emulation.structured import Structured
from server.upstream.ports import Caller, Stream
from server.upstream.stream import PreparedStream

_STRUCTURED = frozenset({"json_object", "json_schema"})


class Emulation:
    """A Caller that adds emulated features to `upstream`; `fetch` downloads media that must be sent as bytes."""

    def __init__(self, upstream: Caller, fetch: Fetch, dialects: Mapping[str, Dialect] = DIALECTS) -> None:
        self._upstream = Continuing(upstream, dialects)
        self._structured = Structured(self._upstream)
        self._choices = Choices(self._upstream)
        self._structured_choices = Choices(self._structured)
        self._fetch = fetch
        self._dialects = dialects

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """The completion, within `limit` seconds. Raises ProviderError, or InvalidRequest."""
        remote = remote_parts(endpoint, request, self._dialects[endpoint.dialect].native_url)
        if remote:
            now = asyncio.get_running_loop().time
            deadline = now() + limit
            request = await inlined(request, remote, self._fetch, limit)
            limit = deadline - now()
        try:
            return await self._caller(endpoint, request).complete(endpoint, request, limit)
        except LmchatError:
            raise
        except Exception as error:  # what is joined and checked here is the provider's
            raise unreadable(endpoint.dialect, "answer", error) from None

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """A stream, not yet opened. This or `open` raises InvalidRequest."""
        caller = self._caller(endpoint, request)
        remote = remote_parts(endpoint, request, self._dialects[endpoint.dialect].native_url)
        if not remote:
            return caller.stream(endpoint, request)

        async def prepare(limit: float) -> Stream:
            return caller.stream(endpoint, await inlined(request, remote, self._fetch, limit))

        return PreparedStream(prepare)

    def _caller(self, endpoint: Endpoint, request: ChatRequest) -> Caller:
        """The caller that does what this request needs of this endpoint."""
        formatted = bool(request.needs & _STRUCTURED)
        split = "n" in request.needs & endpoint.emulates and request.choices > endpoint.native_n
        native: Caller = self._choices if split else self._upstream
        if not formatted:
            return native
        emulated: Caller = self._structured_choices if split else self._structured
        has_native = self._dialects[endpoint.dialect].native_format
        if request.needs & endpoint.emulates & _STRUCTURED and not has_native(request.to_proto(), endpoint.model):
            return emulated
        return FormatFallback(native, emulated)
