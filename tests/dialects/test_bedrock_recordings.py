"""The Bedrock dialect against recorded traffic, compared with an independent decoding."""

from __future__ import annotations

import base64
import copy
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.model import ServiceModel
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import dump_completion, parse
from server.errors import InvalidRequest, ProviderError, Reason
from tests.dialects.bedrock_help import (
    HAIKU,
    NOVA,
    SHARED,
    TRANSLATOR,
    body,
    cut,
    stream,
)
from tests.recordings.readings import converse as reading
from tests.recordings.readings import converse_stream as assembled
from tests.support import specs
from tests.support.fold import fold_messages
from tests.support.streams import frame_of_event as event
from tests.support.streams import frame_of_exception as exception

RECORDINGS = SHARED / "recordings"
OPENAI_DIALECT = (
    "openai", "azure", "mistral", "deepseek", "openrouter", "ollama", "perplexity", "gpustack", "groq",
    "bedrock-openai",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no ../shared/recordings")


@pytest.fixture(scope="module")
def model() -> ServiceModel:
    return specs.bedrock_service()


def recordings(*names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        for path in sorted((RECORDINGS / name).rglob("*.json")):
            yield path.stem, json.loads(path.read_bytes())


def converse(*, streamed: bool) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Name, request and response body of the recorded successes."""
    for name, recording in recordings("bedrock"):
        response = recording["response"]
        if response["status"] == 200 and ("body_b64" in response) == streamed:
            data = base64.b64decode(response["body_b64"]) if streamed else response["body"].encode()
            yield name, recording["request"], data


# Answers


def ours(completion: pb.ChatCompletion, native: str) -> dict[str, Any]:
    """The translator's result."""
    shown = dump_completion(completion)
    [choice] = shown["choices"]
    message = choice["message"]
    details = message.get("reasoning_details", [])
    prompt = shown["usage"].get("prompt_tokens_details", {})
    return {
        "text": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "signatures": [detail["signature"] for detail in details],
        "calls": [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls", [])
        ],
        "citations": len(message.get("annotations", [])),
        "finish": choice["finish_reason"],
        "native": native,
        "usage": (
            *(shown["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")),
            *(prompt.get(name, 0) for name in ("cached_tokens", "cache_write_tokens")),
        ),
    }


def test_unary() -> None:
    seen: Counter[str] = Counter()
    for name, _, data in converse(streamed=False):
        answer = json.loads(data)
        read = reading(answer["output"]["message"], answer["stopReason"], answer["usage"])
        assert ours(*TRANSLATOR.completion(data, pb.ChatCompletionRequest())) == read, name
        seen.update(["all", *(field for field in ("text", "reasoning", "calls", "citations") if read[field])])
    print("unary:", dict(seen))
    assert seen == {"all": 60, "text": 48, "reasoning": 4, "calls": 14, "citations": 4}


def test_streams() -> None:
    seen: Counter[str] = Counter()
    random.seed(3)
    for name, _, data in converse(streamed=True):
        answer = assembled(data)
        read = reading(answer["output"]["message"], answer["stopReason"], answer["usage"])
        whole = stream([data])
        for _ in range(20):
            pieces = cut(data, (random.randrange(len(data)) for _ in range(random.randrange(200))))
            assert stream(pieces) == whole, name
        assert stream([data[i : i + 1] for i in range(len(data))]) == whole, name
        folded = fold_messages(whole[0])
        assert ours(folded, whole[1]) == read, name
        unary, _ = TRANSLATOR.completion(json.dumps(answer).encode(), pb.ChatCompletionRequest())
        for completion in (folded, unary):  # white space in arguments is the provider's
            for call in completion.choices[0].message.tool_calls:
                call.function.arguments = json.dumps(json.loads(call.function.arguments))
        assert dump_completion(folded) == dump_completion(unary), name
        seen.update(["all", *(field for field in ("text", "reasoning", "calls", "citations") if read[field])])
    print("streams:", dict(seen))
    assert seen == {"all": 13, "text": 9, "reasoning": 1, "calls": 4, "citations": 2}


def test_errors() -> None:
    expected = {
        ("recorded", "403"): Reason.UPSTREAM_AUTHENTICATION,
        ("recorded", "400"): Reason.CONTEXT_LENGTH_EXCEEDED,
        ("quoted-in-public-issue", "429"): Reason.RATE_LIMITED,
        ("quoted-in-public-issue", "403"): Reason.UPSTREAM_AUTHENTICATION,
        ("quoted-in-public-issue", "200-midstream"): Reason.RATE_LIMITED,
    }
    count = 0
    for recorded in json.loads((RECORDINGS / "errors.json").read_bytes()):
        if recorded["provider"] != "bedrock":
            continue
        count += 1
        reason = expected[recorded["kind"], str(recorded["status"])]
        headers = {
            key: value if isinstance(value, str) else value[0] for key, value in recorded["headers"].items()
        }
        sent = json.loads(recorded["body"])
        if recorded["status"] == "200-midstream":
            head = event("messageStart", {"role": "assistant"})
            with pytest.raises(ProviderError) as caught:
                stream([head, exception(sent[":exception-type"], sent["payload"])])
            error, message = caught.value, sent["payload"]["message"]
        else:
            error = TRANSLATOR.error(recorded["status"], headers, recorded["body"].encode())
            message = sent["message"]
        assert (error.reason, error.raw) == (reason, message), recorded["source"]
        assert error.fall_over
    print("errors:", count)
    assert count == 6


# Requests


def to_openai(sent: dict[str, Any]) -> dict[str, Any]:
    """A recorded Converse request in OpenAI's form. Raises LookupError for what has no equivalent."""
    request: dict[str, Any] = {"model": "m", "messages": []}
    for message in with_cache_control(sent.get("system", [])):
        request["messages"].append({"role": "system", "content": [message]})
    for turn in sent["messages"]:
        blocks = turn["content"]
        results = [block["toolResult"] for block in blocks if "toolResult" in block]
        for result in results:
            content = [to_part(block) for block in result["content"]]
            request["messages"].append({"role": "tool", "tool_call_id": result["toolUseId"], "content": content})
        uses = [block["toolUse"] for block in blocks if "toolUse" in block]
        thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
        other = {"toolResult", "toolUse", "reasoningContent"}
        content = [to_part(block) for block in blocks if not block.keys() & other]
        if content or uses:
            message = {"role": turn["role"], "content": content or None}
            if uses:
                message["tool_calls"] = [
                    {
                        "id": use["toolUseId"],
                        "type": "function",
                        "function": {"name": use["name"], "arguments": json.dumps(use["input"])},
                    }
                    for use in uses
                ]
            if thoughts:
                message["reasoning_details"] = [
                    {"type": "reasoning.text", **thought, "format": "anthropic"} for thought in thoughts
                ]
            request["messages"].append(message)
    for name, field in (("maxTokens", "max_tokens"), ("temperature", "temperature")):
        if name in sent.get("inferenceConfig", {}):
            request[field] = sent["inferenceConfig"][name]
    if "toolConfig" in sent:
        assert sent["toolConfig"].keys() == {"tools"}
        request["tools"] = [to_tool(tool) for tool in sent["toolConfig"]["tools"]]
    if "outputConfig" in sent:
        definition = sent["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
        schema = {**definition, "schema": json.loads(definition["schema"])}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    if "additionalModelRequestFields" in sent:
        request["additionalModelRequestFields"] = sent["additionalModelRequestFields"]
    return request


def with_cache_control(blocks: list[Any]) -> Iterator[dict[str, Any]]:
    for block, after in zip(blocks, [*blocks, {}][1:], strict=True):
        if "cachePoint" not in block:
            yield to_part(block) | ({"cache_control": {"type": "ephemeral"}} if "cachePoint" in after else {})


def to_part(block: dict[str, Any]) -> dict[str, Any]:
    [(kind, value)] = block.items()
    if kind == "text":
        return {"type": "text", "text": value}
    if kind == "image":
        return {
            "type": "image_url",
            "image_url": {"url": f"data:image/{value['format']};base64,{value['source']['bytes']}"},
        }
    if kind == "document":
        source = value["source"]
        data = source["bytes"] if "bytes" in source else base64.b64encode(source["text"].encode()).decode()
        file = {"filename": f"{value['name']}.{value['format']}", "file_data": data}
        return {"type": "file", "file": file} | ({"citations": value["citations"]} if "citations" in value else {})
    raise LookupError(kind)


def to_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if "toolSpec" not in tool:
        return {"type": "system_tool", **tool}
    spec = tool["toolSpec"]
    function = {
        "name": spec["name"],
        "description": spec["description"],
        "parameters": spec["inputSchema"]["json"],
    }
    return {"type": "function", "function": function}


def test_recorded_converse_requests_come_out_as_they_were(model: ServiceModel) -> None:
    """Converted to OpenAI's form and translated back."""
    same, exceptions = 0, Counter[str]()
    for name, recording in recordings("bedrock"):
        recorded = copy.deepcopy(recording["request"]["body"])
        model_id = recording["request"]["url"].split("/model/")[1].split("/")[0]
        recorded.pop("modelId", None)
        assert not violations_but_names(model, model_id, recorded), name
        try:
            request = to_openai(recorded)
        except LookupError as error:
            exceptions[f"OpenAI has no word for {error}"] += 1
            continue
        sent = body(parse(json.dumps(request).encode()).request, model_id)
        assert specs.converse(model, "Converse", model_id, sent) == [], name
        # Ours keeps to the documented alphabet.
        expected = json.loads(json.dumps(recorded).replace('"name": "sample_2"', '"name": "sample 2"'))
        if not expected.get("system"):
            expected.pop("system", None)
        expected.setdefault("inferenceConfig", {})
        if "outputConfig" in expected:
            inner = expected["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
            sent_inner = sent["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
            assert json.loads(inner.pop("schema")) == json.loads(sent_inner.pop("schema"))
        assert sent == expected, name
        same += 1
    print("Converse requests:", same, dict(exceptions))
    assert same == 74
    assert exceptions == {"OpenAI has no word for searchResult": 1}


def violations_but_names(model: ServiceModel, model_id: str, sent: dict[str, Any]) -> list[str]:
    return [v for v in specs.converse(model, "Converse", model_id, sent) if "sample_2" not in v]


#: Inexpressible requests, by the field at fault and the reason; their number among the recordings.
EXCEPTIONS = {
    ("max_tokens", "0, which OpenAI refuses as well"): 1,
    ("messages", "none, which OpenAI refuses as well"): 1,
    ("response_format.type", "json_object is for emulation"): 6,
    ("messages[].content[].image_url.url", "https, which the gateway fetches before"): 3,
    ("modalities", "Converse gives no sound"): 1,
    ("messages[].content[].type", "Mistral's document_url, Perplexity's file_url"): 2,
    ("messages[].content[]", "Mistral's thinking in an assistant turn"): 2,
    ("tools[].type", "OpenRouter's web search"): 1,
}
#: Nova has no structured outputs: these are for emulation too.
SCHEMAS = {("response_format.json_schema.schema", "no structured outputs"): 8}


@pytest.mark.parametrize(
    ("model_id", "exceptions", "good"), [(HAIKU, EXCEPTIONS, 400), (NOVA, EXCEPTIONS | SCHEMAS, 392)]
)
def test_recorded_openai_requests_are_good_converse_requests(
    model: ServiceModel, model_id: str, exceptions: dict[tuple[str, str], int], good: int
) -> None:
    found, faults = 0, Counter[str]()
    for name, recording in recordings(*OPENAI_DIALECT):
        try:
            parsed = parse(json.dumps(recording["request"]["body"]).encode())
            sent = body(parsed.request, model_id)
        except InvalidRequest as error:
            faults[re.sub(r"\d+", "", error.param or "")] += 1
            continue
        operation = "ConverseStream" if parsed.stream else "Converse"
        assert specs.converse(model, operation, model_id, sent) == [], name
        found += 1
    print(model_id, "good:", found, "exceptions:", dict(faults))
    assert faults == {param: count for (param, _), count in exceptions.items()}
    assert found == good
