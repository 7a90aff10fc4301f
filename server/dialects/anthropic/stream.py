"""Streamed answers in Anthropic's Messages dialect, sans-I/O.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import encode_text
from server.dialects import errors as failures
from server.dialects.anthropic import response
from server.dialects.base import completion_id
from server.errors import ProviderError, Reason, StreamTruncated
from server.wire.sse import Event, SSEDecoder


class _OpenBlock:
    """A content block whose end has not come; `start` is where its text begins in the answer's."""

    __slots__ = ("block", "call", "citations", "pieces", "start")

    def __init__(self, block: dict[str, Any], start: int, call: int) -> None:
        self.block = block
        self.start = start
        self.call = call
        self.pieces: list[str] = []
        self.citations: list[Any] = list(block.get("citations") or ())


class AnthropicDecoder:
    """See `base.StreamDecoder`.

    The end is `message_stop`; a stream that breaks off before it has said all
    once `stop_reason` has come.
    """

    def __init__(self) -> None:
        self._sse = SSEDecoder()
        self._open: dict[int, _OpenBlock] = {}
        self._signed: list[dict[str, Any]] = []
        self._usage: dict[str, Any] = {}
        self._id = ""
        self._length = 0  # of the text so far
        self._calls = 0
        self._spoken = False
        self._done = False
        self.native_finish_reason = ""

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        return self._decode(self._sse.feed(data))

    def close(self) -> list[pb.ChatCompletionChunk]:
        """The last chunk, with the usage, if `message_stop` did not come."""
        if self._done:
            return []
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            chunks = self._decode(self._sse.close())
        except ProviderError as error:
            if error.reason is not Reason.UPSTREAM_INVALID_RESPONSE:  # else the torn end of an event
                raise
        if not self.native_finish_reason:
            raise StreamTruncated
        return chunks if self._done else chunks + self._end()

    def _decode(self, events: list[Event]) -> list[pb.ChatCompletionChunk]:
        chunks: list[pb.ChatCompletionChunk] = []
        for event in events:
            if self._done:
                break
            try:
                chunks += self._event(event) if event.data else []
            except ProviderError as error:
                error.decoded = chunks
                raise
        return chunks

    def _event(self, event: Event) -> list[pb.ChatCompletionChunk]:
        obj = response.read(event.data)
        handle = _EVENTS.get(obj.get("type") or event.event)
        if handle is None:  # `ping`, and what Anthropic may add
            return []
        try:
            return handle(self, obj)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise failures.invalid_response(f"not a stream event: {event.data[:500]!r}") from None

    def _message_start(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        message = obj["message"]
        self._id = completion_id(message.get("id") or "")
        self._count(message.get("usage"))
        return [self._chunk(pb.Delta())]

    def _block_start(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        block = obj["content_block"]
        opened = self._open[obj["index"]] = _OpenBlock(block, self._length, self._calls)
        if block["type"] == "tool_use":
            carried = "" if self._calls else response.carried(self._signed)
            self._calls += 1
            delta = pb.Delta()
            call = delta.tool_calls.add(index=opened.call, id=block["id"], extra_json=carried)
            call.function.name = block["name"]
            return [self._chunk(delta)]
        return self._append(opened, block)

    def _block_delta(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        return self._append(self._open[obj["index"]], obj["delta"])

    def _append(self, opened: _OpenBlock, piece: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        """What one piece adds to a block; the block's start may hold some already."""
        delta = pb.Delta()
        match opened.block["type"]:
            case "text":
                if "citation" in piece:
                    opened.citations.append(piece["citation"])
                delta.content = piece.get("text") or ""
                self._length += len(delta.content)
            case "thinking":
                delta.reasoning_content = piece.get("thinking") or ""
                opened.pieces.append(delta.reasoning_content)
                if piece.get("signature"):
                    opened.block["signature"] = piece["signature"]
            case "tool_use":
                arguments = piece.get("partial_json") or ""
                opened.pieces.append(arguments)
                if arguments:
                    delta.tool_calls.add(index=opened.call).function.arguments = arguments
        said = delta.content or delta.reasoning_content or delta.tool_calls
        return [self._chunk(delta)] if said else []

    def _block_stop(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        opened = self._open.pop(obj["index"], None)
        return self._complete(opened) if opened else []

    def _complete(self, opened: _OpenBlock) -> list[pb.ChatCompletionChunk]:
        """What is known of a block only at its end."""
        delta = pb.Delta()
        block = opened.block
        match block["type"]:
            case "text":
                delta.annotations.extend(response.cited(opened.citations, opened.start, self._length))
            case "thinking" | "redacted_thinking":
                signed = response.signed({**block, "thinking": "".join(opened.pieces)})
                self._signed += signed
                delta.reasoning_details.extend(map(response.detail, signed))
            case "tool_use" if not any(opened.pieces):  # a call without arguments streams none
                arguments = encode_text(block.get("input") or {})
                delta.tool_calls.add(index=opened.call).function.arguments = arguments
        return [self._chunk(delta)] if delta.ByteSize() else []

    def _message_delta(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        self._count(obj.get("usage"))
        native = obj["delta"].get("stop_reason")
        if not native or self.native_finish_reason:
            return []
        chunks = [chunk for opened in self._open.values() for chunk in self._complete(opened)]
        self._open.clear()
        self.native_finish_reason = native
        delta = pb.Delta()
        refusal = response.refusal(obj["delta"])
        if refusal:
            delta.refusal = refusal
        last = self._chunk(delta)
        last.choices[0].finish_reason = response.finish_reason(native, self._calls > 0)
        return [*chunks, last]

    def _message_stop(self, obj: dict[str, Any]) -> list[pb.ChatCompletionChunk]:
        if not self.native_finish_reason:
            raise failures.invalid_response("message_stop without a stop_reason")
        return self._end()

    def _count(self, usage: Any) -> None:
        """Counts are cumulative, and `message_delta` may revise those of `message_start`."""
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _end(self) -> list[pb.ChatCompletionChunk]:
        self._done = True
        if not self._usage:
            return []
        chunk = self._stamp(pb.ChatCompletionChunk())
        chunk.usage.CopyFrom(response.usage(self._usage))
        return [chunk]

    def _chunk(self, delta: pb.Delta) -> pb.ChatCompletionChunk:
        """A chunk of the only choice; the first says who speaks."""
        if not self._spoken:
            self._spoken = True
            delta.role = pb.ROLE_ASSISTANT
        chunk = self._stamp(pb.ChatCompletionChunk())
        chunk.choices.add(delta=delta)
        return chunk

    def _stamp(self, chunk: pb.ChatCompletionChunk) -> pb.ChatCompletionChunk:
        chunk.id = self._id
        if self._usage.get("service_tier"):
            chunk.service_tier = self._usage["service_tier"]
        return chunk


_EVENTS: Mapping[str, Callable[[AnthropicDecoder, dict[str, Any]], list[pb.ChatCompletionChunk]]] = {
    "message_start": AnthropicDecoder._message_start,
    "content_block_start": AnthropicDecoder._block_start,
    "content_block_delta": AnthropicDecoder._block_delta,
    "content_block_stop": AnthropicDecoder._block_stop,
    "message_delta": AnthropicDecoder._message_delta,
    "message_stop": AnthropicDecoder._message_stop,
}
