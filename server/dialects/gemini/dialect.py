"""The Gemini dialect: generateContent. https://ai.google.dev/api/generate-content.

Where it is served is in platform.py; request.py writes bodies, response.py and stream.py read responses.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from server.chat.completion import Completion, ProtoCompletion
from server.chat.openai_json import decode_json
from server.chat.request import ChatRequest
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest, platform_of
from server.dialects.dropped import Dropped
from server.dialects.gemini import request as gemini_request
from server.dialects.gemini import response
from server.dialects.gemini.names import tool_names
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.dialects.gemini.stream import GeminiDecoder
from server.errors import InvalidRequest, ProviderError

_encode = msgspec.json.Encoder().encode


class GeminiTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """A POST to the platform's URL."""
        platform = platform_of(endpoint, DEFAULT_PLATFORM)
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **platform.headers,
            **endpoint.provider.headers,
        }
        message = request.to_proto()
        tier = gemini_request.TIERS.get(message.service_tier, "standard")
        if platform.tier_header and tier != "standard":
            headers[platform.tier_header] = tier
        dropped = Dropped()
        try:
            body = _encode(gemini_request.body(message, endpoint, dropped))
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
        return HttpRequest(platform.url(endpoint, stream=stream), headers, body, dropped=dropped.paths)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and the first candidate's own finish reason."""
        return ProtoCompletion(*response.completion(body, tool_names(request.to_proto())))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {code, message, status, details}}`, a list of one, HTML or nothing."""
        try:
            error = response.find_error(decode_json(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = None
        return response.classify(status, error or {}, failures.retry_after(headers))

    def decoder(self, request: ChatRequest) -> GeminiDecoder:
        """A fresh decoder."""
        return GeminiDecoder(tool_names(request.to_proto()))
