"""Bedrock Converse: requests out, answers, streams and errors back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import dump_chunk, dump_completion, parse
from server.chat.openai_json.fields import decode
from server.dialects.bedrock import models as bedrock_models
from server.dialects.bedrock.messages import tool_name, tool_names
from server.dialects.bedrock.replay import extra_content
from server.dialects.bedrock.request import EXTRA_BODY
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from tests.dialects.bedrock_help import (
    HAIKU,
    NOVA,
    OPUS_5,
    TRANSLATOR,
    body,
    cut,
    endpoint,
    stream,
)
from tests.support import specs
from tests.support.fold import fold_messages
from tests.support.streams import frame
from tests.support.streams import frame_of_event as event
from tests.support.streams import frame_of_exception as exception

GOLDEN = Path(__file__).parents[1] / "golden/bedrock"
REQUESTS = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("request_*.json"))]
TURNS = json.loads((GOLDEN / "turns.json").read_text())


def about(golden: dict[str, Any]) -> str:
    return str(golden["about"])[:40]


@pytest.fixture(scope="module")
def model() -> ServiceModel:
    """botocore's own description of the service."""
    path = Path(botocore.__file__).parent / "data/bedrock-runtime/2023-09-30/service-2.json.gz"
    return ServiceModel(json.loads(gzip.decompress(path.read_bytes())))


def parsed(obj: Any) -> pb.ChatCompletionRequest:
    return parse(json.dumps({"model": "m", **obj}).encode()).request


def ask(**fields: Any) -> pb.ChatCompletionRequest:
    return parsed({"messages": [{"role": "user", "content": "Hi"}], **fields})


def function(name: str, **rest: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **rest}}


CALL = {"role": "assistant", "tool_calls": [{"id": "t", **function("f", arguments="{}")}]}
RESULT = {"role": "tool", "tool_call_id": "t", "content": "r"}
IN_TOOL_USE = [{"role": "user", "content": "q"}, CALL, RESULT]


# Requests


@pytest.mark.parametrize("golden", REQUESTS, ids=about)
def test_golden_requests(golden: dict[str, Any], model: ServiceModel) -> None:
    sent = body(parse(json.dumps(golden["request"]).encode()).request, golden["model"])
    assert sent == golden["body"]
    for operation in ("Converse", "ConverseStream"):
        assert specs.converse(model, operation, golden["model"], sent) == []


@pytest.mark.parametrize(
    ("model_id", "base_url", "path"),
    [
        ("us.amazon.nova-2-lite-v1:0", "", "us.amazon.nova-2-lite-v1%3A0"),
        ("anthropic.claude-opus-4-6-v1", "", "anthropic.claude-opus-4-6-v1"),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-pro-v1:0",
            "",
            "arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.amazon.nova-pro-v1%3A0",
        ),
        ("m", "http://127.0.0.1:9/x/", "m"),
        ("m", "https://bedrock-runtime-fips.{region}.amazonaws.com", "m"),
    ],
)
def test_url_encodes_the_id_once(model_id: str, base_url: str, path: str) -> None:
    origins = {
        "": "https://bedrock-runtime.eu-west-1.amazonaws.com",
        "http://127.0.0.1:9/x/": "http://127.0.0.1:9/x",
        "https://bedrock-runtime-fips.{region}.amazonaws.com": "https://bedrock-runtime-fips.eu-west-1.amazonaws.com",
    }
    unary = TRANSLATOR.request(ask(), endpoint(model_id, base_url), stream=False)
    streamed = TRANSLATOR.request(ask(), endpoint(model_id, base_url), stream=True)
    assert unary.url == f"{origins[base_url]}/model/{path}/converse"
    assert streamed.url == f"{unary.url}-stream"
    assert unary.headers == {"content-type": "application/json", "accept": "application/json"}
    assert streamed.headers["accept"] == "application/vnd.amazon.eventstream"
    assert (unary.method, unary.body) == ("POST", streamed.body)


@pytest.mark.parametrize("model_id", [HAIKU, "arn:aws:bedrock:us-east-1::foundation-model/a.b-v1:0", "a~b_c d"])
def test_url_is_botocores(model: ServiceModel, model_id: str) -> None:
    """What is signed is this path, encoded once more."""
    serializer = create_serializer("rest-json")
    built = serializer.serialize_to_request({"modelId": model_id}, model.operation_model("Converse"))
    url = TRANSLATOR.request(ask(), endpoint(model_id), stream=False).url
    assert url == f"https://bedrock-runtime.eu-west-1.amazonaws.com{built['url_path']}"


@pytest.mark.parametrize("name", ["a", "A-1_b", "x" * 64])
def test_names_that_fit_stay(name: str) -> None:
    assert tool_name(name) == name


@given(st.text())
def test_names_are_made_to_fit_and_found_again(name: str) -> None:
    request = pb.ChatCompletionRequest()
    request.tools.add().function.name = name
    fitted = tool_name(name)
    assert 0 < len(fitted) <= 64
    assert set(fitted) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert tool_names(request).get(fitted, fitted) == name
    assert tool_name(fitted) == fitted


def test_names_do_not_collide() -> None:
    names = ["a.b", "a_b", "a b", "x" * 65, "x" * 66, "x" * 64]
    assert len({tool_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tool_choice": "none"}, None),
        ({"tools": [function("f")], "tool_choice": "none"}, None),
        ({"tools": [function("f")], "tool_choice": "auto"}, (["f"], None)),
        ({"tools": [function("f")], "tool_choice": "required"}, (["f"], {"any": {}})),
        (
            {"tools": [function("f.g")], "tool_choice": function("f.g")},
            ([tool_name("f.g")], {"tool": {"name": tool_name("f.g")}}),
        ),
        (
            {
                "tools": [function("f"), function("g"), function("h")],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [function("g"), function("h")]},
                },
            },
            (["g", "h"], {"any": {}}),
        ),
        ({"messages": IN_TOOL_USE}, (["f"], None)),
        ({"messages": IN_TOOL_USE, "tools": [function("g")]}, (["g"], None)),
        ({"messages": [{"role": "user", "content": "q"}, RESULT]}, (["unknown"], None)),
    ],
)
def test_tool_config(fields: dict[str, Any], expected: tuple[list[str], Any] | None) -> None:
    config = body(ask(**fields)).get("toolConfig")
    if expected is None:
        assert config is None
    else:
        assert ([tool["toolSpec"]["name"] for tool in config["tools"]], config.get("toolChoice")) == expected


def test_no_tools_with_a_history_of_calls() -> None:
    """They must be listed all the same, with an instruction not to call them."""
    sent = body(ask(messages=IN_TOOL_USE, tools=[function("f")], tool_choice="none"))
    assert [tool["toolSpec"]["name"] for tool in sent["toolConfig"]["tools"]] == ["f"]
    assert "toolChoice" not in sent["toolConfig"]
    assert sent["system"] == [{"text": "Answer in text. Do not call any tool."}]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False, "tool_choice": "required"}, None),
    ],
)
def test_parallel_tool_calls(fields: dict[str, Any], choice: Any) -> None:
    sent = body(ask(tools=[function("f")], **fields))
    assert sent.get("additionalModelRequestFields", {}).get("tool_choice") == choice
    assert "additionalModelRequestFields" not in body(ask(tools=[function("f")], **fields), NOVA)


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([{"role": "system", "content": "s"}], ["user: ."]),
        ([{"role": "user", "content": " \n"}], ["user: ."]),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], ["user: a b"]),
        (
            [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
            ["user: .", "assistant: a", "user: b"],
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b \n"}],
            ["user: a", "assistant: b"],
        ),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": ""},
                {"role": "system", "content": "s"},
                {"role": "user", "content": "b"},
            ],
            ["user: a b"],
        ),
    ],
)
def test_turns(messages: list[Any], turns: list[str], model: ServiceModel) -> None:
    sent = body(parsed({"messages": messages}))
    found = [f"{m['role']}: {' '.join(block['text'] for block in m['content'])}" for m in sent["messages"]]
    assert found == turns
    assert specs.converse(model, "Converse", HAIKU, sent) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"maxTokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"maxTokens": 6}),
        ({"temperature": 0, "stop": "x"}, {"temperature": 0.0, "stopSequences": ["x"]}),
        ({"temperature": 2}, {"temperature": 1.0}),
        ({"top_p": 0.1}, {"topP": 0.1}),
    ],
)
def test_inference_config(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(ask(**fields))["inferenceConfig"] == expected


def test_default_token_limit_of_the_endpoint() -> None:
    assert body(ask(), max_output_tokens=77)["inferenceConfig"] == {"maxTokens": 77}
    assert body(ask(max_tokens=5), max_output_tokens=77)["inferenceConfig"] == {"maxTokens": 5}


def says(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def sound(format_: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": "AAAA", "format": format_}}


def file(**fields: str) -> dict[str, Any]:
    return {"type": "file", "file": fields}


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **fields}}}


PNG = "data:image/png;base64,AAAA"
TIFF = "data:image/tiff;base64,AAAA"
ZIP = "data:application/zip;base64,AAAA"
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"messages": [says("user", image("https://x/y.png"))]}, "messages[0].content[0].image_url.url"),
    ({"messages": [says("user", image(TIFF))]}, "messages[0].content[0].image_url.url"),
    ({"messages": [says("user", file(file_id="file-1"))]}, "messages[0].content[0].file.file_id"),
    (
        {"messages": [says("user", text("a"), file(filename="a.zip", file_data=ZIP))]},
        "messages[0].content[1].file.file_data",
    ),
    ({"messages": [says("user", file(file_data="https://x/y.pdf"))]}, "messages[0].content[0].file.file_data"),
    ({"messages": [says("user", sound("amr"))]}, "messages[0].content[0].input_audio.format"),
    ({"messages": [says("user", {"type": "video_url", "video_url": {}})]}, "messages[0].content[0].type"),
    ({"messages": [says("system", image(PNG))]}, "messages[0].content[0]"),
    (
        {"messages": [says("user", text("a")), says("assistant", text("b"), sound("wav"))]},
        "messages[1].content[1]",
    ),
    ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"tools": [function("f"), {"type": "custom", "custom": {"name": "x"}}]}, "tools[1].type"),
    (
        {"tools": [function("f")], "tool_choice": {"type": "custom", "custom": {"name": "x"}}},
        "tool_choice.type",
    ),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    (json_schema(), "response_format.json_schema.schema"),
    (json_schema(schema={"type": "object"}), "response_format.json_schema.schema"),
    ({"stop": ["x", " "]}, "stop[1]"),
    ({"stop": [""]}, "stop[0]"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED, ids=[param for _, param in UNSUPPORTED])
def test_inexpressible_requests(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        body(ask(**fields))
    assert (error.value.param, error.value.reason) == (param, Reason.UNSUPPORTED_FEATURE)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [says("user", image("data:image/png;base64,A*"))]}, "messages[0].content[0].image_url.url"),
        ({"messages": [says("user", image("data:image/png;base64,"))]}, "messages[0].content[0].image_url.url"),
        ({"messages": [says("user", image("data:image/png"))]}, "messages[0].content[0].image_url.url"),
        ({"guardrailConfig": "g"}, "guardrailConfig"),
        ({"anthropic_beta": "x"}, "anthropic_beta"),
        ({"stop": [str(i) for i in range(5)]}, None),
    ],
)
def test_invalid_requests(fields: dict[str, Any], param: str | None) -> None:
    if param is None:  # five are fine here
        assert len(body(ask(**fields))["inferenceConfig"]["stopSequences"]) == 5
        return
    with pytest.raises(InvalidRequest) as error:
        body(ask(**fields))
    assert (error.value.param, error.value.reason) == (param, Reason.INVALID_REQUEST)


def test_json_text_without_json() -> None:
    request = ask()
    request.tools.add().function.name = "f"
    request.tools[0].function.parameters_json = "{"
    with pytest.raises(InvalidRequest, match="does not hold JSON"):
        body(request)


@pytest.mark.parametrize("depth", [*range(850, 1050, 10), 100_000])
def test_too_deep_nesting(depth: int) -> None:
    """The limit is the interpreter's; exceeding it is an invalid request, or an invalid response."""
    deep = '{"a":' * depth + "1" + "}" * depth
    request = ask()
    request.tools.add().function.name = "f"
    request.tools[0].function.parameters_json = deep
    refused = []
    try:
        body(request)
    except InvalidRequest as error:
        refused.append(error.message)
    try:
        TRANSLATOR.completion(
            b'{"output":{"message":{"content":[]}},"stopReason":"end_turn","trace":' + deep.encode() + b"}", ask()
        )
    except ProviderError as error:
        refused.append(error.raw[:30])
    assert depth < 100_000 or len(refused) == 2


def test_extra_body() -> None:
    native = {"additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig"}
    native |= {"performanceConfig", "requestMetadata"}
    assert native | {"thinking", "anthropic_beta", "top_k", "cache_control"} == EXTRA_BODY


# Model families

CLAUDE_3 = "anthropic.claude-3-5-sonnet-20240620-v1:0"
OPUS_4_5 = "global.anthropic.claude-opus-4-5-20251101-v1:0"
OPUS_4_6 = "us.anthropic.claude-opus-4-6-v1"
SUMMARY = {"type": "adaptive", "display": "summarized"}


def nova(level: str) -> dict[str, Any]:
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}}


def budget(tokens: int) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


@pytest.mark.parametrize(
    ("model_id", "fields", "extra", "rest"),
    [
        (HAIKU, {"reasoning_effort": "low"}, budget(1024), {"inferenceConfig": {"maxTokens": 9216}}),
        (HAIKU, {"reasoning_effort": "max"}, budget(32768), {"inferenceConfig": {"maxTokens": 40960}}),
        (
            HAIKU,
            {"reasoning_effort": "medium", "max_tokens": 4000, "temperature": 0.3, "top_p": 0.5, "top_k": 3},
            budget(3200),
            {"inferenceConfig": {"maxTokens": 4000}},
        ),
        (HAIKU, {"reasoning_effort": "high", "max_tokens": 1000}, None, {"inferenceConfig": {"maxTokens": 1000}}),
        (HAIKU, {"reasoning_effort": "none"}, None, {}),
        (HAIKU, {"reasoning_effort": "low", "messages": IN_TOOL_USE}, None, {}),  # its turn has no thinking
        (HAIKU, {"reasoning_effort": "low", "tools": [function("f")], "tool_choice": "required"}, None, {}),
        (
            HAIKU,
            {"reasoning_effort": "low", "thinking": {"type": "disabled"}, "temperature": 0.5},
            {"thinking": {"type": "disabled"}},
            {"inferenceConfig": {"temperature": 0.5}},
        ),
        (HAIKU, {"thinking": budget(2000)["thinking"], "temperature": 0.5}, budget(2000), {"inferenceConfig": {}}),
        (
            OPUS_4_5,
            {"reasoning_effort": "medium"},
            budget(8192),
            {"inferenceConfig": {"maxTokens": 16384}, "outputConfig": {"effort": "medium"}},
        ),
        (OPUS_4_6, {"reasoning_effort": "minimal"}, {"thinking": SUMMARY}, {"outputConfig": {"effort": "low"}}),
        (OPUS_4_6, {"reasoning_effort": "max"}, {"thinking": SUMMARY}, {"outputConfig": {"effort": "max"}}),
        (OPUS_4_6, {"reasoning_effort": "low", "messages": IN_TOOL_USE}, {"thinking": SUMMARY}, {}),
        (OPUS_5, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, {}),
        (OPUS_5, {"reasoning_effort": "xhigh"}, {"thinking": SUMMARY}, {"outputConfig": {"effort": "xhigh"}}),
        (OPUS_5, {"temperature": 0.3, "top_p": 0.5, "top_k": 3}, None, {"inferenceConfig": {}}),
        ("anthropic.claude-mythos-5", {"reasoning_effort": "none"}, None, {"outputConfig": {"effort": "low"}}),
        (
            CLAUDE_3,
            {"reasoning_effort": "high", "top_p": 0.5, "temperature": 0},
            None,
            {"inferenceConfig": {"temperature": 0, "topP": 0.5}},
        ),
        (HAIKU, {"top_p": 0.5, "temperature": 0}, None, {"inferenceConfig": {"temperature": 0}}),
        (NOVA, {"reasoning_effort": "minimal"}, nova("low"), {}),
        (
            NOVA,
            {"reasoning_effort": "xhigh", "temperature": 0.3, "top_p": 0.5},
            nova("high"),
            {"inferenceConfig": {}},
        ),
        (
            NOVA,
            {"reasoning_effort": "high", "max_tokens": 9},
            nova("medium"),
            {"inferenceConfig": {"maxTokens": 9}},
        ),
        (NOVA, {"reasoning_effort": "none"}, None, {}),
        ("amazon.nova-pro-v1:0", {"reasoning_effort": "high", "top_k": 4}, {"inferenceConfig": {"topK": 4}}, {}),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "none", "top_k": 4}, {"reasoning_effort": "low"}, {}),
        (
            "us.openai.gpt-5.6-sol",
            {"reasoning_effort": "minimal", "temperature": 1},
            {"reasoning": {"effort": "low"}},
            {"inferenceConfig": {}},
        ),
        ("us.openai.gpt-5.6-sol", {"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}, {}),
        (
            "qwen.qwen3-32b-v1:0",
            {"reasoning_effort": "max", "top_k": 2},
            {"reasoning_config": "high", "top_k": 2},
            {},
        ),
        ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "none"}, None, {}),
        ("cohere.command-r-v1:0", {"top_k": 2}, {"k": 2}, {}),
        ("us.meta.llama3-3-70b-instruct-v1:0", {"top_k": 2, "reasoning_effort": "high"}, None, {}),
    ],
)
def test_parameters_by_model_family(
    model_id: str, fields: dict[str, Any], extra: Any, rest: dict[str, Any], model: ServiceModel
) -> None:
    sent = body(ask(**fields), model_id)
    assert sent.get("additionalModelRequestFields") == extra
    assert {name: sent.get(name) for name in rest} == rest
    assert specs.converse(model, "Converse", model_id, sent) == []


def test_unsupported_by_the_family() -> None:
    forced = ask(tools=[function("f")], tool_choice="required")
    assert body(forced, OPUS_5)["toolConfig"]["toolChoice"] == {"any": {}}
    with pytest.raises(InvalidRequest, match="cannot be forced to call"):
        body(forced, "anthropic.claude-opus-5-5")
    assert body(ask(stop=["\n"]), NOVA)["inferenceConfig"] == {"stopSequences": ["\n"]}


DETAILS = [
    {"type": "reasoning.text", "text": "t", "signature": "s", "format": "anthropic"},
    {"type": "reasoning.encrypted", "data": "Ed", "format": "anthropic"},
    {"type": "reasoning.encrypted", "data": "AAE=", "format": "bedrock"},
    {"type": "reasoning.text", "text": "g", "signature": "s", "format": "gemini"},
    {"type": "reasoning.text", "text": "unsigned", "format": "anthropic"},
    {"type": "reasoning.summary", "summary": "x"},
]
SIGNED = {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}}
CLAUDES = {"reasoningContent": {"redactedContent": "RWQ="}}
OPAQUE = {"reasoningContent": {"redactedContent": "AAE="}}


@pytest.mark.parametrize(
    ("model_id", "replayed"),
    [
        (HAIKU, [SIGNED, CLAUDES]),
        (NOVA, []),
        ("us.openai.gpt-5.6-sol", [OPAQUE]),
        ("xai.grok-4.6", [OPAQUE]),
        ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/ab12cd34ef56", [SIGNED, CLAUDES, OPAQUE]),
    ],
)
def test_reasoning_is_returned_only_to_its_dialect(model_id: str, replayed: list[Any]) -> None:
    question = {"role": "user", "content": "q"}
    whole = {"role": "assistant", "content": "a", "reasoning_content": "t", "reasoning_details": DETAILS}
    sent = body(ask(messages=[question, whole, question]), model_id)
    assert sent["messages"][1]["content"] == [*replayed, {"text": "a"}]
    # The same in the call, for clients that keep only calls.
    details = parsed({"messages": [question, whole]}).messages[1].reasoning_details[:3]
    call = {"id": "t", **function("f", arguments="{}"), **json.loads(extra_content(details))}
    sent = body(ask(messages=[question, {"role": "assistant", "tool_calls": [call]}, RESULT]), model_id)
    assert sent["messages"][1]["content"][:-1] == replayed


@pytest.mark.parametrize(
    ("model_id", "schema", "native"),
    [
        (HAIKU, {"type": "object", "properties": {"a": {"type": "string"}}}, True),
        (HAIKU, {"type": "object", "additionalProperties": {"type": "string"}}, False),
        (HAIKU, [], False),
        (NOVA, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
        (CLAUDE_3, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", {"type": "object", "properties": {}}, False),
        (OPUS_5, {"type": "object", "properties": {"a": {"type": "string"}}}, True),
        ("qwen.qwen3-32b-v1:0", {"type": "object", "properties": {"a": {"type": "string"}}}, True),
        ("openai.gpt-oss-20b-1:0", {"type": "object", "properties": {"a": {"type": "string"}}}, True),
        ("unknown", {"type": "object", "properties": {"a": {"type": "string"}}}, False),
    ],
)
def test_native_format(model_id: str, schema: Any, native: bool) -> None:
    request = pb.ChatCompletionRequest()
    request.response_format.json_schema.schema_json = json.dumps(schema)
    assert bedrock_models.native_format(request, model_id) is native


@pytest.mark.parametrize(
    ("model_id", "names"),
    [
        (HAIKU, set()),
        (OPUS_5, {"temperature", "top_p", "top_k"}),
        (NOVA, {"parallel_tool_calls"}),
        ("amazon.nova-pro-v1:0", {"parallel_tool_calls", "reasoning_effort"}),
        ("us.openai.gpt-5.6-sol", {"parallel_tool_calls", "temperature", "top_p", "top_k"}),
        ("us.meta.llama3-3-70b-instruct-v1:0", {"parallel_tool_calls", "reasoning_effort", "top_k"}),
        (
            "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/ab12",
            {"parallel_tool_calls", "reasoning_effort"},
        ),
    ],
)
def test_what_a_model_has_no_parameter_for(model_id: str, names: set[str]) -> None:
    assert bedrock_models.drops(model_id) == names


# Answers


def request_for(turn: dict[str, Any]) -> pb.ChatCompletionRequest:
    return ask(tools=[function(name) for name in turn.get("tools", [])])


def streamed(turn: dict[str, Any]) -> bytes:
    return b"".join(event(type_, payload) for type_, payload in turn["events"])


@pytest.mark.parametrize("turn", TURNS, ids=about)
def test_golden_turns(turn: dict[str, Any]) -> None:
    whole = json.dumps(turn["answer"], ensure_ascii=False, separators=(",", ":")).encode()
    completion, native = TRANSLATOR.completion(whole, request_for(turn))
    shown = dump_completion(completion)
    choice = shown["choices"][0]
    absent: dict[str, Any] = {"refusal": None, "annotations": []}
    assert absent | choice["message"] == absent | turn["message"]
    assert choice["finish_reason"] == turn["finish_reason"]
    assert shown["usage"] == turn["usage"]
    assert shown.get("service_tier") == turn.get("service_tier")
    assert (decode(completion.extra_json) if completion.extra_json else None) == turn.get("extra")
    assert choice.get("extra_content", {}).get("bedrock") == turn.get("own")
    assert native == turn["answer"]["stopReason"]
    assert (completion.id, completion.created, completion.model) == ("", 0, "")


@pytest.mark.parametrize("turn", TURNS, ids=about)
def test_a_stream_folds_to_the_completion(turn: dict[str, Any]) -> None:
    whole = json.dumps(turn["answer"], ensure_ascii=False, separators=(",", ":")).encode()
    chunks, native = stream([streamed(turn)], request_for(turn))
    unary = TRANSLATOR.completion(whole, request_for(turn))
    assert dump_completion(fold_messages(chunks)) == dump_completion(unary.completion)
    assert native == unary.native_finish_reason
    for chunk in chunks:
        dump_chunk(chunk, include_usage=True)


@given(st.sampled_from(TURNS), st.lists(st.integers(0, 100_000), max_size=40))
def test_any_split_gives_the_same_chunks(turn: dict[str, Any], places: list[int]) -> None:
    data = streamed(turn)
    assert stream(cut(data, places), request_for(turn)) == stream([data], request_for(turn))


def test_usage_before_the_stop() -> None:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html"""
    events = [event(type_, payload) for type_, payload in TURNS[0]["events"]]
    swapped = [*events[:-2], events[-1], events[-2]]
    assert fold_messages(stream(swapped)[0]) == fold_messages(stream(events)[0])


def test_chunks_leave_at_once() -> None:
    turn = TURNS[0]
    decoder = TRANSLATOR.decoder(ask())
    counts = [len(decoder.feed(event(type_, payload))) for type_, payload in turn["events"]]
    assert counts == [1, 1, 0, 1, 0, 1, 0, 0, 2]
    assert decoder.close() == []
    assert decoder.native_finish_reason == "end_turn"


def test_a_call_by_the_piece() -> None:
    """The index is the call's, not the block's; id and name come first; no arguments become an object."""
    chunks, _ = stream([streamed(TURNS[1])], request_for(TURNS[1]))
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls]
    pieces = [(call.index, call.id, call.function.name, call.function.arguments) for call in calls]
    assert pieces == [
        (0, "tooluse_1", "weather.now", ""),
        (0, "", "", '{"city":"Zür'),
        (0, "", "", 'ich","n":9007199254740993}'),
        (1, "tooluse_2", "ping", ""),
        (1, "", "", "{}"),
    ]


def test_signed_blocks_come_once_and_complete() -> None:
    chunks, _ = stream([streamed(TURNS[1])], request_for(TURNS[1]))
    details = [
        list(c.delta.reasoning_details) for chunk in chunks for c in chunk.choices if c.delta.reasoning_details
    ]
    assert [[(d.text, d.redacted) for d in some] for some in details] == [
        [("I need it.", "")],
        [("", "EdataB/x=")],
    ]


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", pb.FINISH_REASON_STOP),
        ("stop_sequence", pb.FINISH_REASON_STOP),
        ("tool_use", pb.FINISH_REASON_STOP),  # without a call
        ("max_tokens", pb.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", pb.FINISH_REASON_LENGTH),
        ("guardrail_intervened", pb.FINISH_REASON_CONTENT_FILTER),
        ("content_filtered", pb.FINISH_REASON_CONTENT_FILTER),
        ("something_new", pb.FINISH_REASON_STOP),
    ],
)
def test_finish_reasons(stop_reason: str, finish: int) -> None:
    whole = {"output": {"message": {"content": [{"text": "x"}]}}, "stopReason": stop_reason}
    completion, native = TRANSLATOR.completion(json.dumps(whole).encode(), ask())
    events = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}})
    chunks, streamed_native = stream([events + event("messageStop", {"stopReason": stop_reason})])
    assert completion.choices[0].finish_reason == fold_messages(chunks).choices[0].finish_reason == finish
    assert native == streamed_native == stop_reason
    assert fold_messages(chunks) == completion


def test_every_finish_reason_of_the_service_is_known(model: ServiceModel) -> None:
    for reason in model.shape_for("StopReason").metadata["enum"]:
        whole = {"output": {"message": {"content": []}}, "stopReason": reason}
        if reason.startswith("malformed_"):
            with pytest.raises(ProviderError):
                TRANSLATOR.completion(json.dumps(whole).encode(), ask())
        else:
            assert TRANSLATOR.completion(json.dumps(whole).encode(), ask())[0].choices[0].finish_reason


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_a_malformed_answer_is_a_failure(reason: str) -> None:
    text = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}})
    with pytest.raises(ProviderError) as error:
        stream([text + event("messageStop", {"stopReason": reason})])
    assert (error.value.reason, error.value.fall_over) == (Reason.UPSTREAM_INVALID_RESPONSE, True)
    assert reason in error.value.raw


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"output":{},"stopReason":"end_turn"}',
        b'{"output":{"message":{"content":[{"text":7}]}},"stopReason":"end_turn"}',
        b'{"output":{"message":{"content":[{"toolUse":{}}]}},"stopReason":"tool_use"}',
        b'{"output":{"message":{"content":[{"reasoningContent":{"redactedContent":"A"}}]}},"stopReason":"end_turn"}',
        b'{"output":{"message":{"content":[{"text":"\xff"}],"stopReason":"end_turn"}',
    ],
)
def test_invalid_values(whole: bytes) -> None:
    with pytest.raises(ProviderError) as error:
        TRANSLATOR.completion(whole, ask())
    assert error.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


@pytest.mark.parametrize("half", [b"\xff", b"\\ud83d", b"\\ude00", b"\xf0\x9f"])
def test_half_a_character_is_a_replacement_character(half: bytes) -> None:
    whole = b'{"output":{"message":{"content":[{"text":"a%b b"}]}},"stopReason":"end_turn"}' % half
    assert TRANSLATOR.completion(whole, ask())[0].choices[0].message.content[0].text == "a\ufffd b"


# Errors

TOO_MANY = "Too many requests, please wait before trying again."


VALIDATION = "ValidationException"
TOO_LONG = "Input is too long for requested model."
ON_DEMAND = "Invocation with on-demand throughput isn’t supported."
NO_ACCESS = "You don't have access to the model with the specified model ID."


@pytest.mark.parametrize(
    ("status", "name", "message", "reason", "retry", "fall_over"),
    [
        (400, f"{VALIDATION}:http://internal.amazon.com/coral/", "Bad.", Reason.INVALID_REQUEST, False, False),
        (400, VALIDATION, TOO_LONG, Reason.CONTEXT_LENGTH_EXCEEDED, False, True),
        (400, VALIDATION, "The provided model identifier is invalid.", Reason.MODEL_NOT_FOUND, False, True),
        (400, VALIDATION, ON_DEMAND, Reason.MODEL_NOT_FOUND, False, True),
        (400, VALIDATION, "This model doesn't support tool use.", Reason.UNSUPPORTED_FEATURE, False, True),
        (400, VALIDATION, "blocked by content filtering policy", Reason.CONTENT_POLICY_VIOLATION, False, False),
        (400, "ServiceQuotaExceededException", "quota", Reason.RATE_LIMITED, True, True),
        (403, "AccessDeniedException", NO_ACCESS, Reason.UPSTREAM_AUTHENTICATION, False, True),
        (403, "com.amazon.coral#ExpiredTokenException", "old", Reason.UPSTREAM_AUTHENTICATION, False, True),
        (404, "ResourceNotFoundException", "no", Reason.MODEL_NOT_FOUND, False, True),
        (408, "ModelTimeoutException", "slow", Reason.TIMEOUT, False, True),
        (413, "", "", Reason.REQUEST_TOO_LARGE, False, False),
        (424, "ModelErrorException", "oops", Reason.UPSTREAM_ERROR, False, True),
        (429, "ThrottlingException", TOO_MANY, Reason.RATE_LIMITED, True, True),
        (429, "ModelNotReadyException", "warming up", Reason.OVERLOADED, False, True),
        (500, "InternalServerException", "oops", Reason.UPSTREAM_ERROR, True, True),
        (503, "ServiceUnavailableException", "busy", Reason.OVERLOADED, True, True),
    ],
)
def test_errors(status: int, name: str, message: str, reason: Reason, retry: bool, fall_over: bool) -> None:
    error = TRANSLATOR.error(status, {"x-amzn-errortype": name}, json.dumps({"message": message}).encode())
    assert (error.reason, error.retry_here, error.fall_over) == (reason, retry, fall_over)
    assert (error.http_status, error.raw) == (status, message)


@pytest.mark.parametrize(
    ("headers", "sent", "reason"),
    [
        ({}, b'{"__type":"com.amazon.coral.service#ThrottlingException","message":"x"}', Reason.RATE_LIMITED),
        ({}, b'{"Message":"User is not authorized"}', Reason.UPSTREAM_AUTHENTICATION),
        ({}, b"<html>Bad gateway</html>", Reason.UPSTREAM_AUTHENTICATION),
        ({}, b"", Reason.UPSTREAM_AUTHENTICATION),
        ({}, b"[]", Reason.UPSTREAM_AUTHENTICATION),
    ],
)
def test_error_bodies(headers: dict[str, str], sent: bytes, reason: Reason) -> None:
    assert TRANSLATOR.error(403, headers, sent).reason is reason


def test_retry_after() -> None:
    headers = {"x-amzn-errortype": "ThrottlingException", "retry-after": "7"}
    assert TRANSLATOR.error(429, headers, b"{}").retry_after == 7


@pytest.mark.parametrize(
    ("whole", "reason"),
    [
        (b'{"Output":{"__type":"com.amazon.coral#UnknownOperationException"}}', Reason.UPSTREAM_ERROR),
        (b'{"__type":"ValidationException","message":"Bad."}', Reason.INVALID_REQUEST),
        (b'{"message":"The security token included in the request is invalid."}', Reason.UPSTREAM_ERROR),
    ],
)
def test_an_error_in_a_200(whole: bytes, reason: Reason) -> None:
    with pytest.raises(ProviderError) as error:
        TRANSLATOR.completion(whole, ask())
    assert error.value.reason is reason


HELLO = event("messageStart", {"role": "assistant"}) + event(
    "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}
)


@pytest.mark.parametrize("before", [b"", HELLO], ids=["at once", "after content"])
@pytest.mark.parametrize(
    ("type_", "payload", "reason", "status"),
    [
        ("throttlingException", {"message": TOO_MANY}, Reason.RATE_LIMITED, 429),
        (
            "validationException",
            {"message": TOO_LONG},
            Reason.CONTEXT_LENGTH_EXCEEDED,
            400,
        ),
        ("internalServerException", {"message": "x"}, Reason.UPSTREAM_ERROR, 500),
        ("serviceUnavailableException", {"message": "x"}, Reason.OVERLOADED, 503),
        (
            "modelStreamErrorException",
            {"originalMessage": "x", "originalStatusCode": 500},
            Reason.UPSTREAM_ERROR,
            424,
        ),
        ("modelTimeoutException", {}, Reason.TIMEOUT, 408),
        ("neverHeardOfException", {"message": "x"}, Reason.UPSTREAM_ERROR, 500),
    ],
)
def test_exception_frames(before: bytes, type_: str, payload: Any, reason: Reason, status: int) -> None:
    data = before + exception(type_, payload)
    for pieces in ([data], [data[i : i + 3] for i in range(0, len(data), 3)]):
        with pytest.raises(ProviderError) as error:
            stream(pieces)
        assert (error.value.reason, error.value.http_status) == (reason, status)
        assert error.value.raw == payload.get("message", payload.get("originalMessage", ""))


def test_every_exception_of_the_service_is_known(model: ServiceModel) -> None:
    """An exception without a row would get a guessed status."""
    members: Any = getattr(model.shape_for("ConverseStreamOutput"), "members")  # noqa: B009
    for name, shape in members.items():
        if shape.metadata.get("exception"):
            with pytest.raises(ProviderError) as error:
                stream([exception(name, {"message": "x"})])
            assert error.value.http_status == shape.metadata["error"]["httpStatusCode"]


def test_error_frames() -> None:
    headers = {":message-type": "error", ":error-code": "InternalServerException", ":error-message": "x"}
    with pytest.raises(ProviderError) as error:
        stream([HELLO + frame(headers, b"")])
    assert (error.value.reason, error.value.http_status, error.value.raw) == (Reason.UPSTREAM_ERROR, 500, "x")


@pytest.mark.parametrize("turn", TURNS, ids=about)
def test_a_truncated_stream_is_an_error(turn: dict[str, Any]) -> None:
    frames = [event(type_, payload) for type_, payload in turn["events"]]
    stop = [type_ for type_, _ in turn["events"]].index("messageStop")
    for count in range(stop + 1):
        before = b"".join(frames[:count])
        for end in (b"", frames[count][:11], frames[count][:-1]):
            with pytest.raises(StreamTruncated):
                stream([before + end], request_for(turn))
    # After messageStop the answer is whole, if without usage.
    chunks, _ = stream([b"".join(frames[: stop + 1]) + frames[-1][:20]], request_for(turn))
    assert not chunks[-1].HasField("usage")


def test_an_empty_stream_is_truncated() -> None:
    with pytest.raises(StreamTruncated):
        stream([b""])


@pytest.mark.parametrize("position", [0, 5, 9, 40, -20, -1])
def test_a_broken_checksum_is_an_error(position: int) -> None:
    broken = bytearray(HELLO)
    broken[position] ^= 1
    with pytest.raises(ProviderError) as error:
        stream([bytes(broken), event("messageStop", {"stopReason": "end_turn"})])
    assert error.value.reason is Reason.UPSTREAM_INVALID_RESPONSE
    assert "corrupt event stream" in error.value.raw


@pytest.mark.parametrize(
    "after",
    [exception("internalServerException", {}), b"\0" * 16, event("metadata", {"usage": 7})],
    ids=["exception", "corrupt", "unreadable"],
)
def test_errors_after_the_end_are_ignored(after: bytes) -> None:
    data = HELLO + event("messageStop", {"stopReason": "end_turn"})
    assert stream([data, after]) == stream([data + after]) == stream([data])


def test_missing_ids_are_generated() -> None:
    use = {"toolUseId": "", "name": "f"}
    whole = {"output": {"message": {"content": [{"toolUse": use}, {"toolUse": use}]}}, "stopReason": "tool_use"}
    completion, _ = TRANSLATOR.completion(json.dumps(whole).encode(), ask())
    starts = [event("contentBlockStart", {"contentBlockIndex": i, "start": {"toolUse": use}}) for i in (0, 1)]
    chunks, _ = stream([*starts, event("messageStop", {"stopReason": "tool_use"})])
    assert [call.id for call in completion.choices[0].message.tool_calls] == ["call_0", "call_1"]
    assert fold_messages(chunks) == completion


def test_an_event_that_cannot_be_read() -> None:
    with pytest.raises(ProviderError) as error:
        stream([event("contentBlockDelta", {"contentBlockIndex": 0})])
    assert error.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_a_stream_without_message_start() -> None:
    text = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x"}})
    chunks, _ = stream([text + event("messageStop", {"stopReason": "end_turn"})])
    assert [chunk.choices[0].delta.role for chunk in chunks] == [pb.ROLE_ASSISTANT, pb.ROLE_UNSPECIFIED]
