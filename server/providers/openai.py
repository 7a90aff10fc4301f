"""The OpenAI dialect: api.openai.com, Azure and everything that speaks the same JSON.

Requests and answers go through `openai_json`; what stands here is where vendors
stray from it. https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server import openai_json
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from server.openai_json.fields import decode
from server.providers import failures
from server.providers.base import Endpoint, HttpRequest, Vendor
from server.providers.registry import PLAIN
from server.wire.sse import Event, SSEDecoder

_encode = msgspec.json.Encoder().encode

#: Vendors' words for the four of OpenAI's; any other non-empty word is read as `stop`.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "sensitive": "content_filter",  # Z.ai
}
#: Words that say the provider gave up: the answer is not one.
_FAILED = frozenset({"error", "insufficient_system_resource", "abort", "network_error"})
#: Under these words the other dialects have what they signed sent back to them.
_OTHERS = frozenset({"anthropic", "bedrock", "gemini", "google"})


class OpenAITranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST .../chat/completions`."""
        vendor = endpoint.vendor
        if len(request.stop) > vendor.max_stop:
            raise InvalidRequest(f"At most {vendor.max_stop} sequences, got {len(request.stop)}.", "stop")
        try:
            out = openai_json.dump(request)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
        out["model"] = endpoint.model
        for name in ("stream", "lmchat"):  # a typed request may have them among its further fields
            out.pop(name, None)
        if stream:
            out["stream"] = True
        else:
            out.pop("stream_options", None)  # only allowed on streams
        _apply_quirks(out, vendor)
        if vendor != PLAIN["openai"]:  # behind which may be Google's own, or a gateway such as this
            _forget_others(out["messages"])
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **endpoint.provider.headers,
        }
        return HttpRequest(url(endpoint), headers, _encode(out))

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> tuple[pb.ChatCompletion, str]:
        """The answer, and the first choice's own finish reason."""
        obj = _object(body)
        _raise_error(obj)
        choices = obj.get("choices")
        if not isinstance(choices, list) or not choices:
            raise failures.invalid_response(f"no choices: {body[:500]!r}")
        natives = [_normalise(choice, "message", position) for position, choice in enumerate(choices)]
        obj.pop("lmchat", None)  # a gateway's behind this one
        completion = _parse(openai_json.parse_completion, obj)
        for choice in completion.choices:
            if not choice.HasField("message"):
                raise failures.invalid_response(f"a choice without a message: {body[:500]!r}")
            choice.message.role = pb.ROLE_ASSISTANT
            for index, call in enumerate(choice.message.tool_calls):
                call.id = call.id or f"call_{index}"
            if not choice.finish_reason:
                choice.finish_reason = _default_finish(bool(choice.message.tool_calls))
        completion.id = completion_id(completion.id)
        return completion, natives[0]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """`{"error": {...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": ...}`, HTML or nothing."""
        code, message, param = _error_parts(body)
        return failures.classify(
            status, code=code, message=message, param=param, retry_after=failures.retry_after(headers)
        )

    def decoder(self, request: pb.ChatCompletionRequest) -> OpenAIDecoder:
        """A fresh decoder."""
        return OpenAIDecoder(max(1, request.n))


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


def completion_id(provider_id: str) -> str:
    """The provider's id in OpenAI's form, so that both logs can be searched for it; empty stays empty."""
    return provider_id if not provider_id or provider_id.startswith("chatcmpl-") else f"chatcmpl-{provider_id}"


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


def _object(data: bytes) -> dict[str, Any]:
    try:
        obj = decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise failures.invalid_response(f"not JSON: {data[:500]!r}") from None
    if obj.__class__ is not dict:
        raise failures.invalid_response(f"not a JSON object: {data[:500]!r}")
    return obj


def _parse(parse: Any, obj: dict[str, Any]) -> Any:
    """What `parse` makes of a provider's JSON, whose mistakes are not the caller's."""
    try:
        return parse(obj)
    except InvalidRequest as error:
        raise failures.invalid_response(f"{error.param}: {error.message}") from None


# Errors


def _error_parts(body: bytes) -> tuple[str, str, str | None]:
    """Code, message and param, wherever the vendor put them."""
    try:
        obj = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", "", None
    if isinstance(obj, list) and obj:
        obj = obj[0]
    if not isinstance(obj, dict):
        return "", "", None
    return _parts(obj)


def _parts(obj: dict[str, Any]) -> tuple[str, str, str | None]:
    error = obj.get("error") or obj
    if not isinstance(error, dict):  # x.ai, Ollama: a text, with the code beside it
        error = {"code": obj.get("code"), "message": error}
    code = failures.text(error.get("code"))
    inner = error.get("innererror")
    if isinstance(inner, dict):  # Azure's content filter
        code = failures.text(inner.get("code")) or code
    if code not in failures.CODES and failures.text(error.get("type")) in failures.CODES:
        code = failures.text(error.get("type"))
    detail = error.get("detail")
    message = failures.text(error.get("message")) or (detail if isinstance(detail, str) else "")
    if not message and (detail or error.get("message")):
        message = openai_json.encode_text(detail or error["message"])
    return code, message, failures.text(error.get("param")) or None


def _raise_error(obj: dict[str, Any]) -> None:
    """Raise for an error inside a 200. Its code may be an HTTP status (OpenRouter)."""
    error = obj.get("error")
    if not error and obj.get("object") != "error":
        return
    code, message, param = _parts(obj)
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else 200
    reason = None if status != 200 or code.lower() in failures.CODES else Reason.UPSTREAM_ERROR
    raise failures.classify(status, code=code, message=message, param=param, reason=reason)


# What vendors do to choices


def _normalise(choice: Any, key: str, position: int) -> str:
    """Bring one choice's JSON to OpenAI's form, in place; the vendor's own finish reason."""
    if choice.__class__ is not dict:
        raise failures.invalid_response(f"a choice is {type(choice).__name__}")
    if choice.get("index") is None:
        choice["index"] = position
    message = choice.get(key)
    if message.__class__ is dict:
        _normalise_message(message)
    native = str(choice.get("finish_reason") or "")
    if native.lower() in _FAILED:
        _raise_error(choice)
        raise failures.classify(502, message=f"finish_reason {native}")
    choice["finish_reason"] = _FINISH.get(native.lower(), "stop") if native else None
    return native and str(choice.get("native_finish_reason") or native)


def _normalise_message(message: dict[str, Any]) -> None:
    message.pop("role", None)  # whoever answers is the assistant
    content = message.get("content")
    if content.__class__ is list:
        _split_parts(message, content)
    reasoning = message.get("reasoning")  # Ollama, Groq, OpenRouter, vLLM
    if reasoning.__class__ is str and message.get("reasoning_content") is None:
        message["reasoning_content"] = reasoning
    calls = message.get("tool_calls") or []
    if calls.__class__ is not list:
        raise failures.invalid_response("tool_calls is not a list")
    for call in calls:
        if call.__class__ is not dict:
            raise failures.invalid_response("a tool call is not an object")
        function = call.get("function")
        if function.__class__ is dict and function.get("arguments").__class__ in (dict, list):
            function["arguments"] = _parse(openai_json.encode_text, function["arguments"])
    legacy = message.pop("function_call", None)
    if legacy and not calls:
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": legacy}]


def _split_parts(message: dict[str, Any], parts: list[Any]) -> None:
    """Content as a list, from Mistral's reasoning models: thinking apart from text.

    https://docs.mistral.ai/capabilities/reasoning
    """
    text, thinking, other = [], [], []
    for part in parts:
        match part:
            case {"type": "text", "text": str(piece)} | str(piece):
                text.append(piece)
            case {"type": "thinking", "thinking": str(piece)}:
                thinking.append(piece)
            case {"type": "thinking", "thinking": list(pieces)}:
                thinking += [p["text"] for p in pieces if isinstance(p, dict) and isinstance(p.get("text"), str)]
            case _:
                other.append(part)
    message["content"] = "".join(text) if text else None
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if other:
        notes = message.get("annotations")
        message["annotations"] = [*(notes if isinstance(notes, list) else ()), *other]


#: What a chunk that only carries usage has no need of.
_ENVELOPE = frozenset({"id", "created", "system_fingerprint", "service_tier"})


def _default_finish(has_calls: bool) -> pb.FinishReason.ValueType:
    return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP


class _ChoiceState:
    """What a decoder remembers of one choice."""

    __slots__ = ("finished", "ids", "last", "names", "places")

    def __init__(self) -> None:
        self.finished = False
        self.names: list[str] = []  # of the tool calls so far, by index
        self.ids: dict[str, int] = {}  # the provider's id -> index
        self.places: dict[int, int] = {}  # the provider's index -> index
        self.last = 0

    def settle(self, call: dict[str, Any]) -> None:
        """Bring a piece of a tool call to OpenAI's form: an index, and id and name on the call's first piece only.

        A new id is a new call, whatever index it comes with: some vendors give
        every call of a turn the same index, or none. A piece of which neither
        id nor index is known goes on with the last call, unless it gives a name.
        https://github.com/agno-agi/agno/pull/8880
        """
        place, id_ = call.get("index"), failures.text(call.pop("id", None))
        place = place if place.__class__ is int else None
        inner = call.get("function") or call.get("custom")
        name = failures.text(inner.get("name")) if isinstance(inner, dict) else ""
        new = len(self.names)
        if id_:
            index = self.ids.setdefault(id_, new)
        elif place in self.places:
            index = self.places[place]
        else:
            index = new if name or not new else self.last
        if index == new:
            self.names.append("")
            call["id"] = id_ or f"call_{index}"
        if isinstance(inner, dict) and name == self.names[index]:
            inner.pop("name", None)
        elif name:
            self.names[index] = name
        if place is not None:
            self.places[place] = index
        call["index"] = self.last = index


class OpenAIDecoder:
    """See `base.StreamDecoder`. `n` is the number of choices asked for."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._sse = SSEDecoder()
        self._choices: dict[int, _ChoiceState] = {}
        self._done = False
        self._closed = False  # all is given out
        self._id = ""
        self._created = 0
        self._usage: pb.ChatCompletionChunk | None = None
        self._kept: dict[str, Any] = {}
        self.native_finish_reason = ""

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        return self._decode(self._sse.feed(data))

    def close(self) -> list[pb.ChatCompletionChunk]:
        """The last chunks, with usage where the provider gave it."""
        if self._closed:
            return []
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            chunks = self._decode(self._sse.close())
        except ProviderError as error:
            if error.reason is not Reason.UPSTREAM_INVALID_RESPONSE:  # else the torn end of an event
                raise
        return chunks if self._closed else chunks + self._end()

    def _decode(self, events: list[Event]) -> list[pb.ChatCompletionChunk]:
        chunks: list[pb.ChatCompletionChunk] = []
        for event in events:
            if self._done:
                break
            if event.data.strip() == b"[DONE]":
                self._done = True
                chunks += self._end()
            elif event.data:
                try:
                    self._event(event, chunks)
                except ProviderError:
                    if not self._complete():  # else everything was said, and this takes nothing away
                        raise
        return chunks

    def _complete(self) -> bool:
        return len(self._choices) >= self._n and all(state.finished for state in self._choices.values())

    def _event(self, event: Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        obj = _object(event.data)
        _raise_error(obj)
        if event.event == "error":
            _raise_error({"error": obj})
        choices = obj.get("choices")
        if choices:
            if choices.__class__ is not list:
                raise failures.invalid_response("choices is not a list")
            obj["choices"] = [c for position, c in enumerate(choices) if self._choice(c, position)]
        obj.pop("lmchat", None)  # a gateway's behind this one
        usage = obj.pop("usage", None)
        if self._kept:
            obj = {**self._kept, **obj}
            self._kept = {}
        if usage:
            self._usage = _parse(openai_json.parse_chunk, {"usage": usage})
        if not obj.get("choices"):
            # Nothing a caller can show: what it carries goes with the next chunk that has a choice.
            self._kept = {k: v for k, v in obj.items() if v and k not in ("object", "model", "choices")}
            return
        chunks.append(self._stamp(_parse(openai_json.parse_chunk, obj)))

    def _stamp(self, chunk: pb.ChatCompletionChunk) -> pb.ChatCompletionChunk:
        """Give every chunk the first one's id and time."""
        self._id = self._id or completion_id(chunk.id)
        self._created = self._created or chunk.created
        chunk.id = self._id
        chunk.created = self._created
        return chunk

    def _choice(self, choice: Any, position: int) -> bool:
        """Normalise one choice of a chunk; False when nothing is left of it."""
        if choice.__class__ is dict and choice.get("delta").__class__ is not dict:
            message = choice.pop("message", None)  # some send the last chunk as if it were a whole answer
            choice["delta"] = message if message.__class__ is dict else {}
        native = _normalise(choice, "delta", position)
        index, delta = choice["index"], choice["delta"]
        if index.__class__ is not int:
            raise failures.invalid_response("index is not a number")
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState()
            delta["role"] = "assistant"
        for call in delta.get("tool_calls") or ():
            state.settle(call)
        if state.finished:  # some say it twice, or add an empty delta; the finish reason comes once, and last
            choice["finish_reason"] = None
            return any(delta.values())
        if native:
            self.native_finish_reason = self.native_finish_reason or native
            state.finished = True
        return True

    def _end(self) -> list[pb.ChatCompletionChunk]:
        """Settle the account: an end is one only if every choice was finished, or [DONE] was said."""
        if not self._choices:
            raise StreamTruncated if not self._done else failures.invalid_response("[DONE] without a choice")
        if not self._done and not self._complete():
            raise StreamTruncated
        self._closed = True
        chunks: list[pb.ChatCompletionChunk] = []
        for index, state in self._choices.items():
            if state.finished:
                continue
            chunk = self._stamp(pb.ChatCompletionChunk())
            chunk.choices.add(index=index, finish_reason=_default_finish(bool(state.names))).delta.SetInParent()
            chunks.append(chunk)
        if self._usage is not None:
            usage = self._stamp(self._usage)
            extra = {key: value for key, value in self._kept.items() if key not in _ENVELOPE}
            usage.extra_json = openai_json.encode_text(extra) if extra else ""
            chunks.append(usage)
        return chunks
