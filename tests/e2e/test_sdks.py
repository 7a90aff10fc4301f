"""The official OpenAI SDKs, unmodified, and raw protocols, against the whole gateway and its real model."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import openai
import pytest
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.e2e.conftest import UpProcess
from tests.support import needs

MODEL = "local/smollm2"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


class City(BaseModel):
    """The schema of the structured answer."""

    city: str
    country: str


@pytest.fixture(name="client")
def client_fixture(gateway: UpProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/api/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


def test_create(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=40)
    assert "Paris" in (completion.choices[0].message.content or "")
    assert completion.model == MODEL
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0


def test_create_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert len(chunks) > 4


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=40) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (final.choices[0].message.content or "")


def test_parse(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Name the capital of France and its country."}],
        response_format=City,
        max_tokens=60,
    )
    assert isinstance(completion.choices[0].message.parsed, City)


async def test_async_client(gateway: UpProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/api/v1", api_key=gateway.key) as client:
        completion = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=40
        )
        assert "Paris" in (completion.choices[0].message.content or "")
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=20, stream=True
        )
        assert len([chunk async for chunk in stream]) > 4


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_errors_become_the_sdks_own(gateway: UpProcess, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody/nothing", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=9)
    assert bad.value.param == "temperature"
    with (
        openai.OpenAI(base_url=f"{gateway.url}/api/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model=MODEL, messages=MESSAGES)


def test_node_sdk(gateway: UpProcess) -> None:
    node = needs.node()
    script = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.BASE, apiKey: process.env.KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const ask = { model: "local/smollm2", messages, temperature: 0, max_tokens: 40 };
const whole = await client.chat.completions.create(ask);
let text = "", chunks = 0;
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? ""; chunks++;
}
const runner = client.chat.completions.stream(ask);
const final = await runner.finalContent();
let status = 0;
try { await client.chat.completions.create({ ...ask, n: 0 }); } catch (error) { status = error.status; }
console.log(JSON.stringify({ whole: whole.choices[0].message.content, text, chunks, final, status,
  usage: whole.usage.total_tokens }));
"""
    done = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=needs.NODE,
        env={**os.environ, "BASE": f"{gateway.url}/api/v1", "KEY": gateway.key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert all("Paris" in seen[name] for name in ("whole", "text", "final"))
    assert seen["chunks"] > 4
    assert seen["usage"] > 0
    assert seen["status"] == 400


def test_grpc_stub(gateway: UpProcess) -> None:
    request = pb.ChatCompletionRequest(model=MODEL, temperature=0, max_tokens=40)
    request.messages.add(role=pb.ROLE_USER).content.add(text="What is the capital of France?")
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        chat = chat_service_pb2_grpc.ChatCompletionsStub(channel)
        completion = chat.CreateChatCompletion(request, metadata=metadata, timeout=60)
        assert "Paris" in completion.choices[0].message.content[0].text
        chunks = list(chat.StreamChatCompletion(request, metadata=metadata, timeout=60))
        assert "Paris" in "".join(choice.delta.content for chunk in chunks for choice in chunk.choices)
        assert len(chunks) > 4
        models = model_service_pb2_grpc.ModelsStub(channel)
        assert MODEL in [
            m.id for m in models.ListModels(model_service_pb2.ListModelsRequest(), metadata=metadata).data
        ]


def test_grpc_web(gateway: UpProcess) -> None:
    request = pb.ChatCompletionRequest(model=MODEL, max_tokens=20)
    request.messages.add(role=pb.ROLE_USER).content.add(text="Say hello.")
    data = request.SerializeToString()
    frame = base64.b64encode(b"\0" + len(data).to_bytes(4, "big") + data)
    reply = httpx.post(
        f"{gateway.url}/lmchat.v1.ChatCompletions/CreateChatCompletion",
        content=frame,
        headers={
            "content-type": "application/grpc-web-text",
            "accept": "application/grpc-web-text",
            "authorization": f"Bearer {gateway.key}",
            "x-grpc-web": "1",
        },
        timeout=60,
    )
    message, trailers = _frames(reply.text)
    completion = pb.ChatCompletion.FromString(message)
    assert completion.choices[0].message.content[0].text
    assert b"grpc-status:0" in trailers


def _frames(text: str) -> list[bytes]:
    """The frames of a grpc-web-text body: base64 pieces, each padded on its own."""
    pieces = [piece + "=" * (-len(piece) % 4) for piece in text.replace("=", " ").split()]
    data = b"".join(base64.b64decode(piece) for piece in pieces)
    frames = []
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        frames.append(data[5:end])
        data = data[end:]
    return frames


def test_compatcanary(gateway: UpProcess) -> None:
    """All but the forced tool call, which the embedded model cannot make and the gateway refuses for it."""
    node = needs.node()
    done = subprocess.run(
        [
            node, needs.NODE / "node_modules" / ".bin" / "compatcanary", "scan", "--profile", "chat",
            "--base-url", f"{gateway.url}/api/v1", "--model", MODEL,
        ],
        cwd=needs.NODE,
        env={**os.environ, "OPENAI_API_KEY": gateway.key},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    verdicts = {
        name: verdict for verdict, name in re.findall(r"^([A-Z]{4})  (\S.*?)  ", done.stdout, re.MULTILINE)
    }
    assert len(verdicts) >= 5, done.stdout + done.stderr
    assert [name for name, verdict in verdicts.items() if verdict != "PASS"] == ["Forced tool call"], done.stdout


def test_llm_comply(gateway: UpProcess) -> None:
    """All but tools and images, which the embedded model does not support."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("llm-comply"), "run", "--format", "openai-chat", "--json",
            "-u", f"{gateway.url}/api/v1", "-k", gateway.key, "-m", MODEL,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    results = {result["name"]: result for result in json.loads(done.stdout)["results"]}
    failed = {name for name, result in results.items() if result["status"] == "failed"}
    assert len(results) >= 9
    assert failed == {"Tool Calling", "Image Input"}, done.stdout
    assert all("HTTP 400" in results[name]["errors"][0] for name in failed)
    assert not any(result.get("warnings") for result in results.values())
