"""The OpenAI dialect: api.openai.com, Azure and everything that speaks the same JSON.

Requests and answers go through `openai_json`; what vendors do differently is in
request.py and response.py, where the dialect is served in platform.py. https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from server.chat.completion import Completion, JsonCompletion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects.base import Endpoint, HttpRequest, platform_of
from server.dialects.openai import errors, response
from server.dialects.openai.parameters import must_stream
from server.dialects.openai.platform import DEFAULT_PLATFORM
from server.dialects.openai.request import adapt
from server.dialects.openai.stream import OpenAIDecoder
from server.dialects.openai.tools import fit_names
from server.errors import InvalidRequest, ProviderError

_encode = msgspec.json.Encoder().encode


class OpenAITranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../chat/completions`."""
        out = request.to_openai()
        dropped = adapt(out, endpoint, extended=request.extended, stream=stream)
        names = {} if endpoint.vendor.any_tool_name else fit_names(out)
        out["model"] = endpoint.model
        streamed = not stream and must_stream(out, endpoint.vendor)
        if streamed and endpoint.vendor.stream_usage:
            out["stream_options"] = {"include_usage": True}
        if stream or streamed:
            out["stream"] = True
        else:
            out.pop("stream_options", None)  # only allowed on streams
        platform = platform_of(endpoint, DEFAULT_PLATFORM)
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream or streamed else "application/json",
            **platform.headers,
            **endpoint.provider.headers,
        }
        try:
            body = _encode(out)
        except RecursionError:  # as deep as the decoder allows, which had more of the stack
            raise InvalidRequest("Nested too deeply.") from None
        url = platform.url(endpoint, stream=stream or streamed)
        return HttpRequest(url, headers, body, tool_names=names, streamed=streamed, dropped=dropped)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, as the provider wrote it where nothing in it needs translation."""
        completion = JsonCompletion.read(body)
        if completion is not None and response.is_plain(completion):
            return completion
        return ProtoCompletion(*response.completion(body))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": ...}`, HTML or nothing."""
        return errors.error(status, headers, body)

    def decoder(self, request: ChatRequest) -> OpenAIDecoder:
        """A fresh decoder."""
        return OpenAIDecoder(request.choices)
