"""Callers' schemas and patterns, and extraction of JSON from models' text."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest, Reason
from server.upstream.emulation import json_schema
from server.upstream.emulation.extract_json import unwrap
from server.upstream.emulation.json_schema import schema
from server.upstream.emulation.regex import PatternError, compiled

# Unwrapping


@pytest.mark.parametrize(
    ("text", "opener", "found"),
    [
        ('{"a": 1}', "{", '{"a": 1}'),
        (' \n{"b":1,"a":1.0}\n', "{", '{"b":1,"a":1.0}'),
        ('\ufeff{"a":1}', "{", '{"a":1}'),
        ("[1]", "{", "[1]"),
        ("3", "", "3"),
        # Fences
        ('```json\n{"a":1}\n```', "{", '{"a":1}'),
        ('```json\r\n{"a":1}\r\n```\r\n', "{", '{"a":1}'),
        ('```\n{"a":1}```', "{", '{"a":1}'),
        ('```JSON\n[1]\n```', "[", "[1]"),
        ("```\n3\n```", "", "3"),
        ('```json {"a":1} ```', "{", '{"a":1}'),
        ('Here:\n```json\n{"a": "``` {"}\n```\nThere.', "{", '{"a": "``` {"}'),
        ('```json\n{"a": "\\n```\\n"}\n```', "{", '{"a": "\\n```\\n"}'),
        ('The set {1, 2}:\n```json\n{"a":1}\n```', "{", '{"a":1}'),
        ('```python\n{"a": 1}\n```\n```json\n{"b": 2}\n```', "{", '{"b": 2}'),
        # Text around it
        ('Sure! {"a":{"b":[1]}} Anything else?', "{", '{"a":{"b":[1]}}'),
        ('As {name} asked: {"a":1}.', "{", '{"a":1}'),
        ("The list is [1, 2].", "[", "[1, 2]"),
        ('<think>{"a":0} or {"a":2}?</think>\n{"a":1}', "{", '{"a":1}'),
        # None, or several
        ("", "{", None),
        ("No.", "{", None),
        ("3 or 4", "", None),
        ('{"a":1} {"a":2}', "{", None),
        ('```json\n{"a":1}\n```\n```json\n{"a":2}\n```', "{", None),
        ('{"a": {"b": 1}, "c": }', "{", None),
        ("{'a': {\"b\": 1}}", "{", None),
        ('{"a": 1', "{", None),
        ("{" * 100_000, "{", None),
        ("[" * 100_000, "[", None),
        ('{"a": NaN}', "{", None),
        ('{"a": "line\nbreak"}', "{", None),
        ("Answer: 3", "", None),
    ],
)  # fmt: skip
def test_unwrap(text: str, opener: str, found: str | None) -> None:
    got = unwrap(text, opener)
    assert (got.text if got else None) == found
    if got is not None:
        assert got.value == json.loads(got.text)


PROSE = st.text(alphabet=string.ascii_letters + " \n.,:'!?-()", max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(before=PROSE, after=PROSE, value=st.dictionaries(st.text(), JSON, max_size=4), ascii_=st.booleans())
def test_one_object_is_found_whatever_stands_around_it(
    before: str, after: str, value: dict[str, Any], ascii_: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_)
    for wrapped in (text, f"{before}{text}{after}", f"{before}\n```json\n{text}\n```\n{after}"):
        got = unwrap(wrapped, "{")
        assert got is not None
        assert got.text == text
        assert got.value == value


@given(st.text())
def test_unwrap_takes_any_text(text: str) -> None:
    for opener in ("{", "[", ""):
        got = unwrap(text, opener)
        assert got is None or got.text in text


@pytest.mark.parametrize("opener", ["{", "["])
@pytest.mark.parametrize(
    "text",
    [
        "{a}" * 100_000,
        "[a]" * 100_000,
        "{" * 100_000,
        "{a" * 100_000,
        "[1," * 100_000,
        "{}" * 100_000,
        " " * 100_000 + "<think>" * 20_000,
        "```\n" * 50_000,
        "```\nx\n```\n" * 30_000,
        '{"a":' * 50_000,
        "[" + "1," * 100_000,
    ],
)
def test_unwrap_takes_linear_time(text: str, opener: str) -> None:
    """Texts that take seconds to minutes with an algorithm that is not linear."""
    assert unwrap("x\n" + text, opener) is None


def test_answers_of_millions_of_values_are_none() -> None:
    assert unwrap(f'{{"a": [{"1," * 1_000_000}1]}}', "{") is None
    assert unwrap(f'{{"a": "{"1," * 1_000_000}"}}', "{") is not None


# Patterns

#: Patterns on which Python and ECMA-262 agree.
ATOMS = st.sampled_from(
    ["a", "b", "[ab]", "[^a]", ".", r"\d", r"\w", r"\s", "[a-c1-3_]", r"\.", "^", r"\b", r"\B"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda p: f"(?:{p[0]}){p[1]}"),
        st.tuples(inner, st.sampled_from(["*?", "{2}", "{1,3}", "{0,2}?", "{2,}"])).map(
            lambda p: f"({p[0]}){p[1]}"
        ),
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text(alphabet="abc1_. ", min_size=1, max_size=12))
def test_patterns_match_what_python_matches(pattern: str, text: str) -> None:
    assert compiled(pattern).search(text) is bool(re.search(pattern, text))


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True),
        ("^a$", "a\n", False),
        (r"^\d$", "٣", False),
        (r"^\w$", "é", False),
        (r"^\s$", "\u00a0", True),
        ("^[^\\w]$", "é", True),
        ("^.$", "\u2028", False),
        (r"^(?<year>\d{4})-(?<month>\d{2})$", "2020-01", True),
        (r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", "a@b.example", True),
        (r"^\/a\-b$", "/a-b", True),
        (r"^\s$", "\u0085", False),
        (r"^[^\S]$", "\u00a0", True),
        (r"^[\s\S]$", "\U0001f600", True),
        (r"^\S$", "\u2003", False),
        (r"^\u00e9\x41\cJ\0$", "éA\n\0", True),
        (r"^\ud83d\ude00[\u{1F601}]$", "\U0001f600\U0001f601", True),
        (r"^[[:alpha:]]$", "a]", True),
        (r"^[[:alpha:]]$", "a", False),
        (r"^[\b]$", "\b", True),
        ("[]", "a", False),
        ("^[^]$", "\n", True),
        ("^[^]a]$", "\nb]", False),
        ("^[.]$", "a", False),
        ("^[(?=]+$", "?(=", True),
        ("^.$", "\ud800", True),
        (r"\Aa\Z", "a", True),
        ("^a{,3}$", "a{,3}", True),
        (r"^\é$", "é", True),
        ("[[a]", "[", True),
        ("(|a)*$", "b", True),
    ],
)
def test_patterns_are_ecmas(pattern: str, text: str, matches: bool) -> None:
    assert compiled(pattern).search(text) is matches


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a?){50}a{50}$", "a*a*a*a*a*b", "^(.*)*$x"])
def test_hostile_patterns_take_linear_time(pattern: str) -> None:
    compiled(pattern).search("a" * 1000 + "!")


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        r"\p{L}",
        "(?=a)",
        "(?<!a)b",
        r"(a)\1",
        "(?i)a",
        "(?i:a)",
        "a++",
        "(?>a)",
        "a{3000}",
        "((){1000}){1000}",
        "(" * 5000 + ")" * 5000,
        r"(?<a>b)\k<a>",
        "(?P<a>b)(?P=a)",
        r"\ud800",
        "\ud800",
        r"\q",
        r"\01",
        "[b-a]",
        "^.{1,1000}.{1,1000}$",
    ],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compiled(pattern)


# Schemas

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def problems(value: Any, document: Any) -> list[str]:
    return schema(json.dumps(document)).problems(value)


@pytest.mark.parametrize(
    ("document", "value", "found"),
    [
        (PERSON, {"name": "Ada", "age": 36}, []),
        (PERSON, {"name": "ada"}, ["$.name: 'ada' does not match '^[A-Z]'"]),
        (PERSON, {"age": -1}, ["$.age: -1 is less than the minimum of 0", "$: 'name' is a required property"]),
        (PERSON, {"name": "Ada", "x": 1}, ["$: 'x' is not one of the properties allowed"]),
        ({"additionalProperties": {"type": "null"}}, {"x": 1}, ["$.x: 1 is not of type 'null'"]),
        ({"additionalProperties": True}, {"x": 1}, []),
        ({"patternProperties": {"^n": {"type": "null"}}}, {"n1": 1, "m": 1}, ["$.n1: 1 is not of type 'null'"]),
        ({"patternProperties": {"^n": {}}, "additionalProperties": False}, {"n": 1}, []),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], []),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], ["items that are equal"]),
        ({"uniqueItems": False}, [1, 1], []),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, 1, ["$: 1 is not of type 'null'"]),
        ({"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "null"}}}, None, []),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}}, {"next": {"next": {}}}, []),
        ({"$id": "https://example.com/a.json", "$ref": "#/$defs/a", "$defs": {"a": True}}, 1, []),
        # The draft is the one that $schema names: 2020-12 has prefixItems, draft 7 has not.
        ({"prefixItems": [{"type": "null"}]}, [1], ["$[0]: 1 is not of type 'null'"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"type": "null"}]}, [1], []),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"const": 2}]}, [1], ["2 was expected"]),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
            1,
            ["than"],
        ),
        ({"$schema": "https://example.com/mine"}, 1, []),
        # `format` is no assertion.
        ({"format": "date"}, "never", []),
        # The number and length of problems are limited.
        ({"items": {"type": "null"}}, [1] * 9, [f"$[{i}]: 1 is not of type 'null'" for i in range(5)]),
        ({"type": "null"}, "x" * 1000, ["xxx..."]),
        # Of alternatives, the closest.
        ({"anyOf": [{"type": "null"}, {"properties": {"a": {"const": 1}}}]}, {"a": 2}, ["$.a: 1 was expected"]),
    ],
)
def test_problems(document: Any, value: Any, found: list[str]) -> None:
    got = problems(value, document)
    assert len(got) == len(found)
    for one, part in zip(got, found, strict=True):
        assert part in one


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"type": "objekt"}, "Not a valid JSON Schema: $.type: 'objekt'"),
        ({"properties": {"a": {"minimum": "1"}}}, "$.properties.a.minimum"),
        ({"$ref": "#/$defs/none"}, "$ref '#/$defs/none' points at no schema"),
        ({"$ref": "#/title", "title": "t"}, "points at no schema"),
        ([], "must be an object"),
    ],
)
def test_invalid_schemas(document: Any, why: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        schema(json.dumps(document))
    assert why in raised.value.message
    assert raised.value.param == "response_format.json_schema.schema"
    assert raised.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "document",
    [
        {"$ref": "http://169.254.169.254/latest"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$defs": {"a": {"$id": "b", "$schema": "http://json-schema.org/draft-07/schema#"}}},
        {"junk": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(a+)+$"}}},
        {"$dynamicRef": "#meta"},
        {"$recursiveAnchor": True},
        {"pattern": "(?=a)"},
        {"pattern": r"^\p{Lu}"},
        {"properties": {"a": {"patternProperties": {r"^(a)\1": {}}}}},
        {"unevaluatedProperties": False, "allOf": [{"patternProperties": {"a": {}}}]},
        {"description": "x" * 200_000},
        {"allOf": [True] * 5_000},
        {"properties": {str(i): {"pattern": f"^{i}"} for i in range(200)}},
        {"properties": {str(i): {"pattern": f"^.{{,1000}}{i}.{{500}}"} for i in range(20)}},
    ],
)
def test_unsupported_schemas_are_left_to_other_endpoints(document: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        schema(json.dumps(document))
    assert raised.value.reason is Reason.UNSUPPORTED_FEATURE


#: References that multiply at every level.
DOUBLING = {
    "$ref": "#/$defs/l0",
    "$defs": {f"l{i}": {"allOf": [{"$ref": f"#/$defs/l{i + 1}"}] * 9} for i in range(9)} | {"l9": {}},
}


def test_deep_schemas_are_refused() -> None:
    text = '{"items":' * 500 + "{}" + "}" * 500
    with pytest.raises(InvalidRequest):
        schema(text)


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (DOUBLING, 1),
        ({"$ref": "#"}, 1),
        ({"properties": {"a": {"$ref": "#/junk"}}, "junk": {"pattern": 1}}, {"a": "x"}),
        ({"properties": {"a": {"$ref": "#/junk"}}, "junk": {"pattern": "(?=a)"}}, {"a": "x"}),
        ({"items": {"pattern": "(a?){500}a{500}$"}}, ["a" * 2_000] * 9),
        ({"items": {"pattern": "[^a]{1000}$"}}, ["é" * 200] * 9),
        ({"$ref": "#/junk", "junk": {"allOf": [{"pattern": f"|{i}"} for i in range(200)]}}, "x"),
        ({"items": {"allOf": [True] * 1_900}}, [1] * 30),
        ({"allOf": [{"items": True}] * 9}, [1] * 10_000),
        ({"items": {"enum": [[i] for i in range(5_000)]}}, [1] * 9),
        ({"items": {"const": [[[1] * 9] * 9] * 9}}, [[[[1] * 9] * 9] * 9] * 100),
        ({"items": {"uniqueItems": True}}, [[[i] * 1_000 for i in range(9)]] * 9),
        ({"items": {"anyOf": [{"required": [f"{i}" for i in range(9_000)]}, True]}}, [{}] * 9),
        ({"anyOf": [{"type": "null"}] * 50}, "x" * 1_000_000),
    ],
)  # fmt: skip
def test_hostile_schemas_end(document: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_schema, "MAX_STEPS", 2_000)
    assert len(problems(value, document)) == 1


def test_an_opener_is_known_by_the_type() -> None:
    for type_, opener in (
        ("object", "{"),
        (None, "{"),
        ("array", "["),
        ("string", ""),
        (["null", "object"], "{"),
        (["array", "null"], "["),
    ):
        assert schema(json.dumps({"type": type_} if type_ else {})).opener == opener


def test_schemas_are_compiled_once() -> None:
    text = json.dumps(PERSON)
    assert schema(text) is schema(text)


TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SCHEMAS = st.recursive(
    st.fixed_dictionaries({"type": TYPES}) | st.fixed_dictionaries({"const": JSON}) | st.just({}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "c"]), inner),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "uniqueItems": st.booleans(),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab", "c"]), inner),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
def test_validity_is_that_of_jsonschema(document: dict[str, Any], value: Any) -> None:
    assert (problems(value, document) == []) is jsonschema.Draft202012Validator(document).is_valid(value)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)", "uses look-around or back-references"),
        ("(?<!a)b", "uses look-around or back-references"),
        (r"(a)\1", "uses look-around or back-references"),
        (r"\p{L}", r"uses \p"),
        ("(?i)a", "uses (?i, flags or the like"),
        ("a{3000}", "is too large: invalid repetition size: {3000}"),
        ("(", "is not understood: missing ): ("),
        (r"\q", r"is not understood: the escape \q"),
    ],
)
def test_a_refused_pattern_says_why(pattern: str, why: str) -> None:
    with pytest.raises(PatternError) as raised:
        compiled(pattern)
    assert str(raised.value) == why


def test_steps_are_counted() -> None:
    """A search costs by the size of its pattern and the bytes of its text, and a pattern is compiled once."""

    def steps(text: str, *more: str) -> int:
        budget = json_schema._Budget()
        for one in (text, *more):
            budget.matches("^[^a]{200}", one)
        return json_schema.MAX_STEPS - budget.left

    size = compiled("^[^a]{200}").size
    compiling = 1 + size // 10
    assert steps("x" * 1_000) == compiling + 1 + size
    assert steps("é" * 1_000) == compiling + 1 + 2 * size
    assert steps("x" * 1_000, "x" * 2_000) == compiling + 2 + 3 * size
