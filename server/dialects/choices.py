"""The choices of a stream: their states, what is held until the stream ends, and which ends are complete.

A choice's finish_reason is held until the stream ends, since some providers send one with every delta, with every
tool call or before the first content. States, and the transitions on a delta with content or a finish reason:

    state      meaning                                               content    reason
    WAITING    only the role has arrived                             STREAMING  DOUBTFUL
    STREAMING  content has arrived, and no reason                    STREAMING  FINISHED
    FINISHED   a reason is held that arrived after all content       REOPENED   FINISHED
    REOPENED   content arrived after a reason, which was premature   REOPENED   DOUBTFUL
    DOUBTFUL   a reason is held, but it or an earlier one arrived    REOPENED   DOUBTFUL
               before content

At the end of the stream each choice gets one chunk with its last reason; a chunk with the usage is last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json.fields import joined_extra
from server.dialects import errors as failures
from server.dialects.base import completion_id
from server.errors import StreamTruncated

#: The most choices of one completion; `n` is at most 128.
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
#: States in which a stream may end without an end mark.
_MAY_END = (_S.FINISHED, _S.DOUBTFUL)
_FINISHED = (_S.FINISHED,)


def has_content(choice: pb.ChunkChoice) -> bool:
    """Whether a choice of a chunk has content, beyond its role, finish_reason and their accompanying fields."""
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
    """One choice. `last` is its last chunk, without content; None until there is a finish reason."""

    __slots__ = ("bare_calls", "has_calls", "has_role", "last", "native", "state")

    def __init__(self) -> None:
        self.state = ChoiceState.WAITING
        self.has_role = False
        self.has_calls = False
        #: Index -> whether no arguments have come, for the calls of functions.
        self.bare_calls: dict[int, bool] = {}
        self.native = ""
        self.last: pb.ChatCompletionChunk | None = None


class ChunkBuilder:
    """Builds the contract's chunks from a provider's deltas. `expected` is the number of requested choices."""

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._choices: dict[int, _Choice] = {}
        self._held = 0
        self._id = ""
        self._created = 0
        self._model = ""
        #: OpenAI's name of the service tier, for all following chunks.
        self.service_tier = ""
        #: The last chunk, with the usage; not sent if it has none.
        self.usage = pb.ChatCompletionChunk()

    def identify(self, provider_id: str, created: int = 0, model: str = "") -> None:
        """Set the id, creation time and model of all chunks; the first non-empty values win."""
        self._id = self._id or completion_id(provider_id)
        self._created = self._created or created
        self._model = self._model or model

    def stamp(self, chunk: pb.ChatCompletionChunk) -> pb.ChatCompletionChunk:
        """Set the id, creation time and model of `chunk` to the stream's."""
        chunk.id = self._id
        chunk.created = self._created
        chunk.model = self._model
        if self.service_tier:
            chunk.service_tier = self.service_tier
        return chunk

    def add(self, chunk: pb.ChatCompletionChunk, chunks: list[pb.ChatCompletionChunk]) -> None:
        """Append `chunk` to `chunks` without its finish reasons, which are held with the fields beside them.

        Raises ProviderError for an index above MAX_CHOICES or MAX_TOOL_CALLS.
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
        """Append a chunk with a delta of choice 0."""
        chunk = pb.ChatCompletionChunk()
        chunk.choices.add(delta=delta)
        self.add(chunk, chunks)

    def finish(self, choice: pb.ChunkChoice, native: str, *, extra_json: str = "") -> None:
        """Hold a choice's finish reason, its native name and the fields beside it; the last ones win.

        `extra_json` is the chunk's.
        """
        self.add(pb.ChatCompletionChunk(choices=[choice], extra_json=extra_json), [])
        self.set_native(choice.index, native)

    def set_native(self, index: int, native: str) -> None:
        """Set the native name of a choice's finish reason."""
        self._choices[index].native = native

    def hold(self, size: int) -> None:
        """Count `size` characters that a decoder buffers. Raises ProviderError above MAX_HELD."""
        self._held += size
        if self._held > MAX_HELD:
            raise failures.invalid_response(f"more than {MAX_HELD} characters to be kept")

    @property
    def native_finish_reason(self) -> str:
        """The native finish reason of the first choice; empty until it has one."""
        for choice in self._choices.values():
            return choice.native
        return ""

    @property
    def finished(self) -> bool:
        """Whether every expected choice is FINISHED."""
        return self._all(_FINISHED)

    @property
    def has_content(self) -> bool:
        """Whether any choice has content."""
        return any(choice.state not in (_S.WAITING, _S.DOUBTFUL) for choice in self._choices.values())

    def refuse(self, native: str) -> None:
        """End all choices with `content_filter`."""
        for index in self._choices:
            self.finish(pb.ChunkChoice(index=index, finish_reason=pb.FINISH_REASON_CONTENT_FILTER), native)

    def end(self, chunks: list[pb.ChatCompletionChunk], *, marked: bool) -> None:
        """Append the last chunks. `marked`: the provider sent an end mark.

        A choice without a finish reason gets the default, a call without arguments an empty object. Raises
        StreamTruncated where the stream ended without a mark and a choice is unfinished, and ProviderError where a
        mark ends a stream without a choice.
        """
        if marked and not self._choices:
            raise failures.invalid_response("the end of a stream without a choice")
        if not marked and not self._all(_MAY_END):
            raise StreamTruncated
        for index, choice in self._choices.items():
            last = choice.last
            if last is None:
                last = pb.ChatCompletionChunk()
                last.choices.add(index=index).delta.SetInParent()
            end = last.choices[0]
            end.finish_reason = settled_finish(end.finish_reason, choice.has_calls)
            if any(choice.bare_calls.values()):
                chunks.append(self.stamp(_empty_arguments(index, choice.bare_calls)))
            if not choice.has_role:
                end.delta.role = pb.ROLE_ASSISTANT
            chunks.append(self.stamp(last))
        if self.usage.HasField("usage"):
            chunks.append(self.stamp(self.usage))
        elif self.usage.extra_json:
            chunks[-1].extra_json = joined_extra(chunks[-1].extra_json, self.usage.extra_json)

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
        """Update the choice's state and hold its reason; returns whether the rest of the delta is sent now."""
        choice = self._choices.get(piece.index)
        if choice is None:
            choice = self._choices[piece.index] = _Choice()
        content = has_content(piece)
        if content:
            choice.state = _ON_CONTENT[choice.state]
            for call in piece.delta.tool_calls:
                choice.has_calls = True
                if not call.HasField("custom"):
                    bare = choice.bare_calls.get(call.index, True)
                    choice.bare_calls[call.index] = bare and not call.function.arguments
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
        """Hold the finish reason; with `bare` without the rest of the delta, which is sent now."""
        if choice.last is None:
            choice.last = pb.ChatCompletionChunk()
            choice.last.choices.add(index=piece.index).delta.SetInParent()
        last = choice.last.choices[0]
        if not bare:
            self.hold(piece.ByteSize())
            _merge(last, piece)
        last.finish_reason = piece.finish_reason

    def _keep_envelope(self, chunk: pb.ChatCompletionChunk) -> None:
        """Move the fields beside the choices to the last chunk of the first choice."""
        last = self._choices[chunk.choices[0].index].last
        if last is not None:
            self.hold(chunk.ByteSize())
            extra_json = _joined(last.extra_json, chunk.extra_json)
            envelope = pb.ChatCompletionChunk()
            envelope.CopyFrom(chunk)
            del envelope.choices[:]
            last.MergeFrom(envelope)
            last.extra_json = extra_json


def settled_finish(reason: pb.FinishReason.ValueType, has_calls: bool) -> pb.FinishReason.ValueType:
    """The finish reason of a choice: the provider's, or the default where it is 0.

    `tool_calls` without calls is `stop`: agents would answer calls that are not there for ever
    (https://github.com/mastra-ai/mastra/pull/14187). `stop` with calls stays, as OpenAI itself says it of a call
    that was forced by name (https://github.com/ENTERPILOT/GoModel/pull/124).
    """
    if reason and (has_calls or reason != pb.FINISH_REASON_TOOL_CALLS):
        return reason
    return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP


#: Clients parse the arguments of every call. https://github.com/Kilo-Org/cloud/pull/4753
NO_ARGUMENTS = "{}"


def _empty_arguments(choice: int, calls: Mapping[int, bool]) -> pb.ChatCompletionChunk:
    """The chunk that completes the calls for which `calls` is true."""
    chunk = pb.ChatCompletionChunk()
    delta = chunk.choices.add(index=choice).delta
    for index, bare in calls.items():
        if bare:
            delta.tool_calls.add(index=index).function.arguments = NO_ARGUMENTS
    return chunk


def _merge(last: pb.ChunkChoice, piece: pb.ChunkChoice) -> None:
    """Merge a delta without content into the choice's last chunk."""
    extra_json = _joined(last.extra_json, piece.extra_json)
    delta_json = _joined(last.delta.extra_json, piece.delta.extra_json)
    if last.finish_reason and not piece.delta.content:  # empty text after the finish reason is meaningless
        piece.delta.ClearField("content")
    last.MergeFrom(piece)
    last.extra_json = extra_json
    last.delta.extra_json = delta_json
    last.delta.ClearField("role")


def _joined(one: str, other: str) -> str:
    """Two objects' JSON as one's; the second's fields count. Raises ProviderError where they are too many."""
    if one and other and one != other and len(one) + len(other) > MAX_HELD_FIELDS:
        raise failures.invalid_response(f"more than {MAX_HELD_FIELDS} characters of fields after a finish_reason")
    return joined_extra(one, other)
