"""The commands that call a gateway, against a real server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

from server import client

#: Clears the screen, sets the title, overwrites the line; C1's control sequence introducer.
HOSTILE = "\x1b[2J\x1b]0;title\x07\rok\x9b31m\x7f"
SHOWN = r"\x1b[2J\x1b]0;title\x07\rok\x9b31m\x7f"


class _Models(model_service_pb2_grpc.ModelsServicer):
    async def ListModels(self, request: Any, context: Any) -> model_service_pb2.ListModelsResponse:
        response = model_service_pb2.ListModelsResponse()
        response.data.add(id="wild/*")
        response.data.add(id="one")
        return response


class _Chat(chat_service_pb2_grpc.ChatCompletionsServicer):
    async def StreamChatCompletion(self, request: Any, context: Any) -> AsyncIterator[pb.ChatCompletionChunk]:
        prompt = request.messages[-1].content[0].text
        if prompt == "fail":
            await context.abort(grpc.StatusCode.INTERNAL, f"no{HOSTILE}")
        for text in (request.model, ": ", prompt):
            chunk = pb.ChatCompletionChunk()
            chunk.choices.add().delta.content = text
            yield chunk


@pytest.fixture(name="port")
async def port_fixture() -> AsyncIterator[int]:
    server = grpc.aio.server()
    model_service_pb2_grpc.add_ModelsServicer_to_server(_Models(), server)  # type: ignore[abstract]
    chat_service_pb2_grpc.add_ChatCompletionsServicer_to_server(_Chat(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
async def test_a_gateway_on_loopback(
    port: int, proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever proxy the shell names: gRPC would send even loopback's calls to it."""
    monkeypatch.setenv("http_proxy", proxy)
    url = f"http://127.0.0.1:{port}"
    assert await client.models(url, "") == 0
    assert capsys.readouterr().out == "wild/*\t\none\t\n"
    assert await client.chat(url, "k", "", "be brief", "hello") == 0
    assert capsys.readouterr().out == "one: hello\n"


async def test_controls_do_not_reach_the_terminal(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{port}"
    assert await client.chat(url, "k", f"m{HOSTILE}", "", f"one\n\ttwo \u200f\u05d0{HOSTILE}") == 0
    assert capsys.readouterr().out == f"m{SHOWN}: one\n\ttwo \u200f\u05d0{SHOWN}\n"
    assert await client.chat(url, "k", "m", "", "fail") == 1
    assert capsys.readouterr().err == f"lmchat: INTERNAL: no{SHOWN}\n"


async def test_no_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    assert await client.models("http://[::1]:1", "") == 1
    assert "Is a gateway running at http://[::1]:1?" in capsys.readouterr().err
