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

from server.chat.completion import Completion, ProtoCompletion
from server.chat.openai_json import decode_json
from server.chat.request import ChatRequest
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.gemini import request as gemini_request
from server.dialects.gemini.response import Answer, classify, find_error, message
from server.dialects.gemini.stream import GeminiDecoder
from server.errors import ProviderError
from server.vendors.registry import VERTEX_ORIGINS

EXTRA_BODY = gemini_request.EXTRA_BODY

_encode = msgspec.json.Encoder().encode


class GeminiTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../models/{model}:generateContent`, or `:streamGenerateContent?alt=sse`."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **endpoint.provider.headers,
        }
        message = request.to_proto()
        tier = gemini_request.TIERS.get(message.service_tier, "standard")
        if endpoint.vendor.type == "vertex" and tier != "standard":
            # https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo
            headers["x-vertex-ai-llm-shared-request-type"] = tier
        return HttpRequest(url(endpoint, stream=stream), headers, _encode(gemini_request.body(message, endpoint)))

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and the first candidate's own finish reason."""
        answer = Answer()
        chunk = answer.read(body)
        if not chunk.choices:
            raise failures.invalid_response(f"no candidates: {body[:500]!r}")
        completion = pb.ChatCompletion(id=chunk.id, created=chunk.created)
        for choice in chunk.choices:
            candidate = answer.candidates[choice.index]
            completion.choices.add(
                index=choice.index,
                message=message(choice.delta),
                finish_reason=candidate.finish_reason,
                logprobs=choice.logprobs if choice.HasField("logprobs") else None,
                extra_json=choice.extra_json,
            )
        answer.account(completion)
        return ProtoCompletion(completion, answer.native_finish_reason)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {code, message, status, details}}`, a list of one, HTML or nothing."""
        try:
            error = find_error(decode_json(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = None
        return classify(status, error or {}, failures.retry_after(headers))

    def decoder(self, request: ChatRequest) -> GeminiDecoder:
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
