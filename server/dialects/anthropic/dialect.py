"""The Anthropic dialect: the Messages API, on Anthropic's own platform and on Vertex AI.

https://platform.claude.com/docs/en/api/messages
Here stand the platforms; requests are put together in anthropic_request.py, answers
are read in anthropic_response.py and, streamed, in anthropic_stream.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects.anthropic import request as anthropic_request
from server.dialects.anthropic import response as anthropic_response
from server.dialects.anthropic.stream import AnthropicDecoder
from server.dialects.base import Endpoint, HttpRequest
from server.errors import InvalidRequest, ProviderError
from server.vendors.registry import VERTEX_ORIGINS

_encode = msgspec.json.Encoder().encode


class _Platform(NamedTuple):
    """Where the API is served. `named`: the body has the model. `remote`: it fetches URLs and keeps files."""

    url: Callable[[Endpoint, bool], str]
    headers: Mapping[str, str]
    body: Mapping[str, str]
    named: bool
    remote: bool


def _direct_url(endpoint: Endpoint, stream: bool) -> str:
    base = (endpoint.base_url or "https://api.anthropic.com").rstrip("/").removesuffix("/v1")
    return f"{base}/v1/messages"


def _vertex_url(endpoint: Endpoint, stream: bool) -> str:
    location = endpoint.provider.location or "global"
    origin = VERTEX_ORIGINS.get(location, f"https://{location}-aiplatform.googleapis.com")
    base = (endpoint.base_url or origin).rstrip("/").removesuffix("/v1")
    path = f"projects/{endpoint.provider.project}/locations/{location}/publishers/anthropic/models"
    call = "streamRawPredict" if stream else "rawPredict"
    return f"{base}/v1/{path}/{quote(endpoint.model, safe='@')}:{call}"


_ANTHROPIC = _Platform(_direct_url, {"anthropic-version": "2023-06-01"}, {}, named=True, remote=True)
#: By vendor; every other vendor serves the API as Anthropic does.
#: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
_PLATFORMS: Mapping[str, _Platform] = {
    "vertex": _Platform(_vertex_url, {}, {"anthropic_version": "vertex-2023-10-16"}, named=False, remote=False),
}
#: Wanted where a request names files. https://platform.claude.com/docs/en/build-with-claude/files
_FILES_BETA = "files-api-2025-04-14"


class AnthropicTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../v1/messages`, or Vertex's `:rawPredict` and `:streamRawPredict`."""
        message = request.to_proto()
        platform = _PLATFORMS.get(endpoint.vendor.type, _ANTHROPIC)
        named = {"model": endpoint.model} if platform.named else {}
        try:
            body = anthropic_request.body(message, endpoint, remote=platform.remote)
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
        return HttpRequest(
            platform.url(endpoint, stream), headers, _encode({**platform.body, **named, **body, **streamed})
        )

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and Anthropic's `stop_reason`."""
        return ProtoCompletion(*anthropic_response.completion(body))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Anthropic's `{"type": "error", "error": {...}}`, Google's `[{"error": {...}}]`, HTML or nothing."""
        return anthropic_response.error(status, headers, body)

    def decoder(self, request: ChatRequest) -> AnthropicDecoder:
        """A fresh decoder."""
        return AnthropicDecoder()
