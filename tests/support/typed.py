"""Translators, callers and the router for tests that write requests and read answers as protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat.request import ProtoRequest
from server.dialects.base import Endpoint, HttpRequest, StreamDecoder, Translator
from server.errors import ProviderError
from server.upstream.ports import Caller, Stream


class Answer(NamedTuple):
    """A completion's message, and the provider's own finish reason."""

    completion: pb.ChatCompletion
    native_finish_reason: str


class TypedTranslator:
    """A `base.Translator` by its messages."""

    def __init__(self, translator: Translator) -> None:
        self.translator = translator

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        return self.translator.request(ProtoRequest(request), endpoint, stream=stream)

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> Answer:
        completion = self.translator.completion(body, ProtoRequest(request))
        return Answer(completion.to_proto(), completion.native_finish_reason)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self.translator.error(status, headers, body)

    def decoder(self, request: pb.ChatCompletionRequest) -> StreamDecoder:
        return self.translator.decoder(ProtoRequest(request))


class TypedCaller:
    """A `ports.Caller` by its messages."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    async def complete(self, endpoint: Endpoint, request: pb.ChatCompletionRequest, limit: float) -> Answer:
        completion = await self.caller.complete(endpoint, ProtoRequest(request), limit)
        return Answer(completion.to_proto(), completion.native_finish_reason)

    def stream(self, endpoint: Endpoint, request: pb.ChatCompletionRequest) -> Stream:
        return self.caller.stream(endpoint, ProtoRequest(request))
