"""A chat-completions request: one abstraction over its two representations.

`JsonRequest` holds a caller's OpenAI JSON: known fields checked, unknown ones kept
beside them. `ProtoRequest` holds the typed message. Either converts to the other
form on demand; `to_proto` keeps its result. Requests are not changed: `without` and
`with_debug` return new ones, and the message that `to_proto` returns is shared: use
`copy` before changing it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, Self

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import limits, openai_json
from server.chat.openai_json import request_fields
from server.chat.openai_json.options import fill_options
from server.chat.openai_json.request_fields import PART_NEEDS, RequestFields
from server.chat.openai_json.unknown import Unknown, fields_at, restore_unknown
from server.errors import InvalidRequest

_PART_NEEDS = {"image_url": "image", "input_audio": "audio", "file": "file", "other_json": "other_parts"}
_FORMAT_NEEDS = {"json_object": "json_object", "json_schema": "json_schema", "other_json": "json_schema"}
_NONE: frozenset[str] = frozenset()
_FIELD_NAMES = RequestFields.__struct_fields__
_field_values = attrgetter(*_FIELD_NAMES)


class ChatRequest(ABC):
    """A caller's request.

    `stream` and `legacy_functions` (the caller used the deprecated `functions` and
    expects `function_call` in the answer) are only known of JSON requests; for
    typed requests the RPC method determines whether to stream.
    """

    __slots__ = ("_needs", "_proto", "fetched", "legacy_functions", "options", "size", "stream", "typed")

    def __init__(
        self,
        options: pb.RequestOptions | None,
        *,
        stream: bool = False,
        legacy_functions: bool = False,
        typed: bool = False,
    ) -> None:
        #: The request's `lmchat`: routing directive and debug topics; None where it has none.
        self.options = options
        self.stream = stream
        self.legacy_functions = legacy_functions
        #: Whether its completion is needed as a message.
        self.typed = typed
        #: Bytes of what it was read from; may be 0 where that is not large.
        self.size = 0
        #: What the gateway fetched, by URL: its media type and a data URL, or the error. Requests derived from
        #: this one share it, so that however many attempts there are, each URL is fetched once.
        self.fetched: dict[str, tuple[str, str] | InvalidRequest] = {}
        self._needs: frozenset[str] | None = None
        self._proto: pb.ChatCompletionRequest | None = None

    @property
    @abstractmethod
    def model(self) -> str:
        """The id, or alias, of the model."""

    @property
    @abstractmethod
    def choices(self) -> int:
        """The number of requested choices; at least 1."""

    @property
    @abstractmethod
    def include_usage(self) -> bool:
        """Whether a stream is to end with a usage chunk."""

    @property
    @abstractmethod
    def extended(self) -> bool:
        """Whether messages or tools may have fields beyond OpenAI's, such as another dialect's signatures."""

    @property
    def requires_parameters(self) -> bool:
        """Whether endpoints that would drop a parameter are to be skipped."""
        return self.options is not None and self.options.routing.require_parameters

    @property
    def needs(self) -> frozenset[str]:
        """Features that the request depends on: `tools`, `other_tools`, `json_object`, `json_schema`, `image`,
        `audio`, `file`, `other_parts`, `n`, `audio_output`."""
        if self._needs is None:
            self._needs = self._find_needs()
        return self._needs

    @abstractmethod
    def parameters(self) -> list[str]:
        """The names of the top-level fields that are set and known to the contract."""

    @abstractmethod
    def unknown_parameters(self) -> Collection[str]:
        """The names of the other top-level fields that are set."""

    def without(self, names: Collection[str]) -> ChatRequest:
        """The request less these top-level fields; itself where there are none."""
        if not names:
            return self
        return self._without(frozenset(names))._derived_from(self)

    def with_message(self, message: pb.ChatCompletionRequest, *, typed: bool = True) -> ProtoRequest:
        """Another request in place of this one; `typed`: its completion is needed as a message."""
        request = ProtoRequest(message, typed=typed)
        request.fetched, request.size = self.fetched, self.size
        return request

    def with_debug(self, topics: Sequence[str]) -> Self:
        """The request with further topics in `lmchat.debug`."""
        options = pb.RequestOptions()
        if self.options is not None:
            options.CopyFrom(self.options)
        options.debug.extend(topics)
        return self._with_options(options)._derived_from(self)

    def to_proto(self) -> pb.ChatCompletionRequest:
        """The typed message, shared by all callers of this method."""
        if self._proto is None:
            self._proto = self._convert()
        return self._proto

    @abstractmethod
    def to_openai(self) -> dict[str, Any]:
        """OpenAI's JSON object, a new one on each call, without `stream` and `lmchat`.

        Raises InvalidRequest for a `*_json` field that is not JSON or is nested too deeply.
        """

    def _derived_from(self, other: ChatRequest) -> Self:
        self.fetched, self.size, self.typed = other.fetched, other.size, other.typed
        return self

    @abstractmethod
    def _without(self, names: frozenset[str]) -> ChatRequest: ...

    @abstractmethod
    def _find_needs(self) -> frozenset[str]: ...

    @abstractmethod
    def _with_options(self, options: pb.RequestOptions) -> Self: ...

    @abstractmethod
    def _convert(self) -> pb.ChatCompletionRequest: ...


class JsonRequest(ChatRequest):
    """A request in OpenAI's JSON. `unknown`: the fields that `fields` has no place for."""

    __slots__ = ("_fields", "_unknown")

    def __init__(
        self, fields: RequestFields, unknown: Unknown, options: pb.RequestOptions | None, *, stream: bool
    ) -> None:
        super().__init__(options, stream=stream)
        self._fields = fields
        self._unknown = unknown

    @property
    def model(self) -> str:
        return self._fields.model

    @property
    def choices(self) -> int:
        return self._fields.n or 1

    @property
    def include_usage(self) -> bool:
        options = self._fields.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def extended(self) -> bool:
        return any(path for path, _ in self._unknown)

    def parameters(self) -> list[str]:
        values = _field_values(self._fields)
        return [name for name, value in zip(_FIELD_NAMES, values, strict=True) if value is not None]

    def unknown_parameters(self) -> Collection[str]:
        return fields_at(self._unknown, ()) if self._unknown else ()

    def _without(self, names: frozenset[str]) -> ChatRequest:
        known = dict.fromkeys(name for name in names if name in RequestFields.__struct_fields__)
        unknown: Unknown = []
        for path, fields in self._unknown:
            if not path:
                fields = _less(fields, names)
            if fields and not (path and path[0] in known):
                unknown.append((path, fields))
        remaining = msgspec.structs.replace(self._fields, **known)
        return JsonRequest(remaining, unknown, self.options, stream=self.stream)

    def to_openai(self) -> dict[str, Any]:
        try:
            out: dict[str, Any] = msgspec.to_builtins(self._fields)
        except RecursionError:  # only schemas can be so deep
            raise InvalidRequest("Nested too deeply.", "tools") from None
        if self._unknown:
            restore_unknown(out, self._unknown)
        return out

    def _find_needs(self) -> frozenset[str]:
        fields = self._fields
        needs = {"tools"} if fields.tools else set()
        for message in fields.messages:
            if message.content.__class__ is list:
                needs.update(
                    PART_NEEDS[part.__class__] for part in message.content if part.__class__ in PART_NEEDS
                )
        if fields.response_format is not None:
            kind = fields.response_format.__struct_config__.tag
            needs.update([_FORMAT_NEEDS[kind]] if kind in _FORMAT_NEEDS else [])
        if self.choices > 1:
            needs.add("n")
        if fields.modalities and "audio" in fields.modalities:
            needs.add("audio_output")
        return frozenset(needs) if needs else _NONE

    def _with_options(self, options: pb.RequestOptions) -> JsonRequest:
        return JsonRequest(self._fields, self._unknown, options, stream=self.stream)

    def _convert(self) -> pb.ChatCompletionRequest:
        message = openai_json.parse_object(self.to_openai())
        if self.options is not None:
            message.lmchat.CopyFrom(self.options)
        return message


class ProtoRequest(ChatRequest):
    """A request in its typed form: of a gRPC caller, or what a caller's JSON had to be converted to."""

    __slots__ = ("_message", "_unknown")

    def __init__(
        self,
        message: pb.ChatCompletionRequest,
        *,
        stream: bool = False,
        legacy_functions: bool = False,
        typed: bool = True,
        size: int = 0,
    ) -> None:
        options = message.lmchat if message.HasField("lmchat") else None
        super().__init__(options, stream=stream, legacy_functions=legacy_functions, typed=typed)
        self.size = size
        self._message = message
        self._unknown: Collection[str] | None = None

    @property
    def model(self) -> str:
        return self._message.model

    @property
    def choices(self) -> int:
        return max(1, self._message.n)

    @property
    def include_usage(self) -> bool:
        return self._message.stream_options.include_usage

    @property
    def extended(self) -> bool:
        return True

    def parameters(self) -> list[str]:
        return [field.name for field, _ in self._message.ListFields() if field.name not in _NO_PARAMETERS]

    def unknown_parameters(self) -> Collection[str]:
        if self._unknown is None:
            text = self._message.extra_body_json
            self._unknown = tuple(openai_json.load(text)) if text else ()
        return self._unknown

    def _without(self, names: frozenset[str]) -> ChatRequest:
        message = copy(self._message)
        for name in names:
            if name in pb.ChatCompletionRequest.DESCRIPTOR.fields_by_name:
                message.ClearField(name)  # type: ignore[arg-type]
        if message.extra_body_json:
            kept = _less(openai_json.load(message.extra_body_json), names)
            message.extra_body_json = openai_json.encode_text(kept) if kept else ""
        return ProtoRequest(message, stream=self.stream, legacy_functions=self.legacy_functions)

    def to_openai(self) -> dict[str, Any]:
        try:
            out = openai_json.dump(self._message)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
        for name in ("stream", "lmchat"):  # may stand in extra_body_json
            out.pop(name, None)
        return out

    def _find_needs(self) -> frozenset[str]:
        request = self._message
        needs = set()
        for message in request.messages:
            for part in message.content:
                kind = part.WhichOneof("part")
                if kind in _PART_NEEDS:
                    needs.add(_PART_NEEDS[kind])
        for tool in request.tools:
            needs.add("tools" if tool.HasField("function") else "other_tools")
        if request.HasField("response_format"):
            format_ = request.response_format.WhichOneof("format")
            if format_ in _FORMAT_NEEDS:
                needs.add(_FORMAT_NEEDS[format_])
        if request.n > 1:
            needs.add("n")
        if "audio" in request.modalities:
            needs.add("audio_output")
        return frozenset(needs)

    def _with_options(self, options: pb.RequestOptions) -> ProtoRequest:
        message = copy(self._message)
        message.lmchat.CopyFrom(options)
        return ProtoRequest(message, stream=self.stream, legacy_functions=self.legacy_functions)

    def _convert(self) -> pb.ChatCompletionRequest:
        return self._message


#: Fields of the message that are not request parameters.
_NO_PARAMETERS = frozenset({"lmchat", "extra_body_json"})


def read(body: bytes) -> ChatRequest:
    """The request in the body of a REST call. Raises InvalidRequest with the path of the field at fault."""
    request = _read(body)
    request.size = len(body)
    return request


def _read(body: bytes) -> ChatRequest:
    if len(body) > limits.UNCHECKED_BYTES:
        limits.check_body(body)
    body = body.removeprefix(b"\xef\xbb\xbf")
    known = request_fields.read(body)
    if known is None:
        parsed = openai_json.parse(body)
        return ProtoRequest(
            parsed.request, stream=parsed.stream, legacy_functions=parsed.legacy_functions, typed=False
        )
    fields, unknown = known
    options = None
    if fields.lmchat is not None:
        options = pb.RequestOptions()
        try:
            fill_options(options, fields.lmchat)
        except InvalidRequest as error:
            raise openai_json.at(error, "lmchat") from None
    stream = bool(fields.stream)
    fields.stream = fields.lmchat = None
    return JsonRequest(fields, unknown, options, stream=stream)


def copy(message: pb.ChatCompletionRequest) -> pb.ChatCompletionRequest:
    """A mutable copy of a shared message."""
    out = pb.ChatCompletionRequest()
    out.CopyFrom(message)
    return out


def _less(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
