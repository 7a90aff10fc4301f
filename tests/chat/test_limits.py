"""Limits of requests: a request above one is refused with its name or number, one at the limit is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.api.validate import validate
from server.chat import limits, openai_json
from server.chat.request import read
from server.dialects.reading import read_object
from server.errors import InvalidRequest, ProviderError, Reason

HI = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "a"}
TOOL = {"type": "function", "function": {"name": "f"}}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [HI], **fields}, separators=(",", ":")).encode()


def raw(name: str, value: str) -> bytes:
    return body()[:-1] + f',"{name}":{value}}}'.encode()


def refused(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(data)
    return caught.value


def of(kind: str, count: int) -> bytes:
    """A request with `count` items of the kind that a limit bounds."""
    match kind:
        case "messages":
            return body(messages=[HI] * count)
        case "named messages":  # which are parsed to protobuf
            return body(messages=[HI] * count, functions=[{"name": "f"}])
        case "tools":
            return body(tools=[TOOL] * count)
        case "functions":
            return body(functions=[{"name": "f"}] * count)
        case "parts":
            half = [TEXT] * (count // 2)
            return body(
                messages=[{"role": "user", "content": part} for part in (half, [TEXT] * (count - len(half)))]
            )
        case "parts of parsed requests":
            half = [TEXT] * (count // 2)
            turns = [{"role": "user", "content": part} for part in (half, [TEXT] * (count - len(half)))]
            return body(messages=turns, functions=[{"name": "f"}])
        case "stop":
            return body(stop=["a"] * count)
        case "logit_bias":
            return body(logit_bias={str(n): 1 for n in range(count)})
        case "metadata":
            return body(metadata={str(n): "a" for n in range(count)})
        case "modalities":
            return body(modalities=["text"] * count)
        case "models":
            return body(lmchat={"routing": {"models": ["a"] * count}})
        case "unknown fields":
            return body(**{f"x{n}": 1 for n in range(count)})
        case "unknown fields of a message":
            return body(messages=[HI | {f"x{n}": 1 for n in range(count)}])
        case "unknown fields of a function":
            return body(functions=[{"name": "f", **{f"x{n}": 1 for n in range(count)}}])
        case "values":
            return raw("x", f"[{','.join(['[]'] * count)}]")
        case "strings":
            return raw("x", f"[{','.join([chr(34) * 2] * count)}]")
        case "backslashes":
            return raw("user", '"' + r"\n" * count + '"')
    raise AssertionError(kind)


LISTS = [
    ("messages", limits.MAX_MESSAGES, "messages"),
    ("named messages", limits.MAX_MESSAGES, "messages"),
    ("tools", limits.MAX_TOOLS, "tools"),
    ("functions", limits.MAX_TOOLS, "functions"),
    ("parts", limits.MAX_PARTS, "messages"),
    ("parts of parsed requests", limits.MAX_PARTS, "messages"),
    ("stop", limits.MAX_STOP, "stop"),
    ("logit_bias", limits.MAX_ENTRIES, "logit_bias"),
    ("metadata", limits.MAX_ENTRIES, "metadata"),
    ("modalities", limits.MAX_NAMES, "modalities"),
    ("models", limits.MAX_NAMES, "lmchat.routing.models"),
    ("unknown fields", limits.MAX_UNKNOWN, None),
    ("unknown fields of a message", limits.MAX_UNKNOWN, "messages[0]"),
    ("unknown fields of a function", limits.MAX_UNKNOWN, "functions[0]"),
]


@pytest.mark.parametrize(("kind", "most", "param"), LISTS, ids=[row[0] for row in LISTS])
def test_lists_have_limits(kind: str, most: int, param: str | None) -> None:
    read(of(kind, most))
    error = refused(of(kind, most + 1))
    assert (error.reason, error.param) == (Reason.INVALID_REQUEST, param)
    assert f"At most {most}" in error.message
    assert f"got {most + 1}" in error.message


@pytest.mark.parametrize(
    ("kind", "most", "count"),
    [
        ("values", limits.MAX_VALUES, limits.MAX_VALUES // 2 - 10),
        ("values", limits.MAX_VALUES, limits.MAX_VALUES),
        ("values", limits.MAX_VALUES, 5_000_000),
        ("strings", limits.MAX_VALUES, limits.MAX_VALUES - 20),
        ("strings", limits.MAX_VALUES, limits.MAX_VALUES),
        ("strings", limits.MAX_VALUES, 3_000_000),
        ("backslashes", limits.MAX_ESCAPES, limits.MAX_ESCAPES),
        ("backslashes", limits.MAX_ESCAPES, limits.MAX_ESCAPES + 1),
    ],
)
def test_bodies_have_limits(kind: str, most: int, count: int) -> None:
    data = of(kind, count)
    if count < most or (kind, count) == ("backslashes", most):
        read(data)
        return
    error = refused(data)
    assert (error.reason, error.status.http) == (Reason.REQUEST_TOO_LARGE, 413)
    assert f"more than {most} " in error.message


@pytest.mark.parametrize("digits", [limits.MAX_DIGITS, 4000])
def test_numbers_have_a_length(digits: int) -> None:
    """Short bodies are not checked, and digits within strings are not numbers."""
    number = "1" * digits
    numbers = f"[{','.join([number] * (2_000_000 // digits))}]"
    assert f"more than {limits.MAX_DIGITS} digits" in refused(raw("x", numbers)).message
    read(raw("x", number))
    read(raw("user", json.dumps(number * (2_000_000 // digits))))


@pytest.mark.parametrize(
    "text",
    ["a,b;" * 500_000, "[{" * 500_000, '\\",[' * 200_000, "\\\\" * 200_000 + ',"[', "Ab1/" * 5_000_000],
    ids=["commas", "brackets", "quotes", "backslashes", "base64"],
)
def test_strings_may_hold_any_syntax(text: str) -> None:
    request = read(body(messages=[{"role": "user", "content": text}]))
    assert request.to_openai()["messages"][0]["content"] == text


@pytest.mark.parametrize("text", ["\u6f22", "a\U0001f600", "\\u6f22"], ids=["Chinese", "emoji", "escaped"])
def test_text_has_a_limit_and_files_have_not(text: str) -> None:
    """One character of four bytes makes a string of base64 four times as large in memory."""
    half = text * (limits.MAX_TEXT_BYTES // 2 // len(text.encode()) - 10)
    file = "abcd" * (limits.MAX_TEXT_BYTES // 4)

    def of(*texts: str) -> bytes:
        strings = '","'.join(texts)
        return f'{{"model":"m","messages":[{{"role":"user","content":"{file}"}}],"x":["{strings}"]}}'.encode()

    read(of(f"{half}{half}"))
    read(of("\\\\u6f22", file))
    for texts in ((f"{half}{half}{text * 40}",), (half, half + text * 40), (f'{half}\\"{half}{text * 40}',)):
        assert f"more than {limits.MAX_TEXT_BYTES} bytes of text" in refused(of(*texts)).message


@pytest.mark.parametrize("depth", [500, 50_000])
def test_deep_json(depth: int) -> None:
    data = raw("x", "[" * depth + "]" * depth)
    if depth < 1000:
        read(data)
    else:
        assert "nested too deeply" in refused(data).message


def test_a_long_key_is_cut() -> None:
    """It is not compared with the known ones, which would take hours."""
    error = refused(body(lmchat={"a" * 1_000_000: 1}))
    assert len(error.message) < 200
    assert error.param == f"lmchat.{'a' * 64}..."
    assert "Did you mean 'debug'" in refused(body(lmchat={"debg": []})).message


TYPED: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"messages": [pb.Message()] * (limits.MAX_MESSAGES + 1)}, "messages"),
    ("tools", {"tools": [pb.Tool()] * (limits.MAX_TOOLS + 1)}, "tools"),
    ("stop", {"stop": ["a"] * (limits.MAX_STOP + 1)}, "stop"),
    ("logit_bias", {"logit_bias": {str(n): 1 for n in range(limits.MAX_ENTRIES + 1)}}, "logit_bias"),
    ("metadata", {"metadata": {str(n): "a" for n in range(limits.MAX_ENTRIES + 1)}}, "metadata"),
    ("modalities", {"modalities": ["text"] * (limits.MAX_NAMES + 1)}, "modalities"),
    ("debug", {"lmchat": pb.RequestOptions(debug=["a"] * (limits.MAX_NAMES + 1))}, "lmchat.debug"),
    (
        "prefer",
        {"lmchat": pb.RequestOptions(routing=pb.Routing(prefer=["a"] * (limits.MAX_NAMES + 1)))},
        "lmchat.routing.prefer",
    ),
    ("parts", {"messages": [pb.Message(content=[pb.ContentPart(text="a")] * (limits.MAX_PARTS + 1))]}, "messages"),
    (
        "prediction",
        {"prediction": pb.Prediction(content=[pb.ContentPart(text="a")] * (limits.MAX_PARTS + 1))},
        "prediction.content",
    ),
    ("unknown", {"extra_body_json": json.dumps({str(n): 1 for n in range(257)})}, "extra_body_json"),
]


@pytest.mark.parametrize(("fields", "param"), [row[1:] for row in TYPED], ids=[row[0] for row in TYPED])
def test_typed_requests_have_the_same_limits(fields: dict[str, Any], param: str) -> None:
    request = pb.ChatCompletionRequest(model="m")
    request.messages.add(role=pb.ROLE_USER).content.add(text="hi")
    request.MergeFrom(pb.ChatCompletionRequest(**fields))
    with pytest.raises(InvalidRequest, match="At most") as caught:
        validate(request)
    assert caught.value.param == param


def test_json_texts_of_typed_requests_are_counted_together() -> None:
    request = pb.ChatCompletionRequest(model="m")
    text = json.dumps({"x": [0] * 900})
    for _ in range(200):
        request.messages.add(role=pb.ROLE_USER).content.add(other_json=text)
    with pytest.raises(InvalidRequest, match=f"more than {limits.MAX_VALUES} values") as caught:
        validate(request, large=True)
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE
    del request.messages[100:]
    validate(request, large=True)


def test_answers_have_limits() -> None:
    many = b'{"choices":[' + b"[]," * limits.MAX_ANSWER_VALUES + b"[]]}"
    with pytest.raises(ProviderError) as caught:
        read_object(many)
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    openai_json.parse_completion({"choices": [choice] * limits.MAX_CHOICES})
    with pytest.raises(InvalidRequest, match=f"At most {limits.MAX_CHOICES}"):
        openai_json.parse_completion({"choices": [choice] * (limits.MAX_CHOICES + 1)})
