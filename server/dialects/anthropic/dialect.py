"""The Anthropic dialect: the Messages API. https://platform.claude.com/docs/en/api/messages.

Where it is served is in platform.py; request.py writes bodies, response.py and stream.py read responses.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.openai_json import decode_json
from server.chat.request import ChatRequest
from server.dialects.anthropic import models
from server.dialects.anthropic import request as anthropic_request
from server.dialects.anthropic import response as anthropic_response
from server.dialects.anthropic.limits import Limits
from server.dialects.anthropic.messages import tool_names
from server.dialects.anthropic.platform import DEFAULT_PLATFORM
from server.dialects.anthropic.stream import AnthropicDecoder
from server.dialects.base import Endpoint, HttpRequest, platform_of
from server.dialects.dropped import Dropped
from server.errors import InvalidRequest, ProviderError

_encode = msgspec.json.Encoder().encode


#: Wanted where a request names files. https://platform.claude.com/docs/en/build-with-claude/files
_FILES_BETA = "files-api-2025-04-14"


class AnthropicTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """A POST to the platform's URL."""
        message = request.to_proto()
        platform = platform_of(endpoint, DEFAULT_PLATFORM)
        named = {"model": endpoint.model} if platform.model_in_body else {}
        try:
            dropped = Dropped()
            body = anthropic_request.body(message, endpoint, dropped, remote=not platform.bytes_only)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **platform.headers,
            **endpoint.provider.headers,
        }
        if any(part.file.file_id for turn in message.messages for part in turn.content):
            betas = [headers.get("anthropic-beta", ""), _FILES_BETA]
            headers["anthropic-beta"] = ",".join(filter(None, betas))
        streamed = {"stream": True} if stream else {}
        content = _encode({**platform.body, **named, **body, **streamed})
        return HttpRequest(platform.url(endpoint, stream=stream), headers, content, dropped=dropped.paths)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and Anthropic's `stop_reason`."""
        return ProtoCompletion(*anthropic_response.completion(body, tool_names(request.to_proto())))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Anthropic's `{"type": "error", "error": {...}}`, Google's `[{"error": {...}}]`, HTML or nothing."""
        return anthropic_response.error(status, headers, body)

    def decoder(self, request: ChatRequest) -> AnthropicDecoder:
        """A fresh decoder."""
        return AnthropicDecoder(tool_names(request.to_proto()))


def native_format(request: pb.ChatCompletionRequest, model: str) -> bool:
    """Whether the model's structured outputs can follow the schema."""
    text = request.response_format.json_schema.schema_json
    if not text or not models.of(model).structured:
        return False
    return Limits().enforced(decode_json(text), tool=False) is not None
