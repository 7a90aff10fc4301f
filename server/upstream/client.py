"""One provider call: translate, authenticate, send, decode. Knows nothing of routing.

Whatever goes wrong comes out as a ProviderError that says what may be tried
next. A stream hands out nothing before its first content-bearing chunk, so that
until then the router may still turn to another endpoint unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import httpx
import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json import ChatRequest, PlainCompletion, PlainRequest
from server.dialects import choices
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest, StreamDecoder, Translator
from server.errors import ProviderError, Reason, StreamTruncated
from server.vendors.credentials.base import Authenticator
from server.wire.deadlines import Limits
from server.wire.exchange import Body, Response

#: Bytes of an error body that are read; the rest says nothing new.
_ERROR_BODY = 64 * 1024
#: Seconds to wait for what a provider may still send after its last finish_reason.
_TAIL = 5.0

#: Content types of a 200 that is an error, or a proxy's page.
_NO_STREAM = ("application/json", "text/html")

#: What of a plain request matters to those who read OpenAI's answer to it: it asks for one choice.
_PLAINLY_ASKED = pb.ChatCompletionRequest()

Chunks = list[pb.ChatCompletionChunk]


class Sender(Protocol):
    """Makes HTTP requests."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, connect: float
    ) -> Response:
        """The response, whose body is unread, once it has begun. Raises httpx.TransportError.

        Connecting may take `connect` seconds.
        """
        ...


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A completion, and the provider's own word for why it ended."""

    completion: pb.ChatCompletion
    native_finish_reason: str


class PlainAnswer(msgspec.Struct, frozen=True, gc=False):
    """The same in OpenAI's JSON, as it came."""

    completion: PlainCompletion
    native_finish_reason: str


class Upstream:
    """Calls endpoints. `authenticators` are by provider key, `translators` by dialect."""

    def __init__(
        self,
        sender: Sender,
        translators: Mapping[str, Translator],
        authenticators: Mapping[str, Authenticator],
    ) -> None:
        self._sender = sender
        self._translators = translators
        self._authenticators = authenticators
        self._limits = Limits()

    async def complete(self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float) -> Answer:
        """One unary call, within `limit` seconds. Raises ProviderError, or InvalidRequest before any call."""
        translator = self._translators[endpoint.dialect]
        call = translator.request(request, endpoint, stream=False)
        body = await self._ask(endpoint, translator, call, limit)
        return Answer(*translator.completion(body, request))

    async def complete_plain(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Answer | PlainAnswer:
        """The same for whoever writes JSON; both as they came where they need no translation."""
        translator = self._translators[endpoint.dialect]
        call, asked = _request(translator, request, endpoint, stream=False)
        body = await self._ask(endpoint, translator, call, limit)
        plain = translator.plain(body)
        if plain is not None:
            return PlainAnswer(plain, plain.native_finish_reason)
        return Answer(*translator.completion(body, asked))

    async def _ask(self, endpoint: Endpoint, translator: Translator, call: HttpRequest, limit: float) -> bytes:
        """The body of an answer."""
        try:
            with self._limits.after(min(limit, endpoint.timeouts.total)):
                response = await self._send(endpoint, call, translator)
                return await _read(response.body)
        except TimeoutError:
            raise _timeout("did not answer in time") from None

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> UpstreamStream:
        """One streamed call, not yet opened. Raises InvalidRequest for what the dialect cannot say."""
        translator = self._translators[endpoint.dialect]
        call, asked = _request(translator, request, endpoint, stream=True)
        return UpstreamStream(self, endpoint, call, translator, translator.decoder(asked))

    async def _send(self, endpoint: Endpoint, call: HttpRequest, translator: Translator) -> Response:
        """A 2xx response whose body is unread; anything else raises."""
        auth = await self._authenticators[endpoint.provider.key].headers(call)
        headers = {**call.headers, **auth}
        try:
            response = await self._sender.send(
                call.method, call.url, headers, call.body, endpoint.timeouts.connect
            )
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        if 200 <= response.status < 300:
            return response
        try:
            body = await _read(response.body, _ERROR_BODY)
        except ProviderError:  # it broke off; the status says enough
            body = b""
        raise translator.error(response.status, response.texts(), body)


def _request(
    translator: Translator, request: ChatRequest, endpoint: Endpoint, *, stream: bool
) -> tuple[HttpRequest, pb.ChatCompletionRequest]:
    """The provider's request, with as little translation as it takes, and the one to read its answer by."""
    if isinstance(request, PlainRequest):
        plain = translator.plain_request(request, endpoint, stream=stream)
        if plain is not None:
            return plain, _PLAINLY_ASKED
        request = openai_json.typed(request)
    return translator.request(request, endpoint, stream=stream), request


class UpstreamStream:
    """A streamed answer. `open` it, iterate it, and close it in any case."""

    def __init__(
        self,
        upstream: Upstream,
        endpoint: Endpoint,
        call: HttpRequest,
        translator: Translator,
        decoder: StreamDecoder,
    ) -> None:
        self._upstream = upstream
        self._endpoint = endpoint
        self._call: HttpRequest | None = call
        self._translator = translator
        self._decoder = decoder
        self._body: Body | None = None
        self._ended = False

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word for why it ended; empty until then."""
        return self._decoder.native_finish_reason

    async def open(self, limit: float) -> Chunks:
        """Everything up to and with the first content, within `limit` seconds.

        Response headers do not count as content. Raises ProviderError.
        """
        held: Chunks = []
        call, self._call = self._call, None  # long conversations are not kept as long as streams
        if call is None:
            raise RuntimeError("opened twice")
        try:
            with self._upstream._limits.after(min(limit, self._endpoint.timeouts.first_token)):
                response = await self._upstream._send(self._endpoint, call, self._translator)
                self._body = response.body
                del call
                if response.header(b"content-type").lower().startswith(_NO_STREAM):
                    # An error in a 200; a whole completion is not what was asked for.
                    self._translator.completion(await _read(self._body), pb.ChatCompletionRequest())
                    raise failures.invalid_response("JSON where a stream was asked for")
                while True:
                    chunks = await self._read()
                    held += chunks
                    if self._ended or any(has_content(chunk) for chunk in chunks):
                        return held
        except TimeoutError:
            raise _timeout("sent no content in time") from None

    async def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The rest, a list for each read, until the loop's time is `deadline`.

        Raises ProviderError; a break is a StreamTruncated.
        """
        idle = self._endpoint.timeouts.idle
        limits = self._upstream._limits
        now = asyncio.get_running_loop().time
        while not self._ended:
            complete = self._decoder.finished
            try:
                with limits.until(min(now() + (min(idle, _TAIL) if complete else idle), deadline)):
                    chunks = await self._read()
            except (TimeoutError, ProviderError) as error:
                if complete:  # everything was said; how the connection ends adds nothing
                    chunks = self._close()
                elif isinstance(error, TimeoutError):
                    raise _timeout("did not finish its answer in time") from None
                else:
                    if error.decoded:
                        yield error.decoded
                    if error.http_status is None:
                        raise StreamTruncated from None
                    raise
            if chunks:
                yield chunks

    async def aclose(self) -> None:
        """Let go of the connection; closes the socket unless the answer was read to its end."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _read(self) -> Chunks:
        """What one read decodes to."""
        if self._body is None:
            raise RuntimeError("not open")
        try:
            data = await anext(self._body, None)
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        return self._close() if data is None else self._decoder.feed(data)

    def _close(self) -> Chunks:
        self._ended = True
        return self._decoder.close()


def has_content(chunk: pb.ChatCompletionChunk) -> bool:
    """Whether a chunk has more than a role."""
    return any(choice.finish_reason or choices.has_content(choice) for choice in chunk.choices)


async def _read(body: Body, limit: int | None = None) -> bytes:
    """All of it, or its first `limit` bytes."""
    whole = body.whole()
    if whole is not None:
        return whole
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in body:
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size >= limit:
                break
    except httpx.TransportError as error:
        raise _unreachable(error) from None
    finally:
        await body.aclose()
    return b"".join(pieces)


def _unreachable(error: httpx.TransportError) -> ProviderError:
    """A transport failure: connecting may be tried again, and so may a call that was reset."""
    if isinstance(error, httpx.TimeoutException):
        return _timeout("could not be reached in time", raw=str(error))
    return ProviderError(
        Reason.UPSTREAM_ERROR,
        "The provider could not be reached."
        if isinstance(error, httpx.ConnectError)
        else "The connection to the provider broke.",
        retry_here=True,
        raw=f"{type(error).__name__}: {error}",
    )


def _timeout(what: str, raw: str = "") -> ProviderError:
    return ProviderError(Reason.TIMEOUT, f"The provider {what}.", raw=raw)
