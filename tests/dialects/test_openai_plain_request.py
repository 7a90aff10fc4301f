"""Requests that go to a provider as they came are those that would go there by way of protobuf."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat import openai_json
from server.chat.openai_json import PlainRequest, read_plain_request
from server.chat.openai_json.fields import names
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.registry import DIALECTS
from server.errors import InvalidRequest
from server.routing import capabilities as features
from server.routing.plan import options
from server.vendors.registry import VENDORS
from tests.dialects.openai_help import TRANSLATOR, endpoint

CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
RESULT = {"role": "tool", "content": "2", "tool_call_id": "call_a"}
FUNCTION = {
    "name": "f",
    "description": "",
    "parameters": {"type": "object", "properties": {"z": {"maximum": 1.0}, "a": {"enum": [None, 2**70, 1e300]}}},
    "strict": True,
}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "H\u00e9\n\u0000"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    RESULT,
    RESULT,
    {"role": "assistant", "content": None, "annotations": [], "refusal": None},
    {"role": "user", "content": "Go on.", "name": "n"},
]
WHOLE: dict[str, Any] = {
    "model": "public",
    "messages": TURNS,
    "temperature": 0.7,
    "top_p": 1,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "stop": ["a", ""],
    "presence_penalty": -2,
    "frequency_penalty": 0.0,
    "seed": -1,
    "reasoning_effort": "low",
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {"name": "g"}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "user": "u",
    "store": False,
    "service_tier": "",
    "stream": False,
    "stream_options": {"include_usage": True},
    "lmchat": {"routing": {"prefer": ["up"], "allow_fallbacks": False}, "debug": ["routing"]},
}
OPENAI = [vendor for vendor in VENDORS.values() if vendor.dialect == "openai"]


def body(obj: Any) -> bytes:
    return json.dumps(obj).encode()


def agree(data: bytes) -> bool:
    """Check one body both ways; False where there is the long way only."""
    plain = read_plain_request(data)
    if plain is None:
        return False
    parsed = openai_json.parse(data)
    assert not parsed.legacy_functions
    assert plain.stream == parsed.stream
    typed = parsed.request
    assert openai_json.typed(plain) == typed
    assert plain.model == typed.model
    assert options(plain) == options(typed)
    assert openai_json.include_usage(plain) == openai_json.include_usage(typed)
    assert features.needs(plain) == features.needs(typed)
    for vendor in OPENAI:
        where = endpoint(vendor)
        # Byte for byte.
        assert made(TRANSLATOR.plain_request, plain, where) == made(TRANSLATOR.request, typed, where)
    return True


def made(by: Callable[..., HttpRequest], request: Any, where: Endpoint) -> Any:
    """Whole and streamed, or the errors."""
    out: list[Any] = []
    for stream in (False, True):
        try:
            out.append(by(request, where, stream=stream))
        except InvalidRequest as error:
            out.append((error.message, error.param))
    return out


def with_field(path: str, value: Any) -> dict[str, Any]:
    """WHOLE with another value of a field, or of one of the first turn's; `...` takes it out."""
    obj: dict[str, Any] = json.loads(json.dumps(WHOLE))
    name, _, inner = path.partition(".")
    at, key = (obj["messages"][0], inner) if inner else (obj, name)
    if value is ...:
        at.pop(key, None)
    else:
        at[key] = value
    return obj


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("user", "u"),
        ("stream", True),
        ("stream", None),
        ("stream", ...),
        ("lmchat", None),
        ("lmchat", ...),
        ("lmchat", {}),
        ("lmchat", {"routing": {"resume_streams": True, "models": ["other"], "sort": "price"}}),
        ("stream_options", None),
        ("stream_options", {}),
        ("stream_options", {"include_usage": None}),
        ("stream_options", {"include_usage": False}),
        ("messages", [{"content": "x", "role": "developer"}]),
        ("messages", [{"role": "assistant"}]),
        ("messages", [{"role": "assistant", "content": "x", "reasoning_content": "Hm.", "audio": None}]),
        ("messages", [{"role": "assistant", "content": "x", "name": None, "tool_calls": None}]),
        ("messages.name", "n"),
        ("tools", [{"type": "function", "function": {"name": "f", "description": None, "parameters": None}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": None}}]),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("stop", ["a"]),
        ("stop", ["a"] * 64),
        *((name, None) for name in WHOLE if name not in ("model", "messages")),
        *((name, ...) for name in WHOLE if name not in ("model", "messages")),
        ("temperature", 0),
        ("temperature", 2),
        ("temperature", 1e-300),
        ("seed", 2**63 - 1),
        ("seed", -(2**63)),
        ("max_tokens", 2**31 - 1),
    ],
)
def test_what_goes_as_it_came(path: str, value: Any) -> None:
    assert agree(body(with_field(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", ""),
        ("model", ...),
        ("model", 1),
        ("messages", []),
        ("messages", ...),
        ("messages", None),
        ("messages.role", "tool"),
        ("messages.role", "function"),
        ("messages.role", "nobody"),
        ("messages.role", ...),
        ("messages.content", None),
        ("messages.content", ...),
        ("messages.content", 1),
        ("messages.content", [{"type": "text", "text": "x"}]),
        ("messages.name", 1),
        ("messages.cache_control", {"type": "ephemeral"}),
        ("temperature", 2.1),
        ("temperature", "1"),
        ("temperature", True),
        ("max_tokens", 0),
        ("max_tokens", 5.0),
        ("max_tokens", 2**31),
        ("seed", 2**63),
        ("stream", "true"),
        ("stream_options", {"include_usage": True, "include_obfuscation": False}),
        ("lmchat", []),
        ("lmchat", {"routng": {}}),
        ("lmchat", {"routing": {"sort": "colour"}}),
        ("n", 1),
        ("functions", []),
        ("function_call", None),
        ("stop", "a"),
        ("stop", []),
        ("stop", ["a"] * 65),
        ("reasoning_effort", "utmost"),
        ("tools", []),
        ("tools", [{"type": "custom", "custom": {"name": "c"}}]),
        ("tools", [{"type": "function", "function": {"name": ""}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": []}}]),
        ("tools", [{"type": "function", "function": {"name": "f"}, "cache_control": {}}]),
        ("tools", [{"function": {"name": "f"}}]),
        ("tool_choice", "f"),
        ("tool_choice", {"type": "function", "function": {"name": ""}}),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}),
        ("messages", [{**RESULT, "tool_call_id": ""}]),
        ("messages", [{"role": "tool", "content": "2"}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": []}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": ""}]}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "type": "custom"}]}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "extra_content": {}}]}]),
        ("messages", [{"role": "assistant", "content": "", "function_call": None}]),
        ("messages", [{"role": "assistant", "content": "", "refusal": "No."}]),
        ("messages", [{"role": "assistant", "content": "", "reasoning_details": []}]),
        ("response_format", {"type": "text"}),
        ("of_a_vendor", 1),
    ],
)
def test_what_goes_the_long_way(path: str, value: Any) -> None:
    assert read_plain_request(body(with_field(path, value))) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff", b"\xef\xbb\xbf" + body(WHOLE), b'{"model": "\\ud800"}', b"[" * 100_000],
)
def test_what_is_no_such_request(data: bytes) -> None:
    assert read_plain_request(data) is None


@pytest.mark.parametrize("name", sorted({vendor.dialect for vendor in VENDORS.values()}))
def test_only_one_dialect_takes_them(name: str) -> None:
    plain = read_plain_request(body(WHOLE))
    assert plain is not None
    call = DIALECTS[name].translator.plain_request(plain, endpoint(), stream=False)
    assert (call is not None) == (name == "openai")


@pytest.mark.parametrize("drops", [[], ["temperature", "user", "n"], list(WHOLE)[2:-3]])
def test_what_an_endpoint_drops(drops: list[str]) -> None:
    plain, typed = read_plain_request(body(WHOLE)), openai_json.parse(body(WHOLE)).request
    assert plain is not None
    where = replace(endpoint(), drops=frozenset(drops))
    names = features.dropped(plain, where)
    assert names == features.dropped(typed, where)
    assert {*names} == {*drops} - {"n"}
    less = features.without(plain, names)
    assert openai_json.typed(less) == features.without(typed, names)
    assert read_plain_request(body(WHOLE)) == plain  # which other endpoints still need


# Any field absent, null, as it should be, or anything else

ODD: list[Any] = [
    ..., None, "", "user", "x", 0, 1, -1, 2**31, 2**70, 1.5, 1.0, -0.0, 1e400, True, False, [], {}, [None], [{}],
    {"include_usage": True}, {"routing": {}}, TURNS, [{"type": "text", "text": "x"}], [CALL], "low", "none",
]  # fmt: skip
INNER = ["role", "content", "name", "tool_calls", "tool_call_id", "refusal", "annotations", "reasoning_content"]
PATHS = [*WHOLE, *(f"messages.{name}" for name in INNER), "n", "functions", "odd"]


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(ODD), st.integers(0, 6)), max_size=3))
def test_both_ways_agree(changes: list[tuple[str, Any, int]]) -> None:
    obj: dict[str, Any] = json.loads(json.dumps(WHOLE))
    for path, value, index in changes:
        name, _, inner = path.partition(".")
        turns = obj.get("messages")
        at = turns[index % len(turns)] if inner and isinstance(turns, list) and turns else obj
        if not isinstance(at, dict):
            continue
        if value is ...:
            at.pop(inner or name, None)
        else:
            at[inner or name] = copy.deepcopy(value)
    data = body(obj)
    try:
        agree(data)
    except InvalidRequest as error:
        raise AssertionError(f"the long way refuses it: {error.param}: {error.message}") from None


def test_a_depth_that_cannot_be_written_is_an_error() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    request = read_plain_request(body(WHOLE))
    assert request is not None
    assert request.fields.tools is not None
    request.fields.tools[0].function.parameters = deep
    with pytest.raises(InvalidRequest, match="Nested too deeply") as raised:
        request.dump()
    assert raised.value.param == "tools"
    while deep:  # or freeing it would be as deep
        deep = deep.pop("a")


@pytest.mark.parametrize("effort", names(pb.ReasoningEffort, "REASONING_EFFORT_"))
def test_every_effort_is_known(effort: str) -> None:
    assert agree(body(with_field("reasoning_effort", effort)))


def test_names_are_of_what_is_there() -> None:
    plain = read_plain_request(body({"model": "m", "messages": TURNS, "user": "u", "temperature": None}))
    assert isinstance(plain, PlainRequest)
    assert plain.names() == ["model", "messages", "user"]
