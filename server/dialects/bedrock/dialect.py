"""Amazon Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
Bedrock gives an answer no id, and counts no reasoning tokens. Tools that run on
its side, as Nova's grounding does, are not the caller's: their calls are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.bedrock import response
from server.dialects.bedrock.messages import tool_names
from server.dialects.bedrock.request import http_request
from server.dialects.bedrock.stream import BedrockDecoder
from server.errors import ProviderError


class BedrockTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST /model/{id}/converse` or `/converse-stream`, unsigned."""
        return http_request(request.to_proto(), endpoint, stream=stream)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and its stopReason."""
        return ProtoCompletion(*response.completion(body, tool_names(request.to_proto())))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The exception's name is in `x-amzn-errortype` or `__type`, the body is `{"message": ...}`."""
        code, message = response.error_parts(headers, body)
        return response.failure(status, code, message, retry_after=failures.retry_after(headers))

    def decoder(self, request: ChatRequest) -> BedrockDecoder:
        """A fresh decoder."""
        return BedrockDecoder(tool_names(request.to_proto()))
