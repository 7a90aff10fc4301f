"""Fields are counted on the bytes as protobuf finds them: no message has more than the count says."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.api.field_count import check_fields, nested
from server.chat import limits
from server.errors import InvalidRequest, Reason
from tests.chat.strategies import PATIENT
from tests.fuzz import mutate, seeds

TAGS = nested(pb.ChatCompletionRequest.DESCRIPTOR)
HI = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="hi")])


def fields_of(message: Message) -> int:
    """The fields of a message, nested ones included, as they are on the wire."""
    count = 0
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            count += 3 * len(value)  # the entry, its key and its value
        elif field.message_type is None:
            count += len(value) if field.is_repeated else 1
        else:
            count += sum(1 + fields_of(item) for item in (value if field.is_repeated else [value]))
    return count


@pytest.mark.parametrize("message", seeds.messages(), ids=range(len(seeds.messages())))
def test_every_field_counts(message: pb.ChatCompletionRequest) -> None:
    data = message.SerializeToString()
    count = fields_of(message)
    check_fields(data, TAGS, count)
    with pytest.raises(InvalidRequest, match=f"more than {count - 1} fields") as caught:
        check_fields(data, TAGS, count - 1)
    assert (caught.value.reason, caught.value.status.http) == (Reason.REQUEST_TOO_LARGE, 413)


@PATIENT
@given(st.integers(0, 1_000_000))
def test_what_passes_has_no_more_fields(seed: int) -> None:
    """Whatever the bytes are: those that are refused as no message are none, or hold a group."""
    rng = Random(seed)
    pool = [message.SerializeToString() for message in seeds.messages()]
    data = mutate.mutate_bytes(rng.choice(pool), rng, pool)
    try:
        count = fields_of(pb.ChatCompletionRequest.FromString(data))
    except DecodeError:
        return
    outcome = "counted"
    try:
        check_fields(data, TAGS, max(0, count - 1))
    except DecodeError as error:
        outcome = str(error)
    except InvalidRequest:
        outcome = "too many"
    assert outcome == "too many" or "group" in outcome or not count


MANY = 1_000_000


@pytest.mark.parametrize(
    ("message", "data"),
    [
        pytest.param(pb.ChatCompletionRequest, b"\x12\x00" * MANY, id="messages"),
        pytest.param(pb.ChatCompletionRequest, b"\x92\x03\x00" * MANY, id="tools"),
        pytest.param(pb.ChatCompletionRequest, b"\x8a\x01\x00" * MANY, id="logit_bias"),
        pytest.param(pb.ChatCompletionRequest, b"\xba\x04\x00" * MANY, id="metadata"),
        pytest.param(pb.ChatCompletionRequest, b"\x72\x00" * MANY, id="stop"),
        pytest.param(pb.ChatCompletionRequest, b"\x58\x01" * MANY, id="one field again and again"),
        pytest.param(pb.ChatCompletionRequest, b"\xf8\x3e\x01" * MANY, id="unknown fields"),
        pytest.param(HttpBody, b"\x1a\x00" * MANY, id="extensions of a REST body"),
    ],
)
def test_millions_of_fields(message: Any, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"more than {limits.MAX_FIELDS} fields"):
        check_fields(data, nested(message.DESCRIPTOR))


@pytest.mark.parametrize("path", ["content", "tool_calls", "reasoning_details", "annotations"])
def test_millions_of_parts_in_one_message(path: str) -> None:
    number = pb.Message.DESCRIPTOR.fields_by_name[path].number
    parts = bytes((number << 3 | 2, 0)) * MANY
    length = len(parts)
    varint = bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
    with pytest.raises(InvalidRequest, match=f"more than {limits.MAX_FIELDS} fields"):
        check_fields(b"\x12" + varint + parts, TAGS)


def test_a_request_at_every_limit_is_not_too_large() -> None:
    request = pb.ChatCompletionRequest(model="m")
    for _ in range(limits.MAX_PARTS // 2):
        call = pb.ToolCall(id="c", function=pb.FunctionCall(name="f", arguments="{}"), extra_json="{}")
        request.messages.add(role=pb.ROLE_ASSISTANT).tool_calls.extend([call, call])
    for number in range(limits.MAX_TOOLS):
        request.tools.add().function.name = f"f{number}"
    for number in range(limits.MAX_ENTRIES):
        request.metadata[str(number)] = request.user
    check_fields(request.SerializeToString(), TAGS)


@pytest.mark.parametrize("text", ["\u6f22", "a\U0001f600"], ids=["Chinese", "emoji"])
def test_text_has_a_limit_and_files_have_not(text: str) -> None:
    request = pb.ChatCompletionRequest(model="m", messages=[HI])
    request.messages[0].content.add().image_url.url = "abcd" * (limits.MAX_TEXT_BYTES // 4)
    half = text * (limits.MAX_TEXT_BYTES // 2 // len(text.encode()))
    request.messages[0].content.add(text=half)
    check_fields(request.SerializeToString(), TAGS)
    request.messages[0].content.add(text=half + text * 4)
    with pytest.raises(InvalidRequest, match=f"more than {limits.MAX_TEXT_BYTES} bytes of text"):
        check_fields(request.SerializeToString(), TAGS)
    body = HttpBody(data=request.SerializeToString())  # bytes, whose text the reader of JSON counts
    check_fields(body.SerializeToString(), nested(HttpBody.DESCRIPTOR))
