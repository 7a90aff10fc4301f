"""Hypothesis strategies for the contract's messages, built from their descriptors, so that every field is covered.

FIELDS has the values of fields that their type alone does not determine. Forms of a
message that have the same JSON are normalised to one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.chat.openai_json.fields import INT32_MAX, INT64_MAX

Fields = dict[str, Any]

#: Without hypothesis's deadline, for a busy machine.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=8)
SOME_TEXT = st.text(min_size=1, max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=2).map(encode_text)
#: Further fields, under keys that no table of the codec knows.
EXTRA = st.just("") | st.dictionaries(
    st.sampled_from(["cache_control", "x_ä", "top_k", "", "a.b"]), JSON, min_size=1, max_size=2
).map(encode_text)
#: An object of a type that the contract does not know.
OTHER = st.fixed_dictionaries({"type": st.just("x_other")}, optional={"x": JSON}).map(encode_text)

#: `field` or `Message.field` -> what it holds.
FIELDS: Mapping[str, SearchStrategy[Any]] = {
    "other_json": OTHER,
    "extra_json": EXTRA,
    "extra_body_json": EXTRA,
    "parameters_json": OBJECT,
    "schema_json": OBJECT,
    "user_location_json": OBJECT,
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "max_tokens": st.integers(1, INT32_MAX),
    "max_completion_tokens": st.integers(1, INT32_MAX),
    "n": st.integers(1, 128),
    "seed": st.integers(-INT64_MAX - 1, INT64_MAX),
    "max_provider_tries": st.integers(1, 100),
    "logit_bias": st.dictionaries(TEXT, st.floats(-100, 100), max_size=2),
    "metadata": st.dictionaries(TEXT, TEXT, max_size=2),
    "logprob": NUMBER,
    "function_name": SOME_TEXT,
    "redacted": SOME_TEXT,
    "voice": OBJECT | TEXT.filter(lambda text: not text.startswith("{")),
    "ChatCompletionRequest.model": SOME_TEXT,
    "ChatCompletionRequest.top_logprobs": st.just(0),  # others need logprobs
    "ResponseFormat.other_json": st.sampled_from(['{"type":"grammar","grammar":"x"}', '{"type":"regex"}']),
    "FunctionDefinition.name": SOME_TEXT,
    "ImageUrl.url": SOME_TEXT,
    "InputAudio.data": SOME_TEXT,
    "InputAudio.format": SOME_TEXT,
    "ToolCall.id": SOME_TEXT,
    "TokenLogprob.top_logprobs": st.lists(
        st.builds(pb.TokenLogprob, token=TEXT, logprob=NUMBER, bytes=st.none() | st.binary(max_size=4)), max_size=2
    ),
}

_TYPES: Mapping[int, SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=4),
    FieldDescriptor.TYPE_INT32: st.integers(0, INT32_MAX),
    FieldDescriptor.TYPE_INT64: st.integers(0, INT64_MAX),
}

#: Fields that are never absent, empty or unspecified.
_ALWAYS = {
    "ChatCompletionRequest.messages",
    "Choice.message",
    "ChunkChoice.delta",
    "Message.role",
    "ToolChoice.mode",
}

#: Fields that JSON does not have in requests (True) or in answers (False).
WORDLESS: Mapping[bool, set[str]] = {True: set(), False: {"Message.name", "Message.tool_call_id"}}


@cache
def _message(descriptor: Descriptor, request: bool) -> SearchStrategy[Any]:
    always: dict[str, SearchStrategy[Any]] = {}
    maybe: dict[str, SearchStrategy[Any]] = {}
    oneof: list[SearchStrategy[Fields]] = []
    for field in descriptor.fields:
        name = f"{descriptor.name}.{field.name}"
        if name in WORDLESS[request]:
            continue
        value = FIELDS.get(name, FIELDS.get(field.name))
        if value is None:
            value = _value(field, name, request)
        if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
            oneof.append(st.fixed_dictionaries({field.name: value}))
        elif field.has_presence and name not in _ALWAYS:
            maybe[field.name] = value
        else:
            always[field.name] = value
    fields: SearchStrategy[Fields] = st.fixed_dictionaries(always, optional=maybe)
    if oneof:
        fields = st.builds(lambda one, rest: one | rest, st.one_of(oneof), fields)
    tidy = _TIDY.get((descriptor.name, request), _whole)
    cls = getattr(pb, descriptor.name)
    return fields.map(lambda values: cls(**tidy(values)))


def _value(field: FieldDescriptor, name: str, request: bool) -> SearchStrategy[Any]:
    if field.message_type is not None:
        value = _message(field.message_type, request)
    elif field.enum_type is not None:
        codes = [code.number for code in field.enum_type.values]
        value = st.sampled_from(codes[1:] if name in _ALWAYS else codes)
    else:
        value = _TYPES[field.type]
    return st.lists(value, min_size=1 if name in _ALWAYS else 0, max_size=2) if field.is_repeated else value


def _whole(fields: Fields) -> Fields:
    """An object that is kept whole has no further fields."""
    return {"other_json": fields["other_json"]} if "other_json" in fields else fields


def _turn(fields: Fields) -> Fields:
    """Only an assistant may be without content, and a tool's result names its call."""
    if fields["role"] != pb.ROLE_ASSISTANT and not fields["content"]:
        fields["content"] = [pb.ContentPart(text="hi")]
    if fields["role"] == pb.ROLE_TOOL and not fields.get("tool_call_id"):
        fields["tool_call_id"] = "call_1"
    return fields


def _answer(fields: Fields) -> Fields:
    """Plain text is one string."""
    if all(part.HasField("text") and not part.extra_json for part in fields["content"]):
        fields["content"] = fields["content"][:1]
    return fields


def _choice(fields: Fields) -> Fields:
    """Further fields stand beside a function only."""
    return fields if "function_name" in fields else {**_whole(fields), "extra_json": ""}


_TIDY: Mapping[tuple[str, bool], Callable[[Fields], Fields]] = {
    ("Message", True): _turn,
    ("Message", False): _answer,
    ("ToolChoice", True): _choice,
}

REQUESTS: SearchStrategy[pb.ChatCompletionRequest] = _message(pb.ChatCompletionRequest.DESCRIPTOR, True)
COMPLETIONS: SearchStrategy[pb.ChatCompletion] = _message(pb.ChatCompletion.DESCRIPTOR, False)
CHUNKS: SearchStrategy[pb.ChatCompletionChunk] = _message(pb.ChatCompletionChunk.DESCRIPTOR, False)
