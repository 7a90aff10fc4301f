"""Amazon Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
Bedrock gives an answer no id, and counts no reasoning tokens. Tools that run on
its side, as Nova's grounding does, are not the caller's: their calls are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.errors import ProviderError, StreamTruncated
from server.openai_json import PlainRequest
from server.providers import bedrock_answer as given
from server.providers import failures
from server.providers.base import Endpoint, HttpRequest
from server.providers.bedrock_messages import extra_content, tool_names
from server.providers.bedrock_request import http_request
from server.wire.eventstream import CorruptStream, EventStreamDecoder, Frame

_answer = given.shaped(given.Answer)


class BedrockTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST /model/{id}/converse` or `/converse-stream`, unsigned."""
        return http_request(request, endpoint, stream=stream)

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> tuple[pb.ChatCompletion, str]:
        """The answer, and its stopReason."""
        try:
            answer = _answer(body)
        except ProviderError:
            code, message = given.error_parts({}, body)
            if code or message:  # an error in a 200
                raise given.failure(200, code, message) from None
            raise
        completion = pb.ChatCompletion()
        choice = completion.choices.add()
        choice.message.role = pb.ROLE_ASSISTANT
        _fill(choice.message, answer.output.message.content, tool_names(request))
        choice.finish_reason = given.finish_reason(answer.stop_reason, bool(choice.message.tool_calls))
        if answer.usage is not None:
            given.count(completion.usage, answer.usage)
        if answer.service_tier is not None:
            completion.service_tier = answer.service_tier.type
        completion.extra_json = given.kept(answer)
        return completion, answer.stop_reason

    def plain_request(self, request: PlainRequest, endpoint: Endpoint, *, stream: bool) -> None:
        """None: it is another dialect's."""

    def plain(self, body: bytes) -> None:
        """None: another dialect's answer always needs translation."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The exception's name is in `x-amzn-errortype` or `__type`, the body is `{"message": ...}`."""
        code, message = given.error_parts(headers, body)
        return given.failure(status, code, message, retry_after=failures.retry_after(headers))

    def decoder(self, request: pb.ChatCompletionRequest) -> BedrockDecoder:
        """A fresh decoder."""
        return BedrockDecoder(tool_names(request))


def _fill(message: pb.Message, blocks: list[given.Block], names: Mapping[str, str]) -> None:
    """A turn's blocks as one message."""
    text = reasoning = ""
    for block in blocks:
        if block.text is not None:
            text += block.text
        elif block.citations_content is not None:
            start = len(text)
            text += "".join(piece.text for piece in block.citations_content.content or ())
            citations = block.citations_content.citations or ()
            message.annotations.extend(given.annotation(citation, start, len(text)) for citation in citations)
        elif block.reasoning_content is not None:
            inner = block.reasoning_content.reasoning_text or given.ReasoningText()
            reasoning += inner.text
            redacted = given.from_base64(block.reasoning_content.redacted_content or "")
            message.reasoning_details.extend(given.details(inner.text, inner.signature or "", redacted))
        elif block.tool_use is not None and block.tool_use.is_callers:
            use = block.tool_use
            call = message.tool_calls.add(id=use.tool_use_id or f"call_{len(message.tool_calls)}")
            call.function.name = names.get(use.name, use.name)
            call.function.arguments = bytes(use.input).decode()
            if len(message.tool_calls) == 1:
                call.extra_json = extra_content(message.reasoning_details)
    if text:
        message.content.add(text=text)
    if reasoning:
        message.reasoning_content = reasoning


# Streams


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
