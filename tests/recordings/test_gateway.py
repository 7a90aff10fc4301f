"""Every recorded chat answer, served by a worker over REST and gRPC, compared with an independent decoding.

The recordings are replayed by ../shared/recordings/replay.py, which splits their
bytes at random; the model of a request is the id of a recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lmchat.v1 import chat_pb2 as pb

from tests.recordings import readings
from tests.recordings.readings import Answer, Choice, Usage
from tests.recordings.recorded import Recording, recordings
from tests.support.gateway import AUTH, Gateway, ask, run_gateway
from tests.support.needs import RECORDINGS, missing

#: Vendor -> its entry under `providers`, less its address.
PROVIDERS = {
    "anthropic": "type: anthropic, api_key: k",
    "azure": "type: azure, api_key: k",
    "bedrock": "type: bedrock, region: eu-west-1, credentials: {access_key_id: AKIA, secret_access_key: s}",
    "bedrock-openai": "type: openai, api_key: k",
    "deepseek": "type: deepseek, api_key: k",
    "gemini": "type: gemini, api_key: k",
    "gpustack": "type: openai, api_key: k",
    "mistral": "type: mistral, api_key: k",
    "ollama": "type: ollama",
    "openai": "type: openai, api_key: k",
    "openrouter": "type: openrouter, api_key: k",
    "perplexity": "type: perplexity, api_key: k",
    "vertex": "type: vertex, project: p, location: us-east1, credentials: {access_token: x}",
}


class Count(NamedTuple):
    """How many recordings a vendor has. `others` are calls of its batch API, which the gateway does not have."""

    answers: int
    streams: int
    errors: int
    others: int = 0


COUNTS = {
    "anthropic": Count(71, 39, 2, others=4),
    "azure": Count(41, 6, 2),
    "bedrock": Count(60, 13, 2),
    "bedrock-openai": Count(1, 0, 0),
    "deepseek": Count(33, 10, 2),
    "gemini": Count(71, 27, 2, others=1),
    "gpustack": Count(56, 11, 0),
    "mistral": Count(51, 8, 1),
    "ollama": Count(33, 9, 2),
    "openai": Count(34, 20, 4),
    "openrouter": Count(61, 13, 2),
    "perplexity": Count(14, 1, 2),
    "vertex": Count(57, 11, 1),
}
#: Streams that were recorded without `alt=sse`, as a JSON list of the same responses. The gateway always requests
#: events, so they are replayed as events.
REWRITTEN = {"gemini": 15}


def as_events(folder: Path) -> Counter[str]:
    """Write the recorded lists of responses as streams of events, under the same ids."""
    written: Counter[str] = Counter()
    for vendor in ("gemini", "vertex"):
        for recording in recordings(vendor):
            if recording.stream and recording.status == 200 and recording.body.lstrip().startswith(b"["):
                pieces = readings.gemini_responses(recording.body.decode())
                events = "".join(f"data: {json.dumps(piece, ensure_ascii=False)}\r\n\r\n" for piece in pieces)
                response = {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": events}
                (folder / recording.path.name).write_text(json.dumps({"response": response}), encoding="utf-8")
                written[vendor] += 1
    return written


@pytest.fixture(scope="module", name="origin")
def origin_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the replay server."""
    if not RECORDINGS.is_dir():
        missing("../shared/recordings")
    folder = tmp_path_factory.mktemp("as_events")
    assert as_events(folder) == REWRITTEN
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, str(RECORDINGS / "replay.py"), str(port), str(RECORDINGS), str(folder)]
    process = subprocess.Popen(
        command, env={**os.environ, "SPLIT": "random"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "replay.py ended"
            assert time.monotonic() < until, "replay.py does not listen"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def configuration(vendor: str, origin: str) -> str:
    return f"""
circuit: {{min_requests: 1000}}
retry: {{max_provider_tries: 1}}
providers: {{up: {{{PROVIDERS[vendor]}, base_url: "{origin}"}}}}
models: {{"*": {{endpoints: [{{provider: up, model: "*"}}]}}}}
"""


# The APIs


class Failed(NamedTuple):
    """An error as callers get it."""

    reason: str
    message: str


class Building:
    """A choice, joined piece by piece."""

    def __init__(self) -> None:
        self.text = self.reasoning = self.finish = ""
        self.calls: dict[int, list[str]] = {}

    def add(self, text: str | None, reasoning: str | None, finish: str | None) -> None:
        self.text += text or ""
        self.reasoning += reasoning or ""
        assert not (self.finish and finish), "one finish reason"
        self.finish = finish or self.finish

    def call(self, index: int, name: str, arguments: str) -> None:
        known = self.calls.setdefault(index, ["", ""])
        known[0] += name
        known[1] += arguments

    def built(self) -> Choice:
        calls = [(name, readings.arguments(written)) for name, written in self.calls.values()]
        return Choice(self.text, self.reasoning, calls, self.finish)


def built(choices: dict[int, Building], usage: Usage | None) -> Answer:
    return Answer([choices[index].built() for index in range(len(choices))], usage)


async def rest(gateway: Gateway, recording: Recording) -> Answer | Failed:
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if recording.stream else {}
    reply = await gateway.post(ask(recording.id, n=recording.n, **more))
    if reply.status != 200:
        error = reply.json()["error"]
        return Failed(error["lmchat"]["reason"], error["message"])
    pieces = reply.events() if recording.stream else [reply.json(), "[DONE]"]
    assert pieces.pop() == "[DONE]", pieces
    choices: dict[int, Building] = defaultdict(Building)
    usage = None
    for piece in pieces:
        usage = readings.openai_usage(piece.get("usage")) or usage
        for choice in piece["choices"]:
            message = choice["delta" if recording.stream else "message"]
            building = choices[choice["index"]]
            building.add(message.get("content"), message.get("reasoning_content"), choice["finish_reason"])
            for index, call in enumerate(message.get("tool_calls") or []):
                function = call["function"]
                building.call(call.get("index", index), function.get("name", ""), function.get("arguments", ""))
    return built(choices, usage)


async def typed(gateway: Gateway, recording: Recording) -> Answer | Failed:
    request = pb.ChatCompletionRequest(model=recording.id, n=recording.n)
    request.messages.add(role=pb.ROLE_USER).content.add(text="hello")
    try:
        if not recording.stream:
            return typed_answer(await gateway.chat.CreateChatCompletion(request, metadata=AUTH, timeout=30))
        request.stream_options.include_usage = True
        return await typed_stream(gateway.chat.StreamChatCompletion(request, metadata=AUTH, timeout=30))
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        info = error_details_pb2.ErrorInfo()
        if status is None or not status.details[0].Unpack(info):
            raise
        return Failed(info.reason.lower(), status.message)


def typed_answer(answer: pb.ChatCompletion) -> Answer:
    choices: dict[int, Building] = defaultdict(Building)
    for choice in answer.choices:
        message = choice.message
        text = "".join(part.text for part in message.content)
        choices[choice.index].add(text, message.reasoning_content, typed_finish(choice.finish_reason))
        for index, call in enumerate(message.tool_calls):
            choices[choice.index].call(index, call.function.name, call.function.arguments)
    return built(choices, typed_usage(answer))


async def typed_stream(chunks: AsyncIterable[pb.ChatCompletionChunk]) -> Answer:
    choices: dict[int, Building] = defaultdict(Building)
    usage = None
    async for chunk in chunks:
        usage = typed_usage(chunk) or usage
        for choice in chunk.choices:
            delta = choice.delta
            choices[choice.index].add(delta.content, delta.reasoning_content, typed_finish(choice.finish_reason))
            for call in delta.tool_calls:
                choices[choice.index].call(call.index, call.function.name, call.function.arguments)
    return built(choices, usage)


def typed_usage(answer: pb.ChatCompletion | pb.ChatCompletionChunk) -> Usage | None:
    usage = answer.usage
    cached = usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details.reasoning_tokens
    found = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cached, reasoning)
    return found if answer.HasField("usage") else None


def typed_finish(finish: pb.FinishReason.ValueType) -> str:
    return pb.FinishReason.Name(finish).removeprefix("FINISH_REASON_").lower() if finish else ""


# The expected answers


def recorded_answer(vendor: str, recording: Recording) -> Answer:
    if vendor == "bedrock":
        return readings.converse_answer(recording.body, stream=recording.stream)
    body = recording.body.decode()
    if vendor == "anthropic":
        return readings.anthropic_answer(body, stream=recording.stream)
    if vendor in ("gemini", "vertex"):
        return readings.gemini_answer(body)
    return readings.openai_answer(body, stream=recording.stream)


AUTHENTICATION = "upstream_authentication", "refused the gateway's credentials"
#: Where the provider's message is not passed on: its status -> the reason for callers, and a part of the message.
MASKED = {
    401: AUTHENTICATION,
    403: AUTHENTICATION,
    404: ("model_not_found", "does not know this model"),
    429: ("rate_limited", "rate limit"),
}
#: Every 400: a part of the provider's message -> the reason; else the prompt was too long.
MISTAKES = {
    "Unsupported parameter: 'max_tokens'": "invalid_request",
    "Invalid 'messages': empty array": "invalid_request",
}


def check_error(recording: Recording, outcome: Answer | Failed) -> None:
    name = recording.path.name
    assert isinstance(outcome, Failed), name
    body = recording.body.decode()
    masked = AUTHENTICATION if "API key not valid" in body else MASKED.get(recording.status)
    if masked is not None:
        assert (outcome.reason, masked[1] in outcome.message) == (masked[0], True), name
        return
    assert recording.status == 400, name
    mistakes = [reason for words, reason in MISTAKES.items() if words in body] or ["context_length_exceeded"]
    assert [outcome.reason] == mistakes, name
    answer = json.loads(body)
    assert outcome.message == answer.get("error", answer)["message"], name


@pytest.mark.parametrize("api", [rest, typed], ids=["rest", "typed"])
@pytest.mark.parametrize("vendor", PROVIDERS)
async def test_replayed(
    vendor: str, api: Callable[[Gateway, Recording], Awaitable[Answer | Failed]], origin: str, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    several = asyncio.Semaphore(24)

    async def replay(gateway: Gateway, recording: Recording) -> None:
        async with several:
            outcome = await api(gateway, recording)
        if recording.status != 200:
            check_error(recording, outcome)
            counts["errors"] += 1
            return
        expected = recorded_answer(vendor, recording)
        assert outcome == expected, recording.path.name
        counts["streams" if recording.stream else "answers"] += 1
        for name in ("text", "reasoning", "calls"):
            counts[name] += any(getattr(choice, name) for choice in expected.choices)
        counts["usage"] += expected.usage is not None

    async with run_gateway(tmp_path, configuration(vendor, origin)) as gateway, asyncio.TaskGroup() as tasks:
        for recording in recordings(vendor):
            if recording.batch:
                counts["others"] += 1
            else:
                tasks.create_task(replay(gateway, recording))
    print(f"{vendor}:", dict(counts))
    assert Count(*(counts[field] for field in Count._fields)) == COUNTS[vendor]


def test_every_vendor_is_here() -> None:
    if not RECORDINGS.is_dir():
        missing("../shared/recordings")
    assert {path.name for path in RECORDINGS.iterdir() if path.is_dir()} - {"LICENSES"} == set(PROVIDERS)
