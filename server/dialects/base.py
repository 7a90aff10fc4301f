"""What the dialects share: dialects, platforms, vendors and endpoints, and the protocols a translator implements.

Everything the rest of the gateway needs to know of a dialect is in one `Dialect`, of a vendor in one row, its
`Vendor`; no other code depends on a particular one. Translators are pure: no I/O, clock, environment or globals.
Ids and times that a provider does not send are left empty; the router sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, completion_id
from server.chat.request import ChatRequest
from server.config.model import Price, ProviderSettings, Timeouts
from server.dialects.vendor import CredentialKinds, EmbeddedModel, Platform, Vendor
from server.errors import ProviderError

__all__ = [
    "Authenticator",
    "CredentialKinds",
    "Dialect",
    "EmbeddedModel",
    "Endpoint",
    "HttpRequest",
    "Platform",
    "StreamDecoder",
    "Translator",
    "Vendor",
    "completion_id",
    "platform_of",
]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A model at one provider; routing directives use `name`, `model` is the id at the provider."""

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
    #: Request fields dropped for this endpoint, the vendor's included.
    drops: frozenset[str] = frozenset()
    #: The supported features of capabilities.FEATURES, native or emulated; None for all.
    features: frozenset[str] | None = None
    #: Those that are emulated, and `image_url` and `file_url` where it needs bytes; see upstream/emulation.
    emulates: frozenset[str] = frozenset()
    #: The most choices of one call where `n` is emulated.
    native_n: int = 1
    #: Unknown top-level request fields that are sent to it; None for all.
    extra_body: frozenset[str] | None = None
    #: Whether it continues a trailing assistant message.
    prefills: bool = False
    #: `format`s of reasoning signed by other dialects, which this endpoint must not be sent.
    foreign_formats: frozenset[str] = frozenset()
    #: Tokens; 0 where not configured.
    context_length: int = 0
    #: Tokens; 0 where not configured.
    max_output_tokens: int = 0
    #: Unique in the catalogue, for circuits and statistics; derived from the other fields.
    id: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "id", f"{self.provider.key}/{self.name}/{self.model}")


P = TypeVar("P", bound=Platform)


def platform_of(endpoint: Endpoint, default: P) -> P:
    """The platform of `endpoint`: that of its vendor's row for its dialect, else `default`.

    Raises TypeError where the row names another dialect's platform.
    """
    platform = endpoint.vendor.platforms.get(endpoint.dialect, default)
    if not isinstance(platform, type(default)):
        raise TypeError(f"{endpoint.vendor.type}: {platform!r} is no {type(default).__name__}")
    return platform


class HttpRequest(msgspec.Struct, frozen=True):
    """One call to a provider, without its credentials. `headers` are lower case."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    #: The provider's name -> the caller's, for the tools whose names the provider would refuse.
    tool_names: Mapping[str, str] = {}
    #: Whether the answer is a stream although the caller's is not: some models answer in streams only.
    streamed: bool = False
    #: Paths of parameters that the translation dropped, beyond `Endpoint.drops`, e.g. `messages[0].name`.
    dropped: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Adds a provider's credentials to a call."""

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Headers to add. Raises ProviderError where there are no valid credentials."""
        ...


class StreamDecoder(Protocol):
    """Decodes the bytes of one stream to chunks.

    The chunks do not depend on how the bytes are split. Each choice's first chunk has `delta.role`; each choice
    gets exactly one finish_reason; usage, where the provider sends it, is on the last chunk, which has no choices.
    An error inside the stream raises ProviderError.
    """

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes. A ProviderError's `decoded` has the chunks before it."""
        ...

    def close(self) -> list[pb.ChatCompletionChunk]:
        """Signal the end of the bytes. Raises StreamTruncated if the stream was incomplete."""
        ...

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason; empty until the end."""
        ...

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason: only usage can follow."""
        ...


class Translator(Protocol):
    """The translator of a dialect. `request` is the caller's, without the fields that the endpoint drops."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """The provider's request. Raises InvalidRequest for what the dialect cannot express."""
        ...

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The completion. Raises ProviderError for an error in a 200, or for an undecodable body."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error of a non-2xx response. `headers` are lower case."""
        ...

    def decoder(self, request: ChatRequest) -> StreamDecoder:
        """A new decoder for one stream."""
        ...


def _no_fields(model: str) -> frozenset[str]:
    return frozenset()


def _no_format(request: pb.ChatCompletionRequest, model: str) -> bool:
    return False


def _no_url(url: str) -> bool:
    return False


def _every_model(model: str) -> bool:
    return True


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One wire format: its translator, and what depends on the format or on the model, not on the vendor.

    Each folder of server/dialects exports one as DIALECT; registry.py lists them. ADDING.md says how to add one.
    """

    #: Its name in the configuration, in `Vendor.dialect` and in `Vendor.platforms`.
    name: str
    translator: Translator
    #: The platform of vendors whose row names none for this dialect.
    platform: Platform = Platform()
    #: Unknown top-level request fields that it supports; None for all.
    extra_body: frozenset[str] | None = frozenset()
    #: By model: request fields for which the model has no parameter.
    drops: Callable[[str], frozenset[str]] = _no_fields
    #: Features that are emulated for all its endpoints, whatever the vendor's row has: `json_object`,
    #: `json_schema`, `n`, `image_url`, `file_url`.
    emulates: frozenset[str] = frozenset()
    #: By request and model: it has the request's `response_format` although it emulates `json_object` and
    #: `json_schema`.
    native_format: Callable[[pb.ChatCompletionRequest, str], bool] = _no_format
    #: By URL: whether only its providers can download it, although `emulates` has `image_url` or `file_url`.
    native_url: Callable[[str], bool] = _no_url
    #: By model: whether it continues a trailing assistant message, at vendors whose row has `prefill`.
    prefills: Callable[[str], bool] = _every_model
    #: The `format`s of `reasoning_details` and the names in `extra_content` whose signatures this dialect issued.
    signature_formats: frozenset[str] = frozenset()
    #: Whether it accepts content parts of unknown type.
    other_parts: bool = False
    #: Native finish reasons of turns that the provider paused; sending the turn back continues it.
    paused: frozenset[str] = frozenset()
