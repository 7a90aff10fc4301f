"""Requests in OpenAI's JSON that most dialects accept, with fields that few or none of them know."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Json = SearchStrategy[dict[str, Any]]

_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_PNG = "data:image/png;base64,iVBORw0KGgo="
_PDF = "data:application/pdf;base64,JVBERi0="
_CACHE = st.sampled_from(
    [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral", "ttl": "5m"}, {"odd": 1}]
)
#: Fields beyond OpenAI's, which any object may have.
_EXTRA: dict[str, SearchStrategy[Any]] = {"cache_control": _CACHE, "x_odd": st.sampled_from([1, "a", {"b": [1]}])}


def _object(required: dict[str, Any], **optional: SearchStrategy[Any]) -> Json:
    """An object with these fields, some of the optional ones, and rarely one beyond OpenAI's."""
    always = {
        name: value if isinstance(value, SearchStrategy) else st.just(value) for name, value in required.items()
    }
    plain = st.fixed_dictionaries(always, optional=optional)
    extended = st.fixed_dictionaries(always, optional={**optional, **_EXTRA})
    return st.one_of(plain, plain, extended)


_TEXT = st.sampled_from(["hi", "there", " ", "a b"])
_TEXT_PART = _object({"type": "text", "text": _TEXT})
_IMAGE_PART = _object(
    {
        "type": "image_url",
        "image_url": _object(
            {"url": _PNG}, detail=st.sampled_from(["auto", "low", "high"]), mime_type=st.just("image/png")
        ),
    },
    media_resolution=st.just({"level": "low"}),
)
_FILE_PART = _object(
    {
        "type": "file",
        "file": _object(
            {"file_data": st.sampled_from([_PDF, _PNG])},
            filename=st.just("a.pdf"),
            citations=st.just({"enabled": True}),
        ),
    },
    context=st.just("a report"),
)
_USER = _object(
    {
        "role": "user",
        "content": st.just("hi")
        | st.lists(st.one_of(_TEXT_PART, _IMAGE_PART, _FILE_PART), min_size=1, max_size=3),
    },
    name=st.just("ada"),
)
_SYSTEM = _object(
    {
        "role": st.sampled_from(["system", "developer"]),
        "content": st.just("be brief") | st.lists(_TEXT_PART, min_size=1, max_size=2),
    },
    name=st.just("ops"),
)

_THOUGHT = {"type": "reasoning.text", "text": "think"}
_DETAILS = st.lists(
    st.sampled_from(
        [
            _THOUGHT,
            *({**_THOUGHT, "signature": "c2ln", "format": format_} for format_ in ("anthropic", "gemini", "x")),
            *(
                {"type": "reasoning.encrypted", "data": "ZGF0YQ==", "format": f}
                for f in ("anthropic", "bedrock", "gemini")
            ),
            {"type": "reasoning.summary", "summary": "s"},
        ]
    ),
    max_size=3,
)
_SIGNED = st.sampled_from(
    [
        {"google": {"thought_signature": "c2ln"}},
        {"anthropic": {"thinking": [{"type": "thinking", "thinking": "t", "signature": "s"}]}},
        {"bedrock": {"redacted": ["ZGF0YQ=="]}},
        {"anthropic": {"thinking": []}, "google": {"odd": 1}},
    ]
)
_SERVER_SIDE = st.sampled_from(
    [
        {"anthropic": {"content": [{"type": "server_tool_use", "id": "srv_1"}, {"type": "text", "text": "hi"}]}},
        {"anthropic": {"container": {"id": "container_1"}}},
        {"odd": {}},
    ]
)
_REASONING: dict[str, SearchStrategy[Any]] = {"reasoning_content": st.just("think"), "reasoning_details": _DETAILS}
_CALL = _object(
    {
        "id": "call_1",
        "type": "function",
        "function": _object({"name": "get_weather", "arguments": st.sampled_from(['{"city":"Oslo"}', "{}"])}),
    },
    extra_content=_SIGNED,
)
_ASSISTANT = _object(
    {"role": "assistant", "content": st.just("hi") | st.lists(_TEXT_PART, min_size=1, max_size=2)},
    **_REASONING,
    name=st.just("bot"),
    refusal=st.just("no"),
    extra_content=_SERVER_SIDE,
    annotations=st.just([{"type": "url_citation", "url_citation": {"url": "https://x.org", "title": "x"}}]),
    images=st.just([{"type": "image_url", "image_url": {"url": _PNG}}]),
)
_CALLING = _object({"role": "assistant", "tool_calls": st.lists(_CALL, min_size=1, max_size=1)}, **_REASONING)
_RESULT = _object(
    {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": st.just("sunny") | st.lists(st.one_of(_TEXT_PART, _IMAGE_PART), min_size=1, max_size=2),
    },
    name=st.sampled_from(["get_weather", "other"]),
    is_error=st.booleans(),
)
_MESSAGES = st.builds(
    lambda system, turns, last: [*system, *(message for turn in turns for message in turn), *last],
    st.lists(_SYSTEM, max_size=1),
    st.lists(st.one_of(st.tuples(_USER, _ASSISTANT), st.tuples(_USER, _CALLING, _RESULT)), max_size=2),
    st.lists(_USER, min_size=1, max_size=1),
)

_TOOLS = st.lists(
    _object(
        {
            "type": "function",
            "function": _object(
                {"name": st.sampled_from(["get_weather", "other"])},
                description=st.just("The weather."),
                parameters=st.sampled_from([_SCHEMA, {"type": "object", "additionalProperties": True}]),
                strict=st.booleans(),
            ),
        }
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda tool: str(tool["function"]["name"]),
)
_NAMED = {"name": "get_weather"}
_CHOICE = st.sampled_from(
    [
        "auto",
        "none",
        "required",
        {"type": "function", "function": _NAMED},
        {"type": "function", "function": {**_NAMED, "odd": 1}, "x_odd": 1},
        *(
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": _NAMED}], **odd},
            }
            for mode, odd in (("auto", {}), ("required", {"odd": 1}))
        ),
    ]
)
_FORMAT = st.sampled_from(
    [
        {"type": "text"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}},
        {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": _SCHEMA, "description": "d", "strict": True, "odd": 1},
        },
    ]
)
_PARAMETERS: dict[str, SearchStrategy[Any]] = {
    "temperature": st.sampled_from([0.5, 1.5]),
    "top_p": st.just(0.5),
    "top_k": st.just(5),
    "presence_penalty": st.just(0.5),
    "max_tokens": st.sampled_from([100, 5000]),
    "max_completion_tokens": st.sampled_from([200, 6000]),
    "stop": st.just(["END"]),
    "seed": st.just(7),
    "logprobs": st.just(True),
    "logit_bias": st.just({"1": 1}),
    "user": st.just("u1"),
    "metadata": st.just({"a": "b"}),
    "store": st.booleans(),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority", "odd"]),
    "verbosity": st.just("low"),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "high", "xhigh"]),
    "parallel_tool_calls": st.booleans(),
    "tools": _TOOLS,
    "tool_choice": _CHOICE,
    "response_format": _FORMAT,
    "web_search_options": st.sampled_from(
        [
            {},
            {"search_context_size": "low", "odd": 1},
            {"user_location": {"type": "approximate", "approximate": {"city": "Oslo", "odd": 1}}},
        ]
    ),
    "thinking": st.sampled_from(
        [{"type": "enabled"}, {"type": "enabled", "budget_tokens": 2000}, {"type": "disabled"}]
    ),
    "output_config": st.sampled_from([{"effort": "max"}, {"odd": 1}]),
    "cache_control": _CACHE,
    "google": st.sampled_from([{"thinking_config": {"thinking_budget": 5}, "odd": 1}, {"top_k": 3}]),
    "extra_body": st.sampled_from([{"google": {"topK": 4}}, {"labels": {"a": "b"}, "odd": 1}]),
    "additionalModelRequestFields": st.sampled_from([{"top_k": 3}, {"reasoningConfig": {"type": "disabled"}}]),
    "x_odd": st.just(1),
}


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(_PARAMETERS)), max_size=6, unique=True))
    return {
        "model": "public-model",
        "messages": draw(_MESSAGES),
        **{name: draw(_PARAMETERS[name]) for name in names},
    }


REQUESTS = _requests()
