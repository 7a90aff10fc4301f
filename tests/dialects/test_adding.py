"""The steps of server/dialects/ADDING.md: a dialect, a platform and vendors added from outside the package."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects.base import Dialect, Endpoint, HttpRequest, Platform, Vendor, platform_of
from server.dialects.errors import classify, invalid_response, retry_after
from server.dialects.registry import DIALECTS
from server.errors import ProviderError, StreamTruncated
from server.routing.catalog import Catalog
from server.vendors.ambient import default_config
from server.vendors.registry import PLAIN, VENDORS
from tests.support import faults
from tests.support.faults import Behaviour, FaultServer, fault_server, reply
from tests.support.gateway import AUTH, Gateway, ask, run_gateway

# A dialect: `{"model", "lines": [[speaker, text]]}` in, `{"text", "end"}` or lines of it out.

_FINISH = {"full stop": pb.FINISH_REASON_STOP, "cut": pb.FINISH_REASON_LENGTH}


class TelegraphPlatform(Platform, frozen=True, kw_only=True):
    """`<base URL>/wire`."""

    path: str = "wire"

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        return f"{endpoint.base_url}/{self.path}"


DEFAULT_PLATFORM = TelegraphPlatform(headers={"x-telegraph-version": "1"})


class TelegraphTranslator:
    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        platform = platform_of(endpoint, DEFAULT_PLATFORM)
        lines = [
            [pb.Role.Name(message.role), "".join(part.text for part in message.content)]
            for message in request.to_proto().messages
        ]
        body: dict[str, Any] = {"model": endpoint.model, "lines": lines, "stream": stream}
        if request.to_proto().HasField("temperature"):
            body["heat"] = request.to_proto().temperature
        headers = {"content-type": "application/json", **platform.headers, **endpoint.provider.headers}
        return HttpRequest(platform.url(endpoint, stream=stream), headers, json.dumps(body).encode())

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        try:
            fields = json.loads(body)
            text, end = fields["text"], fields["end"]
        except (ValueError, KeyError, TypeError):
            raise invalid_response(f"no telegram: {body[:100]!r}") from None
        completion = pb.ChatCompletion()
        choice = completion.choices.add(finish_reason=_FINISH[end])
        choice.message.role = pb.ROLE_ASSISTANT
        choice.message.content.add(text=text)
        return ProtoCompletion(completion, end)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return classify(status, message=body.decode(errors="replace"), retry_after=retry_after(headers))

    def decoder(self, request: ChatRequest) -> TelegraphDecoder:
        return TelegraphDecoder()


class TelegraphDecoder:
    def __init__(self) -> None:
        self._partial = b""
        self._role = pb.ROLE_ASSISTANT
        self.native_finish_reason = ""

    @property
    def finished(self) -> bool:
        return bool(self.native_finish_reason)

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [self._chunk(json.loads(line)) for line in lines]

    def _chunk(self, fields: dict[str, str]) -> pb.ChatCompletionChunk:
        chunk = pb.ChatCompletionChunk()
        choice = chunk.choices.add()
        choice.delta.role, self._role = self._role, pb.ROLE_UNSPECIFIED
        if "text" in fields:
            choice.delta.content = fields["text"]
        if "end" in fields:
            self.native_finish_reason = fields["end"]
            choice.finish_reason = _FINISH[fields["end"]]
        return chunk

    def close(self) -> list[pb.ChatCompletionChunk]:
        if not self.native_finish_reason:
            raise StreamTruncated
        return []


TELEGRAPH = Dialect(
    name="telegraph",
    translator=TelegraphTranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=frozenset({"stamp"}),
    drops=lambda model: frozenset({"temperature"}) if model == "cold" else frozenset(),
    signature_formats=frozenset({"morse"}),
)

# Vendors: of the new dialect, with another platform, and of the OpenAI dialect.

_DROPS = frozenset({"n", "tools"})
WESTERN = Vendor(
    type="western", dialect="telegraph", auth="x-western-key", env=("WESTERN_KEY",), drops=_DROPS,
    base_url="https://western.example", response_formats=frozenset({"text"}), modalities=frozenset({"text"}),
)  # fmt: skip
PNEUMATIC = Vendor(
    type="pneumatic", dialect="telegraph", drops=_DROPS, base_url="https://tube.example",
    platforms={"telegraph": TelegraphPlatform(path="tubes/7")},
)  # fmt: skip
ACME = Vendor(
    type="acme", dialect="openai", base_url="https://acme.example/v1", env=("ACME_API_KEY",),
    token_limit="max_tokens", developer_role=False, drops=frozenset({"seed"}),
)  # fmt: skip

ADDED: dict[str, Any] = {
    "dialects": {**DIALECTS, "telegraph": TELEGRAPH},
    "vendors": {**VENDORS, "western": WESTERN, "pneumatic": PNEUMATIC, "acme": ACME},
    "plain": {**PLAIN, "telegraph": WESTERN},
}

CONFIGURATION = """
providers:
  western: {{type: western, base_url: "{origin}", api_key: dots}}
  tube: {{type: pneumatic, base_url: "{origin}"}}
  acme: {{type: acme, base_url: "{origin}/v1", api_key: dashes}}
models:
  cable: {{endpoints: [{{provider: western, model: sea}}]}}
  cold: {{endpoints: [{{provider: western, model: cold}}]}}
  tube: {{endpoints: [{{provider: tube, model: air}}]}}
  other: {{endpoints: [{{provider: acme, model: air, dialect: telegraph}}]}}
  anvil: {{endpoints: [{{provider: acme, model: anvil-1}}]}}
"""


def telegram(*words: str, end: str = "full stop") -> Behaviour:
    """A good answer in the new dialect, whole or streamed."""

    async def behave(call: faults.Call) -> None:
        if not call.body["stream"]:
            await reply(200, {"text": "".join(words), "end": end})(call)
            return
        await call.head(content_type="application/x-telegraph")
        data = "".join(json.dumps({"text": word}) + "\n" for word in words) + json.dumps({"end": end}) + "\n"
        for start in range(0, len(data), 7):
            await call.piece(data[start : start + 7].encode())
        await call.end()

    return behave


class Rig:
    """A gateway with the additions, and its provider."""

    def __init__(self, gateway: Gateway, upstream: FaultServer) -> None:
        self.gateway = gateway
        self.upstream = upstream

    def typed(self, model: str, **fields: Any) -> pb.ChatCompletionRequest:
        request = pb.ChatCompletionRequest(model=model, **fields)
        request.messages.add(role=pb.ROLE_USER).content.add(text="hello")
        return request


@pytest.fixture(name="rig")
async def rig_fixture(tmp_path: Path) -> Any:
    async with fault_server() as upstream:
        origin = upstream.base_url.removesuffix("/v1")
        async with run_gateway(tmp_path, CONFIGURATION.format(origin=origin), **ADDED) as gateway:
            yield Rig(gateway, upstream)


async def test_a_dialect_over_rest(rig: Rig) -> None:
    rig.upstream.script("sea", telegram("Hi", " there"))
    got = await rig.gateway.post(ask("cable", temperature=0.5, seed=1, stamp="red"))
    assert got.status == 200, got.body
    [choice] = got.json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi there", "stop")
    assert got.json()["lmchat"]["native_finish_reason"] == "full stop"
    events = (await rig.gateway.post(ask("cable", stream=True))).events()
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1]) == "Hi there"
    first, second = rig.upstream.calls
    assert first.path == second.path == "/wire"
    assert first.headers["x-western-key"] == "dots"
    assert first.headers["x-telegraph-version"] == "1"
    assert first.body == {"model": "sea", "lines": [["ROLE_USER", "hello"]], "stream": False, "heat": 0.5}


async def test_a_dialect_over_grpc(rig: Rig) -> None:
    rig.upstream.script("sea", telegram("Hi", " there", end="cut"))
    completion = await rig.gateway.chat.CreateChatCompletion(rig.typed("cable"), metadata=AUTH)
    [choice] = completion.choices
    assert (choice.message.content[0].text, choice.finish_reason) == ("Hi there", pb.FINISH_REASON_LENGTH)
    assert completion.lmchat.provider == "western"
    chunks = [c async for c in rig.gateway.chat.StreamChatCompletion(rig.typed("cable"), metadata=AUTH)]
    assert "".join(choice.delta.content for chunk in chunks for choice in chunk.choices) == "Hi there"
    assert chunks[-1].lmchat.native_finish_reason == "cut"


async def test_what_a_dialect_says_of_a_model(rig: Rig) -> None:
    rig.upstream.script("cold", telegram("brr"))
    got = await rig.gateway.post(ask("cold", temperature=0.5))
    assert got.json()["lmchat"]["dropped_params"] == ["temperature"]
    assert "heat" not in rig.upstream.calls[0].body


async def test_a_dialects_errors(rig: Rig) -> None:
    rig.upstream.script("sea", reply(429, b"busy", "text/plain"))
    got = await rig.gateway.post(ask("cable"))
    assert (got.status, got.json()["error"]["code"]) == (429, "rate_limited")


@pytest.mark.parametrize(
    ("model", "path", "version"),
    [
        pytest.param("tube", "/tubes/7", None, id="a platform on the vendor's row"),
        pytest.param("other", "/v1/wire", "1", id="another vendor's row: the default platform"),
    ],
)
async def test_platforms(rig: Rig, model: str, path: str, version: str | None) -> None:
    rig.upstream.script("air", telegram("Whoosh"))
    got = await rig.gateway.post(ask(model))
    assert got.json()["choices"][0]["message"]["content"] == "Whoosh"
    [call] = rig.upstream.calls
    assert (call.path, call.headers.get("x-telegraph-version")) == (path, version)


async def test_a_vendor_of_the_openai_dialect(rig: Rig) -> None:
    rig.upstream.script("anvil-1", faults.answer("Clang", "!"))
    signed = {"type": "reasoning.text", "text": "-.-.", "signature": "s", "format": "morse"}
    turns = [
        {"role": "developer", "content": "Be loud."},
        {"role": "assistant", "content": "x", "reasoning_details": [signed]},
        {"role": "user", "content": "hello"},
    ]
    got = await rig.gateway.post(ask("anvil", messages=turns, seed=1, max_completion_tokens=9))
    assert got.json()["choices"][0]["message"]["content"] == "Clang!"
    assert got.json()["lmchat"]["dropped_params"] == ["seed", "messages[1].reasoning_details"]
    chunks = [c async for c in rig.gateway.chat.StreamChatCompletion(rig.typed("anvil"), metadata=AUTH)]
    assert "".join(choice.delta.content for chunk in chunks for choice in chunk.choices) == "Clang!"
    call = rig.upstream.calls[0]
    assert (call.path, call.headers["authorization"]) == ("/v1/chat/completions", "Bearer dashes")
    assert call.body["max_tokens"] == 9
    assert [message["role"] for message in call.body["messages"]] == ["system", "assistant", "user"]
    assert "reasoning_details" not in call.body["messages"][1]  # signed by the dialect that was added


def test_added_vendors_are_in_the_default_catalogue() -> None:
    environ = {"WESTERN_KEY": "k", "ACME_API_KEY": "k"}
    config = default_config(environ, ADDED["vendors"])
    catalog = Catalog(config, environ, **ADDED)
    assert [model.id for model in catalog.models()] == ["western/*", "acme/*"]
    assert catalog.resolve("western/sea").endpoints[0].base_url == "https://western.example"


def test_a_row_with_another_dialects_platform() -> None:
    row = VENDORS["azure"].platforms["openai"]
    vendor = Vendor(type="x", dialect="telegraph", base_url="https://x.example", platforms={"telegraph": row})
    config = default_config(
        {"X": "k"}, {"x": Vendor(type="x", dialect="telegraph", env=("X",), base_url="https://x")}
    )
    [endpoint] = Catalog(config, {}, ADDED["dialects"], {"x": vendor}).models()[0].endpoints
    with pytest.raises(TypeError, match=r"x: AzureOpenAI.* is no TelegraphPlatform"):
        platform_of(endpoint, DEFAULT_PLATFORM)


@pytest.mark.parametrize(
    ("platform", "names", "others"),
    [
        (VENDORS["vertex"].platforms["gemini"], ["projects/p/locations/l/endpoints/1", "endpoints/1"], ["gemini"]),
        (VENDORS["vertex"].platforms["anthropic"], [], ["claude-opus-4-5@20251101"]),
        (VENDORS["azure"].platforms["openai"], ["a/b"], ["gpt-5"]),
        (DIALECTS["bedrock"].platform, ["arn:aws:bedrock:us-east-1:1:imported-model/x"], ["amazon.nova-v1:0"]),
        (DIALECTS["openai"].platform, [], ["accounts/fireworks/models/x", "openai/gpt-5"]),
        (DIALECTS["gemini"].platform, [], ["models/gemini-3"]),
        (TELEGRAPH.platform, [], ["sea"]),
    ],
)  # fmt: skip
def test_resource_names(platform: Platform, names: list[str], others: list[str]) -> None:
    assert all(map(platform.is_resource_name, names))
    assert not any(map(platform.is_resource_name, others))


# Where names may occur

SERVER = Path(__file__).parents[2] / "server"


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Every module of the server by its path below server/."""
    for path in sorted(SERVER.rglob("*.py")):
        yield path.relative_to(SERVER).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def compares_type(node: ast.AST) -> bool:
    """`vendor.type == ...`, `... in provider.type`, `match endpoint.vendor.type:` and the like."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
    elif isinstance(node, ast.Match):
        sides = [node.subject]
    else:
        return False
    holders = [side.value for side in sides if isinstance(side, ast.Attribute) and side.attr == "type"]
    names = {holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "") for holder in holders}
    return bool(names & {"vendor", "provider", "settings"})


def test_nothing_compares_types() -> None:
    modules = list(sources())
    assert len(modules) > 80
    assert [path for path, tree in modules if any(map(compares_type, ast.walk(tree)))] == []
    assert compares_type(ast.parse('endpoint.vendor.type == "x"').body[0].value)  # type: ignore[attr-defined]
    assert compares_type(ast.parse('"x" in (provider.type, 1) or vendor.type in y').body[0].value.values[1])  # type: ignore[attr-defined]


def test_dialects_are_named_in_their_folders_and_on_vendors_rows_only() -> None:
    found = [
        f"{path}:{node.lineno}: {node.value!r}"
        for path, tree in sources()
        if not path.startswith(("vendors/", *(f"dialects/{name}/" for name in DIALECTS)))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in DIALECTS
    ]
    assert found == []
    named = [
        node.value
        for path, tree in sources()
        if path == "vendors/registry.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in DIALECTS
    ]
    assert set(named) == set(DIALECTS)
