"""The OpenAI dialect: api.openai.com, Azure and everything that speaks the same JSON.

Requests and answers go through `openai_json`; here is what vendors do differently. Where
the dialect is served is in platform.py. https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.chat.completion import Completion, JsonCompletion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest, Vendor, platform_of
from server.dialects.openai import response
from server.dialects.openai.platform import DEFAULT_PLATFORM
from server.dialects.openai.stream import OpenAIDecoder
from server.errors import InvalidRequest, ProviderError

_encode = msgspec.json.Encoder().encode


class OpenAITranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../chat/completions`."""
        out = request.to_openai()
        if request.extended and endpoint.foreign_formats:
            _drop_signatures(out["messages"], endpoint.foreign_formats)
        return _post(out, endpoint, stream=stream)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, as the provider wrote it where nothing in it needs translation."""
        return JsonCompletion.read(body) or ProtoCompletion(*response.completion(body))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": ...}`, HTML or nothing."""
        code, message, param = response.error_parts(body)
        return failures.classify(
            status, code=code, message=message, param=param, retry_after=failures.retry_after(headers)
        )

    def decoder(self, request: ChatRequest) -> OpenAIDecoder:
        """A fresh decoder."""
        return OpenAIDecoder(request.choices)


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
    platform = platform_of(endpoint, DEFAULT_PLATFORM)
    headers = {
        "content-type": "application/json",
        "accept": accept,
        **platform.headers,
        **endpoint.provider.headers,
    }
    return HttpRequest(platform.url(endpoint, stream=stream), headers, _encode(out))


def _drop_signatures(messages: list[dict[str, Any]], formats: frozenset[str]) -> None:
    """Remove the signatures of other dialects: no vendor reads them, and some refuse fields they do not know."""
    for message in messages:
        details = message.get("reasoning_details")
        if isinstance(details, list):
            message["reasoning_details"] = [d for d in details if d.get("format") not in formats]
            if not message["reasoning_details"]:
                del message["reasoning_details"]
        for call in message.get("tool_calls", ()):
            extra = call.get("extra_content")
            if isinstance(extra, dict):
                call["extra_content"] = {name: value for name, value in extra.items() if name not in formats}
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
