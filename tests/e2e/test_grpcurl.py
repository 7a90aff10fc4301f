"""From `grpcurl list` to a streamed completion, as the README has it, and `buf curl`: on the whole gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import UpProcess
from tests.support import needs

REQUEST = {
    "model": "local/smollm2",
    "messages": [{"role": "ROLE_USER", "content": [{"text": "What is the capital of France?"}]}],
    "temperature": 0,
}
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "lmchat.v1.ChatCompletions",
    "lmchat.v1.Models",
]


@pytest.fixture(name="grpcurl")
def grpcurl_fixture() -> Path:
    return needs.grpcurl()


def output(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[Any]:
    """JSON objects that follow each other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def content(chunks: list[Any]) -> str:
    return "".join(c.get("delta", {}).get("content", "") for chunk in chunks for c in chunk.get("choices", []))


def test_list(gateway: UpProcess, grpcurl: Path) -> None:
    assert output([grpcurl, "-plaintext", f"127.0.0.1:{gateway.port}", "list"]).split() == SERVICES


def test_describe(gateway: UpProcess, grpcurl: Path) -> None:
    address = f"127.0.0.1:{gateway.port}"
    shown = output([grpcurl, "-plaintext", address, "describe", "lmchat.v1.ChatCompletionRequest"])
    assert "string model = 1 [(.google.api.field_behavior) = REQUIRED];" in shown


def test_health_by_service(gateway: UpProcess, grpcurl: Path) -> None:
    address = f"127.0.0.1:{gateway.port}"
    data = ["-d", '{"service": "lmchat.v1.ChatCompletions"}']
    shown = output([grpcurl, "-plaintext", *data, address, "grpc.health.v1.Health/Check"])
    assert json.loads(shown) == {"status": "SERVING"}


def test_stream(gateway: UpProcess, grpcurl: Path) -> None:
    address = f"127.0.0.1:{gateway.port}"
    key = ["-H", f"authorization: Bearer {gateway.key}"]
    command: list[str | Path] = [grpcurl, "-plaintext", *key, "-d", json.dumps(REQUEST), address]
    chunks = objects(output([*command, "lmchat.v1.ChatCompletions/StreamChatCompletion"]))
    assert "Paris" in content(chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "FINISH_REASON_STOP"


def test_errors_have_their_details(gateway: UpProcess, grpcurl: Path) -> None:
    command: list[str | Path] = [grpcurl, "-plaintext", f"127.0.0.1:{gateway.port}", "lmchat.v1.Models/ListModels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "Code: Unauthenticated" in done.stderr
    assert '"reason": "MISSING_API_KEY"' in done.stderr


def test_buf_curl(gateway: UpProcess) -> None:
    buf = Path(sys.executable).with_name("buf")
    key = ["-H", f"authorization: Bearer {gateway.key}"]
    url = f"{gateway.url}/lmchat.v1.ChatCompletions/StreamChatCompletion"
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1"]
    chunks = objects(output([buf, "curl", *options, *key, "-d", json.dumps(REQUEST), url]))
    assert "Paris" in content(chunks)
