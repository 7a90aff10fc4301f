"""The OpenAI dialect and vendors' deviations: requests, answers, errors and streams."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.api.public_error import PublicError
from server.chat import openai_json
from server.chat.completion import JsonCompletion
from server.chat.request import ProtoRequest
from server.dialects.base import Endpoint, Vendor
from server.dialects.openai import response
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from server.vendors.registry import VENDORS
from tests.chat.strategies import COMPLETIONS, JSON, PATIENT
from tests.dialects.openai_help import (
    DONE,
    PLAIN,
    TRANSLATOR,
    ask,
    chunk,
    decode,
    delta,
    endpoint,
    outcome,
    sse,
    torn,
)
from tests.support.fold import fold_messages

AZURE = VENDORS["azure"]
R = Reason


# Requests


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (endpoint(), "https://up.example/v1/chat/completions"),
        (endpoint(base_url="https://up.example/v1/"), "https://up.example/v1/chat/completions"),
        (endpoint(api_version="7"), "https://up.example/v1/chat/completions?api-version=7"),
        (
            endpoint(AZURE, "https://r.openai.azure.com"),
            "https://r.openai.azure.com/openai/deployments/up-model/chat/completions?api-version=2024-10-21",
        ),
        (
            endpoint(AZURE, "https://r.openai.azure.com/", api_version="2025-04-01-preview"),
            "https://r.openai.azure.com/openai/deployments/up-model/chat/completions?api-version=2025-04-01-preview",
        ),
        (
            endpoint(AZURE, "https://r.openai.azure.com/openai/"),
            "https://r.openai.azure.com/openai/deployments/up-model/chat/completions?api-version=2024-10-21",
        ),
        (
            endpoint(AZURE, "https://r.openai.azure.com/openai/v1/"),
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            endpoint(AZURE, "https://r.openai.azure.com/openai/v1", api_version="preview"),
            "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
        (
            endpoint(AZURE, "https://r.services.ai.azure.com/models"),
            "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        (endpoint(base_url="https://up.example/models"), "https://up.example/models/chat/completions"),
    ],
)
def test_url(where: Endpoint, expected: str) -> None:
    assert TRANSLATOR.request(ask(), where, stream=False).url == expected
    assert TRANSLATOR.request(ask(), where, stream=False).url == expected


@pytest.mark.parametrize(("stream", "accept"), [(False, "application/json"), (True, "text/event-stream")])
def test_headers(stream: bool, accept: str) -> None:
    call = TRANSLATOR.request(ask(), endpoint(headers={"x-title": "t"}), stream=stream)
    assert call.headers == {"content-type": "application/json", "accept": accept, "x-title": "t"}
    assert call.method == "POST"


def test_azures_api_key_header() -> None:
    assert AZURE.auth == "api-key"


def sent(vendor: Vendor = PLAIN, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """The body for a request in OpenAI's JSON."""
    body = {"model": "public", "messages": [{"role": "user", "content": "Hi"}], **fields}
    request = openai_json.parse(json.dumps(body).encode()).request
    found: dict[str, Any] = json.loads(TRANSLATOR.request(request, endpoint(vendor), stream=stream).body)
    return found


def test_the_whole_body() -> None:
    fields: dict[str, Any] = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ],
        "temperature": 0.5,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}],
        "top_k": 4,
    }
    assert sent(**fields, lmchat={"debug": ["routing"]}) == {"model": "up-model", **fields}
    assert sent(**fields, stream=True) == {"model": "up-model", **fields, "stream": True}


TWO_TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://x"}}

#: A vendor's quirk, a request, and the fields that the vendor gets; None is absence.
QUIRKS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("either limit", {}, {"max_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": None}),
    ("either limit", {}, {"max_completion_tokens": 5}, {"max_tokens": None, "max_completion_tokens": 5}),
    (
        "the newer limit",
        {"token_limit": "max_completion_tokens"},
        {"max_tokens": 5},
        {"max_tokens": None, "max_completion_tokens": 5},
    ),
    (
        "the older limit",
        {"token_limit": "max_tokens"},
        {"max_completion_tokens": 5},
        {"max_tokens": 5, "max_completion_tokens": None},
    ),
    (
        "of two limits the newer",
        {"token_limit": "max_tokens"},
        {"max_tokens": 4, "max_completion_tokens": 5},
        {"max_tokens": 5, "max_completion_tokens": None},
    ),
    ("no limit", {"token_limit": "max_tokens"}, {}, {"max_tokens": None}),
    (
        "developer",
        {},
        {"messages": [{"role": "developer", "content": "a"}]},
        {"messages": [{"role": "developer", "content": "a"}]},
    ),
    (
        "developer as system",
        {"developer_role": False},
        {"messages": [{"role": "developer", "content": "a"}, {"role": "user", "content": TWO_TEXTS}]},
        {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": TWO_TEXTS}]},
    ),
    (
        "content as a string",
        {"string_content": True},
        {
            "messages": [
                {"role": "developer", "content": TWO_TEXTS},
                {"role": "user", "content": [TWO_TEXTS[0], IMAGE]},
                {"role": "assistant", "content": None},
                {"role": "tool", "tool_call_id": "1", "content": TWO_TEXTS},
            ]
        },
        {
            "messages": [
                {"role": "developer", "content": "a\nb"},
                {"role": "user", "content": [TWO_TEXTS[0], IMAGE]},
                {"role": "assistant", "content": None},
                {"role": "tool", "tool_call_id": "1", "content": "a\nb"},
            ]
        },
    ),
    (
        "defaults",
        {"defaults": {"temperature": 0.2, "top_p": 1.0}},
        {"temperature": 1},
        {"temperature": 1, "top_p": 1},
    ),
    ("stream options on a unary call", {}, {"stream_options": {"include_usage": True}}, {"stream_options": None}),
    (
        "stream options",
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    (
        "no stream options",
        {"stream_usage": False},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": None},
    ),
    ("many stops", {"max_stop": 5}, {"stop": ["1", "2", "3", "4", "5"]}, {"stop": ["1", "2", "3", "4", "5"]}),
]


@pytest.mark.parametrize(
    ("quirks", "fields", "expected"),
    [row[1:] for row in QUIRKS],
    ids=[f"{row[0]}-{i}" for i, row in enumerate(QUIRKS)],
)
def test_quirks(quirks: dict[str, Any], fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = sent(Vendor(type="x", dialect="openai", **quirks), **fields)
    assert {name: body.get(name) for name in expected} == expected


def test_too_many_stops() -> None:
    with pytest.raises(InvalidRequest, match=r"At most 4 sequences, got 5\.") as caught:
        sent(stop=["1", "2", "3", "4", "5"])
    assert caught.value.param == "stop"


def test_gateway_options_are_never_sent_to_a_provider() -> None:
    request = ask(extra_body_json='{"stream":true,"lmchat":{},"model":"other","x":1}')
    body = json.loads(TRANSLATOR.request(request, endpoint(), stream=False).body)
    assert body == {"model": "up-model", "messages": [{"role": "user", "content": "Hi"}], "x": 1}


def test_broken_json_in_a_typed_request() -> None:
    with pytest.raises(InvalidRequest, match="does not hold JSON"):
        TRANSLATOR.request(ask(extra_body_json="{"), endpoint(), stream=False)


# Answers


def answer(message: dict[str, Any] | None = None, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": finish}
    if message is not None:
        choice["message"] = {"role": "assistant", **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [choice],
        **more,
    }


def complete(obj: Any) -> tuple[pb.ChatCompletion, str]:
    data = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
    return TRANSLATOR.completion(data, ask())


def test_an_answer() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    completion, native = complete(answer(usage=usage, system_fingerprint="fp", citations=["a"]))
    assert native == "stop"
    assert completion == pb.ChatCompletion(
        id="chatcmpl-1",
        created=7,
        model="m",
        choices=[
            pb.Choice(
                message=pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.ContentPart(text="Hi")]),
                finish_reason=pb.FINISH_REASON_STOP,
            )
        ],
        usage=pb.Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5),
        system_fingerprint="fp",
        extra_json='{"citations":["a"]}',
    )


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
TYPED_CALL = pb.ToolCall(id="1", function=pb.FunctionCall(name="f", arguments='{"x":1}'))

#: A message as a vendor sends it, and as it is parsed.
MESSAGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tool calls", {"content": None, "tool_calls": [CALL]}, {"tool_calls": [TYPED_CALL]}),
    (
        "arguments as an object",
        {"tool_calls": [CALL | {"function": {"name": "f", "arguments": {"x": 1}}}]},
        {"tool_calls": [TYPED_CALL]},
    ),
    (
        "no arguments",
        {"tool_calls": [CALL | {"function": {"name": "f", "arguments": None}}]},
        {"tool_calls": [pb.ToolCall(id="1", function=pb.FunctionCall(name="f", arguments="{}"))]},
    ),
    (
        "calls without ids",
        {"tool_calls": [{"function": {"name": "f", "arguments": {}}}, {"id": None, "function": {"name": "g"}}]},
        {
            "tool_calls": [
                pb.ToolCall(id="call_1_0", function=pb.FunctionCall(name="f", arguments="{}")),
                pb.ToolCall(id="call_1_1", function=pb.FunctionCall(name="g", arguments="{}")),
            ]
        },
    ),
    ("no calls", {"content": "a", "tool_calls": []}, {"content": [pb.ContentPart(text="a")]}),
    ("null calls", {"content": "a", "tool_calls": None}, {"content": [pb.ContentPart(text="a")]}),
    (
        "a function call of old",
        {"function_call": {"name": "f", "arguments": '{"x":1}'}},
        {"tool_calls": [pb.ToolCall(id="call_1_0", function=TYPED_CALL.function)]},
    ),
    ("reasoning_content", {"reasoning_content": "Hm."}, {"reasoning_content": "Hm."}),
    ("reasoning", {"reasoning": "Hm."}, {"reasoning_content": "Hm.", "extra_json": '{"reasoning":"Hm."}'}),
    (
        "both words for reasoning",
        {"reasoning": "a", "reasoning_content": "b"},
        {"reasoning_content": "b", "extra_json": '{"reasoning":"a"}'},
    ),
    (
        "Mistral's list",
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "H"}, {"type": "text", "text": "m."}]},
                {"type": "text", "text": "Hi"},
                {"type": "text", "text": " there"},
                {"type": "reference", "reference_ids": [1]},
            ]
        },
        {
            "content": [pb.ContentPart(text="Hi there")],
            "reasoning_content": "Hm.",
            "annotations": [pb.Annotation(other_json='{"type":"reference","reference_ids":[1]}')],
        },
    ),
    (
        "Mistral's thinking as text",
        {"content": [{"type": "thinking", "thinking": "Hm."}]},
        {"reasoning_content": "Hm."},
    ),
    ("an empty list", {"content": []}, {}),
    ("a list of strings", {"content": ["Hi", " there"]}, {"content": [pb.ContentPart(text="Hi there")]}),
    (
        "parts beside annotations",
        {"content": [{"type": "reference"}], "annotations": [{"type": "x"}]},
        {
            "annotations": [
                pb.Annotation(other_json='{"type":"x"}'),
                pb.Annotation(other_json='{"type":"reference"}'),
            ]
        },
    ),
    ("another role", {"role": "model", "content": "a"}, {"content": [pb.ContentPart(text="a")]}),
    ("no role", {"role": None, "refusal": "No."}, {"refusal": "No."}),
]


@pytest.mark.parametrize(("message", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_messages(message: dict[str, Any], expected: dict[str, Any]) -> None:
    completion, _ = complete(answer(copy.deepcopy(message)))
    assert completion.choices[0].message == pb.Message(role=pb.ROLE_ASSISTANT, **expected)


STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH
CALLS, FILTER = pb.FINISH_REASON_TOOL_CALLS, pb.FINISH_REASON_CONTENT_FILTER

#: The vendor's finish reason, the contract's, and the reported native one.
WORDS: list[tuple[Any, pb.FinishReason.ValueType, str]] = [
    ("stop", STOP, "stop"),
    ("length", LENGTH, "length"),
    ("tool_calls", CALLS, "tool_calls"),
    ("content_filter", FILTER, "content_filter"),
    ("STOP", STOP, "STOP"),
    ("eos", STOP, "eos"),
    ("end_turn", STOP, "end_turn"),
    ("MAX_TOKENS", LENGTH, "MAX_TOKENS"),
    ("model_length", LENGTH, "model_length"),
    ("function_call", CALLS, "function_call"),
    ("tool_use", CALLS, "tool_use"),
    ("SAFETY", FILTER, "SAFETY"),
    ("sensitive", FILTER, "sensitive"),
    ("refusal", FILTER, "refusal"),
    (3, STOP, "3"),
]


@pytest.mark.parametrize(("word", "finish", "native"), WORDS)
def test_finish_reasons(word: Any, finish: pb.FinishReason.ValueType, native: str) -> None:
    for message in ({"content": "Hi", "tool_calls": [CALL]}, {"content": "Hi"}):
        # Without calls there are none to be made. https://github.com/mastra-ai/mastra/pull/14187
        expected = STOP if finish == CALLS and "tool_calls" not in message else finish
        completion, native_reason = complete(answer(message, finish=word))
        assert (completion.choices[0].finish_reason, native_reason) == (expected, native)
        chunks = decode([sse(chunk(delta(**message)), chunk(delta(finish=word)))])
        assert chunks[-1].choices[0].finish_reason == expected


@pytest.mark.parametrize("word", ["", None])
def test_no_finish_reason(word: Any) -> None:
    completion, native = complete(answer(finish=word))
    assert (completion.choices[0].finish_reason, native) == (STOP, "")
    completion, native = complete(answer({"tool_calls": [CALL]}, finish=word))
    assert (completion.choices[0].finish_reason, native) == (CALLS, "")


def test_the_native_finish_reason_of_a_gateway_upstream() -> None:
    obj = answer()
    obj["choices"][0]["native_finish_reason"] = "end_turn"
    assert complete(obj)[1] == "end_turn"


def test_several_choices() -> None:
    obj = answer()
    obj["choices"] = [{"message": {"content": str(i)}, "finish_reason": "stop"} for i in range(3)]
    completion, _ = complete(obj)
    assert [(c.index, c.message.content[0].text) for c in completion.choices] == [(0, "0"), (1, "1"), (2, "2")]


@pytest.mark.parametrize(
    ("given_", "id_"), [("chatcmpl-1", "chatcmpl-1"), ("gen-1", "chatcmpl-gen-1"), ("", ""), (None, "")]
)
def test_ids(given_: str | None, id_: str) -> None:
    assert complete(answer() | {"id": given_})[0].id == id_
    assert {c.id for c in decode([sse(chunk(delta("stop", content="a")) | {"id": given_}, DONE)])} == {id_}


@pytest.mark.parametrize("lmchat", [{"provider": "x", "tries": 2}, {"tries": 10**12}, {"new": 1}, "x"])
def test_an_upstream_gateways_report_is_replaced(lmchat: Any) -> None:
    assert not complete(answer(lmchat=lmchat))[0].HasField("lmchat")
    assert not any(c.HasField("lmchat") for c in decode([sse(chunk(delta("stop", content="a"), lmchat=lmchat))]))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>502</html>", id="a page"),
        pytest.param(b'{"id": "x", "choi', id="cut"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="no bytes"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"choices": []}', id="no choices"),
        pytest.param(b'{"choices": {}}', id="choices as an object"),
        pytest.param(b'{"choices": ["a"]}', id="a choice as text"),
        pytest.param(b'{"choices": [{"index": 0, "finish_reason": "stop"}]}', id="a choice without a message"),
        pytest.param(b'{"choices": [{"message": "Hi"}]}', id="a message as text"),
        pytest.param(b'{"choices": [{"message": {"content": 5}}]}', id="content as a number"),
        pytest.param(b'{"choices": [{"message": {"content": [5]}}]}', id="content as a list of numbers"),
        pytest.param(b'{"choices": [{"message": {"tool_calls": 5}}]}', id="calls as a number"),
        pytest.param(b'{"choices": [{"message": {"tool_calls": ["f"]}}]}', id="a call as text"),
        pytest.param(b'{"choices": [{"message": {"tool_calls": [{"function": "f"}]}}]}', id="a function as text"),
        pytest.param(b'{"choices": [{"message": {"function_call": "f"}}]}', id="an old call as text"),
        pytest.param(b'{"choices": [{"index": -1, "message": {}}]}', id="a negative index"),
        pytest.param(b'{"choices": [{"message": {}}], "usage": 5}', id="usage as a number"),
    ],
)
def test_invalid_values(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        complete(body)
    assert caught.value.reason is R.UPSTREAM_INVALID_RESPONSE
    assert caught.value.fall_over
    assert not caught.value.retry_here
    assert caught.value.raw


#: An error inside a 200; the reason and the status it stands for.
INSIDE: list[tuple[str, dict[str, Any], Reason, int]] = [
    ("OpenAI's", {"error": {"message": "x", "type": "server_error", "code": None}}, R.UPSTREAM_ERROR, 200),
    ("text", {"error": "overloaded"}, R.UPSTREAM_ERROR, 200),
    ("a status", {"error": {"message": "x", "code": 502}}, R.UPSTREAM_ERROR, 502),
    ("a status as text", {"error": {"message": "x", "code": "429"}}, R.RATE_LIMITED, 429),
    ("a known code", {"error": {"code": "context_length_exceeded"}}, R.CONTEXT_LENGTH_EXCEEDED, 200),
    ("a known type", {"error": {"type": "insufficient_quota", "code": 7}}, R.RATE_LIMITED, 429),
    ("a number that is no status", {"error": {"code": 4711}}, R.UPSTREAM_ERROR, 200),
    # https://docs.z.ai/api-reference/api-code
    ("Z.ai's refusal", {"error": {"code": "1301", "message": "unsafe"}}, R.CONTENT_POLICY_VIOLATION, 200),
    ("vLLM's", {"object": "error", "message": "x", "code": 400}, R.INVALID_REQUEST, 400),
    ("beside choices", {"error": {"code": 503}, **answer()}, R.OVERLOADED, 503),
    (
        "Azure's content filter",
        {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        R.CONTENT_POLICY_VIOLATION,
        200,
    ),
]


@pytest.mark.parametrize(("obj", "reason", "status"), [row[1:] for row in INSIDE], ids=[row[0] for row in INSIDE])
def test_an_error_in_a_200(obj: dict[str, Any], reason: Reason, status: int) -> None:
    with pytest.raises(ProviderError) as caught:
        complete(obj)
    assert (caught.value.reason, caught.value.http_status) == (reason, status)
    chunks, error = outcome([sse(chunk(delta(role="assistant"))), sse(obj)])
    assert [c.choices[0].delta.content for c in chunks] == [""]
    assert error is not None
    assert (error.reason, error.http_status) == (reason, status)
    chunks, error = outcome([sse(chunk(delta(content="Hi"))), sse(obj)])
    if reason is R.CONTENT_POLICY_VIOLATION:  # in mid-stream it ends the answer
        assert summary(chunks) == [ROLE | {"content": "Hi"}, {"finish": "content_filter"}]
        return
    assert [c.choices[0].delta.content for c in chunks] == ["Hi"]
    assert error is not None
    assert (error.reason, error.http_status) == (reason, status)


@pytest.mark.parametrize("error", [None, {}, "", False])
def test_no_error_in_a_200(error: Any) -> None:
    assert complete(answer(error=error))[0].choices


@pytest.mark.parametrize("word", ["error", "ERROR", "insufficient_system_resource", "abort", "network_error"])
def test_a_finish_reason_that_is_a_failure(word: str) -> None:
    with pytest.raises(ProviderError) as caught:
        complete(answer(finish=word))
    assert (caught.value.reason, caught.value.http_status) == (R.UPSTREAM_ERROR, 502)
    with pytest.raises(ProviderError):
        decode([sse(chunk(delta(content="Hi")), chunk(delta(word)), DONE)])


def test_openrouters_error_within_a_choice() -> None:
    obj = answer(finish="error")
    obj["choices"][0]["error"] = {"code": 429, "message": "slow down"}
    with pytest.raises(ProviderError) as caught:
        complete(obj)
    assert (caught.value.reason, caught.value.http_status) == (R.RATE_LIMITED, 429)


# Errors

#: Status and body of an error; reason, message for the caller (None: masked) and param.
ERRORS: list[tuple[str, int, Any, Reason, str | None, str | None]] = [
    (
        "OpenAI's",
        400,
        {"error": {"message": "Bad n.", "type": "invalid_request_error", "param": "n", "code": None}},
        R.INVALID_REQUEST,
        "Bad n.",
        "n",
    ),
    ("text", 400, {"error": "Bad n."}, R.INVALID_REQUEST, "Bad n.", None),
    ("a message", 400, {"message": "Bad n.", "request_id": "x"}, R.INVALID_REQUEST, "Bad n.", None),
    ("a detail", 422, {"detail": "Bad n."}, R.INVALID_REQUEST, "Bad n.", None),
    (
        "FastAPI's details",
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "bad"}]},
        R.INVALID_REQUEST,
        "n: bad",
        "n",
    ),
    (
        "Mistral's",
        400,
        {"object": "error", "message": {"detail": ["bad"]}},
        R.INVALID_REQUEST,
        "bad",
        None,
    ),
    ("an array", 403, [{"error": {"code": 403, "message": "no"}}], R.UPSTREAM_AUTHENTICATION, None, None),
    ("an empty array", 503, [], R.OVERLOADED, None, None),
    ("a page", 502, b"<html><h1>Bad gateway</h1></html>", R.UPSTREAM_ERROR, None, None),
    ("nothing", 503, b"", R.OVERLOADED, None, None),
    ("not UTF-8", 500, b'{"error": "\xff"}', R.UPSTREAM_ERROR, None, None),
    ("deep", 400, b"[" * 100_000, R.INVALID_REQUEST, "The provider refused the request without saying why.", None),
    ("a number", 500, b"5", R.UPSTREAM_ERROR, None, None),
    ("null", 429, {"error": None}, R.RATE_LIMITED, None, None),
    (
        "a code",
        400,
        {"error": {"message": "x", "code": "context_length_exceeded"}},
        R.CONTEXT_LENGTH_EXCEEDED,
        "x",
        None,
    ),
    ("a type", 400, {"error": {"message": "x", "type": "content_filter"}}, R.CONTENT_POLICY_VIOLATION, "x", None),
    ("a code of numbers", 404, {"error": {"message": "x", "code": 404}}, R.MODEL_NOT_FOUND, None, None),
    (
        "x.ai's key",
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided."},
        R.UPSTREAM_AUTHENTICATION,
        None,
        None,
    ),
    ("x.ai's code", 400, {"code": "model_not_found", "error": "no such model"}, R.MODEL_NOT_FOUND, None, None),
    (
        "Azure's filter",
        400,
        {
            "error": {
                "message": "filtered",
                "param": "prompt",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
        R.CONTENT_POLICY_VIOLATION,
        "filtered",
        "prompt",
    ),
    (
        "llama.cpp's",
        400,
        {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error", "n_ctx": 8}},
        R.CONTEXT_LENGTH_EXCEEDED,
        "too big",
        None,
    ),
    (
        "Perplexity's",
        400,
        {"error": {"message": "The total length is too long.", "type": "too_many_prompt_tokens", "code": 400}},
        R.CONTEXT_LENGTH_EXCEEDED,
        "The total length is too long.",
        None,
    ),
    ("a param that is no text", 400, {"error": {"message": "x", "param": ["n"]}}, R.INVALID_REQUEST, "x", None),
]


@pytest.mark.parametrize(
    ("status", "body", "reason", "message", "param"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_errors(status: int, body: Any, reason: Reason, message: str | None, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = TRANSLATOR.error(status, {"retry-after": "3"}, data)
    assert (error.reason, error.http_status, error.param, error.retry_after) == (reason, status, param, 3.0)
    if message is not None:
        assert error.message == message
    else:
        assert "key provided" not in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:05 GMT", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 5.0),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert TRANSLATOR.error(429, headers, b"").retry_after == seconds


#: Errors that concern the caller's request, and the fields that reach the caller, unary or in a stream.
OWN_ERRORS: list[tuple[str, int, dict[str, Any], str, dict[str, Any]]] = [
    # https://platform.openai.com/docs/guides/error-codes
    ("OpenAI's code", 400, {"message": "x", "type": "invalid_request_error", "code": "unsupported_parameter"},
     "unsupported_parameter", {}),
    # https://console.groq.com/docs/tool-use
    (
        "Groq's failed call",
        400,
        {"message": "x", "code": "tool_use_failed", "failed_generation": "<f>", "status_code": 400},
        "tool_use_failed",
        {"failed_generation": "<f>"},
    ),
    # https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
    (
        "Azure's filter",
        400,
        {"message": "x", "code": "content_filter", "status": 400, "innererror": {"content_filter_result": [1]}},
        "content_policy_violation",
        {"innererror": {"content_filter_result": [1]}},
    ),
    ("a number for a code", 400, {"message": "x", "code": 400, "type": "BadRequestError"}, "invalid_request", {}),
    ("a code with spaces", 400, {"message": "x", "code": "some words", "status": 400}, "invalid_request", {}),
    ("a text that is too long", 400, {"message": "x", "status": 400, "more": "y" * 9000}, "invalid_request",
     {"more": "y" * 2045 + "…"}),
    ("too much of it", 400, {"message": "x", "status": 400, "more": ["y"] * 9000, "a": 1}, "invalid_request",
     {"a": 1}),
    ("a failure of the provider's", 500, {"message": "x", "code": "boom", "status": 500, "host": "10.0.0.1"},
     "upstream_error", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "error", "code", "details"), [row[1:] for row in OWN_ERRORS], ids=[row[0] for row in OWN_ERRORS]
)
def test_what_reaches_the_caller(status: int, error: dict[str, Any], code: str, details: dict[str, Any]) -> None:
    body = {"error": error}
    streamed = outcome([sse(chunk(delta(role="assistant")), body)])[1]
    assert streamed is not None
    for found in (TRANSLATOR.error(status, {}, json.dumps(body).encode()), streamed):
        shown = PublicError.of(found, "r")
        assert (shown.code, shown.details) == (code, details)
        assert found.http_status == status or "status" not in json.dumps(error)


#: A vendor's usage, and prompt, completion, total, cached and reasoning tokens in the contract's terms.
USAGES: list[tuple[str, dict[str, Any], tuple[int, int, int, int, int]]] = [
    ("OpenAI's", {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412,
                  "completion_tokens_details": {"reasoning_tokens": 386}}, (12, 400, 412, 0, 386)),
    # https://github.com/vercel/ai/issues/12425
    ("xAI's", {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399,
               "completion_tokens_details": {"reasoning_tokens": 386}}, (12, 387, 399, 0, 386)),
    ("xAI's, with more text than thought", {"prompt_tokens": 12, "completion_tokens": 500, "total_tokens": 522,
     "completion_tokens_details": {"reasoning_tokens": 10}}, (12, 510, 522, 0, 10)),
    # https://github.com/mozilla-ai/any-llm/issues/1290
    ("Google's", {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, (20, 603, 623, 0, 0)),
    ("DeepSeek's", {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "prompt_cache_hit_tokens": 8},
     (9, 1, 10, 8, 0)),
    ("Moonshot's", {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12, "cached_tokens": 8},
     (8, 4, 12, 8, 0)),
    ("a cache beside the prompt", {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
     "prompt_tokens_details": {"cached_tokens": 161}}, (171, 4, 175, 161, 0)),
    ("Perplexity's reasoning", {"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17,
                                "reasoning_tokens": 5}, (8, 9, 17, 0, 5)),
    ("no total", {"prompt_tokens": 8, "completion_tokens": 9}, (8, 9, 17, 0, 0)),
    ("other names", {"input_tokens": 8, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 2}},
     (8, 9, 17, 2, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("counts", "expected"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
def test_usage(counts: dict[str, Any], expected: tuple[int, ...]) -> None:
    whole = answer(usage=copy.deepcopy(counts))
    completion, _ = complete(whole)
    [*_, last] = decode([sse(chunk(delta("stop", content="Hi")), chunk(usage=counts), DONE)])
    usages = [completion.usage, last.usage]
    message, _ = response.completion(json.dumps(whole).encode())
    usages.append(message.usage)  # the same whether it stays JSON or not
    for usage in usages:
        assert (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.prompt_tokens_details.cached_tokens,
            usage.completion_tokens_details.reasoning_tokens,
        ) == expected


@pytest.mark.parametrize(
    ("word", "tier"),
    [
        ("on_demand", "default"),
        ("standard", "default"),
        ("performance", "priority"),
        ("flex", "flex"),
        ("new", "new"),
    ],
)
def test_the_service_tier_is_in_openais_words(word: str, tier: str) -> None:
    whole = answer(service_tier=word)
    assert complete(whole)[0].service_tier == tier
    completion = TRANSLATOR.translator.completion(json.dumps(whole).encode(), ProtoRequest(ask()))
    assert isinstance(completion, JsonCompletion) == (word in ("flex",))
    first, *_ = decode([sse(chunk(delta("stop", content="Hi"), service_tier=word), DONE)])
    assert first.service_tier == tier


def test_null_after_the_finish_reason_replaces_no_value() -> None:
    beside = {"native_finish_reason": "end_turn", "matched_stop": "END"}
    end = {"index": 0, "delta": {}, "finish_reason": "stop", **beside}
    after = {"index": 0, "delta": {"content": ""}, "finish_reason": None, **dict.fromkeys(beside), "odd": 1}
    chunks = decode([sse(chunk(delta(content="Hi")), chunk(end), chunk(after), DONE)])
    last = openai_json.dump_chunk(chunks[-1], include_usage=False)["choices"][0]
    assert last | beside | {"odd": 1, "stop_sequence": "END", "finish_reason": "stop"} == last


def test_fields_beside_the_last_choice_without_usage() -> None:
    last = {"id": "chatcmpl-1", "choices": [], "citations": ["https://a.example/"]}
    chunks = decode([sse(chunk(delta("stop", content="Hi")), last, DONE)])
    assert json.loads(chunks[-1].extra_json) == {"citations": ["https://a.example/"]}
    assert chunks[-1].choices[0].finish_reason == pb.FINISH_REASON_STOP


def test_azures_filtered_choice_has_no_message() -> None:
    choice = {
        "index": 0,
        "finish_reason": "content_filter",
        "content_filter_results": {"hate": {"filtered": True}},
    }
    written = openai_json.dump_completion(complete(answer() | {"choices": [choice]})[0])["choices"][0]
    assert (written["message"]["role"], written["message"]["content"]) == ("assistant", None)
    assert written["content_filter_results"] == choice["content_filter_results"]
    with pytest.raises(ProviderError):
        complete(answer() | {"choices": [choice | {"finish_reason": "stop"}]})


# Streams


def summary(chunks: list[pb.ChatCompletionChunk]) -> list[Any]:
    """Delta and finish reason of every choice, usage as `usage`; without what is null."""
    found: list[Any] = []
    for each in chunks:
        written = openai_json.dump_chunk(each, include_usage=False)
        for choice in written["choices"]:
            finish = {"finish": choice["finish_reason"]} if choice["finish_reason"] else {}
            index = {"index": choice["index"]} if choice["index"] else {}
            found.append(choice["delta"] | finish | index)
        if "usage" in written:
            assert not written["choices"]
            found.append({"usage": written["usage"]["total_tokens"]})
    return found


ROLE = {"role": "assistant"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def call(index: Any = None, id_: Any = None, **function: Any) -> dict[str, Any]:
    """A piece of a tool call as a vendor sends it."""
    fields = {name: value for name, value in (("index", index), ("id", id_)) if value is not None}
    return fields | ({"function": function} if function else {})


def call_delta(index: int, id_: str | None = None, arguments: str = "", **function: Any) -> dict[str, Any]:
    """A piece of a tool call as callers get it."""
    fields: dict[str, Any] = {"index": index} | ({"id": id_, "type": "function"} if id_ else {})
    return fields | {"function": {**function, "arguments": arguments}}


def calls(*pieces: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return chunk(delta(finish, tool_calls=list(pieces), **fields))


#: Events, and the summary of the chunks.
STREAMS: list[tuple[str, list[Any], list[Any]]] = [
    (
        "OpenAI's",
        [
            chunk(delta(role="assistant", content="", refusal=None)),
            chunk(delta(content="Hi")),
            chunk(delta("stop")),
            chunk(usage=USAGE),
            DONE,
        ],
        [ROLE | {"content": ""}, {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "no [DONE]",
        [chunk(delta(content="Hi")), chunk(delta("stop"))],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "no finish reason",
        [chunk(delta(content="Hi")), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "no finish reason after calls",
        [calls(call(0, "1", name="f")), DONE],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", name="f")]},
            {"tool_calls": [call_delta(0, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "an empty finish reason until the end",
        [chunk(delta("", content="Hi")), chunk(delta("stop"))],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "an empty finish reason beside a native one",
        [
            chunk(delta("", content="Hi") | {"native_finish_reason": "STOP"}),
            chunk(delta("stop", content="!") | {"native_finish_reason": "STOP"}),
        ],
        [ROLE | {"content": "Hi"}, {"content": "!"}, {"finish": "stop"}],
    ),
    (
        "usage on the last chunk of content",
        [chunk(delta(content="Hi")), chunk(delta("stop"), usage=USAGE), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "usage on every chunk",
        [
            chunk(delta(content="Hi"), usage=USAGE | {"total_tokens": 4}),
            chunk(delta("stop"), usage=USAGE),
            chunk(usage=None),
        ],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "usage never",
        [chunk(delta("stop", content="Hi"), usage=None), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "usage after [DONE] is not waited for",
        [chunk(delta("stop", content="Hi")), DONE, chunk(usage=USAGE)],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "Azure's empty first choices",
        [
            {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"x": 1}],
            },
            chunk(delta(content="", role="assistant")),
            chunk(delta("stop", content="Hi")),
            DONE,
        ],
        [ROLE | {"content": ""}, {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "Azure's content filter after the end",
        [
            chunk(delta(content="Hi")),
            chunk(delta("stop")),
            chunk(delta() | {"content_filter_offsets": {"end_offset": 2}}),
            DONE,
        ],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "OpenRouter's finish reason twice",
        [
            chunk(delta("stop", content="Hi")),
            chunk(delta("stop", role="assistant", content=""), usage=USAGE),
            DONE,
        ],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "OpenRouter's empty delta after the end",
        [chunk(delta("stop", content="Hi")), chunk(delta(role="assistant", content="")), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "the role on every chunk",
        [chunk(delta(role="assistant", content="H")), chunk(delta(role="assistant", content="i")), DONE],
        [ROLE | {"content": "H"}, {"content": "i"}, {"finish": "stop"}],
    ),
    (
        "null deltas and a null index",
        [
            chunk({"index": None, "delta": {"content": "Hi"}, "finish_reason": None}),
            chunk({"delta": None, "finish_reason": "stop"}),
        ],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "a whole message as the last chunk",
        [
            chunk(delta(content="Hi")),
            chunk({"index": 0, "message": {"role": "assistant", "reasoning": "Hm."}, "finish_reason": "stop"}),
        ],
        [ROLE | {"content": "Hi"}, {"reasoning_content": "Hm.", "reasoning": "Hm."}, {"finish": "stop"}],
    ),
    (
        "reasoning_content",
        [chunk(delta(reasoning_content="Hm.")), chunk(delta("stop", content="Hi"))],
        [ROLE | {"reasoning_content": "Hm."}, {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "reasoning",
        [chunk(delta(reasoning="Hm.")), chunk(delta("stop", content="Hi"))],
        [ROLE | {"reasoning_content": "Hm.", "reasoning": "Hm."}, {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "Mistral's lists",
        [
            chunk(delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}])),
            chunk(delta(content=[{"type": "text", "text": "Hi"}])),
            chunk(delta("stop", content="!")),
        ],
        [ROLE | {"reasoning_content": "Hm."}, {"content": "Hi"}, {"content": "!"}, {"finish": "stop"}],
    ),
    (
        "two choices, one after the other in each chunk",
        [
            chunk(delta(content="a"), delta(index=1, content="b")),
            chunk(delta("stop"), delta("length", index=1)),
        ],
        [
            ROLE | {"content": "a"},
            ROLE | {"content": "b", "index": 1},
            {"finish": "stop"},
            {"finish": "length", "index": 1},
        ],
    ),
    (
        "OpenAI's calls",
        [
            calls(call(0, "1", name="f", arguments=""), role="assistant", content=None),
            calls(call(0, arguments='{"x"')),
            calls(call(0, arguments=":1}")),
            calls(call(1, "2", name="g", arguments="")),
            calls(call(1, arguments="{}")),
            chunk(delta("tool_calls")),
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", name="f")]},
            {"tool_calls": [call_delta(0, arguments='{"x"')]},
            {"tool_calls": [call_delta(0, arguments=":1}")]},
            {"tool_calls": [call_delta(1, "2", name="g")]},
            {"tool_calls": [call_delta(1, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "calls without an index",
        [
            calls(call(None, "1", name="f", arguments="{")),
            calls(call(arguments="}")),
            calls(call(None, "2", name="g"), call(None, "3", name="h", arguments="{}")),
            calls(call(None, "2", arguments="{}"), finish="tool_calls"),
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", "{", name="f")]},
            {"tool_calls": [call_delta(0, arguments="}")]},
            {"tool_calls": [call_delta(1, "2", name="g"), call_delta(2, "3", "{}", name="h")]},
            {"tool_calls": [call_delta(1, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "calls without index and id",
        [
            calls(call(name="f", arguments={"x": 1}), call(name="g", arguments="{")),
            calls(call(arguments="}")),
            DONE,
        ],
        [
            ROLE
            | {
                "tool_calls": [
                    call_delta(0, "call_1_0", '{"x":1}', name="f"),
                    call_delta(1, "call_1_1", "{", name="g"),
                ]
            },
            {"tool_calls": [call_delta(1, arguments="}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "the same index for every call",
        [
            calls(call(0, "1", name="f", arguments="{}")),
            calls(call(0, "2", name="f", arguments="{")),
            calls(call(0, arguments="}"), finish="tool_calls"),
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", "{}", name="f")]},
            {"tool_calls": [call_delta(1, "2", "{", name="f")]},
            {"tool_calls": [call_delta(1, arguments="}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "the second call begun at one index and gone on with at another",
        [
            calls(call(0, "1", name="f", arguments="{}")),
            calls(call(0, "2", name="g", arguments="")),
            calls(call(1, arguments="{")),
            calls(call(1, arguments="}")),
            DONE,
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", "{}", name="f")]},
            {"tool_calls": [call_delta(1, "2", name="g")]},
            {"tool_calls": [call_delta(1, arguments="{")]},
            {"tool_calls": [call_delta(1, arguments="}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "Ollama's calls without an id",
        [calls(call(0, name="f", arguments="{}")), calls(call(1, name="g", arguments="{}")), DONE],
        [
            ROLE | {"tool_calls": [call_delta(0, "call_1_0", "{}", name="f")]},
            {"tool_calls": [call_delta(1, "call_1_1", "{}", name="g")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "indices that count other blocks too",
        [
            calls(call(1, "1", name="f", arguments="{}")),
            calls(call(3, "2", name="g")),
            calls(call(3, arguments="{}")),
            DONE,
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", "{}", name="f")]},
            {"tool_calls": [call_delta(1, "2", name="g")]},
            {"tool_calls": [call_delta(1, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "id and name on every piece",
        [
            calls(call(0, "1", name="f", arguments="")),
            calls(call(0, "1", name="f", arguments="{")),
            calls(call(0, "", name="", arguments="}")),
            chunk(delta("tool_calls")),
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", name="f")]},
            {"tool_calls": [call_delta(0, arguments="{")]},
            {"tool_calls": [call_delta(0, arguments="}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "the name after the id",
        [calls(call(0, "1")), calls(call(0, name="f", arguments="{}")), DONE],
        [
            ROLE | {"tool_calls": [{"index": 0, "id": "1", "type": "function"}]},
            {"tool_calls": [call_delta(0, arguments="{}", name="f")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "arguments as an object",
        [calls(call(0, "1", name="f", arguments={"z": 1, "a": [2.0]}), finish="stop")],
        [ROLE | {"tool_calls": [call_delta(0, "1", '{"z":1,"a":[2.0]}', name="f")]}, {"finish": "stop"}],
    ),
    (
        "null arguments",
        [calls(call(0, "1", name="f", arguments=None)), calls(call(0, arguments="{}")), DONE],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", name="f")]},
            {"tool_calls": [call_delta(0, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "a function call of old",
        [
            chunk(delta(function_call={"name": "f", "arguments": ""})),
            chunk(delta(function_call={"arguments": "{}"})),
            chunk(delta("function_call")),
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "call_1_0", name="f")]},
            {"tool_calls": [call_delta(0, arguments="{}")]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "custom calls",
        [
            chunk(
                delta(tool_calls=[{"index": 0, "id": "1", "type": "custom", "custom": {"name": "c", "input": ""}}])
            ),
            chunk(delta("tool_calls", tool_calls=[{"index": 0, "custom": {"input": "in"}}])),
        ],
        [
            ROLE
            | {"tool_calls": [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "c", "input": ""}}]},
            {"tool_calls": [{"index": 0, "custom": {"input": "in"}}]},
            {"finish": "tool_calls"},
        ],
    ),
    (
        "comments, pings and other events",
        [
            b": OPENROUTER PROCESSING\n\n",
            chunk(delta(content="Hi")),
            b"event: ping\ndata:\n\n",
            b"id: 4\nretry: 10\n\n",
            b": keep-alive\n\n",
            chunk(delta("stop")),
            b"data: [DONE] \n\n",
        ],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "an event of several lines",
        [
            b'\xef\xbb\xbfdata: {"choices": [{"index": 0,\n'
            b'data: "delta": {"content": "H\xc3\xbc"},\ndata: "finish_reason": "stop"}]}\n\n'
        ],
        [ROLE | {"content": "Hü"}, {"finish": "stop"}],
    ),
    (
        "no blank line at the end",
        [chunk(delta(content="Hi")), sse(chunk(delta("stop"))).rstrip()],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    (
        "cut after the finish reason",
        [chunk(delta("stop", content="Hi")), b"data: [DO"],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
    # https://github.com/open-webui/open-webui/issues/16377
    (
        "a finish reason before the answer",
        [
            chunk(delta("stop", role="assistant", content="")),
            chunk(delta(reasoning_content="Hm.")),
            chunk(delta(content="Hi")),
            chunk(delta("length")),
        ],
        [ROLE | {"reasoning_content": "Hm."}, {"content": "Hi"}, {"content": "", "finish": "length"}],
    ),
    (
        "a finish reason with every piece",
        [chunk(delta("stop", content="H")), chunk(delta("stop", content="i")), chunk(delta("length"))],
        [ROLE | {"content": "H"}, {"content": "i"}, {"finish": "length"}],
    ),
    (
        "null in words",
        [chunk(delta("null", content="H")), chunk(delta("None", content="i")), chunk(delta("length")), DONE],
        [ROLE | {"content": "H"}, {"content": "i"}, {"finish": "length"}],
    ),
    # https://docs.together.ai/docs/function-calling
    (
        "a finish reason after each call",
        [
            calls(call(0, "1", name="f", arguments="{}"), finish="tool_calls"),
            calls(call(1, "2", name="g", arguments="{}"), finish="tool_calls"),
            DONE,
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", "{}", name="f")]},
            {"tool_calls": [call_delta(1, "2", "{}", name="g")]},
            {"finish": "tool_calls"},
        ],
    ),
    # https://github.com/JetBrains/koog/issues/2052
    (
        "an id that changes in mid-call",
        [
            calls(call(0, "1", name="f", arguments="")),
            calls(call(0, "2", arguments="{")),
            calls(call(0, "2", arguments="}")),
            DONE,
        ],
        [
            ROLE | {"tool_calls": [call_delta(0, "1", name="f")]},
            {"tool_calls": [call_delta(0, arguments="{")]},
            {"tool_calls": [call_delta(0, arguments="}")]},
            {"finish": "tool_calls"},
        ],
    ),
    # https://github.com/microsoft/foundry-local/issues/144
    (
        "an index that counts chunks",
        [
            chunk(delta(index=0, role="assistant", content="H")),
            chunk(delta(index=1, role="assistant", content="i")),
            chunk(delta("stop", index=2, content="")),
            DONE,
        ],
        [ROLE | {"content": "H"}, {"content": "i"}, {"content": "", "finish": "stop"}],
    ),
    # https://platform.moonshot.ai/docs/api/chat
    (
        "usage inside the choice",
        [chunk(delta(content="Hi")), chunk(delta("stop") | {"usage": USAGE}), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    # https://console.groq.com/docs/api-reference
    (
        "usage in a field of Groq's",
        [chunk(delta(content="Hi")), chunk(delta("stop"), x_groq={"id": "x", "usage": USAGE}), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "half a character",
        [
            b'data: {"choices":[{"index":0,"delta":{"content":"a \\ud83d"}}]}\n\n',
            b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00\\\\ud83d \xf0\x9f b"}}]}\n\n',
            b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d\\ude00"},"finish_reason":"stop"}]}\n\n',
        ],
        [
            ROLE | {"content": "a \ufffd"},
            {"content": "\ufffd\\ud83d \ufffd b"},
            {"content": "\U0001f600"},
            {"finish": "stop"},
        ],
    ),
    (
        "Azure's filtered choice",
        [chunk({"index": 0, "finish_reason": "content_filter", "content_filter_results": {"hate": 1}}), DONE],
        [ROLE | {"finish": "content_filter"}],
    ),
    (
        "an error after the finish reason",
        [chunk(delta("stop", content="Hi")), {"error": {"message": "late"}}, chunk(usage=USAGE), DONE],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}, {"usage": 5}],
    ),
    (
        "nonsense after the finish reason",
        [chunk(delta("stop", content="Hi")), b"data: <html>\n\n"],
        [ROLE | {"content": "Hi"}, {"finish": "stop"}],
    ),
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_streams(events: list[Any], expected: list[Any], end: str) -> None:
    n = 2 if any(piece.get("index") for piece in expected) else 1
    stream = sse(*events, end=end)
    chunks = decode([stream], n)
    assert summary(chunks) == expected
    assert decode([bytes([byte]) for byte in stream], n) == chunks
    fold_messages(chunks)


def test_further_fields_of_a_stream() -> None:
    chunks = decode(
        [
            sse(
                {"id": "", "choices": [], "prompt_filter_results": [1]},
                chunk(delta(content="a") | {"content_filter_results": {}}, citations=["x"], service_tier="flex"),
                chunk(delta("stop"), obfuscation="y", system_fingerprint="fp"),
                chunk(usage=USAGE | {"cost": 0.5}, latency={"ms": 3}, service_tier="flex"),
            )
        ]
    )
    assert [c.extra_json for c in chunks] == [
        '{"prompt_filter_results":[1],"citations":["x"]}',
        '{"obfuscation":"y"}',
        '{"latency":{"ms":3}}',
    ]
    assert chunks[0].choices[0].extra_json == '{"content_filter_results":{}}'
    assert (chunks[0].service_tier, chunks[1].system_fingerprint) == ("flex", "fp")
    assert chunks[2].usage.extra_json == '{"cost":0.5}'


def test_every_chunk_has_the_first_ones_id_and_time() -> None:
    pieces = [chunk(delta(content=str(i)), id=f"gen-{i}", created=i) for i in (1, 2, 3)]
    chunks = decode([sse(*pieces, chunk(usage=USAGE, id="gen-4", created=4), DONE)])
    assert {(c.id, c.created) for c in chunks} == {("chatcmpl-gen-1", 1)}
    assert len(chunks) == 5


@pytest.mark.parametrize(
    ("events", "native"),
    [
        ([chunk(delta("eos", content="a"))], "eos"),
        ([chunk(delta("stop", content="a") | {"native_finish_reason": "end_turn"})], "end_turn"),
        ([chunk(delta("stop", content="a")), chunk(delta("length"))], "length"),
        ([chunk(delta(content="a")), DONE], ""),
    ],
)
def test_the_native_finish_reason(events: list[Any], native: str) -> None:
    decoder = TRANSLATOR.decoder(ask())
    decoder.feed(sse(*events))
    decoder.close()
    assert decoder.native_finish_reason == native


#: Events of streams that fail: the chunks before the failure, and its reason.
BROKEN: list[tuple[str, list[Any], int, int, Reason]] = [
    ("nothing", [], 1, 0, R.STREAM_TRUNCATED),
    ("comments", [b": ping\n\n"], 1, 0, R.STREAM_TRUNCATED),
    ("a page", [b"<html>\n<body>502</body>\n</html>\n"], 1, 0, R.STREAM_TRUNCATED),
    ("a role", [chunk(delta(role="assistant"))], 1, 1, R.STREAM_TRUNCATED),
    ("content", [chunk(delta(content="Hi"))], 1, 1, R.STREAM_TRUNCATED),
    ("content and usage", [chunk(delta(content="Hi"), usage=USAGE)], 1, 1, R.STREAM_TRUNCATED),
    ("a torn event", [chunk(delta(content="Hi")), b'data: {"choices": [{"ind'], 1, 1, R.STREAM_TRUNCATED),
    ("a torn [DONE]", [chunk(delta(content="Hi")), b"data: [DON"], 1, 1, R.STREAM_TRUNCATED),
    ("one choice of two", [chunk(delta("stop", content="Hi"))], 2, 1, R.STREAM_TRUNCATED),
    ("one end of two", [chunk(delta("stop"), delta(index=1, content="Hi"))], 2, 1, R.STREAM_TRUNCATED),
    ("only [DONE]", [DONE], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("only usage", [chunk(usage=USAGE), DONE], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("not JSON", [chunk(delta(content="Hi")), b"data: oops\n\n"], 1, 1, R.UPSTREAM_INVALID_RESPONSE),
    ("an array", [b"data: []\n\n"], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("choices as text", [{"choices": "Hi"}], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("a choice as text", [chunk("Hi")], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("an index as text", [chunk(delta(index="0", content="Hi"))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),  # type: ignore[arg-type]
    ("an index as a list", [chunk(delta(index=[], content="Hi"))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),  # type: ignore[arg-type]
    ("an index below zero", [chunk(delta(index=-1, content="Hi"))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("an index past all tokens", [chunk(delta(index=2**18, content="Hi"))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("content as a number", [chunk(delta(content=5))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("calls as a number", [chunk(delta(tool_calls=5))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("a call as text", [chunk(delta(tool_calls=["f"]))], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("usage as text", [chunk(delta(content="Hi"), usage="5")], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("an error event", [b'event: error\ndata: {"message": "x", "code": 429}\n\n'], 1, 0, R.RATE_LIMITED),
    ("an error event in OpenAI's form", [b'event: error\ndata: {"error": {"code": 503}}\n\n'], 1, 0, R.OVERLOADED),
    ("an error event in words", [b"event: error\ndata: oops\n\n"], 1, 0, R.UPSTREAM_INVALID_RESPONSE),
    ("an error", [chunk(delta(role="assistant")), {"error": {"code": 502}}], 1, 1, R.UPSTREAM_ERROR),
    (
        "OpenRouter's error",
        [chunk(delta(content="Hi")), chunk(delta("error", content=""), error={"code": 429, "message": "x"})],
        1,
        1,
        R.RATE_LIMITED,
    ),
]


@pytest.mark.parametrize(
    ("events", "n", "before", "reason"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_broken_streams(events: list[Any], n: int, before: int, reason: Reason) -> None:
    pieces = [bytes([byte]) for byte in sse(*events)]
    chunks, error = outcome(pieces, n)
    assert error is not None
    assert error.reason is reason
    assert isinstance(error, StreamTruncated) == (reason is R.STREAM_TRUNCATED)
    assert len(chunks) == before
    whole, again = outcome([b"".join(pieces)], n)  # chunks in the same read as the error may be lost
    assert again is not None
    assert again.reason is reason
    assert whole == chunks[: len(whole)]


def test_closing_twice() -> None:
    decoder = TRANSLATOR.decoder(ask())
    decoder.feed(sse(chunk(delta("stop", content="Hi")), chunk(usage=USAGE)))
    assert summary(decoder.close()) == [{"finish": "stop"}, {"usage": 5}]
    assert decoder.close() == []
    broken = TRANSLATOR.decoder(ask())
    broken.feed(sse(chunk(delta(content="Hi"))))
    for _ in range(2):
        with pytest.raises(StreamTruncated):
            broken.close()


# Any bytes

EVENTS = st.sampled_from([event for row in STREAMS for event in row[1]] + [e for row in BROKEN for e in row[1]])
CUTS = st.lists(st.integers(0, 5000), max_size=10)


@given(st.lists(EVENTS, max_size=6), CUTS, st.integers(1, 2), st.sampled_from(["\n", "\r\n"]))
@settings(PATIENT, max_examples=250)
def test_any_split_gives_the_same_chunks(events: list[Any], cuts: list[int], n: int, end: str) -> None:
    stream = sse(*events, end=end)
    chunks, error = outcome([bytes([byte]) for byte in stream], n)
    found, failed = outcome(torn(stream, cuts), n)
    assert (failed and failed.reason) == (error and error.reason)
    if error is None:
        assert found == chunks
        finished = [choice.index for each in chunks for choice in each.choices if choice.finish_reason]
        assert len(finished) == len(set(finished)), "one finish reason for each choice"
        assert set(finished) == {choice.index for each in chunks for choice in each.choices}
    else:  # chunks in the same read as the error are lost
        assert found == chunks[: len(found)]


@given(st.sampled_from([row[1] for row in STREAMS]), st.data())
@settings(PATIENT, max_examples=200)
def test_any_invalid_event_is_a_provider_error(events: list[Any], data: st.DataObject) -> None:
    events = copy.deepcopy(events)
    places = [(container, key) for event in events for container, key in _places(event)]
    if places:
        container, key = data.draw(st.sampled_from(places))
        container[key] = data.draw(JSON)
    outcome([sse(*events)])  # raises ProviderError at most


@given(st.data())
@settings(PATIENT, max_examples=100)
def test_any_invalid_answer_is_a_provider_error(data: st.DataObject) -> None:
    obj = answer(data.draw(st.sampled_from([copy.deepcopy(row[1]) for row in MESSAGES])), usage=dict(USAGE))
    container, key = data.draw(st.sampled_from(_places(obj)))
    container[key] = data.draw(JSON)
    try:
        complete(obj)
    except ProviderError as error:
        assert error.fall_over or error.reason in (R.INVALID_REQUEST, R.REQUEST_TOO_LARGE)  # noqa: PT017


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON tree that can be set."""
    if not isinstance(tree, dict | list):
        return []
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]


# Streams and completions are equal


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=2)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def streamed(written: dict[str, Any], data: st.DataObject) -> list[Any]:
    """A completion's JSON as the events of a stream: the texts in pieces, the choices in any order."""
    head = {key: value for key, value in written.items() if key not in ("choices", "usage", "object")}
    deltas: list[list[dict[str, Any]]] = []
    for choice in written["choices"]:
        message = choice["message"]
        row: list[dict[str, Any]] = []
        rest = {
            key: value
            for key, value in message.items()
            if key not in ("content", "reasoning_content", "tool_calls")
        }
        row.append(delta(index=choice["index"], **rest))
        for name in ("reasoning_content", "content"):
            if message.get(name) is not None:
                row += [delta(index=choice["index"], **{name: piece}) for piece in pieces_of(message[name], data)]
        for number, one in enumerate(message.get("tool_calls", [])):
            key, words = ("function", "arguments") if "function" in one else ("custom", "input")
            first, *others = pieces_of(one[key][words], data)
            start = {"index": number, **one, key: one[key] | {words: first}}
            row.append(delta(index=choice["index"], tool_calls=[start]))
            row += [
                delta(index=choice["index"], tool_calls=[{"index": number, key: {words: piece}}])
                for piece in others
            ]
        row[-1]["finish_reason"] = choice["finish_reason"]
        row[-1]["logprobs"] = choice["logprobs"]
        row[-1] |= {key: value for key, value in choice.items() if key not in ("index", "message", *row[-1])}
        deltas.append(row)
    events: list[Any] = []
    while any(deltas):
        row = data.draw(st.sampled_from([row for row in deltas if row]))
        events.append(head | {"choices": [row.pop(0)]} if not events else {"choices": [row.pop(0)]})
    if "usage" in written:
        events.append({"choices": [], "usage": written["usage"]})
    return [*events, DONE] if data.draw(st.booleans()) else events


@given(COMPLETIONS, st.data())
@settings(PATIENT, max_examples=80)
def test_a_folded_stream_is_the_unary_answer(completion: pb.ChatCompletion, data: st.DataObject) -> None:
    del completion.choices[2:]
    if not completion.choices:
        completion.choices.add().message.SetInParent()
    completion.ClearField("lmchat")
    for index, choice in enumerate(completion.choices):
        choice.index = index
        choice.finish_reason = choice.finish_reason or STOP
        text = [part.text for part in choice.message.content if part.HasField("text")]
        del choice.message.content[:]
        if text:
            choice.message.content.add(text=text[0])
        for number, each in enumerate(choice.message.tool_calls):
            each.id = f"{number}{each.id}"
    written = openai_json.dump_completion(completion)
    stream = sse(*streamed(copy.deepcopy(written), data))
    unary, _ = complete(written)
    assert fold_messages(decode(torn(stream, data.draw(CUTS)), len(completion.choices))) == unary
