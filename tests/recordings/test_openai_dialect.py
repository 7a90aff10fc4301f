"""Recorded requests and answers of the OpenAI dialect, compared with an independent decoding."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.completion import JsonCompletion
from server.chat.openai_json.response_objects import dump_usage
from server.chat.request import JsonRequest, read
from server.dialects.base import platform_of
from server.dialects.openai import response
from server.dialects.openai.platform import DEFAULT_PLATFORM
from server.errors import Reason
from server.upstream.ports import has_content
from server.vendors.registry import VENDORS
from tests.dialects.openai_help import TRANSLATOR, decode, endpoint, torn
from tests.recordings.readings import StreamReading, content_of, contract_usage
from tests.support.fold import fold_messages
from tests.support.needs import RECORDINGS, missing


class Count(NamedTuple):
    """How many recordings a vendor has."""

    answers: int
    streams: int
    errors: int


COUNTS = {
    "azure": Count(41, 6, 2),
    "bedrock-openai": Count(1, 0, 0),
    "deepseek": Count(33, 10, 2),
    "gpustack": Count(56, 11, 0),
    "mistral": Count(51, 8, 1),
    "ollama": Count(33, 9, 2),
    "openai": Count(34, 20, 4),
    "openrouter": Count(61, 13, 2),
    "perplexity": Count(14, 1, 2),
}


class Exchange(NamedTuple):
    """One recording."""

    name: str
    url: str
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: str

    @property
    def stream(self) -> bool:
        return bool(self.request.get("stream"))


def present() -> None:
    """Skip where the recordings are not."""
    if not RECORDINGS.is_dir():
        missing("../shared/recordings")


def exchanges(vendor: str, *, accepted: bool = True, stream: bool | None = None) -> Iterator[Exchange]:
    present()
    for path in sorted((RECORDINGS / vendor / "chat.completions").glob("*.json")):
        found = _read(path)
        if (found.status == 200) == accepted and stream in (None, found.stream):
            yield found


def _read(path: Path) -> Exchange:
    obj = json.loads(path.read_bytes())
    request, response = obj["request"], obj["response"]
    headers = {name.lower(): ", ".join(values) for name, values in _lists(response["headers"])}
    return Exchange(path.name, request["url"], request["body"], response["status"], headers, response["body"])


def _lists(headers: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(name, value if isinstance(value, list) else [value]) for name, value in headers.items()]


VENDOR = pytest.mark.parametrize("vendor", COUNTS)


def test_every_vendor_is_known() -> None:
    present()
    assert {path.parent.name for path in RECORDINGS.glob("*/chat.completions")} == set(COUNTS)


# Requests


def meaning(value: Any, key: str = "") -> Any:
    """A request with equivalent spellings normalised.

    null is absent; content of one text part and nothing else is a string; one
    stop sequence is a list of one; an image's address is an object. 1 equals
    1.0 in Python.
    """
    if isinstance(value, dict):
        return {name: meaning(item, name) for name, item in value.items() if item is not None}
    if key == "stop" and isinstance(value, str):
        return [value]
    if key == "image_url" and isinstance(value, str):
        return {"url": value}
    if isinstance(value, list):
        items = [meaning(item) for item in value]
        alone = len(items) == 1 and isinstance(items[0], dict) and items[0].keys() == {"type", "text"}
        return items[0]["text"] if key == "content" and alone else items
    return value


def schemas(request: dict[str, Any]) -> list[Any]:
    """The JSON Schemas of a request, whose keys have an order."""
    found = [tool.get("function", tool).get("parameters") for tool in request.get("tools", [])]
    return [*found, request.get("response_format", {}).get("json_schema", {}).get("schema")]


@VENDOR
def test_requests(vendor: str) -> None:
    count = as_they_came = 0
    for found in exchanges(vendor):
        parsed = openai_json.parse(json.dumps(found.request).encode())
        expected = {name: value for name, value in found.request.items() if name != "stream"}
        assert meaning(openai_json.dump(parsed.request)) == meaning(expected), found.name
        assert parsed.stream == found.stream
        # A vendor that accepts every field gets the request unchanged, but for the model's name.
        http_request = TRANSLATOR.request(parsed.request, endpoint(), stream=found.stream)
        sent = json.loads(http_request.body)
        options = {} if found.stream else {"stream": None, "stream_options": None}
        assert meaning(sent) == meaning(found.request | {"model": "up-model"} | options), found.name
        assert [json.dumps(schema) for schema in schemas(sent)] == [
            json.dumps(schema) for schema in schemas(expected)
        ]
        request = read(json.dumps(found.request).encode())
        if isinstance(request, JsonRequest):
            as_they_came += 1
            assert TRANSLATOR.translator.request(request, endpoint(), stream=found.stream) == http_request, (
                found.name
            )
        count += 1
    assert as_they_came >= count * 3 // 4  # of every vendor
    assert count == COUNTS[vendor].answers + COUNTS[vendor].streams


def test_azures_urls() -> None:
    seen = set()
    for found in exchanges("azure"):
        base, deployment, _ = re.split(r"/openai/deployments/([^/]+)/|/(?=chat/)", found.url, maxsplit=1)
        where = endpoint(VENDORS["azure"], base, model=deployment or "")
        url = platform_of(where, DEFAULT_PLATFORM).url(where, stream=False)
        assert url == found.url if "?" in found.url else url.startswith(found.url + "?api-version=20")
        seen.add(bool(deployment))
    assert seen == {True, False}


# Answers


def lost(sent: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where something of `sent` is not in `kept`. null and an empty list are nothing."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if key in kept or value not in (None, []):
                yield from lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for index, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")
    elif sent != kept and not (sent == [] and kept is None):
        yield f"{path}: {sent!r} is now {kept!r}"


@VENDOR
def test_answers(vendor: str) -> None:
    count = as_they_came = recounted = 0
    for found in exchanges(vendor, stream=False):
        sent = json.loads(found.body)
        completion, native = response.completion(found.body.encode())
        kept = json.loads(openai_json.encode_text(openai_json.dump_completion(completion)))
        first = sent["choices"][0]
        assert native == (first.get("native_finish_reason") or first["finish_reason"])
        assert kept["id"].endswith(sent["id"])
        assert kept["id"].startswith("chatcmpl-")
        for choice, out in zip(sent["choices"], kept["choices"], strict=True):
            content, thoughts = content_of(choice["message"])
            assert out["message"]["content"] == content, found.name
            assert out["message"].get("reasoning_content", "") == thoughts, found.name
            assert choice["finish_reason"] in (
                "stop",
                "length",
                "tool_calls",
            )  # no recording has a native finish reason of a vendor
            if isinstance(choice["message"].get("content"), list):
                choice["message"]["content"] = content
        usage = {"usage": contract_usage(sent["usage"])} if sent.get("usage") else {}
        recounted += bool(usage) and usage["usage"] != sent["usage"]
        assert list(lost(sent | {"id": kept["id"]} | usage, kept)) == [], found.name
        assert openai_json.parse_completion(kept) == completion
        same = JsonCompletion.read(found.body.encode())
        if same is not None and response.is_plain(same):
            as_they_came += 1
            assert json.loads(msgspec.json.encode(same.to_openai())) == kept, found.name
            assert same.native_finish_reason == native
        count += 1
    assert count == COUNTS[vendor].answers
    assert as_they_came > (count - recounted) / 2  # of every vendor


# Streams


@VENDOR
def test_streams(vendor: str) -> None:
    count = 0
    for found in exchanges(vendor, stream=True):
        streamed = StreamReading(found.body)
        data = found.body.encode()
        rng = random.Random(found.name)
        chunks = decode([data])
        for most in (3, 40, 4000):
            cuts = [rng.randrange(len(data)) for _ in range(len(data) // rng.randint(1, most))]
            assert decode(torn(data, cuts)) == chunks, found.name
        first = next(chunk for chunk in chunks if has_content(chunk)).choices[0]
        first_content = first.delta.content or first.delta.reasoning_content or first.delta.tool_calls
        assert first_content or first.finish_reason, found.name
        whole = fold_messages(chunks)
        [choice] = whole.choices
        message = choice.message
        assert "".join(part.text for part in message.content) == streamed.content, found.name
        assert message.reasoning_content == streamed.thoughts, found.name
        calls = [
            {"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in message.tool_calls
        ]
        recorded = [streamed.calls[index] for index in sorted(streamed.calls)]
        assert calls == [call | {"arguments": call["arguments"] or "{}"} for call in recorded], found.name
        kept = openai_json.dump_completion(whole)
        assert kept["choices"][0]["message"].get("reasoning_details", []) == streamed.details, found.name
        # One ends with [DONE] alone.
        finish = streamed.finish or ("tool_calls" if streamed.calls else "stop")
        assert kept["choices"][0]["finish_reason"] == finish, found.name
        assert whole.id.endswith(streamed.ids[0])
        if streamed.usage is not None:
            assert list(lost(contract_usage(streamed.usage), dump_usage(whole.usage))) == [], found.name
        assert whole.HasField("usage") == (streamed.usage is not None)
        assert streamed.other.keys() - {"latency_checkpoint"} <= kept.keys(), found.name
        decoder = TRANSLATOR.decoder(pb.ChatCompletionRequest())
        decoder.feed(data)
        decoder.close()
        assert decoder.native_finish_reason == streamed.native, found.name
        for chunk in chunks:
            assert openai_json.parse_chunk(openai_json.dump_chunk(chunk, include_usage=True)) == chunk
        count += 1
    assert count == COUNTS[vendor].streams


# Errors

CODES = {401: Reason.UPSTREAM_AUTHENTICATION, 404: Reason.MODEL_NOT_FOUND, 429: Reason.RATE_LIMITED}


@VENDOR
def test_errors(vendor: str) -> None:
    count = 0
    for found in exchanges(vendor, accepted=False):
        error = TRANSLATOR.error(found.status, found.headers, found.body.encode())
        too_long = "context_length" in found.name
        expected = Reason.CONTEXT_LENGTH_EXCEEDED if too_long else Reason.INVALID_REQUEST
        assert error.reason is CODES.get(found.status, expected), found.name
        assert error.http_status == found.status
        assert "key" not in error.message
        count += 1
    assert count == COUNTS[vendor].errors


#: The collected errors of this dialect, those of OpenAI's other calls too.
COLLECTED = {
    ("azure", 400, Reason.CONTENT_POLICY_VIOLATION): 1,
    ("azure", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("azure", 429, Reason.RATE_LIMITED): 2,
    ("deepseek", 400, Reason.CONTEXT_LENGTH_EXCEEDED): 1,
    ("deepseek", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("mistral", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("ollama", 400, Reason.CONTEXT_LENGTH_EXCEEDED): 1,
    ("ollama", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("openai", 400, Reason.CONTEXT_LENGTH_EXCEEDED): 1,
    ("openai", 400, Reason.INVALID_REQUEST): 4,
    ("openai", 401, Reason.UPSTREAM_AUTHENTICATION): 2,
    ("openai", 404, Reason.MODEL_NOT_FOUND): 5,
    ("openai", 429, Reason.RATE_LIMITED): 1,
    ("openai", 500, Reason.UPSTREAM_ERROR): 1,
    ("openai", 503, Reason.OVERLOADED): 2,
    ("openrouter", 400, Reason.CONTEXT_LENGTH_EXCEEDED): 1,
    ("openrouter", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("perplexity", 400, Reason.CONTEXT_LENGTH_EXCEEDED): 1,
    ("perplexity", 401, Reason.UPSTREAM_AUTHENTICATION): 1,
    ("x.ai", 400, Reason.UPSTREAM_AUTHENTICATION): 1,
}


def test_collected_errors() -> None:
    present()
    seen: Counter[tuple[str, int, Reason]] = Counter()
    for found in json.loads((RECORDINGS / "errors.json").read_bytes()):
        if found["provider"] not in {*COUNTS, "x.ai"} - {"bedrock-openai"}:
            continue
        headers = {name.lower(): ", ".join(values) for name, values in _lists(found.get("headers", {}))}
        error = TRANSLATOR.error(found["status"], headers, found["body"].encode())
        seen[found["provider"], found["status"], error.reason] += 1
        assert "api key" not in error.message.lower()
        if found["provider"] == "azure" and found["kind"] == "recorded" and found["status"] == 429:
            assert error.retry_after == 1.0  # not the 0 of retry-after-ms
    assert seen == COLLECTED
