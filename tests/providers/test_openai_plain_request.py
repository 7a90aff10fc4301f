"""Requests that go to a provider as they came are those that would go there by way of protobuf."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import openai_json
from server.errors import InvalidRequest
from server.openai_json import PlainRequest, read_plain_request
from server.providers import features
from server.providers.dialects import DIALECTS
from server.providers.registry import VENDORS
from server.routing.plan import options
from tests.providers.openai_help import TRANSLATOR, endpoint

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "H\u00e9\n\u0000"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "Go on."},
]
WHOLE: dict[str, Any] = {
    "model": "public",
    "messages": TURNS,
    "temperature": 0.7,
    "top_p": 1,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "presence_penalty": -2,
    "frequency_penalty": 0.0,
    "seed": -1,
    "user": "u",
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
        assert TRANSLATOR.plain_request(plain, where, stream=plain.stream) == TRANSLATOR.request(
            typed, where, stream=parsed.stream
        )
    return True


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
        ("messages.name", "n"),
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
        ("tools", []),
        ("functions", []),
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
    made = DIALECTS[name].translator.plain_request(plain, endpoint(), stream=False)
    assert (made is not None) == (name == "openai")


@pytest.mark.parametrize("drops", [[], ["temperature", "user", "stop"], list(WHOLE)[2:-3]])
def test_what_an_endpoint_drops(drops: list[str]) -> None:
    plain, typed = read_plain_request(body(WHOLE)), openai_json.parse(body(WHOLE)).request
    assert plain is not None
    where = endpoint()
    where = type(where)(**{name: getattr(where, name) for name in where.__struct_fields__} | {"drops": {*drops}})
    names = features.dropped(plain, where)
    assert names == features.dropped(typed, where)
    assert {*names} == {*drops} - {"stop"}
    less = features.without(plain, names)
    assert openai_json.typed(less) == features.without(typed, names)
    assert read_plain_request(body(WHOLE)) == plain  # which other endpoints still need


# Any field absent, null, as it should be, or anything else

ODD: list[Any] = [
    ..., None, "", "user", "x", 0, 1, -1, 2**31, 2**70, 1.5, 1.0, -0.0, 1e400, True, False, [], {}, [None], [{}],
    {"include_usage": True}, {"routing": {}}, TURNS, [{"type": "text", "text": "x"}],
]  # fmt: skip
PATHS = [*WHOLE, "messages.role", "messages.content", "messages.name", "stop", "n", "tools", "functions", "odd"]


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(ODD)), max_size=3))
def test_both_ways_agree(changes: list[tuple[str, Any]]) -> None:
    obj: dict[str, Any] = json.loads(json.dumps(WHOLE))
    for path, value in changes:
        name, _, inner = path.partition(".")
        at = obj["messages"][0] if inner and isinstance(obj.get("messages"), list) and obj["messages"] else obj
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


def test_names_are_of_what_is_there() -> None:
    plain = read_plain_request(body({"model": "m", "messages": TURNS, "user": "u", "temperature": None}))
    assert isinstance(plain, PlainRequest)
    assert plain.names() == ["model", "messages", "user"]
