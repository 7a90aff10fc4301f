"""A request kept in JSON is equal to its typed message, and is sent to providers as the same bytes."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat import openai_json
from server.chat.openai_json import request_fields
from server.chat.openai_json.fields import names
from server.chat.request import ChatRequest, JsonRequest, ProtoRequest, read
from server.dialects.base import Endpoint
from server.errors import InvalidRequest
from server.routing import capabilities
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
    """Compare both representations of a body; False where it is only parsed to protobuf."""
    if request_fields.read(data) is None:
        return False
    try:
        request = read(data)
    except InvalidRequest as error:  # in `lmchat`
        with pytest.raises(InvalidRequest, match=re.escape(error.message)):
            openai_json.parse(data)
        return True
    assert isinstance(request, JsonRequest)
    parsed = openai_json.parse(data)
    assert not parsed.legacy_functions
    typed = ProtoRequest(parsed.request)
    assert request.stream == parsed.stream
    assert request.to_proto() == typed.to_proto()
    assert request.model == typed.model
    assert request.options == typed.options
    assert request.include_usage == typed.include_usage
    assert request.choices == typed.choices
    assert request.needs == typed.needs
    assert request.parameters() == typed.parameters()
    assert [*request.unknown_parameters()] == [*typed.unknown_parameters()]
    for vendor in OPENAI:
        where = endpoint(vendor)
        assert calls(request, where) == calls(typed, where)  # byte for byte
    return True


def calls(request: ChatRequest, where: Endpoint) -> Any:
    """The provider requests, unary and streamed, or the errors."""
    out: list[Any] = []
    for stream in (False, True):
        try:
            out.append(TRANSLATOR.translator.request(request, where, stream=stream))
        except InvalidRequest as error:
            out.append((error.message, error.param))
    return out


def with_field(path: str, value: Any) -> dict[str, Any]:
    """WHOLE with another value of a field, or of a field of the first turn; `...` removes it."""
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
        ("messages.content", [{"type": "text", "text": "x"}]),
        ("messages.cache_control", {"type": "ephemeral"}),
        ("stream_options", {"include_usage": True, "include_obfuscation": False}),
        ("n", 1),
        ("stop", "a"),
        ("stop", ""),
        ("stop", []),
        ("tools", []),
        ("tools", [{"type": "function", "function": {"name": "f"}, "cache_control": {}}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": []}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "extra_content": {}}]}]),
        ("messages", [{"role": "assistant", "content": "", "refusal": "No."}]),
        ("messages", [{"role": "assistant", "content": "", "reasoning_details": []}]),
        ("response_format", {"type": "text"}),
        ("of_a_vendor", 1),
        ("n", 3),
        ("logprobs", False),
        ("reasoning_effort", "utmost"),
        ("verbosity", "none"),
        ("logit_bias", {}),
        ("logit_bias", {"50256": -100}),
        ("metadata", {}),
        ("metadata", {"a": "b"}),
        ("modalities", []),
        ("modalities", ["text", "audio"]),
        ("verbosity", "low"),
        ("of_a_vendor", None),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "", "schema": {"b": 1, "a": 2}}}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "odd": 1}}),
        ("messages.content", [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]),
        ("messages.content", [{"type": "text", "text": "x"}, {"type": "text", "text": ""}]),
        ("messages.content", [{"type": "refusal", "refusal": "x"}]),
        ("messages.content", [{"type": "image_url", "image_url": {"url": "https://x.test/a", "detail": "low"}}]),
        ("messages.content", [{"type": "image_url", "image_url": {"url": "https://x.test/a", "format": "png"}}]),
        ("messages.content", [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]),
        ("messages.content", [{"type": "file", "file": {"file_id": "f", "odd": None}, "odd": {}}]),
        ("messages.content", [{"type": "file", "file": {}}]),
        ("messages", [{"role": "assistant", "content": []}]),
        ("messages", [{"role": "assistant", "content": [{"type": "text", "text": "x"}], "odd": 1}]),
        ("tools", [{"type": "function", "function": {"name": "f", "odd": [1]}, "odd": 2}]),
    ],
)
def test_json_fast_path(path: str, value: Any) -> None:
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
        ("messages.name", 1),
        ("temperature", 2.1),
        ("temperature", "1"),
        ("temperature", True),
        ("max_tokens", 0),
        ("max_tokens", 5.0),
        ("max_tokens", 2**31),
        ("seed", 2**63),
        ("stream", "true"),
        ("lmchat", []),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("response_format", {"type": "text", "odd": 1}),
        ("response_format", {"type": "grammar"}),
        ("messages.content", []),
        ("messages.content", [{"type": "text"}]),
        ("messages.content", [{"type": "video_url", "video_url": {"url": "https://x.test/a"}}]),
        ("messages.content", [{"type": "image_url", "image_url": "https://x.test/a"}]),
        ("messages.content", [{"type": "text", "text": "x", "refusal": "x"}]),
        ("messages.refusal", "x"),
        ("messages.reasoning_content", 1),
        ("metadata", {"a": 1}),
        ("logit_bias", {"50256": 101}),
        ("functions", []),
        ("function_call", None),
        ("stop", ["a"] * 65),
        ("reasoning_effort", ""),
        ("reasoning_effort", "x" * 65),
        ("top_logprobs", 20),
        ("tools", [{"type": "custom", "custom": {"name": "c"}}]),
        ("tools", [{"type": "function", "function": {"name": ""}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": []}}]),
        ("tools", [{"function": {"name": "f"}}]),
        ("tool_choice", "f"),
        ("tool_choice", {"function": {"name": "f"}}),
        ("tool_choice", {"type": "function", "function": {"name": "f", "odd": 1}, "odd": 2}),
        ("tool_choice", {"type": "function", "function": {"name": ""}}),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}),
        ("messages", [{**RESULT, "tool_call_id": ""}]),
        ("messages", [{"role": "tool", "content": "2"}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": ""}]}]),
        ("messages", [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "type": "custom"}]}]),
        ("messages", [{"role": "assistant", "content": "", "function_call": None}]),
    ],
)
def test_protobuf_fallback(path: str, value: Any) -> None:
    assert request_fields.read(body(with_field(path, value))) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": "\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000]
)
def test_invalid_requests(data: bytes) -> None:
    assert request_fields.read(data) is None
    with pytest.raises(InvalidRequest):
        read(data)


def test_a_byte_order_mark_is_skipped() -> None:
    assert isinstance(read(b"\xef\xbb\xbf" + body(WHOLE)), JsonRequest)


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"routng": {}}, "lmchat.routng"),
        ({"routing": {"sort": "colour"}}, "lmchat.routing.sort"),
        ({"debug": "routing"}, "lmchat.debug"),
    ],
)
def test_empty_directives(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(body(with_field("lmchat", value)))
    assert raised.value.param == param


@pytest.mark.parametrize(
    "drops", [[], ["temperature", "user", "n"], list(WHOLE)[2:-3], ["odd", "user"], ["tools"]]
)
def test_what_an_endpoint_drops(drops: list[str]) -> None:
    data = body({**with_field("tools", [{"type": "function", "function": {"name": "f"}, "odd": 1}]), "odd": [1]})
    request, typed = read(data), ProtoRequest(openai_json.parse(data).request)
    assert isinstance(request, JsonRequest)
    where = replace(endpoint(), drops=frozenset(drops))
    names = capabilities.dropped(request, where)
    assert names == capabilities.dropped(typed, where)
    assert {*names} == {*drops} - {"n"}
    assert request.without(names).to_proto() == typed.without(names).to_proto()
    assert calls(request.without(names), where) == calls(typed.without(names), where)
    assert request.to_proto() == typed.to_proto()  # which other endpoints still need


def test_topics_of_the_header() -> None:
    for request in (read(body(WHOLE)), ProtoRequest(openai_json.parse(body(WHOLE)).request)):
        more = request.with_debug(["x"])
        assert more.options is not None
        assert [*more.options.debug] == ["routing", "x"]
        assert [*more.to_proto().lmchat.debug] == ["routing", "x"]
        assert request.options is not None
        assert [*request.options.debug] == ["routing"]


# Any field absent, null, valid, or any other value

ODD: list[Any] = [
    ..., None, "", "user", "x", 0, 1, -1, 2**31, 2**70, 1.5, 1.0, -0.0, 1e400, True, False, [], {}, [None], [{}],
    {"include_usage": True}, {"routing": {}}, TURNS, [{"type": "text", "text": "x"}], [CALL], "low", "none",
    [{"type": "text", "text": "x", "odd": 1}], {"type": "json_object"}, {"type": "text", "odd": 1}, {"a": "b"},
    [{"type": "image_url", "image_url": {"url": "u", "odd": 1}}], {"a": 1}, ["text"],
]  # fmt: skip
INNER = ["role", "content", "name", "tool_calls", "tool_call_id", "refusal", "annotations", "reasoning_content"]
PATHS = [
    *WHOLE, *(f"messages.{name}" for name in INNER), "messages.odd", "n", "functions", "odd", "response_format",
    "metadata", "logit_bias", "logprobs", "modalities", "verbosity", "audio",
]  # fmt: skip


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(ODD), st.integers(0, 6)), max_size=3))
def test_both_representations_agree(changes: list[tuple[str, Any, int]]) -> None:
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
        raise AssertionError(f"the parser refuses it: {error.param}: {error.message}") from None


def test_a_depth_that_cannot_be_written_is_an_error() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    known = request_fields.read(body(WHOLE))
    assert known is not None
    fields, unknown = known
    assert fields.tools is not None
    fields.tools[0].function.parameters = deep
    with pytest.raises(InvalidRequest, match="Nested too deeply") as raised:
        JsonRequest(fields, unknown, None, stream=False).to_openai()
    assert raised.value.param == "tools"
    while deep:  # or freeing it would be as deep
        deep = deep.pop("a")


@pytest.mark.parametrize("effort", names(pb.ReasoningEffort, "REASONING_EFFORT_"))
def test_every_effort_is_known(effort: str) -> None:
    assert agree(body(with_field("reasoning_effort", effort)))


def test_parameters_are_those_given() -> None:
    request = read(body({"model": "m", "messages": TURNS, "user": "u", "temperature": None, "odd": 1}))
    assert isinstance(request, JsonRequest)
    assert request.parameters() == ["model", "messages", "user"]
    assert [*request.unknown_parameters()] == ["odd"]


def test_maps_keep_their_order() -> None:
    request = read(body({**WHOLE, "metadata": {"b": "1", "a": "2"}, "logit_bias": {"9": 1, "1": 2}}))
    assert [*request.to_openai()["metadata"]] == ["b", "a"]
    assert [*request.to_openai()["logit_bias"]] == ["9", "1"]
