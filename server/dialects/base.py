"""What the dialects share: endpoints, and the shape of a translator and a stream decoder.

Translators do no I/O, read no clock, no environment and no globals. Ids and
times that a provider does not give are left empty; the router fills them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import PlainCompletion, PlainRequest
from server.config.model import Price, ProviderSettings, Timeouts
from server.errors import ProviderError


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the registry: how one vendor's API differs from its dialect's plain form.

    `type` is the word in the configuration. `auth` is the header that carries
    the key: `bearer`, or a header's name. `env` lists the vendor's usual
    environment variables, first found wins; a vendor without is never part of
    the default catalogue. `drops` are request fields the vendor refuses or
    ignores. The remaining flags are quirks of the OpenAI dialect.
    """

    type: str
    dialect: str = "openai"
    base_url: str = ""
    auth: str = "bearer"
    env: tuple[str, ...] = ()
    drops: frozenset[str] = frozenset()
    #: The name of the token limit: `max_tokens`, `max_completion_tokens`, or empty for whichever the caller used.
    token_limit: str = ""
    #: `developer` turns are sent as `system` where False.
    developer_role: bool = True
    #: Content made of text parts only is sent as one string where True.
    string_content: bool = False
    #: `stream_options.include_usage` is understood.
    stream_usage: bool = True
    #: `response_format` kinds that are understood.
    response_formats: frozenset[str] = frozenset({"text", "json_object", "json_schema"})
    #: Kinds of content parts that are understood.
    modalities: frozenset[str] = frozenset({"text", "image", "audio", "file"})
    #: The most stop sequences it takes.
    max_stop: int = 4
    #: It goes on with an assistant turn that comes last, streaming only what follows it; with Anthropic's dialect,
    #: where the model does (anthropic_models).
    prefill: bool = False
    #: Body fields it needs for that.
    prefill_body: Mapping[str, bool | Mapping[str, bool]] = {}
    #: Default sampling parameters, sent where the caller gives none.
    defaults: Mapping[str, float] = {}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One way to reach a model; `name` is what routing directives use, `model` the id at the provider."""

    name: str
    model: str
    #: The public id, reported as the completion's `model`.
    public_model: str
    vendor: Vendor
    provider: ProviderSettings
    dialect: str
    base_url: str
    timeouts: Timeouts
    #: Share of the traffic among neighbours with a weight; None keeps the catalogue's order.
    weight: float | None = None
    price: Price | None = None
    #: Request fields left out for this endpoint, the vendor's included.
    drops: frozenset[str] = frozenset()
    #: Features of features.FEATURES it has, natively or by emulation; None for all.
    features: frozenset[str] | None = None
    #: Those it has by emulation only, and `image_url` and `file_url` where it wants bytes; see emulation.py.
    emulates: frozenset[str] = frozenset()
    #: Choices one call can give where `n` is emulated.
    native_n: int = 1
    #: Unknown top-level fields it understands; None for all.
    extra_body: frozenset[str] | None = None
    #: Tokens; 0 where not configured.
    context_length: int = 0
    #: Tokens; 0 where not configured.
    max_output_tokens: int = 0
    #: Tells endpoints apart across the catalogue, for circuits and figures; it is made of the other fields.
    id: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "id", f"{self.provider.key}/{self.name}/{self.model}")


class HttpRequest(msgspec.Struct, frozen=True):
    """One call to a provider, without its credentials. `headers` are lower case."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


class StreamDecoder(Protocol):
    """Bytes of one streamed answer in, chunks out.

    Any split of the bytes gives the same chunks. Each choice's first chunk has
    `delta.role`; each choice gets exactly one finish_reason; usage comes, when
    the provider gives it, on a chunk of its own without choices, the last.
    An error inside the stream raises ProviderError.
    """

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes. A ProviderError's `decoded` has the chunks before it."""
        ...

    def close(self) -> list[pb.ChatCompletionChunk]:
        """Say that the bytes ended. Raises StreamTruncated if the provider had not finished."""
        ...

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word for why it ended; empty until then."""
        ...

    @property
    def finished(self) -> bool:
        """Every choice has its finish reason, which is held: the rest of the stream can add only usage."""
        ...


class Translator(Protocol):
    """One dialect. `request` is what the caller asked for, already without what the endpoint drops."""

    def request(self, request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """The provider's request. Raises InvalidRequest for what the dialect cannot say."""
        ...

    def plain_request(self, request: PlainRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest | None:
        """The same, if OpenAI's JSON is what the provider takes; else it is for `request`."""
        ...

    def completion(self, body: bytes, request: pb.ChatCompletionRequest) -> tuple[pb.ChatCompletion, str]:
        """The answer, and the provider's finish reason. Raises ProviderError for an error in a 200 or nonsense."""
        ...

    def plain(self, body: bytes) -> PlainCompletion | None:
        """The answer, if it is OpenAI's JSON in which nothing needs translation; else it is for `completion`."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What a non-2xx answer means. `headers` are lower case."""
        ...

    def decoder(self, request: pb.ChatCompletionRequest) -> StreamDecoder:
        """A fresh decoder for one streamed answer."""
        ...


def completion_id(provider_id: str) -> str:
    """The provider's id in OpenAI's form, so that both logs can be searched for it; empty stays empty."""
    return provider_id if not provider_id or provider_id.startswith("chatcmpl-") else f"chatcmpl-{provider_id}"
