"""One provider call: translate, authenticate, send, decode. Knows nothing of routing.

Whatever goes wrong comes out as a ProviderError that says what may be tried
next. A stream hands out nothing before its first content-bearing chunk, so that
until then the router may still turn to another endpoint unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

import httpx
from lmchat.v1 import chat_pb2 as pb

from server import openai_json
from server.errors import ProviderError, Reason, StreamTruncated
from server.openai_json import PlainCompletion
from server.providers import failures
from server.providers.base import Endpoint, HttpRequest, StreamDecoder, Translator

#: Bytes of an error body that are read; the rest says nothing new.
_ERROR_BODY = 64 * 1024
#: Seconds to wait for what a provider may still send after its last finish_reason.
_TAIL = 5.0

#: Content types of a 200 that is an error, or a proxy's page.
_NO_STREAM = ("application/json", "text/html")

Chunks = list[pb.ChatCompletionChunk]


class Authenticator(Protocol):
    """Adds a provider's credentials to a call."""

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Headers to add. Raises ProviderError when there are no credentials to be had."""
        ...


class Answer(NamedTuple):
    """A completion, and the provider's own word for why it ended."""

    completion: pb.ChatCompletion
    native_finish_reason: str


class PlainAnswer(NamedTuple):
    """The same in OpenAI's JSON, as it came."""

    completion: PlainCompletion
    native_finish_reason: str


class Upstream:
    """Calls endpoints. `authenticators` are by provider key, `translators` by dialect."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        translators: Mapping[str, Translator],
        authenticators: Mapping[str, Authenticator],
    ) -> None:
        self._transport = transport
        self._translators = translators
        self._authenticators = authenticators

    async def complete(self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float) -> Answer:
        """One unary call, within `limit` seconds. Raises ProviderError, or InvalidRequest before any call."""
        translator = self._translators[endpoint.dialect]
        body = await self._ask(endpoint, translator, request, limit)
        return Answer(*translator.completion(body, request))

    async def complete_plain(
        self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float
    ) -> Answer | PlainAnswer:
        """The same for whoever writes JSON, as it came where that is what they would write."""
        translator = self._translators[endpoint.dialect]
        body = await self._ask(endpoint, translator, request, limit)
        plain = translator.plain(body)
        if plain is not None:
            return PlainAnswer(plain, plain.native_finish_reason)
        return Answer(*translator.completion(body, request))

    async def _ask(
        self, endpoint: Endpoint, translator: Translator, request: pb.ChatCompletionRequest, limit: float
    ) -> bytes:
        """The body of an answer."""
        call = translator.request(request, endpoint, stream=False)
        try:
            async with asyncio.timeout(min(limit, endpoint.timeouts.total)):
                return await _read(await self._send(endpoint, call, translator))
        except TimeoutError:
            raise _timeout("did not answer in time") from None

    def stream(self, endpoint: Endpoint, request: pb.ChatCompletionRequest) -> UpstreamStream:
        """One streamed call, not yet opened. Raises InvalidRequest for what the dialect cannot say."""
        translator = self._translators[endpoint.dialect]
        call = translator.request(request, endpoint, stream=True)
        return UpstreamStream(self, endpoint, call, translator, translator.decoder(request), max(1, request.n))

    async def _send(self, endpoint: Endpoint, call: HttpRequest, translator: Translator) -> httpx.Response:
        """A 2xx response whose body is unread; anything else raises."""
        auth = await self._authenticators[endpoint.provider.key].headers(call)
        # A stream, since for content httpx would work out headers that the transport knows by itself.
        request = httpx.Request(
            call.method,
            _url(call.url),
            headers={**call.headers, **auth},
            stream=httpx.ByteStream(call.body),
            extensions={"timeout": {"connect": endpoint.timeouts.connect}},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        if 200 <= response.status_code < 300:
            return response
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            body = await _read(response, _ERROR_BODY)
        except ProviderError:  # it broke off; the status says enough
            body = b""
        raise translator.error(response.status_code, headers, body)


class UpstreamStream:
    """A streamed answer. `open` it, iterate it, and close it in any case."""

    def __init__(
        self,
        upstream: Upstream,
        endpoint: Endpoint,
        call: HttpRequest,
        translator: Translator,
        decoder: StreamDecoder,
        n: int,
    ) -> None:
        self._upstream = upstream
        self._endpoint = endpoint
        self._call: HttpRequest | None = call
        self._translator = translator
        self._decoder = decoder
        self._n = n
        self._response: httpx.Response | None = None
        self._reads: AsyncIterator[bytes] | None = None
        self._finished: set[int] = set()
        self._choices: set[int] = set()
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
            async with asyncio.timeout(min(limit, self._endpoint.timeouts.first_token)):
                self._response = await self._upstream._send(self._endpoint, call, self._translator)
                del call
                if self._response.headers.get("content-type", "").lower().startswith(_NO_STREAM):
                    # An error in a 200; a whole completion is not what was asked for.
                    self._translator.completion(await _read(self._response), pb.ChatCompletionRequest())
                    raise failures.invalid_response("JSON where a stream was asked for")
                self._reads = aiter(self._response.stream)  # type: ignore[arg-type]
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
        now = asyncio.get_running_loop().time
        while not self._ended:
            complete = len(self._choices) >= self._n and self._finished >= self._choices
            try:
                async with asyncio.timeout_at(min(now() + (min(idle, _TAIL) if complete else idle), deadline)):
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
        response, self._response = self._response, None
        reads, self._reads = self._reads, None
        try:
            if isinstance(reads, AsyncGenerator):  # else the loop does it, later and in a task of its own
                await reads.aclose()
        finally:
            if response is not None:
                await response.aclose()

    async def _read(self) -> Chunks:
        """What one read decodes to."""
        if self._reads is None:
            raise RuntimeError("not open")
        try:
            data = await anext(self._reads, None)
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        chunks = self._close() if data is None else self._decoder.feed(data)
        for chunk in chunks:
            for choice in chunk.choices:
                self._choices.add(choice.index)
                if choice.finish_reason:
                    self._finished.add(choice.index)
        return chunks

    def _close(self) -> Chunks:
        self._ended = True
        return self._decoder.close()


def has_content(chunk: pb.ChatCompletionChunk) -> bool:
    """Whether a chunk says anything beyond who speaks."""
    return any(
        choice.finish_reason
        or choice.delta.content
        or choice.delta.reasoning_content
        or choice.delta.reasoning_details
        or choice.delta.tool_calls
        or choice.delta.refusal
        or choice.delta.HasField("audio")
        or (choice.delta.extra_json and any(openai_json.decode_json(choice.delta.extra_json).values()))
        for choice in chunk.choices
    )


#: Parsing a URL takes longer than building the request it is for; Gemini's and Bedrock's name the model.
_url = lru_cache(1024)(httpx.URL)


async def _read(response: httpx.Response, limit: int | None = None) -> bytes:
    """The body, or its first `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in response.stream:  # type: ignore[union-attr]
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size >= limit:
                break
    except httpx.TransportError as error:
        raise _unreachable(error) from None
    finally:
        await response.stream.aclose()  # type: ignore[union-attr]
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
