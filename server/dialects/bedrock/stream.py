"""Streamed answers of ConverseStream, sans-I/O: event-stream frames in, chunks out.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.dialects import errors as failures
from server.dialects.bedrock import response as given
from server.dialects.bedrock.replay import extra_content
from server.errors import ProviderError, StreamTruncated
from server.wire.eventstream import CorruptStream, EventStreamDecoder, Frame


class _Open:
    """A content block under way. `start` is where the message's text stood when it began."""

    __slots__ = ("call", "citations", "has_input", "reasoning", "redacted", "signature", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.call = -1
        self.has_input = False
        self.reasoning = ""
        self.signature = ""
        self.redacted = b""
        self.citations: list[dict[str, Any]] = []


class BedrockDecoder:
    """See `base.StreamDecoder`. `names` are the tool names that were changed, and what they were.

    After messageStop the answer is whole; metadata, which has the usage, comes
    last, and without it the answer is good all the same.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._frames = EventStreamDecoder()
        self._open: dict[int, _Open] = {}
        self._started = False
        self._calls = 0
        self._length = 0  # of the text, in characters
        self._details: list[pb.ReasoningDetail] = []
        self.native_finish_reason = ""

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            for frame in self._frames.feed(data):
                self._frame(frame, chunks)
        except CorruptStream as error:
            if not self.native_finish_reason:
                corrupt = failures.invalid_response(str(error))
                corrupt.decoded = chunks
                raise corrupt from None
        except ProviderError as error:
            if not self.native_finish_reason:  # else all was said, and this takes nothing away
                error.decoded = chunks
                raise
        return chunks

    def close(self) -> list[pb.ChatCompletionChunk]:
        """Nothing more; raises StreamTruncated where there was no messageStop."""
        if not self.native_finish_reason:
            raise StreamTruncated
        return []

    def _frame(self, frame: Frame, chunks: list[pb.ChatCompletionChunk]) -> None:
        headers = frame.headers
        kind = headers.get(":message-type")
        if kind == "exception":
            _, message = given.error_parts({}, frame.payload)
            raise given.failure(200, str(headers.get(":exception-type", "")), message)
        if kind == "error":
            raise given.failure(200, str(headers.get(":error-code", "")), str(headers.get(":error-message", "")))
        found = _EVENTS.get(str(headers.get(":event-type")))
        if found is None:  # initial-response, and what is yet to be invented
            return
        read, apply = found
        apply(self, read(frame.payload), chunks)

    def _add(self, chunks: list[pb.ChatCompletionChunk]) -> pb.ChunkChoice:
        """A further chunk's choice; the first has the role."""
        chunk = pb.ChatCompletionChunk()
        chunks.append(chunk)
        choice = chunk.choices.add()
        choice.delta.SetInParent()
        if not self._started:
            self._started = True
            choice.delta.role = pb.ROLE_ASSISTANT
        return choice

    def _block(self, index: int) -> _Open:
        """The block under way; one of text may not have been announced."""
        block = self._open.get(index)
        if block is None:
            block = self._open[index] = _Open(self._length)
        return block

    def _message_start(self, event: msgspec.Raw, chunks: list[pb.ChatCompletionChunk]) -> None:
        if not self._started:
            self._add(chunks)

    def _block_start(self, event: given.BlockStart, chunks: list[pb.ChatCompletionChunk]) -> None:
        block = self._block(event.content_block_index)
        use = event.start.tool_use
        if use is None or not use.is_callers:
            return
        block.call = self._calls
        self._calls += 1
        delta = self._add(chunks).delta.tool_calls.add(index=block.call)
        delta.id = use.tool_use_id or f"call_{block.call}"
        delta.function.name = self._names.get(use.name, use.name)
        if block.call == 0:
            delta.extra_json = extra_content(self._details)

    def _block_delta(self, event: given.BlockDelta, chunks: list[pb.ChatCompletionChunk]) -> None:
        block = self._block(event.content_block_index)
        delta = event.delta
        if delta.text:
            self._length += len(delta.text)
            self._add(chunks).delta.content = delta.text
        elif delta.tool_use is not None:
            if block.call >= 0 and delta.tool_use.input:
                block.has_input = True
                call = self._add(chunks).delta.tool_calls.add(index=block.call)
                call.function.arguments = delta.tool_use.input
        elif delta.reasoning_content is not None:
            reasoning = delta.reasoning_content
            block.signature += reasoning.signature or ""
            block.redacted += given.from_base64(reasoning.redacted_content or "")
            if reasoning.text:
                block.reasoning += reasoning.text
                self._add(chunks).delta.reasoning_content = reasoning.text
        elif delta.citation is not None:
            block.citations.append(delta.citation)

    def _block_stop(self, event: given.BlockStop, chunks: list[pb.ChatCompletionChunk]) -> None:
        self._settle(event.content_block_index, chunks)

    def _settle(self, index: int, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Say what is only known at a block's end."""
        block = self._open.pop(index, None)
        if block is None:
            return
        if block.call >= 0 and not block.has_input:  # a call without arguments
            self._add(chunks).delta.tool_calls.add(index=block.call).function.arguments = "{}"
        details = given.details(block.reasoning, block.signature, block.redacted)
        if details:
            self._details += details
            self._add(chunks).delta.reasoning_details.extend(details)
        if block.citations:
            annotations = [given.annotation(citation, block.start, self._length) for citation in block.citations]
            self._add(chunks).delta.annotations.extend(annotations)

    def _message_stop(self, event: given.MessageStop, chunks: list[pb.ChatCompletionChunk]) -> None:
        for index in list(self._open):
            self._settle(index, chunks)
        if self.native_finish_reason:
            return
        finish = given.finish_reason(event.stop_reason, self._calls > 0)
        self.native_finish_reason = event.stop_reason
        self._add(chunks).finish_reason = finish
        chunks[-1].extra_json = given.kept(event)

    def _metadata(self, event: given.Metadata, chunks: list[pb.ChatCompletionChunk]) -> None:
        if event.usage is None:
            return
        chunk = pb.ChatCompletionChunk(extra_json=given.kept(event))
        given.count(chunk.usage, event.usage)
        if event.service_tier is not None:
            chunk.service_tier = event.service_tier.type
        chunks.append(chunk)


_Apply = Callable[[BedrockDecoder, Any, list[pb.ChatCompletionChunk]], None]


def _event(type_: Any, apply: _Apply) -> tuple[Callable[[bytes], Any], _Apply]:
    return given.shaped(type_), apply


_EVENTS = {
    "messageStart": _event(msgspec.Raw, BedrockDecoder._message_start),
    "contentBlockStart": _event(given.BlockStart, BedrockDecoder._block_start),
    "contentBlockDelta": _event(given.BlockDelta, BedrockDecoder._block_delta),
    "contentBlockStop": _event(given.BlockStop, BedrockDecoder._block_stop),
    "messageStop": _event(given.MessageStop, BedrockDecoder._message_stop),
    "metadata": _event(given.Metadata, BedrockDecoder._metadata),
}
