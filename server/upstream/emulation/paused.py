"""Turns that a provider pauses in the middle: continued, so that the caller gets one whole answer.

Anthropic pauses a long turn in which its own tools run; sending the turn back as it is continues it. The parts are
joined: text, reasoning, calls and citations one after the other, the tokens of all calls added up, the last finish
reason. https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.openai_json.fields import decode, encode_text
from server.chat.request import ChatRequest, copy
from server.chat.usage import add_usage
from server.dialects.base import Dialect, Endpoint
from server.upstream.joined import Turn, merged_json
from server.upstream.ports import Caller, Chunks, Stream

#: After so many continuations the paused answer is returned; its `native_finish_reason` is the provider's.
MAX_CONTINUATIONS = 10


class Continuing:
    """A Caller that continues the paused turns of `upstream`; `Dialect.paused` says which are."""

    def __init__(self, upstream: Caller, dialects: Mapping[str, Dialect]) -> None:
        self._upstream = upstream
        self._dialects = dialects

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """The whole answer, within `limit` seconds. Raises ProviderError, or InvalidRequest."""
        paused = self._dialects[endpoint.dialect].paused
        if not paused:
            return await self._upstream.complete(endpoint, request, limit)
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        completion = await self._upstream.complete(endpoint, request, limit)
        for _ in range(MAX_CONTINUATIONS):
            if completion.native_finish_reason not in paused:
                break
            turn = completion.to_proto().choices[0].message
            more = await self._upstream.complete(endpoint, _with_turn(request, turn), deadline - now())
            completion = _joined(completion, more)
        return completion

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> Stream:
        """A streamed answer, not yet opened. This or its opening raises InvalidRequest."""
        paused = self._dialects[endpoint.dialect].paused
        if paused:
            return _ContinuedStream(self._upstream, endpoint, request, paused)
        return self._upstream.stream(endpoint, request)


class _ContinuedStream:
    """One stream of several calls; see `ports.Stream`.

    Finish reasons, usage and fields beside the text are held until the last call ends.
    """

    def __init__(self, upstream: Caller, endpoint: Endpoint, request: ChatRequest, paused: frozenset[str]) -> None:
        self._upstream = upstream
        self._endpoint = endpoint
        self._request = request
        self._paused = paused
        self._stream = upstream.stream(endpoint, request)
        self._turn = Turn()
        self._held: Chunks = []
        self._usage = pb.Usage()
        #: The `extra_json` of the choice in the calls that were paused.
        self._extra_json = ""
        self._id = ""
        #: Of the current call: where its text and its tool calls begin in the turn's.
        self._offset = self._calls = 0

    @property
    def native_finish_reason(self) -> str:
        return self._stream.native_finish_reason

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._stream.dropped

    async def open(self, limit: float) -> Chunks:
        """All chunks up to and with the first content, within `limit` seconds. Raises ProviderError."""
        chunks = self._take(await self._stream.open(limit))
        if not chunks and self._stream.native_finish_reason not in self._paused:
            return self._end()
        return chunks

    async def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """The remaining chunks, until the loop's time is `deadline`. Raises ProviderError."""
        now = asyncio.get_running_loop().time
        for continuation in range(MAX_CONTINUATIONS + 1):
            async with aclosing(self._stream.batches(deadline)) as batches:
                async for chunks in batches:
                    if taken := self._take(chunks):
                        yield taken
            if self._stream.native_finish_reason not in self._paused or continuation == MAX_CONTINUATIONS:
                break
            await self._stream.aclose()
            self._continue()
            if taken := self._take(await self._stream.open(deadline - now())):
                yield taken
        if last := self._end():
            yield last

    async def aclose(self) -> None:
        """Release every connection."""
        await self._stream.aclose()

    def _continue(self) -> None:
        for chunk in self._held:
            if chunk.HasField("usage"):
                add_usage(self._usage, chunk.usage)
            for choice in chunk.choices:
                self._extra_json = merged_json(self._extra_json, choice.extra_json)
        self._held = []
        self._offset, self._calls = self._turn.length, len(self._turn.calls)
        self._stream = self._upstream.stream(self._endpoint, _with_turn(self._request, self._turn.message()))

    def _take(self, chunks: Chunks) -> Chunks:
        """What of `chunks` the caller gets now; the rest is held."""
        passed: Chunks = []
        for chunk in chunks:
            first = not self._id
            self._id = chunk.id = self._id or chunk.id
            if chunk.HasField("usage") or any(choice.finish_reason for choice in chunk.choices):
                self._held.append(chunk)
                continue
            for choice in chunk.choices:
                self._fit(choice.delta, first=first)
                self._turn.add(choice.delta)
                choice.delta.ClearField("extra_json")  # sent whole, at the end
            if first or any(choice.delta.ByteSize() for choice in chunk.choices):
                passed.append(chunk)
        return passed

    def _fit(self, delta: pb.Delta, *, first: bool) -> None:
        """Make `delta` continue what the caller has."""
        if not first:
            delta.ClearField("role")
        for call in delta.tool_calls:
            call.index += self._calls
        _shift(delta, self._offset)

    def _end(self) -> Chunks:
        held, self._held = self._held, []
        if self._turn.extra_json and held:
            whole = pb.ChatCompletionChunk()
            whole.CopyFrom(held[0])
            del whole.choices[:]
            whole.choices.add().delta.extra_json = self._turn.extra_json
            held.insert(0, whole)
        for chunk in held:
            if chunk.HasField("usage"):
                add_usage(chunk.usage, self._usage)
            for choice in chunk.choices:
                if choice.finish_reason:
                    choice.extra_json = merged_json(self._extra_json, choice.extra_json)
        return held


def _with_turn(request: ChatRequest, turn: pb.Message) -> ChatRequest:
    """`request` with the paused turn as its last message."""
    message = copy(request.to_proto())
    message.messages.append(turn)
    return request.with_message(message)


def _joined(first: Completion, second: Completion) -> Completion:
    """One completion of a paused one and its continuation."""
    out = pb.ChatCompletion()
    out.CopyFrom(first.to_proto())
    more = second.to_proto()
    choice, other = out.choices[0], more.choices[0]
    message, added = choice.message, other.message
    text = "".join(part.text for part in message.content)
    addition = "".join(part.text for part in added.content)
    del message.content[:]
    if text or addition:
        message.content.add(text=text + addition)
    _shift(added, len(text))
    message.annotations.extend(added.annotations)
    message.reasoning_content += added.reasoning_content
    message.reasoning_details.extend(added.reasoning_details)
    message.tool_calls.extend(added.tool_calls)
    message.refusal = added.refusal or message.refusal
    message.extra_json = merged_json(message.extra_json, added.extra_json)
    choice.finish_reason = other.finish_reason
    choice.extra_json = merged_json(choice.extra_json, other.extra_json)
    if other.HasField("stop_sequence"):
        choice.stop_sequence = other.stop_sequence
    add_usage(out.usage, more.usage)
    merged = ProtoCompletion(out, second.native_finish_reason)
    merged.dropped = first.dropped
    return merged


def _shift(holder: pb.Message | pb.Delta, offset: int) -> None:
    """Move the places of citations by `offset` characters."""
    if not offset:
        return
    for annotation in holder.annotations:
        if annotation.HasField("url_citation"):
            annotation.url_citation.start_index += offset
            annotation.url_citation.end_index += offset
        elif annotation.other_json:
            fields = decode(annotation.other_json)
            for name in ("start_index", "end_index"):
                if isinstance(fields.get(name), int):
                    fields[name] += offset
            annotation.other_json = encode_text(fields)
