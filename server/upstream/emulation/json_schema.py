"""Validates answers against callers' JSON Schemas. Pure, in bounded time.

A schema may be hostile: a pattern that takes for ever, references that double
at every level, an address of our network to fetch a schema from. So it must be
one self-contained document, patterns are matched by regex.py, and the steps
of a validation are counted. `format` is not checked, as in drafts
2019-09 and 2020-12.

A step stands for about 10 us. A keyword costs one, and more the more it loops over: the items of its own
value and of the instance, an error's text (which quotes the instance), the compilation of a pattern, and a
search, by the size of the pattern times the bytes of the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any

import referencing
import referencing.jsonschema
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from msgspec import DecodeError
from referencing.exceptions import Unresolvable

from server.chat.openai_json import decode_json
from server.errors import InvalidRequest, Reason
from server.upstream.emulation import regex
from server.upstream.emulation.regex import Pattern, PatternError

#: Characters of a schema's text.
MAX_LENGTH = 128 * 1024
#: Objects and booleans in one schema: each may be a schema, which takes some 0.2 ms to check.
MAX_PARTS = 2_000
#: Patterns of one schema, fewer than are cached; and their instructions, which take some 0.1 s to compile.
MAX_PATTERNS, MAX_PATTERN_SIZE = 100, 100_000
#: Steps of one validation: about a second.
MAX_STEPS = 100_000
#: Schemas that are cached; each takes up to some MB.
_MAX_CACHED = 64
#: Problems reported of one answer.
MAX_PROBLEMS = 5
#: What costs a step: items of a list or mapping, characters of an error, instructions to compile, instructions
#: times bytes to search.
_ITEMS, _CHARACTERS, _COMPILED, _SEARCHED = 20, 5_000, 10, 1_000
_PARAM = "response_format.json_schema.schema"

#: Keywords that would lead a validator away from this document's own root.
_ELSEWHERE = frozenset({"$id", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"})

_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class TooComplexError(Exception):
    """A validation that took too many steps."""


class _Budget:
    """The steps left to a validation, and the patterns it has used."""

    def __init__(self) -> None:
        self.left = MAX_STEPS
        self._patterns: dict[str, Pattern] = {}

    def take(self, steps: int) -> None:
        """Raises TooComplexError when none are left."""
        self.left -= steps
        if self.left < 0:
            raise TooComplexError

    def matches(self, pattern: str, text: str) -> bool:
        """Whether `pattern` matches in `text`. Raises PatternError for one that was not checked."""
        compiled = self._patterns.get(pattern)
        if compiled is None:
            if len(self._patterns) >= MAX_PATTERNS:
                raise TooComplexError
            compiled = self._patterns[pattern] = regex.compiled(pattern)
            self.take(1 + compiled.size // _COMPILED)
        self.take(1 + compiled.size * len(text.encode(errors="replace")) // _SEARCHED)
        return compiled.search(text)


#: A context variable, since jsonschema gives keywords no other place for it.
_budget: ContextVar[_Budget] = ContextVar("_budget")


class Schema:
    """A schema ready for use.

    `opener` is how the JSON it asks for begins; empty for a bare string, number, ...
    `weight` times the length of an answer bounds the time it takes to check; infinite where nothing does.
    """

    def __init__(self, validator: Any, opener: str, weight: float) -> None:
        self._validator = validator
        self.opener = opener
        self.weight = weight

    def problems(self, value: Any) -> list[str]:
        """The validation errors of `value` as text, at most five; empty if it is valid."""
        token = _budget.set(_Budget())
        try:
            errors = islice(self._validator.iter_errors(value), MAX_PROBLEMS)
            return [_description(best_match([error])) for error in errors]
        except TooComplexError:
            return ["It takes too long to check against the schema."]
        except Exception as error:  # of references to what is no schema, or to themselves
            return [f"The schema cannot be applied to it ({type(error).__name__})."]
        finally:
            _budget.reset(token)


def schema(text: str) -> Schema:
    """The schema in `text`, of the draft that its `$schema` names, else of 2020-12.

    Raises InvalidRequest: for what is no schema, and (UNSUPPORTED_FEATURE) for what cannot be checked here.
    """
    if len(text) > MAX_LENGTH:
        raise _unsupported(f"it is longer than {MAX_LENGTH} characters")
    return _compiled(text)


@lru_cache(_MAX_CACHED)
def _compiled(text: str) -> Schema:
    try:
        document = decode_json(text)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Not JSON: {error}", _PARAM) from None
    if not isinstance(document, dict):
        raise InvalidRequest("A JSON Schema must be an object here.", _PARAM)
    named = document.pop("$schema", "")
    for keyword in ("$id", "id"):
        if isinstance(document.get(keyword), str):
            del document[keyword]
    base: Any = validators.validator_for({"$schema": str(named)}, default=validators.Draft202012Validator)
    try:
        keys = _keys(document)
        if {"patternProperties", "unevaluatedProperties"} <= keys:
            raise _unsupported("it uses patternProperties with unevaluatedProperties")
        base.check_schema(document, format_checker=None)  # patterns are checked below
        _check_parts(document, base.ID_OF(base.META_SCHEMA))
        weight = math.inf if keys & {"$ref", "pattern", "patternProperties"} else len(text)
        return Schema(_bounded(base)(document), _opener(document), weight)
    except SchemaError as error:
        raise InvalidRequest(f"Not a valid JSON Schema: {_description(error)}", _PARAM) from None
    except RecursionError:
        raise _unsupported("it is nested too deeply") from None


def _unsupported(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"This endpoint has no structured outputs of its own, and the gateway cannot check this schema: {why}.",
        _PARAM,
        reason=Reason.UNSUPPORTED_FEATURE,
    )


def _keys(value: Any) -> set[str]:
    """Every key in the document. Raises InvalidRequest for references that lead out of it, and too many parts."""
    found: set[str] = set()
    todo = [value]
    parts = 0
    while todo:
        value = todo.pop()
        parts += isinstance(value, dict | bool)
        if parts > MAX_PARTS:
            raise _unsupported(f"it has more than {MAX_PARTS} parts")
        if isinstance(value, list):
            todo += value
        if not isinstance(value, dict):
            continue
        found |= value.keys()
        todo += value.values()
        for key, item in value.items():
            if key == "$schema" and isinstance(item, str):
                raise _unsupported("a part of it names a $schema of its own")
            if key in _ELSEWHERE and isinstance(item, str | bool):
                raise _unsupported(f"it uses {key}")
            if key == "$ref" and isinstance(item, str) and not item.startswith("#"):
                raise _unsupported("a $ref leads out of it")
    return found


def _check_parts(document: dict[str, Any], dialect: str) -> None:
    """Check every reference and every pattern, before a provider is called. Raises InvalidRequest."""
    specification = referencing.jsonschema.specification_with(dialect)
    root = specification.create_resource(document)
    registry: referencing.Registry[Any] = referencing.Registry().with_resource("", root)
    resolver = registry.resolver()
    sizes: dict[str, int] = {}  # of its patterns
    parts = [root]
    while parts:
        part = parts.pop()
        parts.extend(part.subresources())
        if not isinstance(part.contents, dict):
            continue
        reference = part.contents.get("$ref")
        if isinstance(reference, str):
            try:
                there = resolver.lookup(reference).contents
            except Unresolvable:
                there = None
            if not isinstance(there, dict | bool):
                raise InvalidRequest(f"$ref {reference[:80]!r} points at no schema.", _PARAM)
        for pattern in (part.contents.get("pattern"), *part.contents.get("patternProperties", ())):
            if isinstance(pattern, str) and pattern not in sizes:
                sizes[pattern] = _size(pattern)
                if len(sizes) > MAX_PATTERNS or sum(sizes.values()) > MAX_PATTERN_SIZE:
                    raise _unsupported("its patterns are too many or too large")


def _size(pattern: str) -> int:
    try:
        return regex.compiled(pattern).size
    except PatternError as error:
        raise _unsupported(f"the pattern {pattern[:80]!r} {error}") from None


def _opener(document: dict[str, Any]) -> str:
    types = document.get("type", "object")
    if "object" in types:
        return "{"
    return "[" if "array" in types else ""


def _description(error: Any) -> str:
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}..."
    return f"{error.json_path}: {message}"


# Validators whose time is bounded


@lru_cache(8)
def _bounded(base: Any) -> Any:
    """The validator class `base` with regex.py's patterns, and with its steps counted."""
    own: dict[str, _Keyword] = {
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    keywords = {**base.VALIDATORS, **{name: keyword for name, keyword in own.items() if name in base.VALIDATORS}}
    extend: Any = validators.extend  # it has no types
    return extend(base, {name: _counted(name, keyword) for name, keyword in keywords.items()})


def _counted(name: str, keyword: _Keyword) -> _Keyword:
    size = _nodes if name in ("const", "enum", "uniqueItems") else _items  # those compare all that is inside

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        budget = _budget.get()
        budget.take(1 + (size(value) + size(instance)) // _ITEMS)
        for error in keyword(validator, value, instance, schema) or ():
            budget.take(len(error.message) // _CHARACTERS)
            yield error

    return check


def _items(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _nodes(value: Any) -> int:
    """The values in `value`, at all levels."""
    if isinstance(value, list | dict):
        return len(value) + sum(map(_nodes, value.values() if isinstance(value, dict) else value))
    return 0


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _budget.get().matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        matches = _budget.get().matches
        for pattern, part in value.items():
            for name, item in instance.items():
                if matches(pattern, name):
                    yield from validator.descend(item, part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    matches = _budget.get().matches
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, item in instance.items():
        if name in known or any(matches(pattern, name) for pattern in patterns):
            continue
        if value is False:
            yield ValidationError(f"{name!r} is not one of the properties allowed")
        else:
            yield from validator.descend(item, value, path=name)


def _unique_items(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if value and isinstance(instance, list) and len({_identity(item) for item in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has items that are equal")


def _identity(value: Any) -> Any:
    """Something hashable that is equal for equal JSON: 1 is 1.0, and is not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _identity(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", *map(_identity, value)
    return isinstance(value, bool), value
