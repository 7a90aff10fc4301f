"""The chunks of a stream as one completion, and a completion as chunks, for answers in the form not asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, encode_text, joined_extra


class Turn:
    """The assistant's turn so far, of the deltas of a stream."""

    def __init__(self) -> None:
        #: Of the text, in characters.
        self.length = 0
        self.calls: dict[int, tuple[pb.ToolCall, list[str]]] = {}
        self.extra_json = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._details: list[pb.ReasoningDetail] = []

    def add(self, delta: pb.Delta) -> None:
        """Append a piece."""
        if delta.content:
            self._text.append(delta.content)
            self.length += len(delta.content)
        if delta.reasoning_content:
            self._reasoning.append(delta.reasoning_content)
        self._details.extend(delta.reasoning_details)
        for piece in delta.tool_calls:
            call, arguments = self.calls.setdefault(piece.index, (pb.ToolCall(), []))
            call.id = call.id or piece.id
            call.extra_json = call.extra_json or piece.extra_json
            if piece.HasField("custom"):
                call.custom.name = call.custom.name or piece.custom.name
                arguments.append(piece.custom.input)
            else:
                call.function.name = call.function.name or piece.function.name
                arguments.append(piece.function.arguments)
        if delta.extra_json:
            self.extra_json = merged_json(self.extra_json, delta.extra_json)

    def message(self) -> pb.Message:
        """The turn as a message of a request."""
        out = pb.Message(role=pb.ROLE_ASSISTANT, extra_json=self.extra_json)
        if self._text:
            out.content.add(text="".join(self._text))
        if self._reasoning:
            out.reasoning_content = "".join(self._reasoning)
        out.reasoning_details.extend(self._details)
        for _, (call, arguments) in sorted(self.calls.items()):
            whole = out.tool_calls.add()
            whole.CopyFrom(call)
            if whole.HasField("custom"):
                whole.custom.input = "".join(arguments)
            else:
                whole.function.arguments = "".join(arguments)
        return out


class _Choice:
    """One choice of a stream."""

    def __init__(self) -> None:
        self._turn = Turn()
        self._rest = pb.Choice()  # what is neither text, reasoning nor a call
        self._sound: list[str] = []

    def add(self, piece: pb.ChunkChoice) -> None:
        delta, rest = piece.delta, self._rest
        self._turn.add(delta)
        rest.index = piece.index
        rest.message.refusal += delta.refusal
        rest.message.annotations.extend(delta.annotations)
        if delta.HasField("audio"):
            self._add_audio(delta.audio)
        if piece.HasField("logprobs"):
            rest.logprobs.MergeFrom(piece.logprobs)
        rest.finish_reason = piece.finish_reason or rest.finish_reason
        rest.extra_json = merged_json(rest.extra_json, piece.extra_json)
        if piece.HasField("stop_sequence"):
            rest.stop_sequence = piece.stop_sequence

    def _add_audio(self, piece: pb.Audio) -> None:
        audio = self._rest.message.audio
        transcript = audio.transcript + piece.transcript
        self._sound.append(piece.data)
        audio.MergeFrom(piece)
        audio.transcript = transcript

    def whole(self) -> pb.Choice:
        out, rest = pb.Choice(), self._rest
        out.CopyFrom(rest)
        out.message.CopyFrom(self._turn.message())
        out.message.annotations.extend(rest.message.annotations)
        if rest.message.refusal:
            out.message.refusal = rest.message.refusal
        if rest.message.HasField("audio"):
            out.message.audio.CopyFrom(rest.message.audio)
            out.message.audio.data = _joined_base64(self._sound)
        return out


def joined(chunks: Iterable[pb.ChatCompletionChunk]) -> pb.ChatCompletion:
    """The completion that the chunks of a whole stream add up to."""
    out = pb.ChatCompletion()
    choices: dict[int, _Choice] = {}
    for chunk in chunks:
        out.id, out.created, out.model = chunk.id or out.id, chunk.created or out.created, chunk.model or out.model
        for name in ("system_fingerprint", "service_tier"):
            if chunk.HasField(name):
                setattr(out, name, getattr(chunk, name))
        if chunk.HasField("usage"):
            out.usage.CopyFrom(chunk.usage)
        out.extra_json = joined_extra(out.extra_json, chunk.extra_json)  # repeated by many vendors
        for piece in chunk.choices:
            choices.setdefault(piece.index, _Choice()).add(piece)
    out.choices.extend(choices[index].whole() for index in sorted(choices))
    return out


def merged_json(first: str, second: str) -> str:
    """Two JSON objects as one; either may be empty text."""
    if not first or not second:
        return first or second
    return encode_text(_merged(decode(first), decode(second)))


def _merged(first: Any, second: Any) -> Any:
    """Objects merged key by key, lists one after the other; of anything else the second."""
    if isinstance(first, dict) and isinstance(second, dict):
        common = {key: _merged(value, second[key]) for key, value in first.items() if key in second}
        return {**first, **second, **common}
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return second


def _joined_base64(pieces: list[str]) -> str:
    """Pieces of base64 as one; those that end in padding are joined as bytes."""
    if any(piece.endswith("=") for piece in pieces[:-1]):
        return base64.b64encode(b"".join(map(base64.b64decode, pieces))).decode()
    return "".join(pieces)


# A completion as a stream


def as_chunks(completion: pb.ChatCompletion) -> list[pb.ChatCompletionChunk]:
    """A whole answer as a stream: the content of each choice, how each ends, and the usage."""
    contents, ends = [], []
    for choice in completion.choices:
        contents.append(
            pb.ChunkChoice(
                index=choice.index,
                delta=_delta(choice.message),
                logprobs=choice.logprobs if choice.HasField("logprobs") else None,
                extra_json=choice.extra_json,
            )
        )
        end = pb.ChunkChoice(index=choice.index, finish_reason=choice.finish_reason or pb.FINISH_REASON_STOP)
        if choice.HasField("stop_sequence"):
            end.stop_sequence = choice.stop_sequence
        ends.append(end)
    out = [pb.ChatCompletionChunk(choices=[piece]) for piece in (*contents, *ends)]
    if out:
        out[0].extra_json = completion.extra_json
    if completion.HasField("usage"):
        out.append(pb.ChatCompletionChunk(usage=completion.usage))
    for chunk in out:
        chunk.id, chunk.created, chunk.model = completion.id, completion.created, completion.model
        for name in ("system_fingerprint", "service_tier"):
            if completion.HasField(name):
                setattr(chunk, name, getattr(completion, name))
    return out


def _delta(message: pb.Message) -> pb.Delta:
    delta = pb.Delta(
        role=pb.ROLE_ASSISTANT,
        reasoning_details=message.reasoning_details,
        annotations=message.annotations,
        extra_json=message.extra_json,
    )
    if message.content:
        delta.content = "".join(part.text for part in message.content)
    refusal = message.refusal or "".join(part.refusal for part in message.content)
    if refusal:
        delta.refusal = refusal
    if message.HasField("reasoning_content"):
        delta.reasoning_content = message.reasoning_content
    if message.HasField("audio"):
        delta.audio.CopyFrom(message.audio)
    for index, call in enumerate(message.tool_calls):
        piece = delta.tool_calls.add(index=index, id=call.id, extra_json=call.extra_json)
        if call.HasField("custom"):
            piece.custom.CopyFrom(call.custom)
        else:
            piece.function.CopyFrom(call.function)
    return delta
