"""Downloads images and files that callers reference by URL, for providers that accept bytes only."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from lmchat.v1 import chat_pb2 as pb

from server.chat.large import by_size
from server.chat.request import ChatRequest, copy
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, Reason
from server.upstream.ports import gather

#: Downloads a URL: its media type and bytes. Raises InvalidRequest without a path.
Fetch = Callable[[str], Awaitable[tuple[str, bytes]]]

#: Members of `Endpoint.emulates` for parts whose URLs the gateway downloads.
BY_URL = frozenset({"image_url", "file_url"})
_MEDIA = frozenset({"image", "file"})

#: URLs fetched for one request, and how many at the same time.
MAX_URLS = 100
MAX_CONCURRENT_FETCHES = 8
#: Bytes downloaded for one request; the same as the limit of a request.
MAX_FETCHED_BYTES = 64 * 1024 * 1024


class RemotePart(NamedTuple):
    """A content part with a URL: messages[message].content[part]."""

    message: int
    part: int
    #: `image_url.url`, `file.file_data` or `file.file_id`.
    field: str
    url: str

    @property
    def param(self) -> str:
        return f"messages[{self.message}].content[{self.part}].{self.field}"


def remote_parts(endpoint: Endpoint, request: ChatRequest, native_url: Callable[[str], bool]) -> list[RemotePart]:
    """The parts whose URLs the endpoint does not accept; `native_url`: see `base.Dialect`."""
    if not endpoint.emulates & BY_URL or not request.needs & _MEDIA:
        return []
    return [part for part in _urls(endpoint, request.to_proto()) if not native_url(part.url)]


def _urls(endpoint: Endpoint, request: pb.ChatCompletionRequest) -> Iterator[RemotePart]:
    images, files = "image_url" in endpoint.emulates, "file_url" in endpoint.emulates
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.content):
            which = part.WhichOneof("part")
            if which == "image_url" and images and _is_remote(part.image_url.url):
                yield RemotePart(index, place, "image_url.url", part.image_url.url)
            elif which == "file" and files:
                for field in ("file_data", "file_id"):
                    url = getattr(part.file, field)
                    if _is_remote(url):
                        yield RemotePart(index, place, f"file.{field}", url)
                        break


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("https://", "http://"))


async def inlined(request: ChatRequest, remote: list[RemotePart], fetch: Fetch, limit: float) -> ChatRequest:
    """`request` with data URLs in the place of those in `remote`, within `limit` seconds.

    A URL is fetched once for a request, however many attempts there are. Raises InvalidRequest.
    """
    first: dict[str, RemotePart] = {}
    for part in remote:
        first.setdefault(part.url, part)
    urls = list(first)
    if len(urls) > MAX_URLS:
        raise InvalidRequest(f"More than {MAX_URLS} URLs to fetch.", first[urls[MAX_URLS]].param)
    fetched = request.fetched
    turn = asyncio.Semaphore(MAX_CONCURRENT_FETCHES)
    size = sum(_fetched_bytes(known[1]) for known in fetched.values() if isinstance(known, tuple))

    async def get(part: RemotePart) -> None:
        nonlocal size
        async with turn:
            try:
                type_, data = await fetch(part.url)
            except InvalidRequest as error:
                # Not the error itself, whose traceback would keep the request alive.
                fetched[part.url] = InvalidRequest(error.message, reason=error.reason)
                raise _not_fetched(error, part) from None
        size += len(data)
        _check_size(size, part)
        fetched[part.url] = type_, await by_size(len(data), _data_url, type_, data)

    try:
        async with asyncio.timeout(limit):
            await gather(get(part) for url, part in first.items() if url not in fetched)
    except TimeoutError:
        raise InvalidRequest("Cannot be fetched in the time that is left.", remote[0].param) from None
    return await by_size(request.size + size, _with_media, request, remote)


def _with_media(request: ChatRequest, remote: list[RemotePart]) -> ChatRequest:
    """`request` with what was fetched for it in the place of each of `remote`."""
    message = copy(request.to_proto())
    size = 0
    for part in remote:
        known = request.fetched[part.url]
        if isinstance(known, InvalidRequest):
            raise _not_fetched(known, part)
        size += _fetched_bytes(known[1])
        _check_size(size, part)  # a URL may be named thousands of times
        _put(message.messages[part.message].content[part.part], part, *known)
    inlined = request.with_message(message, typed=request.typed)
    inlined.size += size
    return inlined


def _data_url(type_: str, data: bytes) -> str:
    return f"data:{type_};base64,{base64.b64encode(data).decode()}"


def _fetched_bytes(data_url: str) -> int:
    """The bytes in a data URL."""
    return len(data_url) * 3 // 4


def _check_size(size: int, part: RemotePart) -> None:
    if size > MAX_FETCHED_BYTES:
        raise InvalidRequest(
            f"What the request names by URL is larger than {MAX_FETCHED_BYTES} bytes together.",
            part.param,
            reason=Reason.REQUEST_TOO_LARGE,
        )


def _not_fetched(error: InvalidRequest, part: RemotePart) -> InvalidRequest:
    return InvalidRequest(f"Cannot be fetched: {error.message}", part.param, reason=error.reason)


def _put(content: pb.ContentPart, part: RemotePart, type_: str, url: str) -> None:
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
