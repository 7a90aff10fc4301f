"""One provider call: translate, authenticate, send, decode. Independent of routing.

Every failure is raised as a ProviderError that says whether a retry or a fallback can help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import httpx

from server.chat.completion import Completion, ProtoCompletion
from server.chat.large import LARGE_BYTES, by_size, in_thread
from server.chat.request import ChatRequest
from server.config.redaction import Redactor
from server.dialects.base import Authenticator, Endpoint, HttpRequest, StreamDecoder, Translator
from server.errors import InvalidRequest, ProviderError, Reason
from server.upstream.body import read_body, timeout_error, transport_error
from server.upstream.boundary import BoundedTranslator
from server.upstream.joined import joined
from server.upstream.ports import Stream
from server.upstream.stream import PreparedStream, UpstreamStream
from server.upstream.tool_names import RestoringDecoder, restored
from server.wire.deadlines import Deadlines
from server.wire.exchange import Response

#: Bytes of an error body that are read; the message is at its beginning.
MAX_ERROR_BODY = 64 * 1024
#: Content types of a 200 that is an error or a proxy's page where the request was for a stream.
_NO_STREAM = ("application/json", "text/html")
#: How a stream of server-sent events begins.
_EVENTS = (b"data:", b"event:", b":", b"id:", b"retry:")


class Sender(Protocol):
    """Sends HTTP requests."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, connect: float
    ) -> Response:
        """The response, its body unread, once its headers have arrived. Raises httpx.TransportError.

        Connecting may take `connect` seconds.
        """
        ...


class Upstream:
    """Calls endpoints. `authenticators` are by provider key, `translators` by dialect.

    `redactor` learns the credentials that are sent.
    """

    def __init__(
        self,
        sender: Sender,
        translators: Mapping[str, Translator],
        authenticators: Mapping[str, Authenticator],
        redactor: Redactor | None = None,
    ) -> None:
        self._sender = sender
        self._translators = {name: BoundedTranslator(name, t) for name, t in translators.items()}
        self._authenticators = authenticators
        self._redactor = redactor or Redactor()
        #: The headers that each provider was sent last; the same object until they are renewed.
        self._sent: dict[str, Mapping[str, str]] = {}
        self._deadlines = Deadlines()

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """One unary call, within `limit` seconds. Raises ProviderError, or InvalidRequest before any call."""
        translator = self._translators[endpoint.dialect]
        if request.size <= LARGE_BYTES:
            call = _translate(translator, request, endpoint, stream=False)
        else:
            call = await in_thread(_translate, translator, request, endpoint, stream=False)
        try:
            with self._deadlines.after(min(limit, endpoint.timeouts.total)):
                response = await self._send(endpoint, call, translator)
                body = await read_body(response.body)
        except TimeoutError:
            raise timeout_error("did not answer in time") from None
        # Some stream although they were not asked to. https://github.com/BYK/loreai/pull/605
        if body.startswith(_EVENTS) or (call.streamed and not _is_json(response)):
            completion = await by_size(len(body), _of_stream, translator.decoder(request), body)
        elif len(body) <= LARGE_BYTES:
            completion = translator.completion(body, request)
        else:
            completion = await in_thread(translator.completion, body, request)
        if call.tool_names:
            completion = restored(completion, call.tool_names)
        completion.dropped = call.dropped
        completion.size = len(body)
        return completion

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """One streamed call, not yet opened. This or `open` raises InvalidRequest."""
        if request.size > LARGE_BYTES:
            return PreparedStream(lambda limit: in_thread(self._stream, endpoint, request))
        return self._stream(endpoint, request)

    def _stream(self, endpoint: Endpoint, request: ChatRequest) -> UpstreamStream:
        translator = self._translators[endpoint.dialect]
        call = _translate(translator, request, endpoint, stream=True)

        async def send() -> Response | Completion:
            response = await self._send(endpoint, call, translator)
            if _is_json(response):  # an error in a 200, which `completion` raises, or all of the answer at once
                body = await read_body(response.body)
                whole = await by_size(len(body), translator.completion, body, request)
                return restored(whole, call.tool_names) if call.tool_names else whole
            return response

        decoder = translator.decoder(request)
        if call.tool_names:
            decoder = RestoringDecoder(decoder, call.tool_names)
        return UpstreamStream(send, decoder, endpoint.timeouts, self._deadlines, dropped=call.dropped)

    async def _send(self, endpoint: Endpoint, call: HttpRequest, translator: Translator) -> Response:
        """A 2xx response whose body is unread; anything else raises."""
        provider = endpoint.provider.key
        auth = await self._authenticators[provider].headers(call)
        if auth is not self._sent.get(provider):
            self._sent[provider] = auth
            self._redactor.remember(provider, auth)
        headers = {**call.headers, **auth}
        try:
            response = await self._sender.send(
                call.method, call.url, headers, call.body, endpoint.timeouts.connect
            )
        except httpx.TransportError as error:
            raise transport_error(error) from None
        if 200 <= response.status < 300:
            return response
        try:
            body = await read_body(response.body, MAX_ERROR_BODY)
        except ProviderError:  # the body was truncated; the status suffices
            body = b""
        raise translator.error(response.status, response.texts(), body)


def _is_json(response: Response) -> bool:
    """Whether a response to a request for a stream is none."""
    return response.header(b"content-type").lower().startswith(_NO_STREAM)


def _of_stream(decoder: StreamDecoder, body: bytes) -> Completion:
    """The completion of a whole stream. Raises ProviderError, StreamTruncated for a part of one."""
    chunks = [*decoder.feed(body), *decoder.close()]
    return ProtoCompletion(joined(chunks), decoder.native_finish_reason)


def _translate(translator: Translator, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
    """The provider's request. Raises InvalidRequest, also for a dropped parameter under `require_parameters`."""
    call = translator.request(request, endpoint, stream=stream)
    if call.dropped and request.requires_parameters:
        raise InvalidRequest(
            f"would drop: {', '.join(call.dropped)}", call.dropped[0], reason=Reason.UNSUPPORTED_FEATURE
        )
    return call
