"""`lmchat up` with a GGUF file in the embedded model's place: tools where the file's template takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.launcher import local_model
from tests.e2e.conftest import READY, UpProcess, start, stop
from tests.support import needs
from tests.support.gguf import TOOL_TEMPLATE, WEATHER, weather_conversation, with_template


def up_with(folder: Path, gguf: bytes) -> Iterator[UpProcess]:
    (folder / "Some-Model.gguf").write_bytes(gguf)
    config = folder / "c.yaml"
    config.write_text(
        "providers: {mine: {type: local, file: Some-Model.gguf}}\n"
        "models: {mine: {endpoints: [{provider: mine, model: Some-Model}]}}\n"
    )
    up = start(folder / "state", "--workers", "1", "--config", str(config))
    assert up.ready.wait(READY), "".join(up.output)
    assert up.process.poll() is None, "".join(up.output)
    yield up
    assert stop(up) == 0, "".join(up.output)


def weights() -> bytes:
    if reason := local_model.available():
        needs.missing(f"the embedded model: {reason}")
    path = local_model.weights()
    assert path is not None
    return path.read_bytes()


@pytest.fixture(name="with_tools", scope="module")
def with_tools_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    yield from up_with(tmp_path_factory.mktemp("with"), with_template(weights(), TOOL_TEMPLATE))


@pytest.fixture(name="without_tools")
def without_tools_fixture(tmp_path: Path) -> Iterator[UpProcess]:
    yield from up_with(tmp_path, weights())


def post(up: UpProcess, **fields: Any) -> httpx.Response:
    body = {"model": "mine", "messages": weather_conversation(), "temperature": 0, "max_tokens": 60, **fields}
    headers = {"authorization": f"Bearer {up.key}"}
    url = f"{up.url}/api/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=60.0, trust_env=False)


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
def test_the_model_calls_a_tool(with_tools: UpProcess, tool_choice: str) -> None:
    response = post(with_tools, tools=[WEATHER], tool_choice=tool_choice)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}


def test_the_call_is_streamed(with_tools: UpProcess) -> None:
    response = post(with_tools, tools=[WEATHER], tool_choice="required", stream=True)
    assert '"name":"get_weather"' in response.text
    assert '"finish_reason":"tool_calls"' in response.text
    assert response.text.rstrip().endswith("data: [DONE]")


def test_tools_are_refused_where_the_template_has_no_place_for_them(without_tools: UpProcess) -> None:
    response = post(without_tools, tools=[WEATHER])
    error = response.json()["error"]
    assert (response.status_code, error["lmchat"]["reason"]) == (400, "unsupported_feature"), response.text
    assert "tools" in error["message"]
    plain = post(without_tools, messages=[{"role": "user", "content": "What is the capital of France?"}])
    assert (plain.status_code, plain.json()["model"]) == (200, "mine")
