"""Requests as JSON: every field of the contract, valid and invalid, and round trips."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import dump, dump_options, encode_text, parse
from server.chat.openai_json.fields import INT32_MAX, INT64_MAX
from server.errors import InvalidRequest, Reason
from tests.chat.strategies import PATIENT, REQUESTS

HELLO = {"role": "user", "content": "Hello"}
TURN = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])
PNG = "data:image/png;base64,iVBORw0KGgo="


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [HELLO], **fields}).encode()


def read(**fields: Any) -> pb.ChatCompletionRequest:
    return parse(body(**fields)).request


def refused(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(data)
    assert caught.value.reason is Reason.INVALID_REQUEST
    return caught.value


def turns(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def part(value: Any) -> dict[str, Any]:
    return turns({"role": "user", "content": [value]})


def messages(*messages: pb.Message) -> dict[str, Any]:
    return {"messages": list(messages)}


def message_part(value: pb.ContentPart) -> dict[str, Any]:
    return messages(pb.Message(role=pb.ROLE_USER, content=[value]))


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


SCHEMA = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {"maximum": 2**62 + 1}},
    "required": ["z"],
}
ROLES = [pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER, pb.ROLE_USER]

#: The tested field, the JSON, and the protobuf fields. `dump` returns the same JSON.
VALID: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("model", {"model": "openai/gpt-5"}, {"model": "openai/gpt-5"}),
    (
        "messages",
        turns(*({"role": role, "content": "Hi"} for role in ("system", "developer", "user"))),
        messages(*(pb.Message(role=role, content=[pb.ContentPart(text="Hi")]) for role in ROLES)),
    ),
    (
        "name",
        turns({"role": "user", "name": "Ada", "content": ""}),
        messages(pb.Message(role=pb.ROLE_USER, name="Ada", content=[pb.ContentPart(text="")])),
    ),
    (
        "refusal",
        turns({"role": "assistant", "content": None, "refusal": "No."}),
        messages(pb.Message(role=pb.ROLE_ASSISTANT, refusal="No.")),
    ),
    (
        "tool_calls",
        turns(
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1'}},
                    {"id": "2", "type": "custom", "custom": {"name": "c", "input": "in"}},
                    {"id": "3", "type": "function", "function": {"name": "g", "arguments": ""}, "signed": "s"},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "a"}] * 2},
        ),
        messages(
            pb.Message(
                role=pb.ROLE_ASSISTANT,
                content=[pb.ContentPart(text="Let me see.")],
                tool_calls=[
                    pb.ToolCall(id="1", function=pb.FunctionCall(name="f", arguments='{"x": 1')),
                    pb.ToolCall(id="2", custom=pb.CustomToolCall(name="c", input="in")),
                    pb.ToolCall(id="3", function=pb.FunctionCall(name="g"), extra_json='{"signed":"s"}'),
                ],
            ),
            pb.Message(role=pb.ROLE_TOOL, tool_call_id="1", content=[pb.ContentPart(text="one")]),
            pb.Message(role=pb.ROLE_TOOL, tool_call_id="2", content=[pb.ContentPart(text="a")] * 2),
        ),
    ),
    (
        "reasoning",
        turns(
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "anthropic"},
                    {"type": "reasoning.encrypted", "data": "opaque"},
                    {"type": "reasoning.summary", "summary": "In short", "index": 0},
                ],
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {"url": "https://a", "title": "A", "start_index": 1, "end_index": 2},
                    },
                    {"type": "file_citation", "file_id": "f"},
                ],
            }
        ),
        messages(
            pb.Message(
                role=pb.ROLE_ASSISTANT,
                reasoning_content="Hm.",
                reasoning_details=[
                    pb.ReasoningDetail(text="Hm.", signature="sig", format="anthropic"),
                    pb.ReasoningDetail(redacted="opaque"),
                    pb.ReasoningDetail(
                        other_json='{"type":"reasoning.summary","summary":"In short","index":0}',
                    ),
                ],
                annotations=[
                    pb.Annotation(
                        url_citation=pb.UrlCitation(url="https://a", title="A", start_index=1, end_index=2)
                    ),
                    pb.Annotation(other_json='{"type":"file_citation","file_id":"f"}'),
                ],
            )
        ),
    ),
    (
        "audio reference",
        turns({"role": "assistant", "content": None, "audio": {"id": "audio_1"}}),
        messages(pb.Message(role=pb.ROLE_ASSISTANT, audio=pb.Audio(id="audio_1"))),
    ),
    (
        "text",
        part({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}),
        message_part(pb.ContentPart(text="a", extra_json='{"cache_control":{"type":"ephemeral"}}')),
    ),
    (
        "image_url",
        part({"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}),
        message_part(pb.ContentPart(image_url=pb.ImageUrl(url="https://x/y.png", detail=pb.IMAGE_DETAIL_LOW))),
    ),
    (
        "image_url data",
        part({"type": "image_url", "image_url": {"url": PNG}}),
        message_part(pb.ContentPart(image_url=pb.ImageUrl(url=PNG))),
    ),
    (
        "input_audio",
        part({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
        message_part(pb.ContentPart(input_audio=pb.InputAudio(data="UklGRg==", format="wav"))),
    ),
    (
        "file",
        part({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}}),
        message_part(pb.ContentPart(file=pb.File(file_data="data:application/pdf;base64,JVBE", filename="a.pdf"))),
    ),
    (
        "file_id",
        part({"type": "file", "file": {"file_id": "file-1"}}),
        message_part(pb.ContentPart(file=pb.File(file_id="file-1"))),
    ),
    (
        "refusal part",
        turns({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}),
        messages(pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.ContentPart(refusal="No.")])),
    ),
    (
        "other part",
        part({"type": "video_url", "video_url": {"url": "https://x"}}),
        message_part(pb.ContentPart(other_json='{"type":"video_url","video_url":{"url":"https://x"}}')),
    ),
    ("temperature", {"temperature": 0.7}, {"temperature": 0.7}),
    ("temperature 2", {"temperature": 2}, {"temperature": 2.0}),
    ("top_p", {"top_p": 0}, {"top_p": 0.0}),
    ("max_tokens", {"max_tokens": 1}, {"max_tokens": 1}),
    ("max_tokens float", {"max_tokens": 100.0}, {"max_tokens": 100}),
    ("max_completion_tokens", {"max_completion_tokens": INT32_MAX}, {"max_completion_tokens": INT32_MAX}),
    ("stop", {"stop": ["a", "b", "c", "d"]}, {"stop": ["a", "b", "c", "d"]}),
    ("presence_penalty", {"presence_penalty": -2}, {"presence_penalty": -2.0}),
    ("frequency_penalty", {"frequency_penalty": 1.5}, {"frequency_penalty": 1.5}),
    ("logit_bias", {"logit_bias": {"50256": -100, "1": 0.5}}, {"logit_bias": {"50256": -100, "1": 0.5}}),
    ("logprobs", {"logprobs": False}, {"logprobs": False}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 20}),
    ("n", {"n": 128}, {"n": 128}),
    ("seed", {"seed": INT64_MAX}, {"seed": INT64_MAX}),
    ("seed negative", {"seed": -1}, {"seed": -1}),
    ("user", {"user": "u-1"}, {"user": "u-1"}),
    (
        "response_format",
        {"response_format": {"type": "text"}},
        {"response_format": pb.ResponseFormat(text=pb.TextFormat())},
    ),
    (
        "json_object",
        {"response_format": {"type": "json_object"}},
        {"response_format": pb.ResponseFormat(json_object=pb.JsonObjectFormat())},
    ),
    (
        "json_schema",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "description": "d", "schema": SCHEMA, "strict": True},
            }
        },
        {
            "response_format": pb.ResponseFormat(
                json_schema=pb.JsonSchemaFormat(
                    name="s", description="d", schema_json=encode_text(SCHEMA), strict=True
                )
            )
        },
    ),
    (
        "tools",
        {"tools": [function(description="d", parameters=SCHEMA, strict=False), function()]},
        {
            "tools": [
                pb.Tool(
                    function=pb.FunctionDefinition(
                        name="f", description="d", parameters_json=encode_text(SCHEMA), strict=False
                    )
                ),
                pb.Tool(function=pb.FunctionDefinition(name="f")),
            ]
        },
    ),
    (
        "other tool",
        {"tools": [{"type": "web_search", "x": 1}, {"type": "custom", "custom": {"name": "c"}}]},
        {
            "tools": [
                pb.Tool(other_json='{"type":"web_search","x":1}'),
                pb.Tool(other_json='{"type":"custom","custom":{"name":"c"}}'),
            ]
        },
    ),
    (
        "tool_choice",
        {"tool_choice": "required"},
        {"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)},
    ),
    ("tool_choice none", {"tool_choice": "none"}, {"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)}),
    ("tool_choice f", {"tool_choice": function()}, {"tool_choice": pb.ToolChoice(function_name="f")}),
    (
        "tool_choice other",
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
        {"tool_choice": pb.ToolChoice(other_json='{"type":"allowed_tools","allowed_tools":{"mode":"auto"}}')},
    ),
    ("parallel_tool_calls", {"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ("reasoning_effort", {"reasoning_effort": "minimal"}, {"reasoning_effort": pb.REASONING_EFFORT_MINIMAL}),
    ("reasoning_effort xhigh", {"reasoning_effort": "xhigh"}, {"reasoning_effort": pb.REASONING_EFFORT_XHIGH}),
    ("metadata", {"metadata": {"a": "b", "": ""}}, {"metadata": {"a": "b", "": ""}}),
    ("store", {"store": True}, {"store": True}),
    ("service_tier", {"service_tier": "flex"}, {"service_tier": "flex"}),
    ("modalities", {"modalities": ["text", "audio"]}, {"modalities": ["text", "audio"]}),
    (
        "audio",
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"audio": pb.AudioOutput(voice="alloy", format="wav")},
    ),
    (
        "audio custom",
        {"audio": {"voice": {"id": "v"}, "format": "mp3"}},
        {"audio": pb.AudioOutput(voice='{"id":"v"}', format="mp3")},
    ),
    (
        "prediction",
        {"prediction": {"type": "content", "content": "as it was"}},
        {"prediction": pb.Prediction(content=[pb.ContentPart(text="as it was")])},
    ),
    ("verbosity", {"verbosity": "low"}, {"verbosity": pb.VERBOSITY_LOW}),
    (
        "web_search_options",
        {"web_search_options": {"search_context_size": "low", "user_location": {"type": "approximate"}}},
        {
            "web_search_options": pb.WebSearchOptions(
                search_context_size="low", user_location_json='{"type":"approximate"}'
            )
        },
    ),
    ("web_search_options {}", {"web_search_options": {}}, {"web_search_options": pb.WebSearchOptions()}),
    (
        "stream_options",
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream_options": pb.StreamOptions(include_usage=True, extra_json='{"include_obfuscation":false}')},
    ),
    (
        "unknown fields",
        {"top_k": 40, "thinking": {"type": "enabled"}, "nothing": None},
        {"extra_body_json": '{"top_k":40,"thinking":{"type":"enabled"},"nothing":null}'},
    ),
    (
        "unknown fields inside",
        turns({"role": "user", "content": "Hi", "prefix": True}),
        messages(pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hi")], extra_json='{"prefix":true}')),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), [row[1:] for row in VALID], ids=[row[0] for row in VALID])
def test_valid_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = {"model": "m", "messages": [HELLO], **fields}
    request = parse(json.dumps(sent).encode()).request
    assert request == pb.ChatCompletionRequest(**{"model": "m", "messages": [TURN], **expected})
    assert dump(request) == sent


#: Equivalent spellings, and the one that `dump` writes.
SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("null is absent", dict.fromkeys(("temperature", "stop", "tools", "response_format", "user", "lmchat")), {}),
    ("one stop", {"stop": "END"}, {"stop": ["END"]}),
    (
        "a lone text part",
        turns({"role": "system", "content": [{"type": "text", "text": "Hi"}]}),
        turns({"role": "system", "content": "Hi"}),
    ),
    ("no content", turns({"role": "assistant"}), turns({"role": "assistant", "content": None})),
    ("empty content", turns({"role": "assistant", "content": []}), turns({"role": "assistant", "content": None})),
    (
        "an image as a string",
        part({"type": "image_url", "image_url": PNG}),
        part({"type": "image_url", "image_url": {"url": PNG}}),
    ),
    ("a tool without type", {"tools": [{"function": {"name": "f"}}]}, {"tools": [function()]}),
    (
        "prediction without type",
        {"prediction": {"content": "x"}},
        {"prediction": {"type": "content", "content": "x"}},
    ),
    ("a stream", {"stream": True, "stream_options": {}}, {"stream_options": {}}),
]


@pytest.mark.parametrize(("fields", "expected"), [row[1:] for row in SPELLINGS], ids=[row[0] for row in SPELLINGS])
def test_spellings(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert dump(read(**fields)) == {"model": "m", "messages": [HELLO], **expected}


@pytest.mark.parametrize(
    ("data", "stream"),
    [(body(), False), (body(stream=None), False), (body(stream=False), False), (body(stream=True), True)],
)
def test_stream(data: bytes, stream: bool) -> None:
    assert parse(data).stream is stream


def test_a_leading_bom_is_skipped() -> None:
    assert parse(b"\xef\xbb\xbf" + body()).request == read()


def test_keys_of_schemas_keep_their_order() -> None:
    schema = {"z": 1, "a": {"y": 2**63, "b": 1.0}, "m": []}
    request = read(tools=[function(parameters=schema)])
    assert request.tools[0].function.parameters_json == '{"z":1,"a":{"y":9223372036854775808,"b":1.0},"m":[]}'


def test_lmchat() -> None:
    options = {
        "routing": {
            "prefer": ["vertex", "direct"],
            "only": ["a"],
            "ignore": ["b"],
            "allow_fallbacks": False,
            "max_provider_tries": 2,
            "sort": "latency",
            "require_parameters": True,
            "models": ["second/choice"],
            "resume_streams": True,
        },
        "debug": ["routing"],
    }
    request = read(lmchat=options)
    assert request.lmchat == pb.RequestOptions(
        routing=pb.Routing(
            prefer=["vertex", "direct"],
            only=["a"],
            ignore=["b"],
            allow_fallbacks=False,
            max_provider_tries=2,
            sort=pb.ROUTING_SORT_LATENCY,
            require_parameters=True,
            models=["second/choice"],
            resume_streams=True,
        ),
        debug=["routing"],
    )
    assert dump_options(request.lmchat) == options
    assert "lmchat" not in dump(request)


NUMBER = "Expected a number, got "
TEXT = "Expected a string, got "
BOOLEAN = "Expected a boolean, got "
ARRAY = "Expected an array, got "
OBJECT = "Expected an object, got "
INTEGER = "Expected an integer, got "
REQUIRED = "Required"

ASSISTANT = {"role": "assistant", "content": None}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def called(**call: Any) -> dict[str, Any]:
    return turns(HELLO, ASSISTANT | {"tool_calls": [CALL, CALL | call]})


#: The JSON, the `param` of the error, and a piece of its message.
INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"model": 5}, "model", TEXT + "a number"),
    ({"model": ""}, "model", "Must not be empty."),
    ({"messages": "Hi"}, "messages", ARRAY + "a string"),
    ({"messages": []}, "messages", "Must not be empty."),
    ({"messages": [HELLO, "Hi"]}, "messages[1]", OBJECT + "a string"),
    (turns({"content": "Hi"}), "messages[0].role", REQUIRED),
    (turns({"role": "robot", "content": "Hi"}), "messages[0].role", "Must be one of system, developer, user"),
    (turns({"role": 1, "content": "Hi"}), "messages[0].role", TEXT + "a number"),
    (turns({"role": "user"}), "messages[0].content", REQUIRED),
    (turns({"role": "user", "content": None}), "messages[0].content", REQUIRED),
    (turns({"role": "user", "content": []}), "messages[0].content", REQUIRED),
    (turns({"role": "system", "content": []}), "messages[0].content", REQUIRED),
    (
        turns({"role": "user", "content": 5}),
        "messages[0].content",
        "Expected a string or an array of content parts",
    ),
    (turns({"role": "user", "content": {}}), "messages[0].content", "got an object"),
    (turns({"role": "user", "content": ["Hi"]}), "messages[0].content[0]", OBJECT + "a string"),
    (turns(HELLO | {"name": 1}), "messages[0].name", TEXT + "a number"),
    (turns(ASSISTANT | {"refusal": False}), "messages[0].refusal", TEXT + "a boolean"),
    (turns(HELLO, {"role": "tool", "content": "1"}), "messages[1].tool_call_id", "Required on a tool message."),
    (turns({"role": "tool", "content": "1", "tool_call_id": 1}), "messages[0].tool_call_id", TEXT + "a number"),
    (turns({"role": "tool", "tool_call_id": "1"}), "messages[0].content", REQUIRED),
    (turns(ASSISTANT | {"tool_calls": {}}), "messages[0].tool_calls", ARRAY + "an object"),
    (called(id=None), "messages[1].tool_calls[1].id", REQUIRED),
    (called(id=7), "messages[1].tool_calls[1].id", TEXT + "a number"),
    (called(function=None), "messages[1].tool_calls[1].function", REQUIRED),
    (called(function="f"), "messages[1].tool_calls[1].function", OBJECT + "a string"),
    (called(function={"name": 1}), "messages[1].tool_calls[1].function.name", TEXT + "a number"),
    (called(function={"arguments": {}}), "messages[1].tool_calls[1].function.arguments", TEXT + "an object"),
    (called(function=None, custom={"input": 1}), "messages[1].tool_calls[1].custom.input", TEXT + "a number"),
    (turns(ASSISTANT | {"reasoning_content": []}), "messages[0].reasoning_content", TEXT + "an array"),
    (turns(ASSISTANT | {"reasoning_details": ["x"]}), "messages[0].reasoning_details[0]", OBJECT + "a string"),
    (turns(ASSISTANT | {"annotations": [1]}), "messages[0].annotations[0]", OBJECT + "a number"),
    (turns(ASSISTANT | {"audio": "audio_1"}), "messages[0].audio", OBJECT + "a string"),
    (turns(ASSISTANT | {"audio": {"id": 1}}), "messages[0].audio.id", TEXT + "a number"),
    (part({}), "messages[0].content[0].type", REQUIRED),
    (part({"type": 1}), "messages[0].content[0].type", TEXT + "a number"),
    (part({"type": "text"}), "messages[0].content[0].text", REQUIRED),
    (part({"type": "text", "text": 5}), "messages[0].content[0].text", TEXT + "a number"),
    (part({"type": "image_url"}), "messages[0].content[0].image_url", REQUIRED),
    (part({"type": "image_url", "image_url": 5}), "messages[0].content[0].image_url", OBJECT + "a number"),
    (part({"type": "image_url", "image_url": {}}), "messages[0].content[0].image_url.url", REQUIRED),
    (
        part({"type": "image_url", "image_url": {"url": 5}}),
        "messages[0].content[0].image_url.url",
        TEXT + "a number",
    ),
    (part({"type": "image_url", "image_url": {"url": ""}}), "messages[0].content[0].image_url.url", "empty"),
    (
        part({"type": "image_url", "image_url": {"url": PNG, "detail": "max"}}),
        "messages[0].content[0].image_url.detail",
        "Must be one of auto, low, high, original; got 'max'.",
    ),
    (part({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].input_audio.data", REQUIRED),
    (
        part({"type": "input_audio", "input_audio": {"data": "UklGRg=="}}),
        "messages[0].content[0].input_audio.format",
        REQUIRED,
    ),
    (part({"type": "file"}), "messages[0].content[0].file", REQUIRED),
    (part({"type": "file", "file": {"file_id": 5}}), "messages[0].content[0].file.file_id", TEXT + "a number"),
    (part({"type": "refusal"}), "messages[0].content[0].refusal", REQUIRED),
    ({"temperature": "hot"}, "temperature", NUMBER + "a string"),
    ({"temperature": True}, "temperature", NUMBER + "a boolean"),
    ({"temperature": 2.1}, "temperature", "Must be between 0 and 2, got 2.1."),
    ({"temperature": -0.1}, "temperature", "Must be between 0 and 2, got -0.1."),
    ({"temperature": 10**400}, "temperature", "Must be between 0 and 2, got far too many digits."),
    ({"top_p": 1.01}, "top_p", "Must be between 0 and 1"),
    ({"max_tokens": 0}, "max_tokens", "Must be at least 1, got 0."),
    ({"max_tokens": 1.5}, "max_tokens", INTEGER + "a number"),
    ({"max_tokens": "5"}, "max_tokens", INTEGER + "a string"),
    ({"max_tokens": INT32_MAX + 1}, "max_tokens", f"Must be at most {INT32_MAX}"),
    ({"max_completion_tokens": -1}, "max_completion_tokens", "Must be at least 1"),
    ({"max_completion_tokens": True}, "max_completion_tokens", INTEGER + "a boolean"),
    ({"stop": 5}, "stop", "Expected a string or an array of strings, got a number."),
    ({"stop": ["a", 5]}, "stop[1]", TEXT + "a number"),
    ({"stop": ["x"] * 65}, "stop", "At most 64 sequences, got 65."),
    ({"presence_penalty": 2.5}, "presence_penalty", "Must be between -2 and 2"),
    ({"frequency_penalty": []}, "frequency_penalty", NUMBER + "an array"),
    ({"logit_bias": []}, "logit_bias", OBJECT + "an array"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5", "Must be between -100 and 100"),
    ({"logit_bias": {"5": "1"}}, "logit_bias.5", NUMBER + "a string"),
    ({"logprobs": 1}, "logprobs", BOOLEAN + "a number"),
    ({"top_logprobs": 21}, "top_logprobs", "Must be at most 20"),
    ({"top_logprobs": -1}, "top_logprobs", "Must be at least 0"),
    ({"n": 0}, "n", "Must be at least 1"),
    ({"n": 129}, "n", "Must be at most 128, got 129."),
    ({"seed": 0.5}, "seed", INTEGER + "a number"),
    ({"seed": 1e300}, "seed", "Must be at most 9223372036854775807, got far too many digits."),
    ({"seed": 2**63}, "seed", "got 9223372036854775808."),
    ({"stream": "yes"}, "stream", BOOLEAN + "a string"),
    ({"stream": 1}, "stream", BOOLEAN + "a number"),
    ({"stream_options": True}, "stream_options", OBJECT + "a boolean"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", BOOLEAN + "a string"),
    ({"user": 5}, "user", TEXT + "a number"),
    ({"response_format": "json"}, "response_format", OBJECT + "a string"),
    ({"response_format": {}}, "response_format.type", TEXT + "null"),
    ({"response_format": {"type": ""}}, "response_format.type", ""),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", REQUIRED),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "{}"}}},
        "response_format.json_schema.schema",
        OBJECT + "a string",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"strict": 1}}},
        "response_format.json_schema.strict",
        BOOLEAN + "a number",
    ),
    (
        {"response_format": {"type": "json_schema", "schema": {}}},
        "response_format.json_schema",
        REQUIRED,
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}, "jsonschema": {}}},
        "response_format.jsonschema",
        "Unknown field 'jsonschema'. Did you mean 'json_schema'?",
    ),
    ({"tools": {}}, "tools", ARRAY + "an object"),
    ({"tools": [function(), 5]}, "tools[1]", OBJECT + "a number"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", REQUIRED),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", REQUIRED),
    ({"tools": [function(name="")]}, "tools[0].function.name", "Must not be empty."),
    ({"tools": [function(parameters="{}")]}, "tools[0].function.parameters", OBJECT + "a string"),
    ({"tools": [function(strict="yes")]}, "tools[0].function.strict", BOOLEAN + "a string"),
    ({"tools": [function(description=1)]}, "tools[0].function.description", TEXT + "a number"),
    ({"tool_choice": "any"}, "tool_choice", "Must be one of none, auto, required; got 'any'."),
    ({"tool_choice": 1}, "tool_choice", "Expected a string or an object, got a number."),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function.name", REQUIRED),
    ({"tool_choice": {"type": "function", "function": {"name": 1}}}, "tool_choice.function.name", REQUIRED),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls", BOOLEAN + "a string"),
    ({"reasoning_effort": "x" * 65}, "reasoning_effort", "Must be one of none, minimal, low, medium"),
    ({"top_logprobs": 2}, "top_logprobs", "Needs `logprobs` to be true."),
    ({"top_logprobs": 2, "logprobs": False}, "top_logprobs", "Needs `logprobs` to be true."),
    ({"reasoning_effort": 3}, "reasoning_effort", TEXT + "a number"),
    ({"metadata": []}, "metadata", OBJECT + "an array"),
    ({"metadata": {"a": 1}}, "metadata.a", TEXT + "a number"),
    ({"store": 1}, "store", BOOLEAN + "a number"),
    ({"service_tier": True}, "service_tier", TEXT + "a boolean"),
    ({"modalities": "audio"}, "modalities", ARRAY + "a string"),
    ({"modalities": ["text", None]}, "modalities[1]", TEXT + "null"),
    ({"audio": "alloy"}, "audio", OBJECT + "a string"),
    ({"audio": {"voice": 5}}, "audio.voice", "Expected a string or an object, got a number."),
    ({"audio": {"format": 5}}, "audio.format", TEXT + "a number"),
    ({"prediction": "x"}, "prediction", OBJECT + "a string"),
    ({"prediction": {"content": 5}}, "prediction.content", "Expected a string or an array of content parts"),
    ({"prediction": {"content": [{"type": "text"}]}}, "prediction.content[0].text", REQUIRED),
    ({"verbosity": ""}, "verbosity", "Must be one of low, medium, high; got ''."),
    ({"web_search_options": True}, "web_search_options", OBJECT + "a boolean"),
    ({"web_search_options": {"user_location": "here"}}, "web_search_options.user_location", OBJECT + "a string"),
    (
        {"web_search_options": {"search_context_size": 1}},
        "web_search_options.search_context_size",
        TEXT + "a number",
    ),
    ({"functions": {}}, "functions", ARRAY + "an object"),
    ({"functions": [{"name": "f"}, {}]}, "functions[1].name", REQUIRED),
    ({"functions": [{"name": "f", "parameters": 1}]}, "functions[0].parameters", OBJECT + "a number"),
    ({"function_call": "any"}, "function_call", "Must be one of none, auto"),
    ({"function_call": 1}, "function_call", "Expected a string or an object, got a number."),
    ({"function_call": {}}, "function_call.name", REQUIRED),
    ({"function_call": {"name": ""}}, "function_call.name", REQUIRED),
    (turns(ASSISTANT | {"function_call": {}}), "messages[0].function_call.name", REQUIRED),
    (
        turns(ASSISTANT | {"function_call": {"name": "f", "arguments": {}}}),
        "messages[0].function_call.arguments",
        TEXT,
    ),
    (turns({"role": "function", "name": "f", "content": None}), "messages[0].content", REQUIRED),
    ({"lmchat": []}, "lmchat", OBJECT + "an array"),
    ({"lmchat": {"rooting": {}}}, "lmchat.rooting", "Unknown field 'rooting'. Did you mean 'routing'?"),
    ({"lmchat": {"x": {}}}, "lmchat.x", "Unknown field 'x'. Known: debug, routing."),
    ({"lmchat": {"debug": "routing"}}, "lmchat.debug", ARRAY + "a string"),
    ({"lmchat": {"routing": {"prefers": []}}}, "lmchat.routing.prefers", "Did you mean 'prefer'?"),
    ({"lmchat": {"routing": {"prefer": "azure"}}}, "lmchat.routing.prefer", ARRAY + "a string"),
    ({"lmchat": {"routing": {"only": [1]}}}, "lmchat.routing.only[0]", TEXT + "a number"),
    ({"lmchat": {"routing": {"ignore": {}}}}, "lmchat.routing.ignore", ARRAY + "an object"),
    ({"lmchat": {"routing": {"models": [None]}}}, "lmchat.routing.models[0]", TEXT + "null"),
    ({"lmchat": {"routing": {"allow_fallbacks": "no"}}}, "lmchat.routing.allow_fallbacks", BOOLEAN + "a string"),
    (
        {"lmchat": {"routing": {"max_provider_tries": 0}}},
        "lmchat.routing.max_provider_tries",
        "Must be at least 1",
    ),
    (
        {"lmchat": {"routing": {"sort": "speed"}}},
        "lmchat.routing.sort",
        "Must be one of price, latency, throughput",
    ),
    ({"lmchat": {"routing": {"require_parameters": 1}}}, "lmchat.routing.require_parameters", BOOLEAN),
    ({"lmchat": {"routing": {"resume_streams": 1}}}, "lmchat.routing.resume_streams", BOOLEAN),
]


@pytest.mark.parametrize(("fields", "param", "message"), INVALID, ids=[json.dumps(row[0])[:70] for row in INVALID])
def test_invalid_fields(fields: dict[str, Any], param: str, message: str) -> None:
    error = refused(body(**fields))
    assert error.param == param
    assert message in error.message
    assert len(error.message) < 200


#: The list of contract.md.
FIELDS = {
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream", "stream_options",
    "stop", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "n", "seed", "user",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "metadata", "store",
    "service_tier", "modalities", "audio", "prediction", "verbosity", "web_search_options", "functions",
    "function_call", "lmchat",
}  # fmt: skip
IN_MESSAGES = {
    "role", "content", "name", "refusal", "tool_calls", "tool_call_id", "text", "image_url", "input_audio", "file",
    "function_call",
}  # fmt: skip


def test_the_tables_are_complete() -> None:
    wrong = {row[1].split(".")[0].split("[")[0] for row in INVALID}
    assert wrong == FIELDS
    assert {name for row in VALID for name in row[1]} >= set(FIELDS) - {
        "stream",
        "functions",
        "function_call",
        "lmchat",
    }
    inner = {
        name for row in INVALID if row[1].startswith("messages[") for name in row[1].replace("[", ".").split(".")
    }
    assert inner >= IN_MESSAGES
    known = {field.name for field in pb.ChatCompletionRequest.DESCRIPTOR.fields} - {"extra_body_json"}
    assert known == FIELDS - {"stream", "functions", "function_call"}


@pytest.mark.parametrize(
    ("data", "param", "message"),
    [
        pytest.param(b"", None, "The body is empty", id="empty"),
        pytest.param(b"{", None, "The body is not valid JSON: ", id="cut"),
        pytest.param(b'{"model": NaN}', None, "The body is not valid JSON: ", id="NaN"),
        pytest.param(b'{"temperature": 1e400}', None, "The body is not valid JSON: ", id="infinite"),
        pytest.param(b'{"n": 1' + b"0" * 5000 + b"}", None, "The body is not valid JSON: ", id="5001 digits"),
        pytest.param(b'{"model": "\xff"}', None, "The body is not valid JSON: ", id="not UTF-8"),
        pytest.param(b'{"model": "\\ud800"', None, "The body is not valid JSON: ", id="half a surrogate, and cut"),
        pytest.param(b"[" * 100_000, None, "nested too deeply", id="deep and cut"),
        pytest.param(b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", None, "nested too deeply", id="deep"),
        pytest.param(b"null", None, "The body must be a JSON object, got null.", id="null"),
        pytest.param(b"[]", None, "The body must be a JSON object, got an array.", id="array"),
        pytest.param(b'"x"', None, "The body must be a JSON object, got a string.", id="string"),
        pytest.param(b"{}", "model", "Required.", id="no bytes"),
        pytest.param(b'{"messages": [{"role": "user", "content": "Hi"}]}', "model", "Required.", id="no model"),
        pytest.param(b'{"model": "m"}', "messages", "Required.", id="no messages"),
    ],
)
def test_bad_bodies(data: bytes, param: str | None, message: str) -> None:
    error = refused(data)
    assert error.param == param
    assert message in error.message


@pytest.mark.parametrize("depth", range(700, 1100, 8))
def test_any_nesting_is_read_or_refused(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    data = body(x=1).replace(b'"x": 1', b'"x": ' + nested)
    try:
        kept = parse(data).request.extra_body_json
    except InvalidRequest:
        assert "ested too deeply" in refused(data).message
    else:
        assert kept.encode() == b'{"x":' + nested + b"}"


# The deprecated functions


def test_functions_are_tools() -> None:
    parsed = parse(
        body(
            functions=[{"name": "f", "parameters": SCHEMA}],
            function_call={"name": "f"},
            messages=[
                HELLO,
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "1"},
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "[]"}},
                {"role": "function", "name": "f", "content": "2"},
            ],
        )
    )
    assert parsed.legacy_functions
    assert dump(parsed.request) == {
        "model": "m",
        "messages": [
            HELLO,
            ASSISTANT | {"tool_calls": [CALL | {"id": "call_1"}]},
            {"role": "tool", "name": "f", "tool_call_id": "call_1", "content": "1"},
            ASSISTANT | {"tool_calls": [CALL | {"id": "call_3", "function": {"name": "f", "arguments": "[]"}}]},
            {"role": "tool", "name": "f", "tool_call_id": "call_3", "content": "2"},
        ],
        "tools": [function(parameters=SCHEMA)],
        "tool_choice": function(),
    }


@pytest.mark.parametrize(
    ("fields", "legacy"),
    [
        ({"functions": [{"name": "f"}]}, True),
        ({"functions": []}, True),
        ({"functions": None}, False),
        ({"tools": [function()]}, False),
        ({"function_call": "auto"}, False),
    ],
)
def test_who_expects_function_calls(fields: dict[str, Any], legacy: bool) -> None:
    assert parse(body(**fields)).legacy_functions is legacy


def test_a_function_call_has_an_id_without_functions_too() -> None:
    request = read(**turns(HELLO, ASSISTANT | {"function_call": {"name": "f", "arguments": "{}"}}, HELLO))
    assert request.messages[1].tool_calls[0].id == "call_1"


def test_a_result_without_its_call_has_an_id() -> None:
    request = read(**turns({"role": "function", "name": "f", "content": "1"}))
    assert request.messages[0].tool_call_id == "call_f"


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_function_call_modes(mode: str) -> None:
    assert dump(read(functions=[{"name": "f"}], function_call=mode))["tool_choice"] == mode


# Typed requests that were not parsed from JSON


@pytest.mark.parametrize(
    ("request_", "field", "expected"),
    [
        (pb.ChatCompletionRequest(tool_choice=pb.ToolChoice()), "tool_choice", "auto"),
        (pb.ChatCompletionRequest(response_format=pb.ResponseFormat()), "response_format", {"type": "text"}),
        (
            pb.ChatCompletionRequest(response_format=pb.ResponseFormat(other_json='{"type":"grammar"}')),
            "response_format",
            {"type": "grammar"},
        ),
    ],
)
def test_dump_of_unset_fields(request_: pb.ChatCompletionRequest, field: str, expected: Any) -> None:
    assert dump(request_)[field] == expected


def test_known_fields_win_over_unknown_ones() -> None:
    request = read()
    request.extra_body_json = '{"model":"other","x":1}'
    request.messages[0].extra_json = '{"role":"system","y":2}'
    assert dump(request) == {"model": "m", "messages": [HELLO | {"y": 2}], "x": 1}


# Round trips


@given(REQUESTS)
@settings(PATIENT, max_examples=100)
def test_parse_of_dump_is_the_request(request: pb.ChatCompletionRequest) -> None:
    written = dump(request)
    if request.HasField("lmchat"):
        written["lmchat"] = dump_options(request.lmchat)
    parsed = parse(encode_text(written).encode())
    assert parsed.request == request
    assert not parsed.stream
    assert not parsed.legacy_functions


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_effort": "default"},
        {"verbosity": "loud"},
        {"response_format": {"type": "grammar", "grammar": "root ::= x"}},
        {"response_format": {"type": "regex", "regex": "x"}},
        {"response_format": {"type": "structural_tag", "structures": [], "triggers": ["<"]}},
        {"tool_choice": {"type": "function", "function": {"name": "f", "odd": 1}, "disable": True}},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "original"}}],
                }
            ]
        },
    ],
)
def test_vendors_enum_values_are_kept(fields: dict[str, Any]) -> None:
    dumped = dump(read(**fields))
    assert {name: dumped[name] for name in fields} == fields


def test_a_schema_beside_json_object_is_a_schema() -> None:
    schema = {"type": "object", "required": ["a"]}
    dumped = dump(read(response_format={"type": "json_object", "schema": schema}))
    assert dumped["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": schema},
    }


def test_a_choice_of_a_function_may_have_no_type() -> None:
    assert read(tool_choice={"function": {"name": "f"}}).tool_choice.function_name == "f"
