"""The caller's names of tools in an answer, where the provider got other names: see `HttpRequest.tool_names`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.dialects.base import StreamDecoder
from server.errors import ProviderError


def restored(completion: Completion, names: Mapping[str, str]) -> Completion:
    """`completion` with the caller's names."""
    message = completion.to_proto()
    for choice in message.choices:
        _restore(choice.message.tool_calls, names)
    return ProtoCompletion(message, completion.native_finish_reason)


def _restore(calls: Iterable[pb.ToolCall | pb.ToolCallDelta], names: Mapping[str, str]) -> None:
    for call in calls:
        called = call.custom if call.HasField("custom") else call.function
        if called.name in names:
            called.name = names[called.name]


class RestoringDecoder:
    """`decoder` with the caller's names; see base.StreamDecoder."""

    __slots__ = ("_decoder", "_names")

    def __init__(self, decoder: StreamDecoder, names: Mapping[str, str]) -> None:
        self._decoder = decoder
        self._names = names

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes. Raises ProviderError, whose `decoded` has the chunks before it."""
        try:
            return self._restored(self._decoder.feed(data))
        except ProviderError as error:
            self._restored(error.decoded)
            raise

    def close(self) -> list[pb.ChatCompletionChunk]:
        """Say that the bytes ended. Raises StreamTruncated if the stream was incomplete."""
        return self._restored(self._decoder.close())

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word for why it ended; empty until then."""
        return self._decoder.native_finish_reason

    @property
    def finished(self) -> bool:
        """Every choice has its finish reason."""
        return self._decoder.finished

    def _restored(self, chunks: list[pb.ChatCompletionChunk]) -> list[pb.ChatCompletionChunk]:
        for chunk in chunks:
            for choice in chunk.choices:
                _restore(choice.delta.tool_calls, self._names)
        return chunks
