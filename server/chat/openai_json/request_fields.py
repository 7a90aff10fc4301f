"""The fields of a request in OpenAI's JSON, checked by typed structs.

The structs accept what the contract knows in the form in which every provider of
the OpenAI dialect takes it. Anything else (an unusual spelling, audio output, the
deprecated `functions`, a value out of range) falls back to `request.parse`, which converts
it to protobuf or raises the error.
Fields are in the order of chat.proto; null is absence.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from lmchat.v1 import chat_pb2 as pb
from msgspec import Meta

from server.chat import limits
from server.chat.openai_json.bounds import INTEGERS, NUMBERS
from server.chat.openai_json.fields import names
from server.chat.openai_json.unknown import KnownDecoder, Level, Path, Unknown, fields_at

_Text = Annotated[str, Meta(min_length=1)]
_ENTRIES = Meta(max_length=limits.MAX_ENTRIES)

VERBOSITIES = names(pb.Verbosity, "VERBOSITY_")
REASONING_EFFORTS = names(pb.ReasoningEffort, "REASONING_EFFORT_")

#: A default that, unlike None, is encoded.
written_null = type(None)


def _within(name: str) -> Meta:
    low, high = (NUMBERS | INTEGERS)[name]
    return Meta(ge=low, le=high)


class _Object(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A JSON object."""


# Content parts


class _TextPart(_Object, tag_field="type", tag="text"):
    text: str


class _Image(_Object):
    url: _Text
    detail: Literal["auto", "low", "high", "original"] | None = None


class _ImagePart(_Object, tag_field="type", tag="image_url"):
    image_url: _Image


class _Audio(_Object):
    data: _Text
    format: _Text


class _AudioPart(_Object, tag_field="type", tag="input_audio"):
    input_audio: _Audio


class _File(_Object):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_Object, tag_field="type", tag="file"):
    file: _File


class _RefusalPart(_Object, tag_field="type", tag="refusal"):
    refusal: str


_Part = _TextPart | _ImagePart | _AudioPart | _FilePart | _RefusalPart
_Parts = Annotated[list[_Part], Meta(min_length=1, max_length=limits.MAX_PARTS)]

#: Struct of a content part -> the feature it needs; see `ChatRequest.needs`.
PART_NEEDS: dict[type, str] = {_ImagePart: "image", _AudioPart: "audio", _FilePart: "file"}


# Messages


class _FunctionCall(_Object):
    name: str
    arguments: str


class _ToolCall(_Object):
    id: _Text
    type: Literal["function"]
    function: _FunctionCall


class _Message(_Object, tag_field="role"):
    content: str | _Parts
    name: str | None = None


class _System(_Message, tag="system"):
    pass


class _Developer(_Message, tag="developer"):
    pass


class _User(_Message, tag="user"):
    pass


class _Assistant(_Object, tag_field="role", tag="assistant"):
    """Empty fields of completions, which callers may send back."""

    content: str | list[_Part] | None = msgspec.field(default_factory=written_null)
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_details: Annotated[list[Any], Meta(max_length=0)] | None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None


class _ToolResult(_Object, tag_field="role", tag="tool", kw_only=True):
    content: str | _Parts
    name: str | None = None
    tool_call_id: _Text


# Tools and formats


class _Function(_Object):
    name: _Text
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Object):
    type: Literal["function"]
    function: _Function


class _FunctionName(_Object):
    name: _Text


class _ToolChoice(_Object):
    type: Literal["function"]
    function: _FunctionName


class _TextFormat(_Object, tag_field="type", tag="text"):
    pass


class _JsonObjectFormat(_Object, tag_field="type", tag="json_object"):
    pass


class _JsonSchema(_Object):
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _JsonSchemaFormat(_Object, tag_field="type", tag="json_schema"):
    json_schema: _JsonSchema


class _StreamOptions(_Object):
    include_usage: bool | None = None


class RequestFields(_Object):
    """A request as providers of the OpenAI dialect accept it, and `stream` and `lmchat`."""

    model: _Text
    messages: Annotated[
        list[_System | _Developer | _User | _Assistant | _ToolResult],
        Meta(min_length=1, max_length=limits.MAX_MESSAGES),
    ]
    temperature: Annotated[float, _within("temperature")] | None = None
    top_p: Annotated[float, _within("top_p")] | None = None
    max_tokens: Annotated[int, _within("max_tokens")] | None = None
    max_completion_tokens: Annotated[int, _within("max_completion_tokens")] | None = None
    stop: str | Annotated[list[str], Meta(max_length=limits.MAX_STOP)] | None = None
    presence_penalty: Annotated[float, _within("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, _within("frequency_penalty")] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], _ENTRIES] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, _within("top_logprobs")] | None = None
    n: Annotated[int, _within("n")] | None = None
    seed: Annotated[int, _within("seed")] | None = None
    response_format: _TextFormat | _JsonObjectFormat | _JsonSchemaFormat | None = None
    modalities: Annotated[list[str], Meta(max_length=limits.MAX_NAMES)] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    tools: Annotated[list[_Tool], Meta(max_length=limits.MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    metadata: Annotated[dict[str, str], _ENTRIES] | None = None
    store: bool | None = None
    service_tier: str | None = None
    stream: bool | None = None
    lmchat: dict[str, Any] | None = None


#: Names that the contract knows and the structs do not: requests that have them are parsed to protobuf.
_PARSED = frozenset({"functions", "function_call", "audio", "prediction", "web_search_options"})
_PARSED_IN_MESSAGES = (
    "refusal", "reasoning_content", "tool_calls", "tool_call_id", "function_call", "reasoning_details",
    "annotations", "audio",
)  # fmt: skip


_PART_LEVEL = Level(
    frozenset({"type", "text", "image_url", "input_audio", "file", "refusal"}),
    {"image_url": Level.of(_Image), "input_audio": Level.of(_Audio), "file": Level.of(_File)},
    ("text", "image_url", "input_audio", "file", "refusal"),
)
_CALL_LEVEL = Level.of(_ToolCall, function=Level.of(_FunctionCall))._replace(types=("function",))
_MESSAGE_LEVEL = Level.of(_Message, "role", *_PARSED_IN_MESSAGES, content=_PART_LEVEL, tool_calls=_CALL_LEVEL)
#: The fields of a request that the contract knows, and of the objects in it.
REQUEST_LEVEL = Level(
    frozenset({*RequestFields.__struct_fields__, *_PARSED}),
    {
        "messages": _MESSAGE_LEVEL,
        "tools": Level.of(_Tool, function=Level.of(_Function))._replace(types=("function",)),
        "response_format": Level(frozenset({"type", "json_schema"}), {"json_schema": Level.of(_JsonSchema)}),
        "stream_options": Level.of(_StreamOptions),
    },
    open={"reasoning_effort": REASONING_EFFORTS, "verbosity": VERBOSITIES},
)

#: The same without the objects in it, since most unknown fields are vendors' parameters.
_TOP_LEVEL = REQUEST_LEVEL._replace(below={})

_NO_PATHS: frozenset[Path] = frozenset()
_decoder = KnownDecoder(RequestFields, _TOP_LEVEL, REQUEST_LEVEL)


def read(body: bytes) -> tuple[RequestFields, Unknown] | None:
    """The known fields of a request, and the others; None for what `request.parse` has to look at.

    Raises InvalidRequest for an object with too many unknown fields, and for too many parts in all.
    """
    decoded = _decoder.decode(body)
    if decoded is None:
        return None
    fields, unknown = decoded
    if unknown and fields_at(unknown, ("response_format",)):  # `request.parse` handles these
        return None
    if fields.top_logprobs and not fields.logprobs:  # an error, which `request.parse` raises
        return None
    _normalise(fields)
    limits.check_parts(
        _normalise_messages(fields.messages, {path for path, _ in unknown} if unknown else _NO_PATHS)
    )
    return fields, unknown


_MAY_BE_EMPTY = ("stop", "logit_bias", "modalities", "tools", "metadata")
_may_be_empty = attrgetter(*_MAY_BE_EMPTY)
_ABSENT = (None,) * len(_MAY_BE_EMPTY)


def _normalise(fields: RequestFields) -> None:
    """A list for a string `stop`, and null for what is empty."""
    if _may_be_empty(fields) == _ABSENT:
        return
    if fields.stop.__class__ is str:
        fields.stop = [fields.stop]
    for name, value in zip(_MAY_BE_EMPTY, _may_be_empty(fields), strict=True):
        if not value and value is not None:
            setattr(fields, name, None)


def _normalise_messages(messages: Iterable[Any], extended: Set[Path]) -> int:
    """Normalise equivalent spellings; how much of `limits.MAX_PARTS` the messages take.

    `extended`: the paths of objects with unknown fields.
    """
    parts = 0
    for index, message in enumerate(messages):
        content = message.content
        if content.__class__ is list:
            parts += len(content)
            message.content = _content(content, ("messages", index, "content", 0) in extended)
        if message.__class__ is _Assistant:
            if message.tool_calls is not None:
                parts += len(message.tool_calls)
                message.tool_calls = message.tool_calls or None
            message.reasoning_details = message.annotations = None
    return parts


def _content(parts: Any, extended: bool) -> Any:
    """A lone text part is a string, no part at all is null."""
    if len(parts) == 1 and parts[0].__class__ is _TextPart and not extended:
        return parts[0].text
    return parts or None
