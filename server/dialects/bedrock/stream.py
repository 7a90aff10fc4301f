"""Streamed answers of ConverseStream, sans-I/O: event-stream frames in, chunks out.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.dialects import errors as failures
from server.dialects import usage
from server.dialects.bedrock import response, shapes
from server.dialects.bedrock.other_block import OtherBlock
from server.dialects.bedrock.replay import extra_content
from server.dialects.decoding import ChunkDecoder
from server.wire.eventstream import CorruptStream, EventStreamDecoder, Frame

#: Characters counted against MAX_HELD for an open block or a citation, besides its text.
_BLOCK_SIZE = 256

Chunks = list[pb.ChatCompletionChunk]


class _OpenBlock:
    """A content block whose end has not come; `call` is the index of its tool call, -1 if it is none.

    `start` is where its text begins in the answer's, in characters; `other` the block, if the contract does not
    have its kind.
    """

    __slots__ = ("call", "citations", "has_input", "other", "reasoning", "redacted", "signature", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.call = -1
        self.has_input = False
        self.reasoning: list[str] = []
        self.signature: list[str] = []
        self.redacted: list[bytes] = []
        self.citations: list[dict[str, Any]] = []
        self.other: OtherBlock | None = None


class BedrockDecoder(ChunkDecoder[Frame]):
    """See `base.StreamDecoder`. `names` maps tool names that were changed for Bedrock to the caller's.

    The end mark is messageStop with metadata, which has the usage, before or after it.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names
        self._frames = EventStreamDecoder()
        self._open: dict[int, _OpenBlock] = {}
        self._calls = 0
        self._length = 0  # of the text so far, in characters
        self._details: list[pb.ReasoningDetail] = []
        self._other: list[dict[str, Any]] = []

    def _split(self, data: bytes) -> Iterator[Frame]:
        try:
            yield from self._frames.feed(data)
        except CorruptStream as error:
            raise failures.invalid_response(str(error)) from None

    def _rest(self) -> Iterable[Frame]:
        return ()

    def _decode(self, event: Frame, chunks: Chunks) -> None:
        headers = event.headers
        kind = headers.get(":message-type")
        if kind == "exception":
            _, message = response.error_parts({}, event.payload)
            raise response.failure(200, str(headers.get(":exception-type", "")), message)
        if kind == "error":
            code, message = str(headers.get(":error-code", "")), str(headers.get(":error-message", ""))
            raise response.failure(200, code, message)
        found = _EVENTS.get(str(headers.get(":event-type")))
        if found is not None:  # else initial-response, and types that are yet to come
            read, handle = found
            handle(self, read(event.payload), chunks)

    def _block(self, index: int) -> _OpenBlock:
        """The open block with this index; one of text may not have been announced."""
        block = self._open.get(index)
        if block is None:
            self._builder.hold(_BLOCK_SIZE)
            block = self._open[index] = _OpenBlock(self._length)
        return block

    def _message_start(self, event: msgspec.Raw, chunks: Chunks) -> None:
        self._builder.add_delta(pb.Delta(), chunks)

    def _block_start(self, event: shapes.BlockStart, chunks: Chunks) -> None:
        block = self._block(event.content_block_index)
        use = event.start.tool_use
        if use is None or not use.is_client_side:
            block.other = OtherBlock.of(event.start)
            return
        block.call = self._calls
        self._calls += 1
        delta = pb.Delta()
        call = delta.tool_calls.add(index=block.call, id=use.tool_use_id or f"call_{block.call}")
        call.function.name = self._names.get(use.name, use.name)
        if block.call == 0:
            call.extra_json = extra_content(self._details)
        self._builder.add_delta(delta, chunks)

    def _block_delta(self, event: shapes.BlockDelta, chunks: Chunks) -> None:
        block = self._block(event.content_block_index)
        piece = event.delta
        if block.other is not None:
            self._builder.hold(block.other.add(piece))
        elif piece.text:
            self._length += len(piece.text)
            self._builder.add_delta(pb.Delta(content=piece.text), chunks)
        elif piece.tool_use is not None:
            if block.call >= 0 and piece.tool_use.input:
                block.has_input = True
                self._add_arguments(block.call, piece.tool_use.input, chunks)
        elif piece.reasoning_content is not None:
            self._append_reasoning(block, piece.reasoning_content, chunks)
        elif piece.citation is not None:
            self._builder.hold(_BLOCK_SIZE)
            block.citations.append(piece.citation)

    def _append_reasoning(self, block: _OpenBlock, piece: shapes.ReasoningDelta, chunks: Chunks) -> None:
        parts = (piece.text or "", piece.signature or "", piece.redacted_content or "")
        self._builder.hold(sum(map(len, parts)))
        block.signature.append(parts[1])
        block.redacted.append(response.from_base64(parts[2]))
        if piece.text:
            block.reasoning.append(piece.text)
            self._builder.add_delta(pb.Delta(reasoning_content=piece.text), chunks)

    def _add_arguments(self, call: int, arguments: str, chunks: Chunks) -> None:
        delta = pb.Delta()
        delta.tool_calls.add(index=call).function.arguments = arguments
        self._builder.add_delta(delta, chunks)

    def _block_stop(self, event: shapes.BlockStop, chunks: Chunks) -> None:
        self._stop(event.content_block_index, chunks)

    def _stop(self, index: int, chunks: Chunks) -> None:
        """End a block: add what is known of it only then."""
        block = self._open.pop(index, None)
        if block is None:
            return
        if block.call >= 0 and not block.has_input:  # a call without arguments
            self._add_arguments(block.call, "{}", chunks)
        details = response.details("".join(block.reasoning), "".join(block.signature), b"".join(block.redacted))
        if details:
            self._details += details
            self._builder.add_delta(pb.Delta(reasoning_details=details), chunks)
        if block.other is not None:
            self._other.append(block.other.whole())
        if block.citations:
            citations = [response.annotation(citation, block.start, self._length) for citation in block.citations]
            self._builder.add_delta(pb.Delta(annotations=citations), chunks)

    def _message_stop(self, event: shapes.MessageStop, chunks: Chunks) -> None:
        for index in list(self._open):
            self._stop(index, chunks)
        finish = response.finish_reason(event.stop_reason, self._calls > 0)
        choice = pb.ChunkChoice(finish_reason=finish, extra_json=response.other_blocks(self._other))
        response.fill_stop_sequence(choice, event.additional_model_response_fields)
        self._builder.finish(choice, event.stop_reason, extra_json=response.extra_fields(event))
        self._end_if_complete(chunks)

    def _metadata(self, event: shapes.Metadata, chunks: Chunks) -> None:
        self._builder.identify("", model=response.invoked_model(event.trace))
        self._builder.usage.extra_json = response.extra_fields(event)
        if event.usage is None:
            return
        response.fill_usage(self._builder.usage.usage, event.usage)
        if event.service_tier is not None:
            self._builder.service_tier = usage.service_tier(event.service_tier.type)
        self._end_if_complete(chunks)

    def _end_if_complete(self, chunks: Chunks) -> None:
        if self.native_finish_reason and self._builder.usage.HasField("usage"):
            self._end(chunks, marked=True)


_Handler = Callable[[BedrockDecoder, Any, Chunks], None]


def _event(shape: Any, handler: _Handler) -> tuple[Callable[[bytes], Any], _Handler]:
    return response.decoder(shape), handler


_EVENTS = {
    "messageStart": _event(msgspec.Raw, BedrockDecoder._message_start),
    "contentBlockStart": _event(shapes.BlockStart, BedrockDecoder._block_start),
    "contentBlockDelta": _event(shapes.BlockDelta, BedrockDecoder._block_delta),
    "contentBlockStop": _event(shapes.BlockStop, BedrockDecoder._block_stop),
    "messageStop": _event(shapes.MessageStop, BedrockDecoder._message_stop),
    "metadata": _event(shapes.Metadata, BedrockDecoder._metadata),
}
