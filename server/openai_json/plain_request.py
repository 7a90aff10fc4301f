"""Requests that go to an OpenAI-dialect provider as they came: turns of text and the usual knobs.

Most requests are such, and that dialect's providers take them as they are, up to
the model's name and what a vendor calls a knob. For these the way through
protobuf and back is a detour. `read` takes only what it knows to come out the
same (tests compare the two), and leaves the rest to the long way: content parts,
tools, formats, whatever is wrong, and so has an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from lmchat.v1 import chat_pb2 as pb
from msgspec import Meta

from server.errors import InvalidRequest
from server.openai_json.bounds import INTEGERS, NUMBERS
from server.openai_json.options import fill_options


def _within(name: str) -> Meta:
    low, high = (NUMBERS | INTEGERS)[name]
    return Meta(ge=low, le=high)


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    include_usage: bool | None = None


class _Fields(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """In the order that they have in chat.proto. null is absence."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_Turn], Meta(min_length=1)]
    temperature: Annotated[float, _within("temperature")] | None = None
    top_p: Annotated[float, _within("top_p")] | None = None
    max_tokens: Annotated[int, _within("max_tokens")] | None = None
    max_completion_tokens: Annotated[int, _within("max_completion_tokens")] | None = None
    presence_penalty: Annotated[float, _within("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, _within("frequency_penalty")] | None = None
    seed: Annotated[int, _within("seed")] | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    stream: bool | None = None
    lmchat: dict[str, Any] | None = None


class PlainRequest(NamedTuple):
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
        return self._replace(fields=msgspec.structs.replace(self.fields, **dict.fromkeys(names)))

    def dump(self) -> dict[str, Any]:
        """OpenAI's object, without what is set apart."""
        out: dict[str, Any] = msgspec.to_builtins(self.fields)
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
