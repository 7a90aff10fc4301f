"""Streamed answers in Anthropic's Messages dialect, sans-I/O: server-sent events in, chunks out.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.chat.openai_json.fields import decode
from server.dialects import errors as failures
from server.dialects import usage
from server.dialects.anthropic import response
from server.dialects.decoding import ChunkDecoder
from server.dialects.reading import UNREADABLE, unreadable
from server.wire.sse import Event, SSEDecoder

#: Characters counted against MAX_HELD for an open block or a citation, besides its text.
_BLOCK_SIZE = 256
#: Of a `message_delta`, as a rule: `type`, `delta` and `usage`.
_EVENT_FIELDS = 3

Chunks = list[pb.ChatCompletionChunk]


class _OpenBlock:
    """A content block whose end has not come.

    `start` is where its text begins in the answer's, in characters; `call` the index of its tool call; `pieces`
    what is kept of its text, reasoning or input; `texts` the pieces of other fields, of blocks of unknown types.
    """

    __slots__ = ("block", "call", "citations", "pieces", "start", "texts")

    def __init__(self, block: dict[str, Any], start: int, call: int) -> None:
        self.block = block
        self.start = start
        self.call = call
        self.pieces: list[str] = []
        self.citations: list[Any] = list(block.get("citations") or ())
        self.texts: dict[str, list[str]] = {}

    def whole(self) -> dict[str, Any]:
        """The block as a whole answer has it."""
        text = "".join(self.pieces)
        match self.block["type"]:
            case "text":
                return {**self.block, "text": text, **({"citations": self.citations} if self.citations else {})}
            case "thinking":
                return {**self.block, "thinking": text}
        block = {**self.block, "input": decode(text)} if text else self.block
        if self.texts:
            block = {**block, **{name: "".join(pieces) for name, pieces in self.texts.items()}}
        return block


class AnthropicDecoder(ChunkDecoder[Event]):
    """See `base.StreamDecoder`. The end mark is `message_stop`.

    `names` maps tool names that were changed for Anthropic to the caller's.
    """

    def __init__(self, names: Mapping[str, str] = {}) -> None:
        super().__init__()
        self._names = names
        #: All that ended, as they are needed where tools ran at Anthropic.
        self._blocks: list[dict[str, Any]] = []
        self._container: Any = None
        #: Fields of the message that the contract does not have.
        self._further: dict[str, Any] = {}
        self._sse = SSEDecoder()
        self._message_id: str | None = None
        self._open: dict[int, _OpenBlock] = {}
        self._signed: list[dict[str, Any]] = []
        self._counts: dict[str, Any] = {}
        self._length = 0  # of the text so far, in characters
        self._calls = 0

    def _split(self, data: bytes) -> list[Event]:
        return self._sse.feed(data)

    def _rest(self) -> list[Event]:
        return self._sse.close()

    def _decode(self, event: Event, chunks: Chunks) -> None:
        if not event.data:
            return
        obj = response.read(event.data)
        handle = _EVENTS.get(obj.get("type") or event.event)
        if handle is None:  # `ping`, and types that are yet to come
            return
        try:
            handle(self, obj, chunks)
        except UNREADABLE as error:
            raise unreadable(error, event.data) from None

    def _message_start(self, obj: dict[str, Any], chunks: Chunks) -> None:
        """Begin the answer.

        Some gateways repeat the event. One of another message begins a second answer, spliced in after a lost
        connection: a failure. https://github.com/vercel/ai/issues/18331
        """
        message = obj["message"]
        id_ = failures.text(message.get("id"))
        repeated = self._message_id is not None
        if repeated and id_ != self._message_id:
            raise failures.invalid_response(f"a second message begins: {id_}")
        self._message_id = id_
        self._count(message.get("usage"))
        if repeated:
            return
        self._builder.identify(id_, model=failures.text(message.get("model")))
        self._builder.add_delta(pb.Delta(), chunks)
        # A message that continues with calls from code that ran at Anthropic is complete in its start event.
        # https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling
        for index, block in enumerate(message.get("content") or ()):
            self._start(index, block, chunks)
            self._stop(index, chunks)
        self._finish(message, chunks)

    def _block_start(self, obj: dict[str, Any], chunks: Chunks) -> None:
        self._start(obj["index"], obj["content_block"], chunks)

    def _start(self, index: int, block: dict[str, Any], chunks: Chunks) -> None:
        opened = self._open[index] = _OpenBlock(block, self._length, self._calls)
        self._builder.hold(_BLOCK_SIZE)
        if block["type"] == "tool_use":
            extra_json = response.call_extra(block, () if self._calls else self._signed)
            self._calls += 1
            delta = pb.Delta()
            call = delta.tool_calls.add(index=opened.call, id=block["id"], extra_json=extra_json)
            call.function.name = self._names.get(block["name"], block["name"])
            self._builder.add_delta(delta, chunks)
        else:
            self._append(opened, block, chunks)

    def _block_delta(self, obj: dict[str, Any], chunks: Chunks) -> None:
        self._append(self._open[obj["index"]], obj["delta"], chunks)

    def _append(self, opened: _OpenBlock, piece: dict[str, Any], chunks: Chunks) -> None:
        """Add a piece to a block; the block's start may hold the first."""
        delta = pb.Delta()
        match opened.block["type"]:
            case "text":
                if "citation" in piece:
                    self._builder.hold(_BLOCK_SIZE)
                    opened.citations.append(piece["citation"])
                delta.content = piece.get("text") or ""
                self._length += len(delta.content)
                self._keep(opened, delta.content)
            case "thinking":
                delta.reasoning_content = piece.get("thinking") or ""
                self._keep(opened, delta.reasoning_content)
                if piece.get("signature"):
                    opened.block["signature"] = piece["signature"]
            case "tool_use":
                arguments = piece.get("partial_json") or ""
                if arguments:
                    delta.tool_calls.add(index=opened.call).function.arguments = arguments
                    self._keep(opened, arguments)
            case _:
                self._keep(opened, piece.get("partial_json") or "")
                if piece is not opened.block:
                    self._keep_texts(opened, piece)
        if delta.content or delta.reasoning_content or delta.tool_calls:
            self._builder.add_delta(delta, chunks)

    def _keep(self, opened: _OpenBlock, text: str) -> None:
        self._builder.hold(len(text))
        opened.pieces.append(text)

    def _keep_texts(self, opened: _OpenBlock, piece: dict[str, Any]) -> None:
        """Keep what a delta adds to a block of a type that is passed on whole, such as `compaction`."""
        for name, text in piece.items():
            if name not in ("type", "partial_json") and isinstance(text, str):
                self._builder.hold(len(text))
                opened.texts.setdefault(name, [opened.block.get(name) or ""]).append(text)

    def _block_stop(self, obj: dict[str, Any], chunks: Chunks) -> None:
        self._stop(obj["index"], chunks)

    def _stop(self, index: int, chunks: Chunks) -> None:
        """End a block: add what is known of it only then."""
        opened = self._open.pop(index, None)
        if opened is None:
            return
        self._blocks.append(opened.whole())
        delta = pb.Delta()
        block = opened.block
        match block["type"]:
            case "text":
                delta.annotations.extend(response.cited(opened.citations, opened.start, self._length))
            case "thinking" | "redacted_thinking":
                signed = response.signed({**block, "thinking": "".join(opened.pieces)})
                self._signed += signed
                delta.reasoning_details.extend(map(response.detail, signed))
            case "tool_use" if not opened.pieces:  # a call whose input was in its start, or that has none
                arguments = encode_text(block.get("input") or {})
                delta.tool_calls.add(index=opened.call).function.arguments = arguments
        if delta.ByteSize():
            self._builder.add_delta(delta, chunks)

    def _message_delta(self, obj: dict[str, Any], chunks: Chunks) -> None:
        self._count(obj.get("usage"))
        beside = response.further(obj, ("type", "delta", "usage")) if len(obj) > _EVENT_FIELDS else {}
        self._finish(beside | obj["delta"], chunks)

    def _finish(self, fields: dict[str, Any], chunks: Chunks) -> None:
        """Read fields of the message, and end the answer if there is a `stop_reason`."""
        self._container = fields.get("container") or self._container
        rest = response.further(fields, response.MESSAGE)
        if rest:
            self._builder.hold(len(encode_text(rest)))
            self._further |= rest
        native = failures.text(fields.get("stop_reason"))
        if not native:
            return
        for index in list(self._open):
            self._stop(index, chunks)
        extra_json = response.server_side(self._blocks, self._container)
        if extra_json:
            self._builder.add_delta(pb.Delta(extra_json=extra_json), chunks)
        explanation = response.refusal(fields)
        if explanation:
            self._builder.add_delta(pb.Delta(refusal=explanation), chunks)
        choice = pb.ChunkChoice(finish_reason=response.finish_reason(native, self._calls > 0))
        response.fill_end(choice, fields.get("stop_sequence"), self._further)
        self._builder.finish(choice, native)

    def _message_stop(self, obj: dict[str, Any], chunks: Chunks) -> None:
        if not self.native_finish_reason:
            raise failures.invalid_response("message_stop without a stop_reason")
        self._end(chunks, marked=True)

    def _count(self, counts: Any) -> None:
        """Counts are cumulative, and `message_delta` may revise those of `message_start`."""
        self._counts |= {name: value for name, value in (counts or {}).items() if value is not None}
        if self._counts:
            self._builder.usage.usage.CopyFrom(response.usage(self._counts))
            self._builder.service_tier = usage.service_tier(self._counts.get("service_tier") or "")


_EVENTS: Mapping[str, Callable[[AnthropicDecoder, dict[str, Any], Chunks], None]] = {
    "message_start": AnthropicDecoder._message_start,
    "content_block_start": AnthropicDecoder._block_start,
    "content_block_delta": AnthropicDecoder._block_delta,
    "content_block_stop": AnthropicDecoder._block_stop,
    "message_delta": AnthropicDecoder._message_delta,
    "message_stop": AnthropicDecoder._message_stop,
}
