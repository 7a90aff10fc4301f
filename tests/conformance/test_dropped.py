"""A translation reports as dropped exactly the fields that it leaves out.

Every field of a request is removed in turn, or changed where the request requires it. Where the provider's request
stays the same, the field, or an object that contains it, must be reported, or be one of the fields whose value
equals their absence (NO_OPS). A reported field must be in the request, and removing it must change nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings

from server.dialects.base import Endpoint
from server.errors import InvalidRequest
from tests.conformance.request_strategy import REQUESTS
from tests.conformance.test_requests import TARGETS, case_of, endpoint_of, matrix
from tests.support.changes import Path, at, dotted, leaves, parse_path, pattern, replaced, without
from tests.support.dialects import endpoint_for, parse, request_for


class Field(NamedTuple):
    """A field of a request, and the paths that are reported."""

    body: Mapping[str, Any]
    path: Path
    value: Any
    named: frozenset[str]

    def near(self, *path: str | int) -> Any:
        """The value at `path` in the same message; None where there is none."""
        try:
            return at(self.body, (*self.path[:2], *path))
        except LookupError:
            return None


def _always(field: Field) -> bool:
    return True


def _is(*values: Any) -> Callable[[Field], bool]:
    return lambda field: field.value in values


def _repeats_reasoning(field: Field) -> bool:
    """Reasoning is in up to three places of a message, of which one is sent."""
    path = dotted(field.path[:2])
    places = ["reasoning_details", "extra_content"]
    calls = field.near("tool_calls") or []
    kept = [name for name in places if field.near(name) is not None]
    kept += [f"tool_calls[{index}].extra_content" for index, call in enumerate(calls) if call.get("extra_content")]
    others = [name for name in kept if not dotted(field.path).startswith(f"{path}.{name}")]
    return any(f"{path}.{name}" not in field.named for name in others)


def _is_not_offered(field: Field) -> bool:
    """The tool may not be called, and is therefore left out."""
    match field.body.get("tool_choice"):
        case "none":
            return True
        case {"allowed_tools": {"tools": tools}}:
            return field.near("function", "name") not in [tool["function"]["name"] for tool in tools]
    return False


def _names_the_call(field: Field) -> bool:
    calls = [call for message in field.body["messages"] for call in message.get("tool_calls") or ()]
    return field.value in [call["function"]["name"] for call in calls if "function" in call]


#: Pattern of a path -> when a field there is equal to its absence.
NO_OPS: Mapping[str, Callable[[Field], bool]] = {
    # The gateway's own, and what every stream has.
    r"model|stream|stream_options\..*|lmchat\..*": _always,
    # Several choices are several calls where the provider gives one a call; see server.upstream.emulation.
    r"n": _always,
    # The kind of an object that has one kind only.
    r"(.*\.)?(tools|tool_calls|images)\[\]\.type|(.*\.)?cache_control\.type|prediction\.type": _always,
    r"tool_choice\.type": _is("function"),
    # The defaults.
    r".*\.image_url\.detail": _is("auto"),
    r"(.*\.)?cache_control\.ttl": _is("5m"),
    r".*\.arguments": _is("{}"),
    r".*\.is_error|.*\.strict": _is(False),
    r"service_tier": _is("auto", "default"),
    r"tool_choice": _is("auto", "none"),
    r"parallel_tool_calls": _is(True),
    r"response_format\.type": _is("text"),
    r"modalities": _is(["text"]),
    r"reasoning_effort": _is("none"),  # on models that do not think
    # An allowed choice of all tools, at vendors whose default it is.
    r"tool_choice\.allowed_tools\.mode": _is("auto"),
    # A label that OpenAI requires, and what is always so where a schema is enforced.
    r"response_format\.json_schema\.(name|strict)": _always,
    # Arguments follow the schema whenever a call is forced, at Google.
    r"tools\[\]\.function\.strict": lambda field: field.body.get("tool_choice") not in (None, "auto"),
    r"tools\[\]\..*": _is_not_offered,
    # A container is known by its id.
    r"messages\[\]\.extra_content\.anthropic\.container\.expires_at": _always,
    # Repeated elsewhere, or replaced by an equivalent.
    r"messages\[\]\.(reasoning_content|reasoning_details.*)": _repeats_reasoning,
    r"messages\[\]\.(tool_calls\[\]\.)?extra_content.*": _repeats_reasoning,
    r"messages\[\]\.reasoning_details\[\]\.(type|text|format)": _always,
    r"messages\[\]\.name": _names_the_call,
    r"messages\[\]\.(tool_calls\[\]\.id|tool_call_id)": _always,  # matched by order where there are no ids
}


def _is_no_op(field: Field) -> bool:
    path = pattern(field.path)
    return any(re.fullmatch(known, path) and says_nothing(field) for known, says_nothing in NO_OPS.items())


def _sent(body: Mapping[str, Any], endpoint: Endpoint) -> Any:
    """The provider's request; the field at fault where the dialect refuses it."""
    try:
        request = request_for(body, endpoint).request
    except InvalidRequest as error:
        return error.param
    return request.url, request.headers, _plain(json.loads(request.body))


def _plain(value: Any) -> Any:
    """`value` with content that is one text as a string: two equivalent forms."""
    match value:
        case {"type": "text", "text": str(), **rest} if not rest:
            return value
        case {"content": [{"type": "text", "text": str(text), **rest}]} if not rest:
            return {**value, "content": text}
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


def _is_valid(body: Mapping[str, Any]) -> bool:
    try:
        parse(body)
    except InvalidRequest:
        return False
    return True


def _matters(body: Mapping[str, Any], path: Path, endpoint: Endpoint, before: Any) -> bool:
    """Whether the provider's request depends on the field."""
    changes = [change for change in (without(body, path), replaced(body, path)) if _is_valid(change)]
    return not changes or _sent(changes[0], endpoint) != before


def _is_named(path: Path, named: frozenset[str]) -> bool:
    return any(dotted(path[:length]) in named for length in range(1, len(path) + 1))


def _wrong(body: Mapping[str, Any], endpoint: Endpoint) -> list[str]:
    """Fields that are dropped and not reported, and fields that are reported and not dropped."""
    try:
        dropped = request_for(body, endpoint).dropped
    except InvalidRequest:
        return []
    before = _sent(body, endpoint)
    named = frozenset(dropped)
    wrong = [f"named twice: {path}" for path in named if dropped.count(path) > 1]
    for text in named:
        path = parse_path(text)
        if _is_named(path[:-1], named):
            wrong.append(f"named with what it is part of: {text}")
        try:
            rest = without(body, path)
        except LookupError:
            wrong.append(f"named and not there: {text}")
            continue
        if _is_valid(rest) and _sent(rest, endpoint) != before:
            wrong.append(f"named and sent: {text}")
    for path, value in leaves(body):
        if _is_named(path, named) or _is_no_op(Field(body, path, value, named)):
            continue
        if not _matters(body, path, endpoint, before):
            wrong.append(f"dropped and not named: {dotted(path)}")
    return sorted(wrong)


@pytest.mark.parametrize("target", TARGETS)
@given(REQUESTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_generated_requests(target: str, body: dict[str, Any]) -> None:
    assert _wrong(body, endpoint_for(*TARGETS[target])) == []


@pytest.mark.parametrize(("folder", "target"), matrix())
def test_golden_requests(folder: Any, target: str) -> None:
    case = case_of(folder)
    assert _wrong(case["request"], endpoint_of(case, target)) == []
