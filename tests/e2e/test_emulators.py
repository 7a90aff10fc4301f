"""Dialects against servers that others wrote: the emulator `@copilotkit/aimock`, and llama.cpp's `/v1/messages`.

Bedrock's streams are left to recordings: the emulator's are not what Bedrock sends.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.launcher import local_model
from tests.e2e.conftest import free_port
from tests.launcher.test_local_model import KEY, command, environment, wait_until_ready
from tests.support import needs
from tests.support.gateway import Gateway, RestReply, run_gateway

TEXT = "Grüße from Rome 👋, in more words than go into one piece."
CALLS = [("weather", {"city": "Rome"}), ("now", {})]
TOOL_CALLS = [{"name": name, "arguments": arguments} for name, arguments in CALLS]
GEMINI = "gemini-2.5-flash"
FIXTURES = [
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "18 degrees."}},
    # By default it gives Gemini's calls the finish reason FUNCTION_CALL, which Google does not have.
    {
        "match": {"userMessage": "weather", "model": GEMINI},
        "response": {"toolCalls": TOOL_CALLS, "finishReason": "stop"},
    },
    {"match": {"userMessage": "weather"}, "response": {"toolCalls": TOOL_CALLS}},
    {"match": {"userMessage": "hello"}, "response": {"content": TEXT}},
    {
        "match": {"userMessage": "too much"},
        "response": {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429},
    },
]
#: Vendor -> its entry under `providers`, less its address, and a model.
PROVIDERS = {
    "anthropic": ("type: anthropic, api_key: k", "claude-haiku-4-5"),
    "gemini": ("type: gemini, api_key: k", GEMINI),
    "vertex": ("type: vertex, project: p, location: us-east1, credentials: {access_token: x}", GEMINI),
    "azure": ("type: azure, api_key: k", "gpt-5"),
    "bedrock": (
        "type: bedrock, region: eu-west-1, credentials: {access_key_id: AKIA, secret_access_key: s}",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    ),
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "now"}},
]
UNARY_AND_STREAMED = [
    *((vendor, False) for vendor in PROVIDERS),
    *((vendor, True) for vendor in PROVIDERS if vendor != "bedrock"),
]


@pytest.fixture(scope="module", name="emulator")
def emulator_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator's URL."""
    node = needs.node()
    package = needs.NODE / "node_modules" / "@copilotkit" / "aimock"
    if not package.is_dir():
        needs.missing("@copilotkit/aimock, by `npm install --no-package-lock --prefix tests/e2e/node`")
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}), encoding="utf-8")
    arguments = [str(node), str(package / "dist" / "cli.js"), "--port", "0", "--fixtures", str(fixtures)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            output = []
            for line in process.stdout:
                output.append(line)
                if " listening on " in line:
                    break
            else:
                pytest.fail("".join(output))
            yield output[-1].rpartition(" ")[2].strip()
        finally:
            process.terminate()


@pytest.fixture(name="gateway")
async def gateway_fixture(emulator: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    providers = [f'  {name}: {{{row}, base_url: "{emulator}"}}' for name, (row, _) in PROVIDERS.items()]
    models = [
        f'  {name}: {{endpoints: [{{provider: {name}, model: "{m}"}}]}}' for name, (_, m) in PROVIDERS.items()
    ]
    lines = ["retry: {max_provider_tries: 1}", "providers:", *providers, "models:", *models]
    async with run_gateway(tmp_path, "\n".join(lines)) as gateway:
        yield gateway


def chat(model: str, text: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": model, "messages": [{"role": "user", "content": text}], **options, **more}


class Got:
    """A completion, unary or joined from chunks."""

    def __init__(self, reply: RestReply, *, stream: bool) -> None:
        assert reply.status == 200, reply.body
        self.text, self.finish = "", []
        self.calls: dict[int, dict[str, str]] = {}
        self.usage: dict[str, Any] = {}
        pieces = reply.events() if stream else [reply.json(), "[DONE]"]
        assert pieces.pop() == "[DONE]"
        self.texts = 0
        for piece in pieces:
            self.usage = piece.get("usage") or self.usage
            for choice in piece["choices"]:
                message = choice["delta" if stream else "message"]
                self.text += message.get("content") or ""
                self.texts += bool(message.get("content"))
                self.finish += [choice["finish_reason"]] if choice["finish_reason"] else []
                for index, call in enumerate(message.get("tool_calls", [])):
                    known = self.calls.setdefault(
                        call.get("index", index), {"id": "", "name": "", "arguments": ""}
                    )
                    known["id"] += call.get("id", "")
                    for name in ("name", "arguments"):
                        known[name] += call["function"].get(name, "")

    def calls_made(self) -> list[tuple[str, Any]]:
        return [(call["name"], json.loads(call["arguments"] or "{}")) for call in self.calls.values()]


@pytest.mark.parametrize(("vendor", "stream"), UNARY_AND_STREAMED)
async def test_text(gateway: Gateway, vendor: str, stream: bool) -> None:
    got = Got(await gateway.post(chat(vendor, "hello", stream=stream)), stream=stream)
    assert (got.text, got.finish) == (TEXT, ["stop"])
    assert (got.texts > 1) == stream
    usage = got.usage
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(("vendor", "stream"), UNARY_AND_STREAMED)
async def test_tools(gateway: Gateway, vendor: str, stream: bool) -> None:
    request = chat(vendor, "weather", stream=stream, tools=TOOLS)
    got = Got(await gateway.post(request), stream=stream)
    assert (got.calls_made(), got.finish) == (CALLS, ["tool_calls"])
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in got.calls.values()
    ]
    assert len({call["id"] for call in calls}) == 2
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "18"} for call in calls]
    request["messages"] += [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    last = Got(await gateway.post(request), stream=stream)
    assert (last.text, last.finish) == ("18 degrees.", ["stop"])


@pytest.mark.parametrize(("vendor", "stream"), UNARY_AND_STREAMED)
async def test_errors(gateway: Gateway, vendor: str, stream: bool) -> None:
    reply = await gateway.post(chat(vendor, "too much", stream=stream))
    assert (reply.status, reply.json()["error"]["lmchat"]["reason"]) == (429, "rate_limited")


# llama.cpp as a provider of Anthropic's dialect, with a real model


@pytest.fixture(scope="module", name="llama")
def llama_fixture() -> Iterator[str]:
    """The URL of llama.cpp's server."""
    reason = local_model.available()
    if reason:
        needs.missing(f"the embedded model: {reason}")
    port = free_port()
    with subprocess.Popen(command(port), env=environment()) as process:
        try:
            wait_until_ready(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_real_model_of_anthropics_dialect(llama: str, tmp_path: Path, stream: bool) -> None:
    configuration = f"""
providers: {{llama: {{type: anthropic, base_url: "{llama}", api_key: {KEY}}}}}
models: {{m: {{endpoints: [{{provider: llama, model: smollm2}}]}}}}
"""
    async with run_gateway(tmp_path, configuration) as gateway:
        request = chat("m", "What is the capital of France?", stream=stream, temperature=0, max_tokens=40)
        got = Got(await gateway.post(request), stream=stream)
        assert "Paris" in got.text
        assert got.finish == ["stop"]
        assert (got.texts > 3) == stream
        assert 0 < got.usage["completion_tokens"] < 40
        assert got.usage["total_tokens"] == got.usage["prompt_tokens"] + got.usage["completion_tokens"]
        short = chat("m", "Tell me a long story.", stream=stream, temperature=0, max_tokens=5)
        assert Got(await gateway.post(short), stream=stream).finish == ["length"]
