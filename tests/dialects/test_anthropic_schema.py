"""Schemas for Anthropic's structured outputs and tools."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.anthropic.limits import Limits
from server.dialects.anthropic.schema import InexpressibleError, strict, tool_input
from tests.dialects.steps import assert_linear

STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}


def an_object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def test_a_description_that_is_no_text_is_replaced() -> None:
    assert strict({"type": "integer", "minimum": 1, "description": 5}) == {
        "type": "integer",
        "description": "{minimum: 1}",
    }


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (an_object({"a": ref("N")}, **{"$defs": {"N": an_object({"n": ref("N")})}}), "recursive"),
        (an_object({"a": {"$ref": "#"}}), "recursive"),
        (an_object({"a": {"type": "array", "items": {"$ref": "#/properties/a"}}}), "recursive"),
        (
            an_object(
                {"a": ref("A")},
                **{
                    "$defs": {
                        "A": an_object({"b": {"anyOf": [ref("B"), STRING]}}),
                        "B": an_object({"a": ref("A")}),
                    }
                },
            ),
            "recursive",
        ),
        (an_object({"a": {"$ref": "https://example.com/s.json"}}), "out of the schema"),
        (an_object({"a": {"$ref": 3}}), "out of the schema"),
        (an_object({"a": ref("missing")}), "points to no schema"),
        (an_object({"a": {"type": "object"}}), "free keys"),
    ],
)
def test_inexpressible(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InexpressibleError, match=words):
        strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        an_object({"a": ref("P"), "b": ref("P")}, **{"$defs": {"P": an_object({"x": INTEGER})}}),
        an_object({"a": ref("A")}, **{"$defs": {"A": an_object({"b": ref("B")}), "B": STRING}}),
        an_object({"a": {"$ref": "#/$defs/x~1y~0z"}}, **{"$defs": {"x/y~z": STRING}}),
        an_object({"a": {**STRING, "default": {"$ref": "#"}}}),  # a value, not a reference
        an_object({"$ref": STRING}),  # a property of this name
    ],
)
def test_references_that_are_expressible(schema: dict[str, Any]) -> None:
    assert strict(schema)["additionalProperties"] is False


@pytest.mark.parametrize("format_", [["date"], {"date": 1}, None, 7])
def test_formats_that_are_no_text_are_described(format_: Any) -> None:
    [property_] = strict(an_object({"a": {"type": "string", "format": format_}}))["properties"].values()
    assert "format" not in property_
    assert "format" in property_["description"]


@pytest.mark.parametrize("description", [7, None, ["x"], {}, ""])
def test_descriptions_that_are_no_text_are_replaced(description: Any) -> None:
    schema = an_object({"a": {"type": "integer", "minimum": 1, "description": description}})
    assert strict(schema)["properties"]["a"]["description"] == "{minimum: 1}"


def test_schemas_that_nest_deeply() -> None:
    schema = STRING
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InexpressibleError, match="nested this deeply"):
        strict(schema)


def test_references_are_followed_once() -> None:
    """Every definition refers twice to the next; written out, it would double each time."""

    def chain(size: int) -> dict[str, Any]:
        links = {f"D{i}": an_object({"a": ref(f"D{i + 1}"), "b": ref(f"D{i + 1}")}) for i in range(size)}
        return an_object({"a": ref("D0")}, **{"$defs": {**links, f"D{size}": STRING}})

    assert_linear(chain, strict)


# The root of a tool's schema

EITHER = [
    an_object({"a": STRING, "b": STRING}, required=["a", "b"]),
    an_object({"c": STRING}, required=["c", "b"]),
]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (an_object({"x": {"anyOf": [STRING, INTEGER]}}), an_object({"x": {"anyOf": [STRING, INTEGER]}})),
        ({"type": "object", "anyOf": EITHER}, an_object({"a": STRING, "b": STRING, "c": STRING}, required=["b"])),
        ({"type": "object", "oneOf": EITHER}, an_object({"a": STRING, "b": STRING, "c": STRING}, required=["b"])),
        (
            {"type": "object", "allOf": EITHER},
            an_object({"a": STRING, "b": STRING, "c": STRING}, required=["a", "b", "c"]),
        ),
        (  # the root's own stays as it is
            an_object({"a": INTEGER}, required=["a"], description="d", anyOf=EITHER),
            an_object({"a": INTEGER, "b": STRING, "c": STRING}, required=["a", "b"], description="d"),
        ),
        (
            an_object({"a": STRING, "b": STRING}, anyOf=[{"required": ["a"]}, {"required": ["b"]}]),
            an_object({"a": STRING, "b": STRING}),
        ),
        (  # what alternatives say differently of one property
            {
                "anyOf": [
                    an_object({"k": {"const": 1}}),
                    an_object({"k": {"const": 2}}),
                    an_object({"k": {"const": 1}}),
                ]
            },
            {"properties": {"k": {"anyOf": [{"const": 1}, {"const": 2}]}}},
        ),
        (
            {"anyOf": [ref("A"), ref("A")], "$defs": {"A": an_object({"a": STRING}, required=["a"])}},
            {
                "$defs": {"A": an_object({"a": STRING}, required=["a"])},
                "properties": {"a": STRING},
                "required": ["a"],
            },
        ),
        (  # alternatives inside alternatives, and one that refers to the root
            {"anyOf": [{"oneOf": [an_object({"a": STRING}), {"$ref": "#"}]}, {"$ref": "https://example.com"}]},
            {"properties": {"a": STRING}},
        ),
        ({"anyOf": "x", "oneOf": [1], "allOf": None}, {"properties": {}}),
    ],
)
def test_tool_input(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(schema)
    assert tool_input(schema) == expected
    assert repr(schema) == before


_PROPERTIES = st.fixed_dictionaries({name: st.sampled_from([STRING, INTEGER]) for name in "abc"})
_PARTS = st.builds(an_object, _PROPERTIES, required=st.lists(st.sampled_from("abc"), unique=True, max_size=2))
_COMBINED = st.dictionaries(st.sampled_from(["anyOf", "allOf"]), st.lists(_PARTS, min_size=1, max_size=3))


@given(_PARTS, _COMBINED, st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", 1]), max_size=3))
def test_tool_input_accepts_what_the_schema_accepts(
    part: dict[str, Any], combined: dict[str, Any], value: dict[str, Any]
) -> None:
    schema = {**part, **combined}
    if jsonschema.Draft202012Validator(schema).is_valid(value):
        jsonschema.Draft202012Validator(tool_input(schema)).validate(value)


def test_alternatives_are_read_once() -> None:
    def chain(size: int) -> dict[str, Any]:
        links = {
            f"D{i}": {"anyOf": [ref(f"D{i + 1}"), ref(f"D{i + 1}"), an_object({f"p{i}": STRING})]}
            for i in range(size)
        }
        return {"anyOf": [ref("D0")], "$defs": {**links, f"D{size}": an_object({})}}

    assert len(tool_input(chain(50))["properties"]) == 50
    assert_linear(chain, tool_input)


# Limits of one request


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": STRING for i in range(count)}, "additionalProperties": False}


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return an_object(properties, required=list(properties), **more)


def unions(count: int, item: dict[str, Any] | None = None) -> dict[str, Any]:
    return closed({f"p{i}": item or {"type": ["string", "null"]} for i in range(count)})


@pytest.mark.parametrize("schema", [optional(24), unions(16), closed({"a": optional(12), "b": optional(12)})])
def test_schemas_within_the_limits(schema: dict[str, Any]) -> None:
    assert Limits().enforced(schema, tool=False) is not None


@pytest.mark.parametrize(
    "schema",
    [
        optional(25),
        unions(17),
        closed({"a": {"type": "array", "items": optional(25)}}),
        closed({"a": ref("P")}, **{"$defs": {"P": optional(25)}}),
        unions(17, {"anyOf": [STRING, INTEGER]}),
    ],
)
def test_schemas_beyond_the_limits(schema: dict[str, Any]) -> None:
    with pytest.raises(InexpressibleError, match="so many optional properties or union types"):
        Limits().enforce(schema, tool=False)


def test_the_limits_are_those_of_all_schemas_together() -> None:
    limits = Limits()
    assert limits.enforced(optional(20), tool=False) is not None
    assert limits.enforced(optional(5), tool=True) is None
    assert limits.enforced(optional(4), tool=True) is not None
    assert limits.enforced(optional(1), tool=True) is None


def test_at_most_twenty_strict_tools() -> None:
    limits = Limits()
    taken = [limits.enforced(closed({"a": STRING}), tool=True) is not None for _ in range(22)]
    assert taken == [True] * 20 + [False] * 2
    assert limits.enforced(closed({"a": STRING}), tool=False) is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [{"a": 1}]},
        {"enum": ["x", ["y"]]},
        {"const": {"a": 1}},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": "(?<!a)b"},
        {"type": "string", "pattern": r"(a)\1"},
        {"type": "string", "pattern": r"\bword"},
    ],
)
def test_values_that_no_grammar_can_have(schema: dict[str, Any]) -> None:
    with pytest.raises(InexpressibleError):
        strict(closed({"a": schema}))


@pytest.mark.parametrize("pattern", ["^[a-z]+$", r"^\d{3}(?:-\d+)?$", r"\\b", r"\(\?=x"])
def test_plain_patterns_stay(pattern: str) -> None:
    schema = closed({"a": {"type": "string", "pattern": pattern}})
    assert strict(schema)["properties"]["a"]["pattern"] == pattern
