"""A completion kept in JSON gives REST callers the same as its typed message."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat import openai_json
from server.chat.completion import JsonCompletion
from server.dialects.openai import response
from server.errors import ProviderError


def stays_json(body: bytes) -> JsonCompletion | None:
    """The completion as the OpenAI dialect keeps it where nothing in it needs translation."""
    completion = JsonCompletion.read(body)
    return completion if completion is not None and response.is_plain(completion) else None


def by_message(body: bytes) -> tuple[dict[str, Any], str]:
    message, native = response.completion(body)
    return json.loads(msgspec.json.encode(openai_json.dump_completion(message))), native


def both_ways(completion: JsonCompletion) -> tuple[dict[str, Any], str]:
    """The REST form; asserts that the message for gRPC callers is equal."""
    found = json.loads(msgspec.json.encode(completion.to_openai()))
    assert completion.to_proto() == openai_json.parse_completion(found)
    # The router sets these, as it does on a message.
    missing = {"id": "", "created": 0, "model": ""}
    return missing | found, completion.native_finish_reason


def replaced(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`obj` with another value at a path of keys and indices with dots between; `...` removes it."""
    out: dict[str, Any] = json.loads(json.dumps(obj))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = out
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return out


WHOLE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1750000000,
    "model": "gpt-4o-mini",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hel\u00e9\n\u0000", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": None},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
MESSAGE = "choices.0.message"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "gen-1"),
        ("id", ...),
        ("object", ...),
        ("created", ...),
        ("model", ...),
        ("usage", ...),
        ("usage", None),
        ("usage.prompt_tokens_details", None),
        ("usage.completion_tokens_details", {}),
        ("usage.cost", 0.00001),
        ("usage.cost_details", {"upstream": None}),
        ("usage.prompt_cache_hit_tokens", None),
        ("usage.prompt_tokens_details.image_tokens", 1),
        ("of_a_vendor", 1),
        ("service_tier", None),
        ("system_fingerprint", None),
        ("prompt_filter_results", [{"prompt_index": 0}]),
        ("kv_transfer_params", None),
        ("lmchat", {"provider": "another gateway's"}),
        ("choices.0.logprobs", ...),
        ("choices.0.finish_reason", "length"),
        ("choices.0.native_finish_reason", "STOP"),
        ("choices.0.stop_reason", None),
        ("choices.0.index", 3),
        (f"{MESSAGE}.content", ""),
        (f"{MESSAGE}.content", None),
        (f"{MESSAGE}.content", ...),
        (f"{MESSAGE}.refusal", "No."),
        (f"{MESSAGE}.refusal", ...),
        (f"{MESSAGE}.annotations", None),
        (f"{MESSAGE}.annotations", ...),
        (f"{MESSAGE}.tool_calls", [CALL]),
        (f"{MESSAGE}.tool_calls", []),
        (f"{MESSAGE}.tool_calls", None),
        (f"{MESSAGE}.tool_calls", [{**CALL, "index": 0}, {**CALL, "id": "call_b"}]),
        (f"{MESSAGE}.function_call", None),
        (f"{MESSAGE}.audio", None),
        (f"{MESSAGE}.reasoning_content", "Hm."),
        (f"{MESSAGE}.reasoning", "Hm."),
        (f"{MESSAGE}.reasoning", None),
        (f"{MESSAGE}.reasoning", {"text": "Hm."}),
        (f"{MESSAGE}.reasoning_details", []),
    ],
)
def test_json_fast_path(path: str, value: Any) -> None:
    body = json.dumps(replaced(WHOLE, path, value)).encode()
    completion = stays_json(body)
    assert completion is not None
    assert both_ways(completion) == by_message(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("error", {"message": "no"}),
        ("object", "error"),
        ("created", 2**63),
        ("created", 1.5),
        ("choices", []),
        ("choices", None),
        ("usage.total_tokens", 13),
        ("usage.completion_tokens_details.reasoning_tokens", 4),
        ("usage.prompt_tokens", -1),
        ("usage.prompt_tokens", "9"),
        ("usage.prompt_tokens", 9.0),
        ("usage.prompt_tokens", None),
        ("usage.total_tokens", 2**63 - 1),  # no sum of the others
        ("usage.completion_tokens_details", {"reasoning_tokens": 10**6}),  # xAI counts it beside them
        (
            "usage",
            {
                "prompt_tokens": 4,
                "completion_tokens": 1,
                "total_tokens": 5,
                "prompt_cache_hit_tokens": 3,
            },  # DeepSeek
        ),
        ("service_tier", "on_demand"),  # Groq
        ("choices.0.index", None),
        ("choices.0.index", -1),
        ("choices.0.logprobs", {"content": []}),
        ("choices.0.finish_reason", None),
        ("choices.0.finish_reason", "error"),
        ("choices.0.finish_reason", "tool_use"),
        ("choices.0.message", None),
        (f"{MESSAGE}.role", "model"),
        (f"{MESSAGE}.role", ...),
        (f"{MESSAGE}.content", [{"type": "text", "text": "x"}]),
        (f"{MESSAGE}.content", 1),
        (f"{MESSAGE}.annotations", [{"type": "url_citation"}]),
        (f"{MESSAGE}.function_call", {"name": "f", "arguments": "{}"}),
        (f"{MESSAGE}.audio", {"id": "a"}),
        (f"{MESSAGE}.reasoning_details", [{"type": "reasoning.text"}]),
        (f"{MESSAGE}.tool_calls", [{**CALL, "id": ""}]),
        (f"{MESSAGE}.tool_calls", [{**CALL, "type": "custom"}]),
        (f"{MESSAGE}.tool_calls", [{**CALL, "function": {"name": "f", "arguments": {"x": 1}}}]),
    ],
)
def test_protobuf_fallback(path: str, value: Any) -> None:
    assert stays_json(json.dumps(replaced(WHOLE, path, value)).encode()) is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"choices": "\\ud800"}', b"[" * 100_000])
def test_invalid_completions(body: bytes) -> None:
    assert JsonCompletion.read(body) is None


# Every field absent, null, valid, or any other value


ODD: list[Any] = [
    ..., None, "", "stop", "function", 0, -1, 2**70, 1.5, True, [], {}, [None], [{}], [CALL], {"text": "x"},
]  # fmt: skip


def every_path(obj: Any, before: str = "") -> list[str]:
    steps = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    return [path for step, value in steps for path in (f"{before}{step}", *every_path(value, f"{before}{step}."))]


FULL = replaced(replaced(WHOLE, f"{MESSAGE}.tool_calls", [CALL]), f"{MESSAGE}.reasoning_content", "Hm.")
MORE = (
    "usage.cost", "usage.odd", "odd", "provider", "error", "choices.0.odd", "choices.0.native_finish_reason",
    f"{MESSAGE}.odd", f"{MESSAGE}.reasoning", f"{MESSAGE}.audio", f"{MESSAGE}.function_call",
    f"{MESSAGE}.reasoning_details", f"{MESSAGE}.tool_calls.0.index",
)  # fmt: skip


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.sampled_from([*every_path(FULL), *MORE]), st.sampled_from(ODD)), max_size=3))
def test_both_representations_agree(changes: list[tuple[str, Any]]) -> None:
    obj = FULL
    for path, value in changes:
        try:
            obj = replaced(obj, path, value)
        except (KeyError, IndexError, TypeError):  # an earlier change removed the place of this one
            continue
    body = json.dumps(obj).encode()
    completion = stays_json(body)
    if completion is None:
        return
    try:
        expected = by_message(body)
    except ProviderError as error:
        raise AssertionError(f"the parser refuses it: {error.raw}") from None
    assert both_ways(completion) == expected


@pytest.mark.parametrize(("matched", "expected"), [("END", "END"), (128009, None), (None, None)])
def test_sglangs_matched_stop_is_the_stop_sequence(matched: Any, expected: str | None) -> None:
    """https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/protocol.py"""
    body = json.dumps(replaced(WHOLE, "choices.0.matched_stop", matched)).encode()
    completion = stays_json(body)
    assert completion is not None
    found, native = both_ways(completion)
    assert (found, native) == by_message(body)
    assert found["choices"][0].get("stop_sequence") == expected
    assert found["choices"][0]["matched_stop"] == matched
