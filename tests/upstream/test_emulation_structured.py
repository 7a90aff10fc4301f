"""JSON mode by prompting, over a scripted provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from itertools import chain
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.errors import InvalidRequest, ProviderError, Reason
from server.upstream.joined import as_chunks
from tests.routing.routing_help import run
from tests.support.fold import fold_messages
from tests.upstream.emulation_help import (
    Provider,
    Response,
    completion,
    endpoint,
    read,
    request,
    texts,
    whole,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
JSON_OBJECT = {"type": "json_object"}
ENDPOINT = endpoint("json_object", "json_schema")
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}


def answering(*answers: str | dict[str, Any]) -> Provider:
    """A provider with these answers, one per call."""
    bodies = [completion(one) if isinstance(one, str) else one for one in answers]
    return Provider(lambda body, index: whole(bodies[index]))


def content(answer: pb.ChatCompletion) -> list[str]:
    return ["".join(part.text for part in choice.message.content) for choice in answer.choices]


def ask(provider: Provider, **fields: Any) -> pb.ChatCompletion:
    """The answer, the same whether streamed or not."""
    chat_request = request(**{"response_format": JSON_SCHEMA, **fields})
    completion: pb.ChatCompletion = run(provider.emulation.complete(ENDPOINT, chat_request, 100.0)).completion
    return completion


@pytest.mark.parametrize(
    ("form", "answers", "found"),
    [
        (JSON_SCHEMA, ['{"a": 1}'], '{"a": 1}'),
        (JSON_SCHEMA, ['Here it is:\n```json\n{"a": 1}\n```'], '{"a": 1}'),
        (JSON_SCHEMA, ['{"a": "1"}', '```\n{"a": 1}\n```'], '{"a": 1}'),
        (JSON_SCHEMA, ["", '{"a": 1}'], '{"a": 1}'),
        (JSON_OBJECT, ['{"b": 1.0, "a": 10000000000000000000000}'], '{"b": 1.0, "a": 10000000000000000000000}'),
        (JSON_OBJECT, ["[1]", 'Of course: {"a": 1}'], '{"a": 1}'),
        ({"type": "json_schema", "json_schema": {"name": "any"}}, ["3", "{}"], "{}"),
        (
            {"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "array"}}},
            ["The list: [1, 2]"],
            "[1, 2]",
        ),
        ({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "string"}}}, ['"x"'], '"x"'),
    ],
)
def test_answers_are_unwrapped_and_repaired_once(form: Any, answers: list[str], found: str) -> None:
    for streamed in (False, True):
        provider = answering(*answers)
        chat_request = request(response_format=form)
        if streamed:
            got = fold_messages(chain.from_iterable(run(read(provider.emulation.stream(ENDPOINT, chat_request)))))
        else:
            got = run(provider.emulation.complete(ENDPOINT, chat_request, 100.0)).completion
        assert content(got) == [found]
        assert got.choices[0].finish_reason == pb.FINISH_REASON_STOP
        rounds = len(answers)
        assert len(provider.calls) == rounds
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (10 * rounds, 5 * rounds)
        assert got.usage.total_tokens == 15 * rounds
        assert not any("response_format" in call or "stream" in call for call in provider.calls)
        provider.check_closed()


def test_instructions() -> None:
    provider = answering('{"a": "one"}', '{"a": 1}')
    ask(provider, tools=[{"type": "function", "function": {"name": "f"}}], n=1, temperature=0.5)
    first, second = provider.calls
    assert first["messages"][1:] == [{"role": "user", "content": "hello"}]
    system = first["messages"][0]
    assert system["role"] == "system"
    assert system["content"].startswith("Answer with exactly one JSON value that is valid against the JSON Schema")
    assert "You may call tools first" in system["content"]
    assert system["content"].endswith(f"JSON Schema answer:\n\n{json.dumps(SCHEMA, separators=(',', ':'))}")
    assert second["temperature"] == first["temperature"] == 0.5
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": '{"a": "one"}'}
    assert second["messages"][3]["role"] == "user"
    assert "- $.a: 'one' is not of type 'integer'\n" in second["messages"][3]["content"]


def test_instructions_for_json_object() -> None:
    provider = answering("{}")
    ask(provider, response_format=JSON_OBJECT)
    assert provider.calls[0]["messages"][0]["content"] == (
        "Answer with exactly one JSON object and nothing else: "
        "no text before or after it, no explanation, no Markdown code fence."
    )


def test_an_empty_answer_is_not_sent_back() -> None:
    provider = answering(" ", '{"a": 1}')
    ask(provider)
    assert [message["role"] for message in provider.calls[1]["messages"]] == ["system", "user", "user"]


@pytest.mark.parametrize(
    ("messages", "roles", "index"),
    [
        ([("user", "hello")], ["system", "user"], 0),
        ([("system", "be brief"), ("user", "hello")], ["system", "user"], 0),
        ([("system", "be brief"), ("developer", "no, long"), ("user", "hello")], ["system", "system", "user"], 1),
        ([("user", "hello"), ("system", "be brief")], ["system", "user", "system"], 0),
    ],
)
def test_the_instructions_join_the_callers(messages: list[tuple[str, str]], roles: list[str], index: int) -> None:
    provider = answering('{"a": 1}')
    ask(provider, messages=[{"role": role, "content": text} for role, text in messages])
    sent = provider.calls[0]["messages"]
    assert [message["role"] for message in sent] == roles
    assert ["Answer with exactly" in message["content"] for message in sent].index(True) == index
    for role, text in messages:
        assert any(message["content"].startswith(text) for message in sent), role


def test_cached_instructions_stay_as_they_are() -> None:
    part = {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}
    provider = answering('{"a": 1}')
    ask(provider, messages=[{"role": "system", "content": [part]}, {"role": "user", "content": "hello"}])
    first, second = provider.calls[0]["messages"][0]["content"]
    assert first == part
    assert second["text"].startswith("Answer with exactly")


def test_the_callers_request_is_not_touched() -> None:
    chat_request = request(response_format=JSON_SCHEMA)
    before = chat_request.SerializeToString(deterministic=True)
    run(answering("no", '{"a": 1}').emulation.complete(ENDPOINT, chat_request, 100.0))
    assert chat_request.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "answer",
    [
        completion(None, "tool_calls", tool_calls=[CALL]),
        completion("I shall look.", "tool_calls", tool_calls=[CALL]),
        completion(None, "stop", refusal="No."),
        completion("I cannot", "content_filter"),
        completion('{"a": [1, 2', "length"),
        completion('```json\n{"a":', "length"),
    ],
)
def test_incomplete_answers_are_passed_on_unchanged(answer: dict[str, Any]) -> None:
    provider = answering(answer)
    got = ask(provider)
    want = openai_json.parse_completion(answer)
    assert got.choices == want.choices
    streamed = fold_messages(
        chain.from_iterable(
            run(read(answering(answer).emulation.stream(ENDPOINT, request(response_format=JSON_SCHEMA))))
        )
    )
    assert streamed.choices == want.choices
    assert len(provider.calls) == 1


def test_valid_json_at_the_token_limit_is_unwrapped() -> None:
    got = ask(answering(completion('```json\n{"a": 1}\n```', "length")))
    assert content(got) == ['{"a": 1}']
    assert got.choices[0].finish_reason == pb.FINISH_REASON_LENGTH


def test_a_repair_that_is_cut_off_is_passed_on() -> None:
    got = ask(answering("no", completion('{"a": [', "length")))
    assert content(got) == ['{"a": [']
    assert got.choices[0].finish_reason == pb.FINISH_REASON_LENGTH


@pytest.mark.parametrize("streamed", [False, True])
def test_a_failed_repair_is_a_422(streamed: bool) -> None:
    provider = answering("no", '{"a": "still not"}')
    chat_request = request(response_format=JSON_SCHEMA)
    emulation = provider.emulation
    call: Coroutine[Any, Any, Any] = (
        read(emulation.stream(ENDPOINT, chat_request))
        if streamed
        else emulation.complete(ENDPOINT, chat_request, 100.0)
    )
    with pytest.raises(ProviderError) as raised:
        run(call)
    error = raised.value
    assert error.reason is Reason.STRUCTURED_OUTPUT_INVALID
    assert error.status.http == 422
    assert (error.http_status, error.fall_over, error.retry_here) == (200, False, False)
    assert error.param == "response_format"
    assert "$.a: 'still not' is not of type 'integer'" in error.message
    assert len(provider.calls) == 2
    provider.check_closed()


def test_native_choices_are_repaired_each() -> None:
    first = completion('{"a": 0}')
    for index, text in enumerate(["no", '{"a": 2}', "never"], 1):
        choice = {**first["choices"][0], "index": index, "message": {"role": "assistant", "content": text}}
        first["choices"].append(choice)

    def script(body: dict[str, Any], index: int) -> Response:
        if not index:
            return whole(first)
        answer = body["messages"][-2]["content"]
        return whole(completion('{"a": 1}' if answer == "no" else '{"a": 3}'), wait=1.0 if answer == "no" else 0.0)

    provider = Provider(script)
    got = ask(provider, n=4)
    assert [choice.index for choice in got.choices] == [0, 1, 2, 3]
    assert content(got) == ['{"a": 0}', '{"a": 1}', '{"a": 2}', '{"a": 3}']
    assert got.usage.total_tokens == 45
    assert [call.get("n") for call in provider.calls] == [4, None, None]


@pytest.mark.parametrize(
    ("form", "reason", "param"),
    [
        (
            {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "objekt"}}},
            Reason.INVALID_REQUEST,
            "response_format.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "s", "schema": {"pattern": "(?=a)"}}},
            Reason.UNSUPPORTED_FEATURE,
            "response_format.json_schema.schema",
        ),
    ],
)
def test_unsupported_formats_are_rejected_before_any_call(form: Any, reason: Reason, param: str) -> None:
    provider = answering("{}")
    with pytest.raises(InvalidRequest) as raised:
        ask(provider, response_format=form)
    assert (raised.value.reason, raised.value.param) == (reason, param)
    assert not provider.calls


def test_formats_of_another_kind_are_for_other_endpoints() -> None:
    chat_request = request()
    chat_request.response_format.other_json = '{"type":"grammar","grammar":"x"}'
    with pytest.raises(InvalidRequest) as raised:
        run(answering("{}").emulation.complete(ENDPOINT, chat_request, 100.0))
    assert (raised.value.reason, raised.value.param) == (Reason.UNSUPPORTED_FEATURE, "response_format.type")


@pytest.mark.parametrize(
    ("system", "theirs", "ours"),
    [
        (False, "messages[1].content", "messages[0].content"),
        (False, "messages[0]", "messages"),
        (False, "messages[7].content", "messages"),
        (False, "messages", "messages"),
        (False, "temperature", "temperature"),
        (True, "messages[1].content", "messages[1].content"),
    ],
)
def test_errors_point_into_the_callers_request(system: bool, theirs: str, ours: str) -> None:
    error = {"error": {"message": "bad", "type": "invalid_request_error", "param": theirs}}
    provider = Provider(lambda body, index: whole(error, status=400))
    messages = [{"role": "system", "content": "s"}] * system + [{"role": "user", "content": "hello"}]
    with pytest.raises(ProviderError) as raised:
        ask(provider, messages=messages)
    assert raised.value.param == ours


def test_a_failing_repair_is_its_own_error() -> None:
    provider = Provider(
        lambda body, index: whole(completion("no")) if not index else whole({"error": {}}, status=429)
    )
    with pytest.raises(ProviderError) as raised:
        ask(provider)
    assert raised.value.reason is Reason.RATE_LIMITED
    assert raised.value.fall_over


def test_both_rounds_share_the_time() -> None:
    provider = Provider(lambda body, index: whole(completion("no"), wait=6.0))

    async def main() -> float:
        chat_request = request(response_format=JSON_SCHEMA)
        with pytest.raises(ProviderError) as raised:
            await provider.emulation.complete(ENDPOINT, chat_request, 10.0)
        assert raised.value.reason is Reason.TIMEOUT
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(10.0)


def test_streams_are_role_and_content_then_the_end_then_usage() -> None:
    provider = answering('{"a": 1}')
    batches = run(read(provider.emulation.stream(ENDPOINT, request(response_format=JSON_SCHEMA))))
    (chunks,) = batches
    answer, end, counted = chunks
    assert answer.choices[0].delta == pb.Delta(role=pb.ROLE_ASSISTANT, content='{"a": 1}')
    assert not answer.choices[0].finish_reason
    assert end.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert not counted.choices
    assert counted.usage.total_tokens == 15
    assert {chunk.id for chunk in chunks} == {"chatcmpl-up"}


def test_large_answers_are_validated_in_a_thread() -> None:
    values = json.dumps({"a": 1, "b": ["x"] * 200_000})
    got = asyncio.run(answering(values).emulation.complete(ENDPOINT, request(response_format=JSON_SCHEMA), 100.0))
    assert content(got.completion) == [values]


def test_chunks_fold_to_the_completion() -> None:
    message: dict[str, Any] = {
        "reasoning_content": "hm", "refusal": "no", "tool_calls": [CALL, {**CALL, "id": "d"}], "colour": "red",
        "annotations": [{"type": "x"}], "audio": {"id": "x"}, "reasoning_details": [{"type": "y"}],
    }  # fmt: skip
    body = completion("text", "tool_calls", **message) | {"system_fingerprint": "f", "service_tier": "t", "x": 1}
    body["choices"][0] |= {"logprobs": {"content": [{"token": "t", "logprob": -1}]}, "y": 2}
    body["choices"].append({**body["choices"][0], "index": 1})
    want = openai_json.parse_completion(body)
    assert fold_messages(chain.from_iterable([as_chunks(want)])) == want


def test_other_requests_pass_unchanged() -> None:
    """No emulation where the request needs none, or the endpoint has it natively."""
    asks: Sequence[tuple[Any, pb.ChatCompletionRequest]] = [
        (ENDPOINT, request()),
        (ENDPOINT, request(response_format={"type": "text"})),
        (endpoint("json_schema"), request(response_format=JSON_OBJECT)),
        (endpoint("json_object"), request(response_format=JSON_SCHEMA)),
        (endpoint(), request(response_format=JSON_SCHEMA)),
    ]
    for where, chat_request in asks:
        provider = answering("as it is")
        got = run(provider.emulation.complete(where, chat_request, 100.0))
        assert content(got.completion) == ["as it is"]
        assert provider.calls[0].get("response_format") == openai_json.dump(chat_request).get("response_format")
        assert texts([as_chunks(got.completion)]) == {0: "as it is"}


# Native structured output first

NATIVE = endpoint()
#: Providers' messages for a model without structured output; see server/dialects/openai/errors.py for the sources.
REFUSALS = [
    "This model does not support response format `json_schema`. See supported models at https://x.example",
    "This response_format type is unavailable now",
    "does not support 'json_schema' response format. Supported formats: json_object.",
    "'response_format.type' : value is not one of the allowed values ['text','json_object']",
    "'response_format.type' must be 'json_schema' or 'text'",
    "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later",
    "Structured outputs are not supported by this model.",
]


def refuses(message: str) -> Provider:
    """A provider that refuses `response_format`, and answers without."""

    def script(body: dict[str, Any], index: int) -> Response:
        if "response_format" in body:
            return whole({"error": {"message": message, "type": "invalid_request_error"}}, status=400)
        return whole(completion('Here: {"a": 1}'))

    return Provider(script)


@pytest.mark.parametrize("message", REFUSALS)
def test_a_model_without_structured_output_is_prompted(message: str) -> None:
    provider = refuses(message)
    answer = run(provider.emulation.complete(NATIVE, request(response_format=JSON_SCHEMA), 100.0)).completion
    assert content(answer) == ['{"a": 1}']
    assert ["response_format" in call for call in provider.calls] == [True, False]
    streamed = refuses(message)

    async def pieces() -> list[str]:
        stream = streamed.emulation.stream(NATIVE, request(response_format=JSON_SCHEMA))
        chunks = await stream.open(100.0)
        await stream.aclose()
        return [choice.delta.content for chunk in chunks for choice in chunk.choices]

    assert "".join(run(pieces())) == '{"a": 1}'
    assert ["response_format" in call for call in streamed.calls] == [True, False]
    provider.check_closed()
    streamed.check_closed()


@pytest.mark.parametrize(
    "message",
    [
        "Invalid schema for response_format 'x': In context=(), 'oneOf' is not supported.",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "response_format.json_schema.name is required",
    ],
)
def test_other_refusals_are_the_callers(message: str) -> None:
    provider = refuses(message)
    with pytest.raises(ProviderError) as raised:
        run(provider.emulation.complete(NATIVE, request(response_format=JSON_SCHEMA), 100.0))
    assert (raised.value.reason, len(provider.calls)) == (Reason.INVALID_REQUEST, 1)
