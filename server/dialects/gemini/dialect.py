"""The Gemini dialect: generateContent on AI Studio and on Vertex AI.

Where requests go, and the streams; what is in them stands in gemini_request.py
and gemini_answer.py. https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import PlainRequest, decode_json
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.gemini import request as gemini_request
from server.dialects.gemini import response
from server.dialects.gemini.stream import GeminiDecoder
from server.errors import ProviderError
from server.vendors.registry import VERTEX_ORIGINS

EXTRA_BODY = gemini_request.EXTRA_BODY

_encode = msgspec.json.Encoder().encode


class GeminiTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../models/{model}:generateContent`, or `:streamGenerateContent?alt=sse`."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **endpoint.provider.headers,
        }
        tier = gemini_request.TIERS.get(request.service_tier, "standard")
        if endpoint.vendor.type == "vertex" and tier != "standard":
            # https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo
            headers["x-vertex-ai-llm-shared-request-type"] = tier
        return HttpRequest(url(endpoint, stream=stream), headers, _encode(gemini_request.body(request, endpoint)))

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> tuple[pb.ChatCompletion, str]:
        """The answer, and the first candidate's own finish reason."""
        return response.completion(body)

    def plain_request(self, request: PlainRequest, endpoint: Endpoint, *, stream: bool) -> None:
        """None: it is another dialect's."""

    def plain(self, body: bytes) -> None:
        """None: another dialect's answer always needs translation."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {code, message, status, details}}`, a list of one, HTML or nothing."""
        try:
            error = response.find_error(decode_json(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = None
        return response.classify(status, error or {}, failures.retry_after(headers))

    def decoder(self, request: pb.ChatCompletionRequest) -> GeminiDecoder:
        """A fresh decoder."""
        return GeminiDecoder()


# Addresses


def url(endpoint: Endpoint, *, stream: bool) -> str:
    """Where a request goes. A base URL that has a version keeps it."""
    base, version, resource = (_vertex if endpoint.vendor.type == "vertex" else _ai_studio)(endpoint)
    if not re.search(r"/v1(alpha|beta)?\d*$", base):
        base = f"{base}/{version}"
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"{base}/{quote(resource, safe='/@')}:{method}"


def _ai_studio(endpoint: Endpoint) -> tuple[str, str, str]:
    base = endpoint.base_url.rstrip("/") or "https://generativelanguage.googleapis.com"
    named = endpoint.model.startswith(("models/", "tunedModels/"))
    return base, "v1beta", endpoint.model if named else f"models/{endpoint.model}"


def _vertex(endpoint: Endpoint) -> tuple[str, str, str]:
    """Google's models, tuned ones by `endpoints/{id}`, or any by full name; without a project: express mode.

    https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/vertex-ai-express-mode-api-reference
    """
    provider, resource = endpoint.provider, endpoint.model
    location = (provider.location or provider.region or "global") if provider.project else "global"
    base = endpoint.base_url.rstrip("/")
    base = base or VERTEX_ORIGINS.get(location, f"https://{location}-aiplatform.googleapis.com")
    if not resource.startswith("projects/"):
        if not resource.startswith(("publishers/", "endpoints/")):
            resource = f"publishers/google/models/{resource}"
        if provider.project:
            resource = f"projects/{provider.project}/locations/{location}/{resource}"
    return base, "v1", resource
