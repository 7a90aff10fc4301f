"""What the dialects share: dialects, platforms, vendors and endpoints, and the protocols a translator implements.

Everything the rest of the gateway needs to know of a dialect is in one `Dialect`, of a vendor in one row, its
`Vendor`; no other code depends on a particular one. Translators are pure: no I/O, clock, environment or globals.
Ids and times that a provider does not send are left empty; the router sets them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import httpx
import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, completion_id
from server.chat.request import ChatRequest
from server.config.model import Price, ProviderSettings, Timeouts
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

_NONE: frozenset[str] = frozenset()


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """How a vendor serves a dialect: URLs, headers, limitations.

    Each dialect has a subclass with its own fields. The default is the dialect's `platform`.
    """

    #: Headers of every call, besides the content types; lower case.
    headers: Mapping[str, str] = {}
    #: Content parts it accepts as bytes only: `image_url`, `file_url`. The gateway downloads their URLs.
    bytes_only: frozenset[str] = frozenset()

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """The URL of a call. By default the base URL."""
        return endpoint.base_url

    def is_resource_name(self, model: str) -> bool:
        """Whether `model` is a resource name, which can address another account or path, instead of a plain id.

        Operators may configure such names; callers must not pass them through a wildcard. Default: none is.
        """
        return False


class EmbeddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The one model of a vendor that is part of the gateway.

    `context_length`: tokens of prompt and completion together.
    """

    id: str
    model: str
    context_length: int


class CredentialKinds(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor accepts besides an API key.

    `accepted`: the sets of keys that a provider's `credentials` may have. `authenticator`: creates one for
    credentials other than an API key or a fixed token, from the settings, the transport for token requests and a
    clock in Unix seconds; returns None where the settings need none. It imports the vendor's library when called.
    """

    accepted: tuple[tuple[str, ...], ...]
    authenticator: Callable[
        [ProviderSettings, httpx.AsyncBaseTransport, Callable[[], float]], Authenticator | None
    ]


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the registry: an account at a vendor, and how its API differs from its dialect's plain form."""

    # The account

    #: Its name in the configuration.
    type: str
    dialect: str
    #: Prefixes of model ids whose dialect is another: prefix -> dialect.
    model_dialects: Mapping[str, str] = {}
    #: `{region}`, `{location}` and `{project}` stand for the provider's settings.
    base_url: str = ""
    #: Base URLs of locations that do not fit `base_url`.
    location_urls: Mapping[str, str] = {}
    #: Dialect -> the vendor's platform, if not the dialect's default.
    platforms: Mapping[str, Platform] = {}
    #: The header that carries an API key; `bearer` means `authorization: Bearer`.
    auth: str = "bearer"
    #: What it accepts besides an API key; None for nothing.
    credentials: CredentialKinds | None = None
    #: The usual environment variables of the API key; the first that is set wins. Vendors without any are not in
    #: the default catalogue.
    env: tuple[str, ...] = ()
    #: Required settings -> the environment variables that usually hold them.
    required: Mapping[str, tuple[str, ...]] = {}
    #: The `credentials` in the default catalogue, where the variables in `env` are not API keys.
    ambient_credentials: Mapping[str, bool] | None = None
    #: The embedded model, for the vendor that is part of the gateway.
    embedded: EmbeddedModel | None = None
    #: The row of an embedded engine that serves the model in a provider's `file`; None where there is no engine.
    with_file: Vendor | None = None
    #: The environment variable that names further `drops`, separated by commas: what the model in a file does not
    #: support, which `up` finds out.
    drops_variable: str = ""
    #: The row for base URLs that do not match `own_urls`: a server of the same dialect that is not this vendor's.
    elsewhere: Vendor | None = None
    #: Pattern of this vendor's own base URLs; only used with `elsewhere`.
    own_urls: str = ""
    #: Whether reasoning signed by other dialects is sent: the base URL may be that of another gateway.
    foreign_signatures: bool = False
    #: The vendor's page about what it takes, and the day (ISO 8601) on which it was last read for this row; empty
    #: where that is not recorded.
    source: str = ""
    checked: str = ""
    #: Pattern of model ids -> fields of this row that differ for those models; see `for_model`.
    by_model: Mapping[str, Mapping[str, Any]] = {}

    # Fields for all dialects

    #: Request fields that the vendor rejects or ignores.
    drops: frozenset[str] = frozenset()
    #: Supported `response_format` types.
    response_formats: frozenset[str] = frozenset({"text", "json_object", "json_schema"})
    #: Supported kinds of content parts.
    modalities: frozenset[str] = frozenset({"text", "image", "audio", "file"})
    #: The most stop sequences it accepts.
    max_stop: int = 4
    #: The range of `temperature`; one outside is sent as the nearest inside.
    temperatures: tuple[float, float] = (0.0, 2.0)
    #: Default sampling parameters, sent where the caller gives none.
    defaults: Mapping[str, float] = {}
    #: Whether it continues a trailing assistant message and returns only the continuation, for the models for
    #: which `Dialect.prefills` is true.
    prefill: bool = False
    #: Body fields that enable `prefill`.
    prefill_body: Mapping[str, bool | Mapping[str, bool]] = {}

    # Quirks of the OpenAI dialect

    #: The name of the token limit: `max_tokens`, `max_completion_tokens`, or empty for the caller's.
    token_limit: str = ""
    #: If False, `developer` messages are sent as `system`.
    developer_role: bool = True
    #: Whether content of text parts only is sent as one string.
    string_content: bool = False
    #: Whether `stream_options.include_usage` is supported.
    stream_usage: bool = True
    #: Fields beyond OpenAI's that it accepts in messages, parts, calls and tools, such as `cache_control` and the
    #: `reasoning_content` of earlier completions; None for any.
    extensions: frozenset[str] | None = None
    #: OpenAI's own fields of messages that it refuses, such as `name` (but of tool results) and `refusal`. A
    #: user's name is then written into the text.
    refused_in_messages: frozenset[str] = _NONE
    #: The values of `image_url.detail` that it takes; None for any.
    image_details: frozenset[str] | None = None
    #: Characters that `user` may have; 0 for any number. A longer one is sent as a digest.
    max_user_length: int = 0
    #: Tool call ids must have exactly so many letters and digits; 0 for any.
    call_id_length: int = 0
    #: The kinds of `tool_choice` that it takes; `function` is a function by its name.
    tool_choices: frozenset[str] = frozenset({"none", "auto", "required", "function"})
    #: What `strict` of tools may be: `any` for each tool, the `same` for all, or `refused`.
    strict_tools: Literal["any", "same", "refused"] = "any"

    def for_model(self, model: str) -> Vendor:
        """The row for one model, by its id at this vendor: later patterns of `by_model` win over earlier ones."""
        fields: dict[str, Any] = {}
        for pattern, differing in self.by_model.items():
            if re.search(pattern, model):
                fields |= differing
        return msgspec.structs.replace(self, **fields) if fields else self

    def dialect_for(self, model: str) -> str:
        """The dialect of a model by its id at this vendor."""
        found = (dialect for prefix, dialect in self.model_dialects.items() if model.startswith(prefix))
        return next(found, self.dialect)

    def url_for(self, *, region: str = "", location: str = "", project: str = "") -> str:
        """The base URL of a provider that configures none."""
        url = self.location_urls.get(location)
        return url or self.base_url.format(region=region, location=location, project=project)

    def at(self, base_url: str) -> Vendor:
        """The row for a provider with this base URL: this one, or `elsewhere`."""
        if self.elsewhere is None or re.fullmatch(self.own_urls, base_url):
            return self
        return self.elsewhere

    def in_dialect(self, plain: Vendor) -> Vendor:
        """This vendor's account with the quirks of `plain`, the plain row of another dialect."""
        return msgspec.structs.replace(
            plain,
            type=self.type,
            base_url=self.base_url,
            location_urls=self.location_urls,
            platforms=self.platforms,
            auth=self.auth,
            credentials=self.credentials,
            env=self.env,
            required=self.required,
            ambient_credentials=self.ambient_credentials,
            embedded=self.embedded,
            foreign_signatures=self.foreign_signatures,
            source=self.source,
            checked=self.checked,
        )


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
    return _NONE


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
