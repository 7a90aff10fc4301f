"""A client of lmchat over gRPC: a channel with keepalive and retries, streams that fold into a completion, errors.

A model to copy: it depends on the package of `generated/python` and on grpcio-status alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lmchat.v1 import chat_pb2, chat_service_pb2_grpc, model_pb2, model_service_pb2, model_service_pb2_grpc

#: Seconds a call may take unless told otherwise.
TIMEOUT = 600.0
#: Bytes of the largest completion; gRPC's own limit is 4 MiB.
MAX_MESSAGE = 64 << 20

#: UNAVAILABLE means that no content had left: the call may be repeated, also a stream before its first chunk.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "lmchat.v1.ChatCompletions"}, {"service": "lmchat.v1.Models"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass
class ChatError(Exception):
    """A failed call."""

    code: grpc.StatusCode
    message: str
    #: An ErrorReason of the contract, without its prefix; empty where the gateway was not reached.
    reason: str = ""
    #: The invalid field of the request.
    param: str = ""
    #: Seconds after which the call may succeed.
    retry_after: float | None = None
    request_id: str = ""

    def __str__(self) -> str:
        param = f" ({self.param})" if self.param else ""
        request = f" [{self.request_id}]" if self.request_id else ""
        return f"{self.code.name} {self.reason}{param}: {self.message}{request}"

    @classmethod
    def of(cls, call: Any) -> ChatError:
        """From the error of a stub's call, with the details that google.rpc.Status holds."""
        error = cls(call.code(), call.details() or "")
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            error.reason = "TIMEOUT"  # this side's deadline comes without details
        status = rpc_status.from_call(call)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        for detail in status.details if status else ():
            if detail.Unpack(info):
                error.reason = info.reason
                error.param, error.request_id = info.metadata["param"], info.metadata["request_id"]
            elif detail.Unpack(retry):
                error.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        return error


class Client:
    """Calls of one gateway over one channel, which threads may share. Calls raise ChatError."""

    def __init__(self, address: str, key: str) -> None:
        options = [
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ]
        self._channel = grpc.insecure_channel(address, options)
        # On a TLS channel, grpc.access_token_call_credentials(key) does the same for all calls.
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._chat = chat_service_pb2_grpc.ChatCompletionsStub(self._channel)
        self._models = model_service_pb2_grpc.ModelsStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._channel.close()

    def complete(
        self, request: chat_pb2.ChatCompletionRequest, timeout: float = TIMEOUT
    ) -> chat_pb2.ChatCompletion:
        """The whole completion."""
        try:
            return self._chat.CreateChatCompletion(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ChatError.of(error) from None

    def stream(self, request: chat_pb2.ChatCompletionRequest, timeout: float = TIMEOUT) -> Stream:
        """The completion in chunks, as they arrive."""
        return Stream(self._chat.StreamChatCompletion(request, timeout=timeout, metadata=self._metadata))

    def model(self, id_: str, timeout: float = TIMEOUT) -> model_pb2.Model:
        """One model of the catalogue."""
        try:
            request = model_service_pb2.GetModelRequest(model=id_)
            return self._models.GetModel(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ChatError.of(error) from None


class Stream:
    """An iterator over the chunks of one completion; raises ChatError if the stream fails or breaks.

    `completion` has what has arrived so far, and is complete at the end.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self.completion = chat_pb2.ChatCompletion()

    def __iter__(self) -> Iterator[chat_pb2.ChatCompletionChunk]:
        try:
            for chunk in self._call:
                add(self.completion, chunk)
                yield chunk
        except grpc.RpcError as error:
            raise ChatError.of(error) from None
        finally:
            self.cancel()  # no effect at the end, but a loop may be left early

    def cancel(self) -> None:
        """End the call: the gateway closes that of the provider."""
        self._call.cancel()


def fold(chunks: Iterable[chat_pb2.ChatCompletionChunk]) -> chat_pb2.ChatCompletion:
    """The completion that chunks add up to."""
    completion = chat_pb2.ChatCompletion()
    for chunk in chunks:
        add(completion, chunk)
    return completion


def add(completion: chat_pb2.ChatCompletion, chunk: chat_pb2.ChatCompletionChunk) -> None:
    """Add one chunk to a completion. Log probabilities and audio are left out."""
    completion.id, completion.created, completion.model = chunk.id, chunk.created, chunk.model
    if chunk.HasField("usage"):
        completion.usage.CopyFrom(chunk.usage)
    if chunk.HasField("lmchat"):
        completion.lmchat.CopyFrom(chunk.lmchat)
    for piece in chunk.choices:
        while len(completion.choices) <= piece.index:
            completion.choices.add(index=len(completion.choices), message={"role": chat_pb2.ROLE_ASSISTANT})
        choice = completion.choices[piece.index]
        choice.finish_reason = piece.finish_reason or choice.finish_reason
        if piece.HasField("stop_sequence"):
            choice.stop_sequence = piece.stop_sequence
        _add_delta(choice.message, piece.delta)


def _add_delta(message: chat_pb2.Message, delta: chat_pb2.Delta) -> None:
    if delta.content:
        if not message.content:
            message.content.add()
        message.content[0].text += delta.content
    if delta.HasField("refusal"):
        message.refusal += delta.refusal
    if delta.HasField("reasoning_content"):
        message.reasoning_content += delta.reasoning_content
    message.reasoning_details.extend(delta.reasoning_details)
    message.annotations.extend(delta.annotations)
    for piece in delta.tool_calls:
        while len(message.tool_calls) <= piece.index:
            message.tool_calls.add()
        call = message.tool_calls[piece.index]
        call.id += piece.id
        call.extra_json = piece.extra_json or call.extra_json
        if piece.HasField("function"):
            call.function.name += piece.function.name
            call.function.arguments += piece.function.arguments
        elif piece.HasField("custom"):
            call.custom.name += piece.custom.name
            call.custom.input += piece.custom.input
