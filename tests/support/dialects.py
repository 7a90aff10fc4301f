"""The only way from tests to a dialect's translator that is independent of how translators are written.

OpenAI's JSON goes in and the provider's HTTP request comes out; the provider's bytes go in and the JSON that the
REST servicer writes comes out. Endpoints come from the catalogue, with the packaged vendor rows. Nothing is
emulated: what a dialect refuses here, `server.upstream.emulation` may still do for the endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.request import ChatRequest, read
from server.config.model import Config, EndpointSettings, ModelSettings, ProviderSettings, Secret
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.registry import DIALECTS
from server.errors import ProviderError
from server.routing.catalog import Catalog, Model
from server.routing.plan import plan

#: Required settings of vendors.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "azure": {"base_url": "https://example.openai.azure.com"},
    "vertex": {"project": "my-project", "location": "us-east5"},
    "bedrock": {"region": "us-east-1"},
    "databricks": {"base_url": "https://x.cloud.databricks.com"},
    "cloudflare": {"project": "abc"},
    "snowflake": {"project": "abc"},
}
_PUBLIC_MODEL = "public-model"

#: Fields of a request in OpenAI's JSON, beside `model` and `messages`.
Fields = Mapping[str, Any] | None


class _Healthy:
    """Endpoints without statistics; see `server.routing.plan.Health`."""

    def is_open(self, endpoint_id: str) -> bool:
        return False

    def latency(self, endpoint_id: str) -> float | None:
        return None

    def throughput(self, endpoint_id: str) -> float | None:
        return None


class Sent(NamedTuple):
    """The provider's request, and the fields that the endpoint drops."""

    request: HttpRequest
    dropped: list[str]


@cache
def endpoint_for(vendor: str, model: str, dialect: str = "") -> Endpoint:
    """The endpoint a configuration gives for `model` at a vendor; `dialect` where it is not the vendor's own."""
    settings = _SETTINGS.get(vendor, {})
    key = None if vendor in ("vertex", "bedrock") else Secret("key")
    provider = ProviderSettings(key=vendor, type=vendor, api_key=key, **settings)
    endpoint = EndpointSettings(name=vendor, provider=vendor, model=model, dialect=dialect)
    models = {_PUBLIC_MODEL: ModelSettings(id=_PUBLIC_MODEL, endpoints=(endpoint,))}
    catalog = Catalog(Config(providers={vendor: provider}, models=models), {})
    return catalog.resolve(_PUBLIC_MODEL).endpoints[0]


def parse(body: Mapping[str, Any]) -> ChatRequest:
    """A request as the REST servicer reads it. Raises InvalidRequest."""
    return read(json.dumps(body).encode())


def request_for(body: Mapping[str, Any], endpoint: Endpoint) -> Sent:
    """The provider's request for a REST request's body.

    Raises InvalidRequest for features that the endpoint lacks or its dialect cannot express.
    """
    request = parse(body)
    models = [Model(id=endpoint.public_model, endpoints=(endpoint,))]
    [candidate] = plan(request, models, _Healthy(), lambda: 0.0, default_tries=1).candidates
    translator = DIALECTS[endpoint.dialect].translator
    sent = translator.request(request.without(candidate.dropped), endpoint, stream=request.stream)
    return Sent(sent, [*candidate.dropped, *sent.dropped])


def _request(fields: Fields) -> ChatRequest:
    """The request that an answer is read by."""
    return parse({"model": _PUBLIC_MODEL, "messages": [{"role": "user", "content": "Hi"}], **(fields or {})})


def completion_of(dialect: str, data: bytes, fields: Fields = None) -> dict[str, Any]:
    """The completion for a unary answer. Raises ProviderError. `fields`: the request's, where they matter."""
    completion = DIALECTS[dialect].translator.completion(data, _request(fields))
    return json.loads(msgspec.json.encode(completion.to_openai()))  # type: ignore[no-any-return]


def error_of(dialect: str, status: int, headers: Mapping[str, str], data: bytes) -> ProviderError:
    """The error of a non-2xx response."""
    return DIALECTS[dialect].translator.error(status, headers, data)


class Stream:
    """A stream being decoded; `chunks` are the chunks so far, in OpenAI's JSON."""

    def __init__(self, dialect: str, fields: Fields = None) -> None:
        self._decoder = DIALECTS[dialect].translator.decoder(_request(fields))
        self.chunks: list[dict[str, Any]] = []

    def read(self, pieces: Iterable[bytes]) -> None:
        """Decode all pieces, and the end. Raises ProviderError; earlier chunks are in `chunks`."""
        try:
            for piece in pieces:
                self._add(self._decoder.feed(piece))
            self._add(self._decoder.close())
        except ProviderError as error:
            self._add(error.decoded)
            raise

    def _add(self, chunks: Iterable[pb.ChatCompletionChunk]) -> None:
        self.chunks += [openai_json.dump_chunk(chunk, include_usage=False) for chunk in chunks]


def chunks_of(dialect: str, pieces: Iterable[bytes], fields: Fields = None) -> list[dict[str, Any]]:
    """All chunks of a stream. Raises ProviderError. `fields`: the request's, where they matter."""
    stream = Stream(dialect, fields)
    stream.read(pieces)
    return stream.chunks
