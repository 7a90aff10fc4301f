"""What endpoints do by emulation, between the router and the providers.

`Emulation` stands in for the Upstream it wraps. An endpoint's `emulates` says
what is wanted of it: `json_object`, `json_schema` (structured.py), `n`
(choices.py), and `image_url` and `file_url`, which are here: what callers name
by URL is fetched and sent as data: URLs. Two tables say what of it a dialect's
providers take all the same. A request that needs none of it goes through as it is.

An emulated answer is one try of the router's, however many calls it takes.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import ChatRequest, PlainRequest, decode_json
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.base import Endpoint
from server.dialects.bedrock import models as bedrock_models
from server.dialects.gemini import contents as gemini_contents
from server.errors import InvalidRequest, Reason
from server.routing import capabilities as features
from server.upstream.client import Answer, Chunks, PlainAnswer
from server.upstream.emulation.choices import Choices
from server.upstream.emulation.structured import Structured
from server.upstream.ports import Caller, PlainCaller, Stream, copy, together

#: Gives the media type and the bytes of what is at a URL. Raises InvalidRequest without a path.
Fetch = Callable[[str], Awaitable[tuple[str, bytes]]]

#: URLs that a dialect's provider can fetch and nobody else.
NATIVE_URLS: Mapping[str, Callable[[str], bool]] = {"gemini": gemini_contents.native_uri}


def _anthropic_schema(model: str, schema_json: str) -> bool:
    if not schema_json or not anthropic_models.of(model).structured:
        return False
    try:
        anthropic_schema.strict(decode_json(schema_json))
    except anthropic_schema.InexpressibleError:
        return False
    return True


#: By model and JSON Schema: what a dialect's own structured outputs can follow, where it is not all or nothing.
NATIVE_SCHEMAS: Mapping[str, Callable[[str, str], bool]] = {
    "anthropic": _anthropic_schema,
    "bedrock": bedrock_models.native_json_schema,
}

_STRUCTURED = frozenset({"json_object", "json_schema"})
_BY_URL = frozenset({"image_url", "file_url"})

#: URLs fetched for one request, and at the same time.
_MOST_URLS = 100
_AT_ONCE = 8
#: Bytes fetched for one request: as many as a request may have itself.
_MOST_BYTES = 64 * 1024 * 1024


class Emulation:
    """A Caller that does what the endpoint does not; `fetch` is asked for what must be sent as bytes."""

    def __init__(self, upstream: PlainCaller, fetch: Fetch) -> None:
        self._upstream = upstream
        self._structured = Structured(upstream)
        self._choices = Choices(upstream)
        self._structured_choices = Choices(self._structured)
        self._fetch = fetch

    async def complete(self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float) -> Answer:
        """The whole answer, within `limit` seconds. Raises ProviderError, or InvalidRequest."""
        if not endpoint.emulates:
            return await self._upstream.complete(endpoint, request, limit)
        request, limit = await self._fetched(endpoint, request, limit)
        return await self._caller(endpoint, request).complete(endpoint, request, limit)

    async def complete_plain(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Answer | PlainAnswer:
        """The same; as the provider wrote it only where nothing is emulated that shows in the answer."""
        if endpoint.emulates and not isinstance(request, PlainRequest):  # which asks for nothing of the kind
            request, limit = await self._fetched(endpoint, request, limit)
            caller = self._caller(endpoint, request)
            if caller is not self._upstream:
                return await caller.complete(endpoint, request, limit)
        return await self._upstream.complete_plain(endpoint, request, limit)

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """A streamed answer, not yet opened. This or its opening raises InvalidRequest."""
        if not endpoint.emulates or isinstance(request, PlainRequest):
            return self._upstream.stream(endpoint, request)
        caller = self._caller(endpoint, request)
        remote = _remote_parts(endpoint, request)
        if not remote:
            return caller.stream(endpoint, request)
        return _Fetching(caller, endpoint, request, remote, self._fetch)

    async def _fetched(
        self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float
    ) -> tuple[pb.ChatCompletionRequest, float]:
        """The request with what must be sent as bytes, and the seconds left."""
        remote = _remote_parts(endpoint, request)
        if not remote:
            return request, limit
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        request = await _inlined(request, remote, self._fetch, limit)
        return request, deadline - now()

    def _caller(self, endpoint: Endpoint, request: pb.ChatCompletionRequest) -> Caller:
        """Who does what this request needs."""
        wanted = features.needs(request) & endpoint.emulates
        structured = bool(wanted & _STRUCTURED) and not _follows(endpoint, request.response_format)
        if "n" in wanted and request.n > endpoint.native_n:
            return self._structured_choices if structured else self._choices
        return self._structured if structured else self._upstream


def _follows(endpoint: Endpoint, wanted: pb.ResponseFormat) -> bool:
    """Whether the provider can do natively what the endpoint mostly does by emulation."""
    native = NATIVE_SCHEMAS.get(endpoint.dialect)
    if native is None or not wanted.HasField("json_schema"):
        return False
    return native(endpoint.model, wanted.json_schema.schema_json)


class _Fetching:
    """A stream that fetches what it needs when it opens."""

    def __init__(
        self,
        caller: Caller,
        endpoint: Endpoint,
        request: pb.ChatCompletionRequest,
        remote: list[_Remote],
        fetch: Fetch,
    ) -> None:
        self._caller = caller
        self._endpoint = endpoint
        self._request = request
        self._remote = remote
        self._fetch = fetch
        self._stream: Stream | None = None

    @property
    def native_finish_reason(self) -> str:
        return self._stream.native_finish_reason if self._stream else ""

    async def open(self, limit: float) -> Chunks:
        """Fetch, then call."""
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        request = await _inlined(self._request, self._remote, self._fetch, limit)
        self._stream = self._caller.stream(self._endpoint, request)
        return await self._stream.open(deadline - now())

    def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The rest of an opened stream."""
        if self._stream is None:
            raise RuntimeError("not open")
        return self._stream.batches(deadline)

    async def aclose(self) -> None:
        """Let go of every connection."""
        if self._stream is not None:
            await self._stream.aclose()


# Images and files by URL


class _Remote(NamedTuple):
    """A content part that names a URL: messages[message].content[part]."""

    message: int
    part: int
    #: `image_url.url`, `file.file_data` or `file.file_id`.
    field: str
    url: str

    @property
    def param(self) -> str:
        return f"messages[{self.message}].content[{self.part}].{self.field}"


def _remote_parts(endpoint: Endpoint, request: pb.ChatCompletionRequest) -> list[_Remote]:
    """The parts whose URLs the endpoint cannot take."""
    if not endpoint.emulates & _BY_URL:
        return []
    native = NATIVE_URLS.get(endpoint.dialect)
    return [part for part in _urls(endpoint, request) if not (native and native(part.url))]


def _urls(endpoint: Endpoint, request: pb.ChatCompletionRequest) -> Iterator[_Remote]:
    images, files = "image_url" in endpoint.emulates, "file_url" in endpoint.emulates
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.content):
            which = part.WhichOneof("part")
            if which == "image_url" and images and _is_remote(part.image_url.url):
                yield _Remote(index, place, "image_url.url", part.image_url.url)
            elif which == "file" and files:
                for field in ("file_data", "file_id"):
                    url = getattr(part.file, field)
                    if _is_remote(url):
                        yield _Remote(index, place, f"file.{field}", url)
                        break


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("https://", "http://"))


async def _inlined(
    request: pb.ChatCompletionRequest, remote: list[_Remote], fetch: Fetch, limit: float
) -> pb.ChatCompletionRequest:
    """`request` with what its URLs name in their places, each fetched once, within `limit` seconds."""
    first: dict[str, _Remote] = {}
    for part in remote:
        first.setdefault(part.url, part)
    urls = list(first)
    if len(urls) > _MOST_URLS:
        raise InvalidRequest(f"More than {_MOST_URLS} URLs to fetch.", first[urls[_MOST_URLS]].param)
    turn = asyncio.Semaphore(_AT_ONCE)
    left = _MOST_BYTES

    async def data_url(part: _Remote) -> tuple[str, str]:
        nonlocal left
        async with turn:
            try:
                type_, data = await fetch(part.url)
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"Cannot be fetched: {error.message}", part.param, reason=error.reason
                ) from None
        left -= len(data)
        if left < 0:
            raise InvalidRequest(
                f"What the request names by URL is larger than {_MOST_BYTES} bytes together.",
                part.param,
                reason=Reason.REQUEST_TOO_LARGE,
            )
        return type_, f"data:{type_};base64,{base64.b64encode(data).decode()}"

    try:
        async with asyncio.timeout(limit):
            fetched = dict(zip(urls, await together(map(data_url, first.values())), strict=True))
    except TimeoutError:
        raise InvalidRequest("Cannot be fetched in the time that is left.", remote[0].param) from None
    sent = copy(request)
    for part in remote:
        type_, url = fetched[part.url]
        _put(sent.messages[part.message].content[part.part], part, type_, url)
    return sent


def _put(content: pb.ContentPart, part: _Remote, type_: str, url: str) -> None:
    if part.field == "image_url.url":
        if type_.startswith("text/"):
            raise InvalidRequest(f"There is no image there, but {type_}.", part.param)
        content.image_url.url = url
        return
    content.file.file_data = url
    content.file.ClearField("file_id")
    name = re.split("[?#]", part.url)[0].rpartition("/")[2]
    if name and not content.file.filename:
        content.file.filename = unquote(name)[:255]
