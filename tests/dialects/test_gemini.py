"""The Gemini dialect: goldens and tables, written by hand."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects.base import platform_of
from server.dialects.gemini.media import native_uri
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.dialects.gemini.request import EXTRA_BODY
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from tests.dialects.gemini_help import ROOT, TRANSLATOR, cut, endpoint, sse, stream, whole
from tests.support.fold import fold_messages

GOLDEN = ROOT / "tests" / "golden" / "gemini"
REQUESTS = sorted(GOLDEN.glob("request_*.json"))
ANSWERS = sorted(GOLDEN.glob("answer_*.json"))


def parse(**fields: Any) -> pb.ChatCompletionRequest:
    """A request in OpenAI's JSON; `say` is a lone user turn."""
    say = fields.pop("say", "Hi")
    body = {"model": "m", "messages": [{"role": "user", "content": say}], **fields}
    return openai_json.parse(json.dumps(body).encode()).request


def body(request: pb.ChatCompletionRequest, model: str = "gemini-3-flash-preview", vendor: str = "gemini") -> Any:
    return json.loads(TRANSLATOR.request(request, endpoint(model, vendor), stream=False).body)


def candidate(*parts: Any, finish: Any = "STOP", **more: Any) -> dict[str, Any]:
    """A response with one candidate."""
    ended = {"finishReason": finish} if finish is not None else {}
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, **ended}],
        "responseId": "r",
        **more,
    }


# Requests


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_request(path: Any) -> None:
    golden = json.loads(path.read_text())
    request = openai_json.parse(json.dumps(golden["openai"]).encode()).request
    assert body(request, golden["model"], golden["vendor"]) == golden["gemini"], golden["why"]


def test_keys_of_schemas_keep_their_order() -> None:
    golden = json.loads((GOLDEN / "request_json_schema.json").read_text())
    request = openai_json.parse(json.dumps(golden["openai"]).encode()).request
    sent = TRANSLATOR.request(request, endpoint("gemini-3-pro-preview"), stream=False).body
    assert sent.index(b'"z"') < sent.index(b'"a"') < sent.index(b'"only"')


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (endpoint("gemini-x"), "https://generativelanguage.googleapis.com/v1beta/models/gemini-x:"),
        (endpoint("models/gemini-x"), "https://generativelanguage.googleapis.com/v1beta/models/gemini-x:"),
        (endpoint("tunedModels/t"), "https://generativelanguage.googleapis.com/v1beta/tunedModels/t:"),
        (endpoint("g", base_url="http://h:1/"), "http://h:1/v1beta/models/g:"),
        (endpoint("g", base_url="http://h/p/v1"), "http://h/p/v1/models/g:"),
        (endpoint("g", base_url="http://h/v1beta/"), "http://h/v1beta/models/g:"),
        (endpoint("a b?key=1", base_url="http://h/v1"), "http://h/v1/models/a%20b%3Fkey%3D1:"),
        (
            endpoint("g", "vertex"),
            "https://us-east1-aiplatform.googleapis.com/v1/projects/proj/locations/us-east1/publishers/google/models/g:",
        ),
        (
            endpoint("g", "vertex", location="", region="europe-west4"),
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/proj/locations/europe-west4/publishers/google/models/g:",
        ),
        (
            endpoint("g", "vertex", location="global"),
            "https://aiplatform.googleapis.com/v1/projects/proj/locations/global/publishers/google/models/g:",
        ),
        (
            endpoint("g", "vertex", location="eu"),
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/proj/locations/eu/publishers/google/models/g:",
        ),
        (
            endpoint("endpoints/17", "vertex", base_url="http://h/v1beta1"),
            "http://h/v1beta1/projects/proj/locations/us-east1/endpoints/17:",
        ),
        (endpoint("projects/p/locations/l/endpoints/17", "vertex", "http://h"), "http://h/v1/projects/p/locations/l/endpoints/17:"),
        (endpoint("g", "vertex", project=""), "https://aiplatform.googleapis.com/v1/publishers/google/models/g:"),
    ],
)  # fmt: skip
def test_url(where: Any, expected: str) -> None:
    platform = platform_of(where, DEFAULT_PLATFORM)
    assert platform.url(where, stream=False) == expected + "generateContent"
    assert platform.url(where, stream=True) == expected + "streamGenerateContent?alt=sse"


def test_headers() -> None:
    where = endpoint("g", "vertex", headers={"x-own": "1"})
    unary = TRANSLATOR.request(parse(), where, stream=False)
    assert unary.headers == {"content-type": "application/json", "accept": "application/json", "x-own": "1"}
    tier = TRANSLATOR.request(parse(service_tier="priority"), where, stream=True)
    assert tier.headers["accept"] == "text/event-stream"
    assert tier.headers["x-vertex-ai-llm-shared-request-type"] == "priority"
    assert "serviceTier" not in json.loads(tier.body)  # a field that Vertex AI refuses


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-3-flash-preview", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.5-flash-lite", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("models/gemini-3-flash-preview", "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-flash-latest", "max", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-pro", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
        ("gemma-3-27b-it", "high", None),
        ("gemini-3-flash-preview", None, None),
    ],
)
def test_reasoning_effort(model: str, effort: str | None, expected: Any) -> None:
    sent = body(parse(reasoning_effort=effort), model)
    assert sent.get("generationConfig", {}).get("thinkingConfig") == expected


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
STRICT = {"type": "function", "function": {"name": "g", "strict": True}}


@pytest.mark.parametrize(
    ("model", "tools", "choice", "expected"),
    [
        ("gemini-3-x", [FUNCTION], None, None),
        ("gemini-3-x", [FUNCTION], "auto", {"mode": "AUTO"}),
        ("gemini-3-x", [FUNCTION], "none", {"mode": "NONE"}),
        ("gemini-3-x", [FUNCTION], "required", {"mode": "ANY"}),
        (
            "gemini-3-x",
            [FUNCTION],
            {"type": "function", "function": {"name": "f"}},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
        ("gemini-3-x", [STRICT], "auto", {"mode": "VALIDATED"}),
        ("gemini-2.5-pro", [STRICT], None, {"mode": "VALIDATED"}),
        ("gemini-2.0-flash", [STRICT], None, None),
        ("gemini-3-x", [STRICT, FUNCTION], "auto", {"mode": "AUTO"}),
        ("gemini-3-x", [STRICT], "required", {"mode": "ANY"}),
        (
            "gemini-3-x",
            [FUNCTION, STRICT],
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [STRICT]}},
            {"mode": "VALIDATED"},
        ),
        (
            "gemini-3-x",
            [FUNCTION, STRICT],
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [STRICT]}},
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
        ),
        ("gemini-3-x", [{"type": "google_search"}], "auto", None),  # a config without functions is refused
    ],
)
def test_tool_choice(model: str, tools: Any, choice: Any, expected: Any) -> None:
    sent = body(parse(tools=tools, tool_choice=choice), model)
    assert sent.get("toolConfig", {}).get("functionCallingConfig") == expected


def test_allowed_tools_on_vertex() -> None:
    """With mode auto and some of the tools, only these are declared, as Vertex AI's v1 has no VALIDATED mode."""
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [STRICT]}}
    sent = body(parse(tools=[FUNCTION, STRICT], tool_choice=choice), vendor="vertex")
    assert sent["tools"] == [{"functionDeclarations": [{"name": "g"}]}]
    assert sent["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}


def test_native_tools_and_search() -> None:
    tools = [FUNCTION, {"type": "google_search"}, {"type": "fileSearch", "fileSearch": {"topK": 3}}]
    assert body(parse(tools=tools, web_search_options={}))["tools"] == [
        {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object", "properties": {}}}]},
        {"googleSearch": {}},
        {"fileSearch": {"topK": 3}},
        {"googleSearch": {}},
    ]


def test_json_object_and_modalities() -> None:
    json_mode = body(parse(response_format={"type": "json_object"}))
    assert json_mode["generationConfig"] == {"responseMimeType": "application/json"}
    assert "generationConfig" not in body(parse(response_format={"type": "text"}, modalities=["text"]))
    speech = body(parse(modalities=["text", "audio"], audio={"voice": "Kore", "format": "pcm16"}))
    assert speech["generationConfig"] == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }
    assert body(parse(modalities=["text", "image"]))["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"]
    }


def test_extra_body() -> None:
    """Google's own fields, under any of their names; an explicit one wins."""
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]
    sent = body(
        parse(
            reasoning_effort="high",
            safety_settings=safety,
            topK=3,
            google={"cached_content": "cachedContents/1", "thinking_config": {"thinking_budget": 5}},
            extra_body={"google": {"labels": {"a": "b"}}},
            repetition_penalty=2,
        )
    )
    assert sent == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"thinkingConfig": {"thinking_budget": 5}, "topK": 3},
        "safetySettings": safety,
        "cachedContent": "cachedContents/1",
        "labels": {"a": "b"},
    }
    assert {"top_k", "safety_settings", "safetySettings", "thinking_config", "google"} <= EXTRA_BODY
    assert "repetition_penalty" not in EXTRA_BODY


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        (
            user({"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "http://h/a.png"}}),
            "messages[0].content[1].image_url.url",
            Reason.UNSUPPORTED_FEATURE,
        ),
        (
            user({"type": "image_url", "image_url": {"url": "https://h/picture"}}),
            "messages[0].content[0].image_url.url",
            Reason.UNSUPPORTED_FEATURE,
        ),
        (
            user({"type": "image_url", "image_url": {"url": "data:;base64,AA=="}}),
            "messages[0].content[0].image_url.url",
            Reason.INVALID_REQUEST,
        ),
        (
            user({"type": "file", "file": {"file_id": "file-1"}}),
            "messages[0].content[0].file.file_id",
            Reason.UNSUPPORTED_FEATURE,
        ),
        (user({"type": "hologram"}), "messages[0].content[0]", Reason.UNSUPPORTED_FEATURE),
        (user({"type": "text", "text": ""}), "messages", Reason.INVALID_REQUEST),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages[0].content[0]",
            Reason.UNSUPPORTED_FEATURE,
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": "nobody", "content": "x"}]},
            "messages[0].tool_call_id",
            Reason.INVALID_REQUEST,
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "audio": {"id": "a"}}]},
            "messages[1].audio",
            Reason.UNSUPPORTED_FEATURE,
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]", Reason.UNSUPPORTED_FEATURE),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "custom", "custom": {"name": "c"}}},
            "tool_choice.type",
            Reason.UNSUPPORTED_FEATURE,
        ),
        ({"stop": list("abcdef")}, "stop", Reason.INVALID_REQUEST),
        (
            {"modalities": ["audio"], "audio": {"voice": "Kore", "format": "wav"}},
            "audio.format",
            Reason.UNSUPPORTED_FEATURE,
        ),
    ],
)  # fmt: skip
def test_refused(fields: dict[str, Any], param: str, reason: Reason) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(parse(**fields))
    assert (caught.value.param, caught.value.reason) == (param, reason)


def test_json_beside_tools_needs_gemini_3() -> None:
    request = parse(tools=[FUNCTION], response_format={"type": "json_object"})
    assert body(request, "gemini-3-flash-preview")["generationConfig"]["responseMimeType"] == "application/json"
    with pytest.raises(InvalidRequest) as caught:
        body(request, "gemini-2.5-flash")
    assert (caught.value.param, caught.value.reason) == ("response_format", Reason.UNSUPPORTED_FEATURE)


def test_text_that_is_not_json() -> None:
    request = parse()
    request.tools.add().function.MergeFrom(pb.FunctionDefinition(name="f", parameters_json="{"))
    with pytest.raises(InvalidRequest, match="does not hold JSON"):
        body(request)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("", {"output": ""}),
        ("plain", {"output": "plain"}),
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", {"output": [1, 2]}),
        ("null", {"output": None}),
        ('{"s": {"$ref": "#/$defs/X"}}', {"output": '{"s": {"$ref": "#/$defs/X"}}'}),  # taken for one to media
        ('{"id": 9007199254740993}', {"output": '{"id": 9007199254740993}'}),  # numbers are doubles there
    ],
)
def test_results(result: str, expected: Any) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]
    contents = body(parse(messages=messages), "gemini-2.5-flash", "vertex")["contents"]
    assert contents[1]["parts"] == [{"functionCall": {"name": "f", "args": {"arguments": "{"}}}]
    assert contents[2]["parts"] == [{"functionResponse": {"name": "f", "response": expected}}]


def test_results_without_a_call() -> None:
    """A truncated history: the `name` of a result, which some clients send, is used."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "1"},
    ]
    assert body(parse(messages=messages))["contents"][0]["parts"][1] == {
        "functionResponse": {"name": "f", "response": {"output": 1}, "id": "c"}
    }


def test_native_uris() -> None:
    assert native_uri("gs://b/o")
    assert native_uri("https://generativelanguage.googleapis.com/v1beta/files/x")
    assert native_uri("https://youtu.be/x")
    assert not native_uri("https://example.com/youtu.be/x.png")


# Round trips through OpenAI's JSON


def replayed(response: Any, *, lose: tuple[str, ...] = (), model: str = "gemini-3-flash-preview") -> Any:
    """The model's parts after a client kept the message; `lose` are fields that it does not know."""
    message = openai_json.dump_completion(whole(response))["choices"][0]["message"]
    message = {name: value for name, value in message.items() if name not in lose}
    calls = message.get("tool_calls") or []
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls]
    messages = [{"role": "user", "content": "Hi"}, message, *answers, {"role": "user", "content": "Go on"}]
    return body(parse(messages=messages), model, "vertex")["contents"][1]["parts"]


CALL_1 = {"functionCall": {"name": "f", "args": {"a": 1}}}
CALL_2 = {"functionCall": {"name": "g", "args": {}}}
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "Yw=="}


@pytest.mark.parametrize("lose", [(), ("reasoning_details",), ("extra_content",)])
def test_signatures_of_calls_come_back(lose: tuple[str, ...]) -> None:
    """From either place, and on the call that they belong to."""
    parts = [{"text": "Hm.", "thought": True}, {"text": "Wait."}, CALL_1 | {"thoughtSignature": "QQ=="}, CALL_2]
    response = candidate(*parts)
    if lose == ("extra_content",):
        message = openai_json.dump_completion(whole(response))["choices"][0]["message"]
        for call in message["tool_calls"]:
            call.pop("extra_content", None)
        messages = [{"role": "user", "content": "Hi"}, message]
        sent = body(parse(messages=messages), vendor="vertex")["contents"][1]["parts"]
    else:
        sent = replayed(response, lose=lose)
    assert sent == parts[1:]


def test_signatures_of_text_and_code_come_back() -> None:
    text = {"text": "Done.", "thoughtSignature": "QQ=="}
    assert replayed(candidate(CODE, {"codeExecutionResult": {"output": "1"}}, text)) == [
        CODE,
        {"codeExecutionResult": {"output": "1"}},
        text,
    ]
    assert replayed(candidate(text, CALL_1 | {"thoughtSignature": "Qg=="})) == [
        text,
        CALL_1 | {"thoughtSignature": "Qg=="},
    ]


def test_pictures_come_back() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thoughtSignature": "QQ=="}
    assert replayed(candidate({"text": "See"}, picture)) == [{"text": "See"}, picture]


def test_unsigned_and_foreign_history() -> None:
    """Another dialect's signatures are not sent; Gemini 3 gets Google's placeholder on the first call."""
    details = [{"type": "reasoning.text", "text": "t", "signature": "foreign", "format": "anthropic"}]
    calls = [
        {"id": str(n), "type": "function", "function": {"name": name, "arguments": "{}"},
         "extra_content": {"anthropic": {"thinking": []}}}
        for n, name in enumerate("fg")
    ]  # fmt: skip
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": calls, "reasoning_content": "t", "reasoning_details": details},
    ]
    first, second = ({"functionCall": {"name": name, "args": {}}} for name in "fg")
    request = parse(messages=messages)
    assert body(request, "gemini-2.5-pro", "vertex")["contents"][1]["parts"] == [first, second]
    signed = first | {"thoughtSignature": "skip_thought_signature_validator"}
    assert body(request, "gemini-flash-latest", "vertex")["contents"][1]["parts"] == [signed, second]


# Answers


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_answer(path: Any) -> None:
    golden = json.loads(path.read_text())
    completion, native = TRANSLATOR.completion(json.dumps(golden["gemini"]).encode(), pb.ChatCompletionRequest())
    assert openai_json.dump_completion(completion) == golden["openai"], golden["why"]
    assert native == golden["native"]
    chunks = stream([sse([golden["gemini"]])])
    completion.choices.sort(key=lambda choice: choice.index)
    assert fold_messages(chunks) == completion


FILTERED = (
    "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE",
    "ESCALATION", "A_WORD_OF_TOMORROW", 3, 10, 99,
)  # fmt: skip


@pytest.mark.parametrize(
    ("native", "calls", "expected"),
    [
        ("STOP", False, "stop"),
        ("STOP", True, "tool_calls"),
        (None, False, "stop"),
        (None, True, "tool_calls"),
        (1, True, "tool_calls"),
        ("MAX_TOKENS", False, "length"),
        ("MAX_TOKENS", True, "length"),
        (2, False, "length"),
        *((word, False, "content_filter") for word in FILTERED),
    ],
)
def test_finish_reason(native: Any, calls: bool, expected: str) -> None:
    parts = [CALL_1] if calls else [{"text": "x"}]
    completion = whole(candidate(*parts, finish=native))
    assert openai_json.dump_completion(completion)["choices"][0]["finish_reason"] == expected


def test_native_finish_reason_of_a_number() -> None:
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest())
    decoder.feed(sse([candidate({"text": "x"}, finish=None)]))
    assert decoder.native_finish_reason == ""
    decoder.feed(sse([candidate(finish=10)]))
    assert decoder.native_finish_reason == "MODEL_ARMOR"


def test_safety_without_content() -> None:
    completion = whole({"candidates": [{"finishReason": "SAFETY"}]})
    assert completion.choices[0].finish_reason == pb.FINISH_REASON_CONTENT_FILTER
    assert not completion.choices[0].message.content


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (
            {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
            Reason.CONTENT_POLICY_VIOLATION,
            "The provider blocked the prompt: PROHIBITED_CONTENT.",
        ),
        (
            {"promptFeedback": {"blockReason": 5, "blockReasonMessage": "Blocked by Model Armor."}},
            Reason.CONTENT_POLICY_VIOLATION,
            "Blocked by Model Armor.",
        ),
        (
            {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}},
            Reason.OVERLOADED,
            "The provider is overloaded. Try again in a moment.",
        ),
        ([{"error": {"code": 429, "message": "quota"}}], Reason.RATE_LIMITED, None),
        ({"error": "odd"}, Reason.UPSTREAM_ERROR, None),
        (candidate(finish="MALFORMED_FUNCTION_CALL"), Reason.UPSTREAM_ERROR, None),
        (candidate({"text": "x"}, finish=9), Reason.UPSTREAM_ERROR, None),
        (candidate({"functionCall": {"args": {}}}), Reason.UPSTREAM_INVALID_RESPONSE, None),
        ({"candidates": [3]}, Reason.UPSTREAM_INVALID_RESPONSE, None),
        ({"candidates": [{"index": 2**40}]}, Reason.UPSTREAM_INVALID_RESPONSE, None),
        ("text", Reason.UPSTREAM_INVALID_RESPONSE, None),
    ],
)  # fmt: skip
def test_failures_in_a_200(answer: Any, reason: Reason, message: str | None) -> None:
    """The same whole and streamed."""
    with pytest.raises(ProviderError) as caught:
        whole(answer)
    assert caught.value.reason is reason
    assert message in (None, caught.value.message)
    before = [candidate({"text": "x"}, finish=None)] if reason is Reason.OVERLOADED else []
    with pytest.raises(ProviderError) as streamed:
        stream([sse([*before, answer])])
    assert streamed.value.reason is reason


@pytest.mark.parametrize("data", [b"", b"<html>", b"{", b"\xff", b"{}", b"[]", b'{"candidates": []}'])
def test_invalid_values(data: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        TRANSLATOR.completion(data, pb.ChatCompletionRequest())
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_a_failed_try_may_be_repeated() -> None:
    with pytest.raises(ProviderError) as caught:
        whole(candidate(finish="UNEXPECTED_TOOL_CALL") | {"responseId": "r"})
    assert caught.value.retry_here
    assert caught.value.fall_over


BLOCKED = {"blockReason": "SAFETY", "safetyRatings": [{"probability": "HIGH"}]}


def test_a_blocked_prompt_is_not_tried_elsewhere() -> None:
    with pytest.raises(ProviderError) as caught:
        whole({"promptFeedback": BLOCKED})
    assert caught.value.details == {"promptFeedback": BLOCKED}
    assert not caught.value.retry_here
    assert not caught.value.fall_over


# Errors


def google(code: int, status: str, message: str = "m", details: Any = None) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": status, "details": details}}).encode()


RPC = "type.googleapis.com/google.rpc."
DAY = [{"@type": f"{RPC}QuotaFailure", "violations": [{"quotaId": "RequestsPerDayPerModel"}]}]
MINUTE = [{"@type": f"{RPC}QuotaFailure", "violations": [{"quotaId": "TokensPerMinute"}]}]
RETRY = [{"@type": f"{RPC}RetryInfo", "retryDelay": "48.5s"}]
KEY = [{"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
TOO_LONG = "The input token count (9) exceeds the maximum number of tokens allowed (8)."


@pytest.mark.parametrize(
    ("status", "data", "headers", "reason", "retry_here", "wait"),
    [
        (400, google(400, "INVALID_ARGUMENT"), {}, Reason.INVALID_REQUEST, False, None),
        (400, google(400, "INVALID_ARGUMENT", details=KEY), {}, Reason.UPSTREAM_AUTHENTICATION, False, None),
        (400, google(400, "FAILED_PRECONDITION"), {}, Reason.UNSUPPORTED_FEATURE, False, None),
        (400, google(400, "INVALID_ARGUMENT", TOO_LONG), {}, Reason.CONTEXT_LENGTH_EXCEEDED, False, None),
        (401, google(401, "UNAUTHENTICATED"), {}, Reason.UPSTREAM_AUTHENTICATION, False, None),
        (403, b"[" + google(403, "PERMISSION_DENIED") + b"]", {}, Reason.UPSTREAM_AUTHENTICATION, False, None),
        (404, google(404, "NOT_FOUND"), {}, Reason.MODEL_NOT_FOUND, False, None),
        (429, google(429, "RESOURCE_EXHAUSTED", details=MINUTE + RETRY), {}, Reason.RATE_LIMITED, True, 48.5),
        (429, google(429, "X", details=RETRY), {"retry-after": "60"}, Reason.RATE_LIMITED, True, 60.0),
        (429, google(429, "RESOURCE_EXHAUSTED", details=DAY), {}, Reason.RATE_LIMITED, False, None),
        (429, b"", {"retry-after-ms": "1500"}, Reason.RATE_LIMITED, True, 1.5),
        (499, google(499, "CANCELLED"), {}, Reason.UPSTREAM_ERROR, False, None),
        (500, google(500, "INTERNAL"), {}, Reason.UPSTREAM_ERROR, True, None),
        (503, google(503, "UNAVAILABLE", details="odd"), {}, Reason.OVERLOADED, True, None),
        (504, google(504, "DEADLINE_EXCEEDED"), {}, Reason.TIMEOUT, False, None),
        (502, b"<html>Bad gateway</html>", {}, Reason.UPSTREAM_ERROR, True, None),
        (413, b'{"error": "too big"}', {}, Reason.REQUEST_TOO_LARGE, False, None),
    ],
)
def test_error(
    status: int, data: bytes, headers: dict[str, str], reason: Reason, retry_here: bool, wait: float | None
) -> None:
    error = TRANSLATOR.error(status, headers, data)
    assert (error.reason, error.retry_here, error.retry_after) == (reason, retry_here, wait)
    assert error.http_status == status


# Streams


def test_calls_and_finish_in_different_pieces() -> None:
    """Indices continue over pieces; a STOP after a call means tool_calls although its own piece has none."""
    events = [
        candidate({"text": "Hm.", "thought": True}, finish=None),
        candidate({"text": "Wait. "}, CALL_1 | {"thoughtSignature": "QQ=="}, {"text": "And "}, finish=None),
        candidate(CALL_2, finish=None),
        candidate({"text": ""}, usageMetadata={"promptTokenCount": 1}),
    ]
    chunks = stream([sse(events)])
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 1, 0]  # the finish reason's is the fourth
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls]
    assert [call.index for call in calls] == [0, 1]
    answer = fold_messages(chunks)
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert answer.choices[0].message.content[0].text == "Wait. And "
    assert [call.id for call in answer.choices[0].message.tool_calls] == ["call_r_0", "call_r_1"]
    detail = answer.choices[0].message.reasoning_details[0]
    assert (detail.text, detail.signature, detail.format) == ("Hm.", "QQ==", "gemini")


def test_pieces_leave_at_once() -> None:
    decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest())
    data = sse([candidate({"text": "a"}, finish=None)])
    assert decoder.feed(data[:-1])  # CR LF CR ends an event
    assert decoder.feed(data[-1:]) == []
    [piece] = decoder.feed(sse([candidate({"text": "b"})]))
    assert piece.choices[0].delta.content == "b"
    [last] = decoder.close()
    assert last.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert decoder.close() == []
    assert decoder.close() == []


def test_several_candidates() -> None:
    def two(first: Any, second: Any, finish: str | None) -> Any:
        ended = {"finishReason": finish} if finish else {}
        pieces = enumerate((first, second))
        return {"candidates": [{"index": n, "content": {"parts": [{"text": t}]}, **ended} for n, t in pieces]}

    answer = fold_messages(stream([sse([two("a", "c", None), two("b", "d", "STOP")])]))
    assert [choice.message.content[0].text for choice in answer.choices] == ["ab", "cd"]
    half = [two("a", "c", None), {"candidates": [{"index": 1, "finishReason": "STOP"}]}]
    with pytest.raises(StreamTruncated):
        stream([sse(half)])


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [candidate({"text": "a"}), candidate({"text": "b"})],
            id="in every piece",
        ),
        pytest.param(
            [candidate(), candidate({"text": "ab"}, finish=None), candidate()], id="before the first word"
        ),
    ],
)
def test_one_finish_reason(events: list[Any]) -> None:
    answer = fold_messages(stream([sse(events)]))
    assert answer.choices[0].message.content[0].text == "ab"
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_STOP


def with_fields(text: str, finish: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """A piece whose candidate has `fields`."""
    piece = candidate({"text": text}, finish=finish)
    piece["candidates"][0] |= fields
    return piece


def google_fields(chunks: list[pb.ChatCompletionChunk]) -> list[Any]:
    """What is passed on of candidates, by chunk; None for chunks without."""
    found = [choice.extra_json for chunk in chunks for choice in chunk.choices]
    return [json.loads(extra)["extra_content"]["google"] if extra else None for extra in found]


def test_fields_of_every_piece_are_passed_on_at_the_end() -> None:
    """Ratings come with every piece; of the grounding, a piece has the sources that are new."""
    mild, odd = [{"category": "C", "probability": "LOW"}], [{"category": "C", "probability": "HIGH"}]
    rome, oslo = {"web": {"uri": "https://rome.example/"}}, {"web": {"uri": "https://oslo.example/"}}
    queries = {"webSearchQueries": ["warm"]}
    pieces = [
        with_fields("a", None, safetyRatings=mild, groundingMetadata={"groundingChunks": [rome]}),
        with_fields("b", None, safetyRatings=mild),
        with_fields("c", safetyRatings=odd, groundingMetadata={"groundingChunks": [oslo], **queries}),
    ]
    expected = {"safetyRatings": odd, "groundingMetadata": {"groundingChunks": [rome, oslo], **queries}}
    assert google_fields(stream([sse(pieces)])) == [None, None, expected, None]


def test_fields_beside_a_reason_in_every_piece_are_passed_on_when_they_change() -> None:
    ratings = [{"category": "C", "probability": "LOW"}]
    pieces = [with_fields(text, safetyRatings=ratings) for text in "abc"]
    pieces.append(with_fields("d", safetyRatings=ratings, avgLogprobs=-0.5))
    first = {"safetyRatings": ratings}
    last = {**first, "avgLogprobs": -0.5}
    assert google_fields(stream([sse(pieces)])) == [first, None, None, last, None]


def test_the_last_finish_reason_counts() -> None:
    answer = fold_messages(
        stream([sse([candidate({"text": "a"}), candidate({"text": "b"}), candidate(finish="RECITATION")])])
    )
    assert answer.choices[0].message.content[0].text == "ab"
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_CONTENT_FILTER


def test_a_block_in_mid_stream_ends_the_answer() -> None:
    answer = fold_messages(
        stream([sse([candidate({"text": "a"}, finish=None), {"promptFeedback": {"blockReason": "OTHER"}}])])
    )
    assert answer.choices[0].message.content[0].text == "a"
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_CONTENT_FILTER


def test_an_error_after_a_finish_reason_is_one() -> None:
    """More content may follow any STOP."""
    with pytest.raises(ProviderError) as caught:
        stream([sse([candidate({"text": "a"}), {"error": {"code": 503}}])])
    assert caught.value.reason is Reason.OVERLOADED


def partial(*pieces: dict[str, Any], goes_on: bool = True, **call: Any) -> dict[str, Any]:
    """A piece of a call whose arguments are streamed."""
    return {"functionCall": call | {"partialArgs": list(pieces)} | ({"willContinue": True} if goes_on else {})}


def test_streamed_arguments() -> None:
    """https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling"""
    parts = [
        {"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": "c2ln"},
        partial({"jsonPath": "$.city", "stringValue": "Os", "willContinue": True}),
        partial({"jsonPath": "$.city", "stringValue": "lo"}, {"jsonPath": "$.days", "numberValue": 3}),
        partial({"jsonPath": "$.at[0].x", "boolValue": True}, {"jsonPath": "$.at[1]['a b']", "nullValue": None}),
        {"functionCall": {}},
        {"functionCall": {"name": "g", "args": {"y": 1}}},
        partial({"jsonPath": "$.z", "stringValue": "!"}, name="h", goes_on=False),
        partial({"jsonPath": "$.z", "stringValue": "?"}, name="i"),
    ]
    answer = fold_messages(stream([sse([*(candidate(part, finish=None) for part in parts), candidate()])]))
    calls = answer.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("f", {"city": "Oslo", "days": 3, "at": [{"x": True}, {"a b": None}]}),
        ("g", {"y": 1}),
        ("h", {"z": "!"}),
        ("i", {"z": "?"}),  # the finish reason ends it
    ]
    assert json.loads(calls[0].extra_json)["extra_content"]["google"]["thought_signature"] == "c2ln"
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("path", ["$.a[7]", "$.a..b", "$[0]", "$.a[x]", "", 7, None])
def test_invalid_paths(path: Any) -> None:
    event = candidate(partial({"jsonPath": path, "stringValue": "x"}, name="f", goes_on=False))
    with pytest.raises(ProviderError) as caught:
        stream([sse([event])])
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_a_call_of_an_undeclared_tool() -> None:
    """https://ai.google.dev/api/generate-content#FinishReason"""
    event = candidate(CALL_1, finish="UNEXPECTED_TOOL_CALL")
    assert whole(event) == fold_messages(stream([sse([event])]))
    assert whole(event).choices[0].finish_reason == pb.FINISH_REASON_TOOL_CALLS


def test_usage_without_a_prompt_count() -> None:
    usage = whole(candidate(usageMetadata={"candidatesTokenCount": 18, "thoughtsTokenCount": 58})).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (0, 76, 76)


@pytest.mark.parametrize("delay", ["1.2.3s", "9" * 400 + "s", "1e308s", "soon"])
def test_invalid_delays(delay: str) -> None:
    error = {"error": {"code": 429, "details": [{"retryDelay": delay}]}}
    found = TRANSLATOR.error(429, {}, json.dumps(error).encode())
    assert found.retry_after is None or found.retry_after <= 86400


def test_an_empty_answer() -> None:
    answer = fold_messages(stream([sse([candidate()])]))
    assert answer.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert not answer.choices[0].message.content


def test_usage_is_a_running_total() -> None:
    events = [
        candidate({"text": "a"}, finish=None, usageMetadata={"trafficType": "ON_DEMAND"}),
        candidate({"text": "b"}, finish=None, usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1}),
        candidate(usageMetadata={"candidatesTokenCount": 2, "thoughtsTokenCount": 4, "totalTokenCount": 11}),
    ]
    answer = fold_messages(stream([sse(events)]))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 6, 11)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 4
    assert answer.service_tier == "default"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"usageMetadata": {"promptTokenCount": 1}}],
        [candidate({"text": "x"}, finish=None)],
        [candidate({"text": "x"}, finish="FINISH_REASON_UNSPECIFIED")],
        [candidate({"text": "x"}, finish=0)],
    ],
)
def test_truncated(events: list[Any]) -> None:
    with pytest.raises(StreamTruncated):
        stream([sse(events)])


def test_torn_last_event() -> None:
    data = sse([candidate({"text": "x"}, finish=None), candidate({"text": "y"})])
    for end in range(len(data) - 20, len(data) - 5):
        with pytest.raises(StreamTruncated):
            stream([data[:end]])
    assert fold_messages(stream([data[:-4]]))  # only the blank line is missing


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=4), st.booleans())
def test_bare_json_error_in_a_stream(at: list[int], listed: bool) -> None:
    """Google's errors in the middle of a stream are no events."""
    error = json.dumps({"error": {"code": 429, "message": "quota", "details": RETRY}}, indent=2).encode()
    if listed:
        error = b"[" + error + b"\n]"
    data = sse([candidate({"text": "{ \n[x"}, finish=None)]) + error + b"\n"
    with pytest.raises(ProviderError) as caught:
        stream(cut(data, at))
    assert caught.value.reason is Reason.RATE_LIMITED
    assert caught.value.retry_after == 48.5


def test_framing() -> None:
    """A BOM, comments, other line ends, several data lines, other fields."""
    first, last = (json.dumps(candidate({"text": t}, finish=f)).encode() for t, f in (("ä", None), ("b", "STOP")))
    first = first.replace(b",", b",\ndata: ", 1)
    data = b"\xef\xbb\xbf: hi\n\ndata:" + first + b"\n\nid: 1\rdata: " + last + b"\r\r"
    assert fold_messages(stream([data])).choices[0].message.content[0].text == "äb"


TEXT = st.text(min_size=1, max_size=8)
SIGNED: st.SearchStrategy[dict[str, str]] = st.sampled_from([{}, {"thoughtSignature": "c2ln"}])
CALL = st.builds(
    lambda name, args, id_, sign: {"functionCall": {"name": name, "args": args, **id_}, **sign},
    TEXT,
    st.dictionaries(TEXT, st.integers(-5, 5), max_size=2),
    st.one_of(st.just({}), TEXT.map(lambda text: {"id": text})),
    SIGNED,
)
PART = st.one_of(
    st.builds(lambda text, sign: {"text": text, **sign}, st.text(max_size=8), SIGNED),
    st.builds(lambda text, sign: {"text": text, "thought": True, **sign}, TEXT, SIGNED),
    CALL,
    st.just({"inlineData": {"mimeType": "image/png", "data": "AA=="}}),
    st.sampled_from(["", "AA==", "AAEC"]).map(lambda d: {"inlineData": {"mimeType": "audio/L16", "data": d}}),
    st.just(CODE),
    st.just({"thought": True, "thoughtSignature": "c2ln"}),
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.lists(PART, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY"]),
    st.lists(st.integers(0, 10**6), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_any_split_and_the_whole(
    pieces: list[list[Any]], finish: str, at: list[int], end: str, alone: bool
) -> None:
    """Any split of the bytes gives the same chunks, and these fold to the unary answer of the same turn."""
    usage = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}}
    events = [candidate(*parts, finish=None) for parts in pieces]
    if alone:
        events.append(candidate(finish=finish, **usage))
    else:
        events[-1] = candidate(*pieces[-1], finish=finish, **usage)
    data = sse(events, end)
    chunks = stream([data])
    assert stream(cut(data, at)) == chunks
    together = candidate(*(part for parts in pieces for part in parts), finish=finish, **usage)
    assert fold_messages(chunks) == whole(together)


KEYS = [
    "args",
    "blockReason",
    "candidates",
    "chosenCandidates",
    "citationMetadata",
    "citations",
    "code",
    "content",
    "createTime",
    "data",
    "details",
    "error",
    "finishReason",
    "functionCall",
    "groundingChunks",
    "groundingMetadata",
    "groundingSupports",
    "id",
    "index",
    "inlineData",
    "logprobsResult",
    "mimeType",
    "name",
    "parts",
    "promptFeedback",
    "promptTokenCount",
    "promptTokensDetails",
    "responseId",
    "segment",
    "startIndex",
    "text",
    "thoughtSignature",
    "token",
    "topCandidates",
    "usageMetadata",
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**70), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    st.one_of(
        JSON,
        st.builds(lambda c: {"candidates": [c]}, JSON),
        st.builds(lambda p, u: candidate(p, usageMetadata=u), JSON, JSON),
    )
)
def test_nothing_but_provider_errors(obj: Any) -> None:
    """Any JSON is decoded or raises ProviderError."""
    with contextlib.suppress(ProviderError):
        openai_json.dump_completion(whole(obj))
    with contextlib.suppress(ProviderError):
        stream([sse([obj])])
    assert TRANSLATOR.error(500, {}, json.dumps(obj).encode()).http_status == 500
