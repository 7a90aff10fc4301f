"""Streams of the OpenAI dialect: server-sent events in, chunks out.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects import errors as failures
from server.dialects.decoding import ChunkDecoder
from server.dialects.openai.errors import raise_error
from server.dialects.openai.response import groq_usage, normalise, normalise_envelope, parse_usage
from server.dialects.openai.text_template import TextTemplate
from server.dialects.reading import read_object
from server.dialects.tool_ids import call_id
from server.wire.sse import Event, SSEDecoder

#: The most templates learned for one stream: enough for the shapes a stream goes through, and few where each event
#: has a counter or padding.
_MAX_TEMPLATES = 4
#: The indexes of choices end here, even where a vendor counts chunks in them: no answer has more tokens.
MAX_INDEX = 2**18
#: Fields of an event without choices that the chunk with the usage has no need of.
_ENVELOPE = frozenset({"id", "created", "system_fingerprint", "service_tier"})


class _ToolCalls:
    """The tool calls of one choice so far: which call each piece belongs to."""

    __slots__ = ("_ends", "_ids", "_last", "_names", "_places")

    def __init__(self) -> None:
        self._names: list[str] = []  # by our index
        self._ends: list[str] = []  # the last character of the arguments, by our index
        self._ids: dict[str, int] = {}  # the provider's id -> our index
        self._places: dict[int, int] = {}  # the provider's index -> our index
        self._last = 0

    def normalise(self, call: dict[str, Any], answer_id: str) -> None:
        """Give a piece of a call its index, in place, and id and name on the first piece only.

        A new id with a name is a new call, whatever its index: some vendors give every call of a turn the same
        index, or none (https://github.com/agno-agi/agno/pull/8880). A new id without a name, at the index of a
        known call, is a piece of that call (https://github.com/JetBrains/koog/issues/2052). A piece with neither
        id nor index belongs to the last call, unless it has a name. A known id with a name, at a new index, is a
        new call if the known one is of another function or has all its arguments: some gateways give all calls
        of an answer the same id (https://github.com/vectorize-io/hindsight/pull/4250).

        `answer_id` goes into the ids of calls that have none of their own.
        """
        place, id_ = call.get("index"), failures.text(call.pop("id", None))
        place = place if place.__class__ is int else None
        inner = call.get("function") or call.get("custom")
        name = failures.text(inner.get("name")) if isinstance(inner, dict) else ""
        index = self._index(place, id_, name)
        if index == len(self._names):
            self._names.append("")
            self._ends.append("")
            call["id"] = id_ if id_ and id_ not in self._ids else call_id(answer_id, index)
        if isinstance(inner, dict) and name == self._names[index]:
            inner.pop("name", None)
        elif name:
            self._names[index] = name
        if isinstance(inner, dict) and inner.get("arguments"):
            self._ends[index] = str(inner["arguments"]).rstrip()[-1:] or self._ends[index]
        if id_:
            self._ids[id_] = index
        if place is not None:
            self._places[place] = index
        call["index"] = self._last = index

    def _index(self, place: int | None, id_: str, name: str) -> int:
        new = len(self._names)
        known = self._places.get(place) if place is not None else None
        if id_ in self._ids:
            same = self._ids[id_]
            other = name and (name != self._names[same] or self._ends[same] == "}")
            return new if other and place is not None and known is None else same
        if known is not None and not (id_ and name):
            return known
        return new if id_ or name or not new else self._last


class OpenAIDecoder(ChunkDecoder[Event]):
    """See `base.StreamDecoder`. The end mark is `[DONE]`."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._single = n == 1
        self._sse = SSEDecoder()
        self._calls: dict[int, _ToolCalls] = {}
        self._kept: dict[str, Any] = {}  # fields of events without choices, for the next chunk
        self._template: TextTemplate | None = None
        self._learned = 0
        self._finishing = False  # a finish reason has come

    def _split(self, data: bytes) -> list[Event]:
        return self._sse.feed(data)

    def _rest(self) -> list[Event]:
        return self._sse.close()

    def _decode(self, event: Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        if self._template is not None and not event.event and not self._kept:
            chunk = self._template.chunk(event.data)
            if chunk is not None:
                chunks.append(chunk)
                return
        data = event.data.strip()
        if data == b"[DONE]":
            self._end(chunks, marked=True)
        elif data:
            self._decode_object(event, chunks)

    def _decode_object(self, event: Event, chunks: list[pb.ChatCompletionChunk]) -> None:
        obj = read_object(event.data)
        raise_error({"error": obj} if event.event == "error" and not obj.get("error") else obj)
        normalise_envelope(obj)
        natives = self._normalise_choices(obj)
        self._read_usage(obj.pop("usage", None) or groq_usage(obj))
        if self._kept:
            obj = {**self._kept, **obj}
            self._kept = {}
        if not obj.get("choices"):
            self._kept = {k: v for k, v in obj.items() if v and k not in ("object", "model", "choices")}
            return
        chunk = openai_json.parse_chunk(obj)
        self._builder.identify(chunk.id, chunk.created, chunk.model)
        before = len(chunks)
        self._builder.add(chunk, chunks)
        for index, native in natives.items():
            self._builder.set_native(index, native)
        self._finishing = self._finishing or bool(natives)
        if self._finishing:
            self._template = None
        elif len(chunks) > before:
            self._learn(event, chunks[-1])

    def _normalise_choices(self, obj: dict[str, Any]) -> dict[int, str]:
        """Bring the choices of an event to OpenAI's form, in place; native finish reasons by index."""
        choices = obj.get("choices") or []
        if choices.__class__ is not list:
            raise failures.invalid_response("choices is not a list")
        if self._single:
            del choices[1:]
        natives: dict[int, str] = {}
        answer_id = failures.text(obj.get("id"))
        for position, choice in enumerate(choices):
            if choice.__class__ is dict and choice.get("delta").__class__ is not dict:
                message = choice.pop("message", None)  # the last chunk as a whole message, from some vendors
                choice["delta"] = message if message.__class__ is dict else {}
            native = normalise(choice, "delta", position)
            if choice["index"].__class__ is not int:
                raise failures.invalid_response("index is not a number")
            if not 0 <= choice["index"] < MAX_INDEX:
                raise failures.invalid_response(f"choice {choice['index']}")
            if self._single:
                choice["index"] = 0  # some vendors count chunks in it
            self._read_usage(choice.pop("usage", None))  # Moonshot
            for call in choice["delta"].get("tool_calls") or ():
                self._calls.setdefault(choice["index"], _ToolCalls()).normalise(call, answer_id)
            if native:
                natives[choice["index"]] = native
        return natives

    def _read_usage(self, usage: Any) -> None:
        if usage:
            self._builder.usage.usage.CopyFrom(parse_usage(usage))

    def _learn(self, event: Event, chunk: pb.ChatCompletionChunk) -> None:
        """Learn a template from a text event, for the events like it that follow."""
        first = any(choice.delta.role for choice in chunk.choices)
        if first or event.event or len(chunk.choices) != 1 or self._learned >= _MAX_TEMPLATES:
            return
        template = TextTemplate.learn(event.data, chunk, self._parse_text)
        if template is not None:
            self._template = template
            self._learned += 1

    def _parse_text(self, data: bytes) -> pb.ChatCompletionChunk:
        """The chunk of a text event, without regard to what came before it."""
        obj = read_object(data)
        normalise_envelope(obj)
        del obj["choices"][1:]
        normalise(obj["choices"][0], "delta", 0)
        if self._single:
            obj["choices"][0]["index"] = 0
        obj["choices"][0].pop("usage", None)
        obj.pop("usage", None)
        return self._builder.stamp(openai_json.parse_chunk(obj))

    def _end(self, chunks: list[pb.ChatCompletionChunk], *, marked: bool) -> None:
        extra = {key: value for key, value in self._kept.items() if key not in _ENVELOPE}
        self._builder.usage.extra_json = openai_json.encode_text(extra) if extra else ""
        super()._end(chunks, marked=marked)
