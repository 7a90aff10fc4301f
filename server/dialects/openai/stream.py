"""Streams of the OpenAI dialect: bytes in, chunks of the contract out. See `base.StreamDecoder`."""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects import errors as failures
from server.dialects.base import completion_id
from server.dialects.openai.response import default_finish, normalise, raise_error, read, read_object
from server.dialects.openai.text_template import TextTemplate
from server.errors import ProviderError, Reason, StreamTruncated
from server.wire.sse import Event, SSEDecoder

#: Templates learned for one stream: a few for the shapes it goes through, and not one for each event of a
#: vendor whose events have a counter or padding in them.
_MOST_LEARNED = 4
#: What a chunk that only carries usage has no need of.
_ENVELOPE = frozenset({"id", "created", "system_fingerprint", "service_tier"})


class _ChoiceState:
    """What a decoder remembers of one choice."""

    __slots__ = ("finished", "ids", "last", "names", "places")

    def __init__(self) -> None:
        self.finished = False
        self.names: list[str] = []  # of the tool calls so far, by index
        self.ids: dict[str, int] = {}  # the provider's id -> index
        self.places: dict[int, int] = {}  # the provider's index -> index
        self.last = 0

    def settle(self, call: dict[str, Any]) -> None:
        """Bring a piece of a tool call to OpenAI's form: an index, and id and name on the call's first piece only.

        A new id is a new call, whatever index it comes with: some vendors give
        every call of a turn the same index, or none. A piece of which neither
        id nor index is known goes on with the last call, unless it gives a name.
        https://github.com/agno-agi/agno/pull/8880
        """
        place, id_ = call.get("index"), failures.text(call.pop("id", None))
        place = place if place.__class__ is int else None
        inner = call.get("function") or call.get("custom")
        name = failures.text(inner.get("name")) if isinstance(inner, dict) else ""
        new = len(self.names)
        if id_:
            index = self.ids.setdefault(id_, new)
        elif place in self.places:
            index = self.places[place]
        else:
            index = new if name or not new else self.last
        if index == new:
            self.names.append("")
            call["id"] = id_ or f"call_{index}"
        if isinstance(inner, dict) and name == self.names[index]:
            inner.pop("name", None)
        elif name:
            self.names[index] = name
        if place is not None:
            self.places[place] = index
        call["index"] = self.last = index


def _parse(data: bytes) -> pb.ChatCompletionChunk:
    """The chunk of an event that has one choice and does not end it."""
    obj = read_object(data)
    normalise(obj["choices"][0], "delta", 0)
    obj.pop("lmchat", None)
    obj.pop("usage", None)
    chunk: pb.ChatCompletionChunk = read(openai_json.parse_chunk, obj)
    return chunk


class OpenAIDecoder:
    """See `base.StreamDecoder`. `n` is the number of choices asked for."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._sse = SSEDecoder()
        self._choices: dict[int, _ChoiceState] = {}
        self._done = False
        self._closed = False  # all is given out
        self._id = ""
        self._created = 0
        self._usage: pb.ChatCompletionChunk | None = None
        self._kept: dict[str, Any] = {}
        self._template: TextTemplate | None = None
        self._learned = 0
        self.native_finish_reason = ""

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes."""
        return self._decode(self._sse.feed(data))

    def close(self) -> list[pb.ChatCompletionChunk]:
        """The last chunks, with usage where the provider gave it."""
        if self._closed:
            return []
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            chunks = self._decode(self._sse.close())
        except ProviderError as error:
            if error.reason is not Reason.UPSTREAM_INVALID_RESPONSE:  # else the torn end of an event
                raise
        return chunks if self._closed else chunks + self._end()

    def _decode(self, events: list[Event]) -> list[pb.ChatCompletionChunk]:
        chunks: list[pb.ChatCompletionChunk] = []
        for event in events:
            if self._done:
                break
            if event.data.strip() == b"[DONE]":
                self._done = True
                chunks += self._end()
            elif event.data:
                try:
                    self._event(event, chunks)
                except ProviderError as error:
                    if not self._complete():  # else everything was said, and this takes nothing away
                        error.decoded = chunks
                        raise
        return chunks

    def _complete(self) -> bool:
        return len(self._choices) >= self._n and all(state.finished for state in self._choices.values())

    def _event(self, event: Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        if self._template is not None and not event.event and not self._kept:
            chunk = self._template.chunk(event.data)
            if chunk is not None:
                chunks.append(chunk)
                return
        obj = read_object(event.data)
        raise_error(obj)
        if event.event == "error":
            raise_error({"error": obj})
        choices = obj.get("choices")
        if choices:
            if choices.__class__ is not list:
                raise failures.invalid_response("choices is not a list")
            obj["choices"] = [c for position, c in enumerate(choices) if self._choice(c, position)]
        obj.pop("lmchat", None)  # a gateway's behind this one
        usage = obj.pop("usage", None)
        if self._kept:
            obj = {**self._kept, **obj}
            self._kept = {}
        if usage:
            self._usage = read(openai_json.parse_chunk, {"usage": usage})
        if not obj.get("choices"):
            # Nothing a caller can show: what it carries goes with the next chunk that has a choice.
            self._kept = {k: v for k, v in obj.items() if v and k not in ("object", "model", "choices")}
            return
        chunk = self._stamp(read(openai_json.parse_chunk, obj))
        chunks.append(chunk)
        self._learn(event, chunk)

    def _learn(self, event: Event, chunk: pb.ChatCompletionChunk) -> None:
        """Be quicker with events like this one from here on, until a choice has come to its end."""
        if any(state.finished for state in self._choices.values()):
            self._template = None
            return
        first = any(choice.delta.role for choice in chunk.choices)
        if first or event.event or len(chunk.choices) != 1 or self._learned >= _MOST_LEARNED:
            return
        template = TextTemplate.learn(event.data, chunk, lambda data: self._stamp(_parse(data)))
        if template is not None:
            self._template = template
            self._learned += 1

    def _stamp(self, chunk: pb.ChatCompletionChunk) -> pb.ChatCompletionChunk:
        """Give every chunk the first one's id and time."""
        self._id = self._id or completion_id(chunk.id)
        self._created = self._created or chunk.created
        chunk.id = self._id
        chunk.created = self._created
        return chunk

    def _choice(self, choice: Any, position: int) -> bool:
        """Normalise one choice of a chunk; False when nothing is left of it."""
        if choice.__class__ is dict and choice.get("delta").__class__ is not dict:
            message = choice.pop("message", None)  # some send the last chunk as if it were a whole answer
            choice["delta"] = message if message.__class__ is dict else {}
        native = normalise(choice, "delta", position)
        index, delta = choice["index"], choice["delta"]
        if index.__class__ is not int:
            raise failures.invalid_response("index is not a number")
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState()
            delta["role"] = "assistant"
        for call in delta.get("tool_calls") or ():
            state.settle(call)
        if state.finished:  # some say it twice, or add an empty delta; the finish reason comes once, and last
            choice["finish_reason"] = None
            return any(delta.values())
        if native:
            self.native_finish_reason = self.native_finish_reason or native
            state.finished = True
        return True

    def _end(self) -> list[pb.ChatCompletionChunk]:
        """Settle the account: an end is one only if every choice was finished, or [DONE] was said."""
        if not self._choices:
            raise StreamTruncated if not self._done else failures.invalid_response("[DONE] without a choice")
        if not self._done and not self._complete():
            raise StreamTruncated
        self._closed = True
        chunks: list[pb.ChatCompletionChunk] = []
        for index, state in self._choices.items():
            if state.finished:
                continue
            chunk = self._stamp(pb.ChatCompletionChunk())
            chunk.choices.add(index=index, finish_reason=default_finish(bool(state.names))).delta.SetInParent()
            chunks.append(chunk)
        if self._usage is not None:
            usage = self._stamp(self._usage)
            extra = {key: value for key, value in self._kept.items() if key not in _ENVELOPE}
            usage.extra_json = openai_json.encode_text(extra) if extra else ""
            chunks.append(usage)
        return chunks
