"""Requests that go to an OpenAI-dialect provider as they came: turns of text, functions and the usual knobs.

Most requests are such, and that dialect's providers take them as they are, up to
the model's name and what a vendor calls a knob. For these the way through
protobuf and back is a detour. `read` takes only what it knows to come out the
same (tests compare the two), and leaves the rest to the long way: content parts,
formats, vendors' fields, whatever is wrong and so has an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from lmchat.v1 import chat_pb2 as pb
from msgspec import Meta

from server.chat.openai_json.bounds import INTEGERS, MAX_STOP, NUMBERS
from server.chat.openai_json.options import fill_options
from server.chat.openai_json.plain import written_null
from server.errors import InvalidRequest

_Text = Annotated[str, Meta(min_length=1)]
_SOME = Meta(min_length=1)


def _within(name: str) -> Meta:
    low, high = (NUMBERS | INTEGERS)[name]
    return Meta(ge=low, le=high)


class _Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """null is absence."""


class _FunctionCall(_Part):
    name: str
    arguments: str


class _ToolCall(_Part):
    id: _Text
    type: Literal["function"]
    function: _FunctionCall


class _Said(_Part, tag_field="role"):
    content: str
    name: str | None = None


class _System(_Said, tag="system"):
    pass


class _Developer(_Said, tag="developer"):
    pass


class _User(_Said, tag="user"):
    pass


class _Assistant(_Part, tag_field="role", tag="assistant"):
    """What answers have that says nothing may be sent back."""

    content: str | None = msgspec.field(default_factory=written_null)
    name: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[_ToolCall], _SOME] | None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] = []
    audio: None = None


class _Result(_Part, tag_field="role", tag="tool", kw_only=True):
    content: str
    name: str | None = None
    tool_call_id: _Text


class _Function(_Part):
    name: _Text
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Part):
    type: Literal["function"]
    function: _Function


class _Name(_Part):
    name: _Text


class _Choice(_Part):
    type: Literal["function"]
    function: _Name


class _StreamOptions(_Part):
    include_usage: bool | None = None


class _Fields(_Part):
    """In the order that they have in chat.proto."""

    model: _Text
    messages: Annotated[list[_System | _Developer | _User | _Assistant | _Result], _SOME]
    temperature: Annotated[float, _within("temperature")] | None = None
    top_p: Annotated[float, _within("top_p")] | None = None
    max_tokens: Annotated[int, _within("max_tokens")] | None = None
    max_completion_tokens: Annotated[int, _within("max_completion_tokens")] | None = None
    stop: Annotated[list[str], Meta(min_length=1, max_length=MAX_STOP)] | None = None
    presence_penalty: Annotated[float, _within("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, _within("frequency_penalty")] | None = None
    seed: Annotated[int, _within("seed")] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    tools: Annotated[list[_Tool], _SOME] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    stream: bool | None = None
    lmchat: dict[str, Any] | None = None


class PlainRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as it came, but for `stream` and `lmchat`, which are set apart."""

    fields: _Fields
    stream: bool
    options: pb.RequestOptions | None

    @property
    def model(self) -> str:
        """Of the caller's choosing."""
        return self.fields.model

    def names(self) -> list[str]:
        """Of the fields that are there."""
        return [name for name in self.fields.__struct_fields__ if getattr(self.fields, name) is not None]

    def without(self, names: list[str]) -> PlainRequest:
        """The request less the fields in `names`."""
        fields = msgspec.structs.replace(self.fields, **dict.fromkeys(names))
        return PlainRequest(fields, self.stream, self.options)

    def dump(self) -> dict[str, Any]:
        """OpenAI's object, without what is set apart. Raises InvalidRequest."""
        try:
            out: dict[str, Any] = msgspec.to_builtins(self.fields)
        except RecursionError:  # only parameters of functions have such a depth
            raise InvalidRequest("Nested too deeply.", "tools") from None
        return out


#: What callers ask for, typed or as it came.
ChatRequest = pb.ChatCompletionRequest | PlainRequest


def include_usage(request: ChatRequest) -> bool:
    """Whether a stream is to end with its usage."""
    if isinstance(request, PlainRequest):
        asked = request.fields.stream_options
        return asked is not None and bool(asked.include_usage)
    return request.stream_options.include_usage


_decode = msgspec.json.Decoder(_Fields).decode


def read(body: bytes) -> PlainRequest | None:
    """The request in a caller's body; None if it must go the long way."""
    try:
        fields = _decode(body)
        options = None
        if fields.lmchat is not None:
            options = pb.RequestOptions()
            fill_options(options, fields.lmchat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest):
        return None
    stream = bool(fields.stream)
    fields.stream = fields.lmchat = None
    return PlainRequest(fields, stream, options)
