"""Requests take linear time: the operations of reading and translating grow in proportion to the request.

Counted are lines of Python and calls of C functions, for requests of every shape at sizes n and 4n.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.request import read
from server.dialects.registry import DIALECTS
from server.errors import LmchatError
from server.routing import capabilities
from tests.dialects.steps import steps
from tests.support.dialects import endpoint_for

HI = {"role": "user", "content": "hi"}
ENDPOINTS = {
    "openai": ("openai", "gpt-5"),
    "mistral": ("mistral", "mistral-large"),
    "anthropic": ("anthropic", "claude-sonnet-4-5"),
    "gemini": ("gemini", "gemini-3-pro"),
    "bedrock": ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
}
LEAF = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def call(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": f"f{number}", "arguments": "{}"}}


def result(number: int) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": "r"}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "a", **fields}


def tool(number: int, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{number}", "parameters": {"type": "object", **schema}}}


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"type": "array", "items": leaf, "anyOf": [leaf]} if not isinstance(leaf, dict) else {"items": leaf}
    return leaf


def chain(count: int) -> dict[str, Any]:
    """Definitions of which each refers to the next twice."""
    definitions = {
        f"D{n}": {"properties": {side: {"$ref": f"#/$defs/D{n + 1}", "title": side} for side in "ab"}}
        for n in range(count)
    }
    return {"properties": {"a": {"$ref": "#/$defs/D0"}}, "$defs": {**definitions, f"D{count}": {"type": "string"}}}


#: The fields of a request, from a size and a value of any kind.
SHAPES: Mapping[str, Callable[[int, Any], dict[str, Any]]] = {
    "turns": lambda n, leaf: {"messages": [HI, assistant()] * n},
    "turns of one role": lambda n, leaf: {"messages": [HI] * n},
    "system turns": lambda n, leaf: {"messages": [{"role": "system", "content": "s"}] * n + [HI]},
    "unknown fields of turns": lambda n, leaf: {"messages": [{**HI, "x": leaf}] * n},
    "calls and their results": lambda n, leaf: {
        "messages": [HI, assistant(tool_calls=[call(i) for i in range(n)]), *map(result, range(n))],
        "tools": [tool(i, {}) for i in range(4)],
    },
    "results in turn": lambda n, leaf: {
        "messages": [HI, *(turn for i in range(n) for turn in (assistant(tool_calls=[call(i)]), result(i)))]
    },
    "parts": lambda n, leaf: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * n}]},
    "images": lambda n, leaf: {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * n,
            }
        ]
    },
    "files": lambda n, leaf: {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
                    }
                ]
                * n,
            }
        ]
    },
    "reasoning": lambda n, leaf: {
        "messages": [HI, assistant(reasoning_details=[{"type": "reasoning.text", "text": "t", "x": leaf}] * n), HI]
    },
    "tools": lambda n, leaf: {"tools": [tool(i, {"properties": {"a": {"const": leaf}}}) for i in range(n)]},
    "properties": lambda n, leaf: {
        "tools": [tool(0, {"properties": {f"p{i}": {"enum": [leaf]} for i in range(n)}})]
    },
    "references": lambda n, leaf: {"tools": [tool(0, chain(n))]},
    "alternatives": lambda n, leaf: {
        "tools": [tool(0, {"anyOf": [{"properties": {f"p{i}": {}}} for i in range(n)]})]
    },
    "a schema to answer": lambda n, leaf: {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": chain(n)}}
    },
    "a deep schema": lambda n, leaf: {"tools": [tool(0, {"properties": {"a": nested(n // 4, leaf)}})]},
    "unknown fields": lambda n, leaf: {f"x{i}": leaf for i in range(n)},
    "unknown values": lambda n, leaf: {"x": [leaf] * n},
    "biases": lambda n, leaf: {"logit_bias": {str(i): 1 for i in range(n)}},
    "metadata": lambda n, leaf: {"metadata": {str(i): "a" for i in range(n)}},
    "functions": lambda n, leaf: {"functions": [{"name": f"f{i}", "x": leaf} for i in range(n)]},
}


def operations(run: Callable[[], object]) -> int:
    """The lines of Python that `run` executes, and the C functions that it calls."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "c_call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        lines = steps(run)
    finally:
        sys.setprofile(before)
    return lines + count


def translated(body: bytes, dialect: str) -> None:
    """Everything done with a request before it is sent, as OpenAI's JSON and as a typed request."""
    vendor, model = ENDPOINTS[dialect]
    endpoint = endpoint_for(vendor, model)
    with suppress(LmchatError):
        request = read(body)
        request = request.without(capabilities.dropped(request, endpoint))
        DIALECTS[endpoint.dialect].translator.request(request, endpoint, stream=False)
        request.to_proto()
        request.to_openai()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", ENDPOINTS)
@settings(max_examples=2, deadline=None)
@given(leaf=LEAF)
def test_operations_grow_with_the_size(dialect: str, shape: str, leaf: Any) -> None:
    def body(size: int) -> bytes:
        return json.dumps({"model": "m", "messages": [HI], **SHAPES[shape](size, leaf)}).encode()

    first, second = body(60), body(240)
    translated(first, dialect)  # a first run fills the caches
    small = operations(lambda: translated(first, dialect))
    large = operations(lambda: translated(second, dialect))
    assert large <= 4.4 * small, f"{small} operations at first, {large} for a request four times the size"
