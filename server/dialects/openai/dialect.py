"""The OpenAI dialect: api.openai.com, Azure and everything that speaks the same JSON.

Requests and answers go through `openai_json`; what stands here is where vendors
stray from it. https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects.base import Endpoint, HttpRequest, Vendor, completion_id
from server.dialects.openai import errors, response
from server.dialects.openai.stream import OpenAIDecoder
from server.errors import InvalidRequest, ProviderError
from server.vendors.registry import PLAIN

_encode = msgspec.json.Encoder().encode

#: Under these words the other dialects have what they signed sent back to them.
_OTHERS = frozenset({"anthropic", "bedrock", "gemini", "google"})


class OpenAITranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../chat/completions`."""
        try:
            out = openai_json.dump(request)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
        for name in ("stream", "lmchat"):  # a typed request may have them among its further fields
            out.pop(name, None)
        if endpoint.vendor != PLAIN["openai"]:  # behind which may be Google's own, or a gateway such as this
            _forget_others(out["messages"])
        return _post(out, endpoint, stream=stream)

    def plain_request(self, request: openai_json.PlainRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """What `request` would give for the same request typed, with less effort."""
        return _post(request.dump(), endpoint, stream=stream)

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> tuple[pb.ChatCompletion, str]:
        """The answer, and the first choice's own finish reason."""
        return response.completion(body)

    def plain(self, body: bytes) -> openai_json.PlainCompletion | None:
        """The answer, if `completion` would give the same with more effort."""
        completion = openai_json.read_plain(body)
        if completion is not None and not response.is_plain(completion):
            return None
        if completion is not None:
            completion.id = completion_id(completion.id)
        return completion

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": ...}`, HTML or nothing."""
        return errors.error(status, headers, body)

    def decoder(self, request: pb.ChatCompletionRequest) -> OpenAIDecoder:
        """A fresh decoder."""
        return OpenAIDecoder(max(1, request.n))


def _post(out: dict[str, Any], endpoint: Endpoint, *, stream: bool) -> HttpRequest:
    """The request with the body `out`, as the vendor wants it. Raises InvalidRequest."""
    stop = out.get("stop")
    if stop and len(stop) > endpoint.vendor.max_stop:
        raise InvalidRequest(f"At most {endpoint.vendor.max_stop} sequences, got {len(stop)}.", "stop")
    out["model"] = endpoint.model
    if stream:
        out["stream"] = True
    else:
        out.pop("stream_options", None)  # only allowed on streams
    accept = "text/event-stream" if stream else "application/json"
    _apply_quirks(out, endpoint.vendor)
    headers = {"content-type": "application/json", "accept": accept, **endpoint.provider.headers}
    return HttpRequest(url(endpoint), headers, _encode(out))


def url(endpoint: Endpoint) -> str:
    """Azure puts a deployment in the path and a version in the query; its `/openai/v1` and all others do not.

    Its `/models` takes a version only.
    https://learn.microsoft.com/azure/ai-foundry/openai/reference
    https://learn.microsoft.com/rest/api/aifoundry/modelinference/
    """
    base = endpoint.base_url.rstrip("/")
    version = endpoint.provider.api_version
    if endpoint.vendor.type == "azure":
        if base.endswith("/models"):
            version = version or "2024-05-01-preview"
        elif not base.endswith("/v1"):
            base = f"{base.removesuffix('/openai')}/openai/deployments/{endpoint.model}"
            version = version or "2024-10-21"
    return f"{base}/chat/completions" + (f"?api-version={version}" if version else "")


def _forget_others(messages: list[dict[str, Any]]) -> None:
    """Take out the signatures of other dialects: no vendor reads them, and some refuse fields they do not know."""
    for message in messages:
        details = message.get("reasoning_details")
        if isinstance(details, list):
            message["reasoning_details"] = [d for d in details if d.get("format") not in _OTHERS]
            if not message["reasoning_details"]:
                del message["reasoning_details"]
        for call in message.get("tool_calls", ()):
            extra = call.get("extra_content")
            if isinstance(extra, dict):
                call["extra_content"] = {name: value for name, value in extra.items() if name not in _OTHERS}
                if not call["extra_content"]:
                    del call["extra_content"]


def _apply_quirks(out: dict[str, Any], vendor: Vendor) -> None:
    if vendor.token_limit:
        limits = [out.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
        limit = next((limit for limit in limits if limit is not None), None)
        if limit is not None:
            out[vendor.token_limit] = limit
    if not vendor.stream_usage:
        out.pop("stream_options", None)
    for name, value in vendor.defaults.items():
        out.setdefault(name, value)
    if vendor.developer_role and not vendor.string_content:
        return
    for message in out["messages"]:
        if message["role"] == "developer" and not vendor.developer_role:
            message["role"] = "system"
        content = message.get("content")
        if vendor.string_content and isinstance(content, list) and all(p.get("type") == "text" for p in content):
            message["content"] = "\n".join(part["text"] for part in content)
