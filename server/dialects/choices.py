"""The choices of a streamed answer: when one is over, what is held back until then, how a stream may end.

A choice holds its finish_reason until the stream is over, since some providers give one with every piece, with
every tool call or before the first word. States of a choice, and what a piece with content or a reason does:

    state      meaning                                               content    reason
    WAITING    nothing but its role has come                         STREAMING  DOUBTFUL
    STREAMING  content has come, and no reason                       STREAMING  FINISHED
    FINISHED   a reason is held, which came after all content        REOPENED   FINISHED
    REOPENED   content came after a reason, which was too early      REOPENED   DOUBTFUL
    DOUBTFUL   a reason is held, but it, or one before it, came      REOPENED   DOUBTFUL
               before content

At the end of the stream each choice gets one chunk with its last reason; one chunk with the usage comes last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects import errors as failures
from server.dialects.base import completion_id
from server.errors import StreamTruncated

#: The most choices of one answer; `n` is at most 128.
MAX_CHOICES = 128
#: The most tool calls of one choice.
MAX_TOOL_CALLS = 1024
#: The most characters, or bytes of chunks, a decoder keeps of one answer, such as reasoning until it is signed.
MAX_HELD = 16 * 1024 * 1024
#: The most characters of unknown fields that are merged into one held chunk.
MAX_HELD_FIELDS = 64 * 1024


class ChoiceState(enum.Enum):
    """See the table above."""

    WAITING = enum.auto()
    STREAMING = enum.auto()
    FINISHED = enum.auto()
    REOPENED = enum.auto()
    DOUBTFUL = enum.auto()


_S = ChoiceState
_ON_CONTENT: Mapping[ChoiceState, ChoiceState] = {
    _S.WAITING: _S.STREAMING,
    _S.STREAMING: _S.STREAMING,
    _S.FINISHED: _S.REOPENED,
    _S.REOPENED: _S.REOPENED,
    _S.DOUBTFUL: _S.REOPENED,
}
_ON_REASON: Mapping[ChoiceState, ChoiceState] = {
    _S.WAITING: _S.DOUBTFUL,
    _S.STREAMING: _S.FINISHED,
    _S.FINISHED: _S.FINISHED,
    _S.REOPENED: _S.DOUBTFUL,
    _S.DOUBTFUL: _S.DOUBTFUL,
}
#: States in which the end of the bytes is the end of the choice.
_MAY_END = (_S.FINISHED, _S.DOUBTFUL)
_FINISHED = (_S.FINISHED,)


def has_content(choice: pb.ChunkChoice) -> bool:
    """Whether a piece of a choice has more than its role, its finish_reason and what accompanies them."""
    delta = choice.delta
    return bool(
        delta.content
        or delta.reasoning_content
        or delta.reasoning_details
        or delta.tool_calls
        or delta.refusal
        or delta.HasField("audio")
        or (delta.extra_json and any(openai_json.decode_json(delta.extra_json).values()))
    )


class _Choice:
    """One choice. `last` is the chunk that will end it, without content; None until there is a reason."""

    __slots__ = ("has_calls", "has_role", "last", "native", "state")

    def __init__(self) -> None:
        self.state = ChoiceState.WAITING
        self.has_role = False
        self.has_calls = False
        self.native = ""
        self.last: pb.ChatCompletionChunk | None = None


class ChunkBuilder:
    """Turns a provider's pieces into the contract's chunks. `expected` is the number of choices asked for."""

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._choices: dict[int, _Choice] = {}
        self._held = 0
        self._id = ""
        self._created = 0
        #: In OpenAI's words; on every chunk from then on.
        self.service_tier = ""
        #: The chunk with the usage, the last; left out if it has none.
        self.usage = pb.ChatCompletionChunk()

    def identify(self, provider_id: str, created: int = 0) -> None:
        """Set the id and time of all chunks; the first that are not empty count."""
        self._id = self._id or completion_id(provider_id)
        self._created = self._created or created

    def stamp(self, chunk: pb.ChatCompletionChunk) -> pb.ChatCompletionChunk:
        """Give `chunk` the id and time of the stream."""
        chunk.id = self._id
        chunk.created = self._created
        if self.service_tier:
            chunk.service_tier = self.service_tier
        return chunk

    def add(self, chunk: pb.ChatCompletionChunk, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Append `chunk` to `chunks` without its finish reasons, which are held with the fields beside them.

        Raises ProviderError for more choices or calls than any answer has.
        """
        for choice in chunk.choices:
            self._check(choice)
        passed = [choice for choice in chunk.choices if self._pass(choice)]
        if not passed:
            if chunk.choices:
                self._keep_envelope(chunk)
            return
        if len(passed) < len(chunk.choices):
            rest = pb.ChatCompletionChunk(choices=passed)
            del chunk.choices[:]
            chunk.choices.extend(rest.choices)
        chunks.append(self.stamp(chunk))

    def add_delta(self, delta: pb.Delta, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Append a chunk with a piece of choice 0."""
        chunk = pb.ChatCompletionChunk()
        chunk.choices.add(delta=delta)
        self.add(chunk, chunks)

    def finish(
        self, finish_reason: pb.FinishReason.ValueType, native: str, *, index: int = 0, extra_json: str = ""
    ) -> None:
        """Hold a finish reason and the provider's word for it; the last counts. `extra_json` is the chunk's."""
        chunk = pb.ChatCompletionChunk(extra_json=extra_json)
        chunk.choices.add(index=index, finish_reason=finish_reason)
        self.add(chunk, [])
        self.set_native(index, native)

    def set_native(self, index: int, native: str) -> None:
        """Note the provider's own word for a choice's finish reason."""
        self._choices[index].native = native

    def hold(self, size: int) -> None:
        """Account for `size` characters that a decoder keeps. Raises ProviderError past MAX_HELD."""
        self._held += size
        if self._held > MAX_HELD:
            raise failures.invalid_response(f"more than {MAX_HELD} characters to be kept")

    @property
    def native_finish_reason(self) -> str:
        """That of the first choice; empty until it has one."""
        for choice in self._choices.values():
            return choice.native
        return ""

    @property
    def finished(self) -> bool:
        """Every expected choice is FINISHED."""
        return self._all(_FINISHED)

    @property
    def has_content(self) -> bool:
        """Content of some choice has come."""
        return any(choice.state not in (_S.WAITING, _S.DOUBTFUL) for choice in self._choices.values())

    def refuse(self, native: str) -> None:
        """End all choices with `content_filter`."""
        for index in self._choices:
            self.finish(pb.FINISH_REASON_CONTENT_FILTER, native, index=index)

    def end(self, chunks: list[pb.ChatCompletionChunk], *, marked: bool) -> None:
        """Append the last chunks. `marked`: the provider said that this is the end.

        A choice without a reason gets one. Raises StreamTruncated, or ProviderError where there is no choice.
        """
        if marked and not self._choices:
            raise failures.invalid_response("the end of a stream without a choice")
        if not marked and not self._all(_MAY_END):
            raise StreamTruncated
        for index, choice in self._choices.items():
            last = choice.last
            if last is None:
                last = pb.ChatCompletionChunk()
                last.choices.add(index=index, finish_reason=default_finish(choice.has_calls)).delta.SetInParent()
            if not choice.has_role:
                last.choices[0].delta.role = pb.ROLE_ASSISTANT
            chunks.append(self.stamp(last))
        if self.usage.HasField("usage"):
            chunks.append(self.stamp(self.usage))

    def _all(self, states: tuple[ChoiceState, ...]) -> bool:
        if len(self._choices) < self._expected:
            return False
        for choice in self._choices.values():  # noqa: SIM110 (evaluated at every read; `all` takes four times as long)
            if choice.state not in states:
                return False
        return True

    def _check(self, choice: pb.ChunkChoice) -> None:
        if not 0 <= choice.index < MAX_CHOICES:
            raise failures.invalid_response(f"choice {choice.index}")
        for call in choice.delta.tool_calls:
            if call.index >= MAX_TOOL_CALLS:
                raise failures.invalid_response(f"tool call {call.index}")

    def _pass(self, piece: pb.ChunkChoice) -> bool:
        """Move the choice's state on, and hold a reason; False if nothing of the piece goes out now."""
        choice = self._choices.get(piece.index)
        if choice is None:
            choice = self._choices[piece.index] = _Choice()
        content = has_content(piece)
        if content:
            choice.state = _ON_CONTENT[choice.state]
            choice.has_calls = choice.has_calls or bool(piece.delta.tool_calls)
        if piece.finish_reason:
            choice.state = _ON_REASON[choice.state]
            self._hold_reason(choice, piece, bare=content)
            piece.ClearField("finish_reason")
        elif not content and choice.last is not None:
            self.hold(piece.ByteSize())
            _merge(choice.last.choices[0], piece)
        if not content and choice.last is not None:
            return False
        if not choice.has_role:
            choice.has_role = True
            piece.delta.role = pb.ROLE_ASSISTANT
        return True

    def _hold_reason(self, choice: _Choice, piece: pb.ChunkChoice, *, bare: bool) -> None:
        """Hold the piece's reason; `bare`: the rest of it goes out now."""
        if choice.last is None:
            choice.last = pb.ChatCompletionChunk()
            choice.last.choices.add(index=piece.index).delta.SetInParent()
        last = choice.last.choices[0]
        if not bare:
            self.hold(piece.ByteSize())
            _merge(last, piece)
        last.finish_reason = piece.finish_reason

    def _keep_envelope(self, chunk: pb.ChatCompletionChunk) -> None:
        """Keep what is beside the choices for the first choice's last chunk."""
        last = self._choices[chunk.choices[0].index].last
        if last is not None:
            self.hold(chunk.ByteSize())
            extra_json = _joined(last.extra_json, chunk.extra_json)
            envelope = pb.ChatCompletionChunk()
            envelope.CopyFrom(chunk)
            del envelope.choices[:]
            last.MergeFrom(envelope)
            last.extra_json = extra_json


def default_finish(has_calls: bool) -> pb.FinishReason.ValueType:
    """The finish reason of a choice whose provider gave none."""
    return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP


def _merge(last: pb.ChunkChoice, piece: pb.ChunkChoice) -> None:
    """Add the fields of a piece without content to those of the choice's last chunk."""
    extra_json = _joined(last.extra_json, piece.extra_json)
    delta_json = _joined(last.delta.extra_json, piece.delta.extra_json)
    if last.finish_reason and not piece.delta.content:  # after the reason, an empty text says nothing
        piece.delta.ClearField("content")
    last.MergeFrom(piece)
    last.extra_json = extra_json
    last.delta.extra_json = delta_json
    last.delta.ClearField("role")


def _joined(one: str, other: str) -> str:
    """Two objects' JSON as one's; the second's fields count. Raises ProviderError where they are too many."""
    if not one or not other or one == other:
        return one or other
    if len(one) + len(other) > MAX_HELD_FIELDS:
        raise failures.invalid_response(f"more than {MAX_HELD_FIELDS} characters of fields after a finish_reason")
    return openai_json.encode_text({**openai_json.decode_json(one), **openai_json.decode_json(other)})
