"""What the dialects share: dialects, platforms, vendors and endpoints, and the protocols a translator implements.

A dialect says everything the rest of the gateway may ask of it in one `Dialect`; a vendor in one row, its
`Vendor`. Code outside a dialect's folder names neither. Translators do no I/O, read no clock, no environment and
no globals. Ids and times that a provider does not give are left empty; the router fills them in.
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
    """How one place serves a dialect: URLs, headers, what it lacks.

    Each dialect has a subclass with the fields it reads. Vendors whose row names no platform for a dialect have
    the dialect's default.
    """

    #: Headers of every call, besides the content types; lower case.
    headers: Mapping[str, str] = {}
    #: Content parts it takes as bytes only: `image_url`, `file_url`. The gateway fetches their URLs.
    bytes_only: frozenset[str] = frozenset()

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """The URL of a call. By default the base URL."""
        return endpoint.base_url

    def is_resource_name(self, model: str) -> bool:
        """Whether `model` is an address, which may lie outside the configured account or path, and no plain id.

        Operators may configure such names; callers must not choose them through a wildcard. By default none is.
        """
        return False


class EmbeddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The one model of a vendor that is part of the gateway.

    `context_length`: tokens of prompt and answer together.
    """

    id: str
    model: str
    context_length: int


class CredentialKinds(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor accepts besides an API key.

    `accepted`: the sets of names that a provider's `credentials` may consist of. `authenticator`: makes one for
    what is neither an API key nor a ready token, from the settings, the transport for token requests and a clock
    in seconds since the epoch; None where the settings call for none. It imports the vendor's library when called.
    """

    accepted: tuple[tuple[str, ...], ...]
    authenticator: Callable[
        [ProviderSettings, httpx.AsyncBaseTransport, Callable[[], float]], Authenticator | None
    ]


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the registry: an account at a vendor, and how its API differs from its dialect's plain form."""

    # The account

    #: The word in the configuration.
    type: str
    dialect: str
    #: Prefixes of model ids whose dialect is another: prefix -> dialect.
    model_dialects: Mapping[str, str] = {}
    #: `{region}`, `{location}` and `{project}` stand for the provider's settings.
    base_url: str = ""
    #: Base URLs of locations that do not fit `base_url`.
    location_urls: Mapping[str, str] = {}
    #: Dialect -> where this vendor serves it, if not on the dialect's default platform.
    platforms: Mapping[str, Platform] = {}
    #: The header that carries an API key; `bearer` means `authorization: Bearer`.
    auth: str = "bearer"
    #: What it accepts besides an API key; None for nothing.
    credentials: CredentialKinds | None = None
    #: The usual environment variables of the API key, first found wins. A vendor without is not part of the
    #: default catalogue.
    env: tuple[str, ...] = ()
    #: Settings it cannot do without -> the environment variables they usually come from.
    required: Mapping[str, tuple[str, ...]] = {}
    #: The `credentials` of the default catalogue, where `env` are not API keys.
    ambient_credentials: Mapping[str, bool] | None = None
    #: The model it is there for, where it is part of the gateway.
    embedded: EmbeddedModel | None = None
    #: The row of an embedded engine that serves the model in a provider's `file`; None where there is no engine.
    with_file: Vendor | None = None
    #: The row for base URLs that do not match `own_urls`: a server of the same dialect that is not this vendor's.
    elsewhere: Vendor | None = None
    #: Pattern of this vendor's own base URLs; only used with `elsewhere`.
    own_urls: str = ""
    #: Reasoning signed by other dialects is sent on: a gateway that can use it may be behind the base URL.
    foreign_signatures: bool = False
    #: The vendor's page about what it takes, and the day (ISO 8601) on which it was last read for this row; empty
    #: where that is not recorded.
    source: str = ""
    checked: str = ""
    #: Pattern of model ids -> fields of this row that differ for those models; see `for_model`.
    by_model: Mapping[str, Mapping[str, Any]] = {}

    # What all dialects look at

    #: Request fields the vendor refuses or ignores.
    drops: frozenset[str] = frozenset()
    #: `response_format` kinds that are understood.
    response_formats: frozenset[str] = frozenset({"text", "json_object", "json_schema"})
    #: Kinds of content parts that are understood.
    modalities: frozenset[str] = frozenset({"text", "image", "audio", "file"})
    #: The most stop sequences it takes.
    max_stop: int = 4
    #: The range of `temperature`; one outside is sent as the nearest inside.
    temperatures: tuple[float, float] = (0.0, 2.0)
    #: Default sampling parameters, sent where the caller gives none.
    defaults: Mapping[str, float] = {}
    #: It continues an assistant turn that comes last, streaming only what follows it; where the dialect says that
    #: depends on the model, `Dialect.prefills` must agree.
    prefill: bool = False
    #: Body fields it needs for that.
    prefill_body: Mapping[str, bool | Mapping[str, bool]] = {}

    # Quirks of the OpenAI dialect

    #: The name of the token limit: `max_tokens`, `max_completion_tokens`, or empty for the one the caller used.
    token_limit: str = ""
    #: `developer` turns are sent as `system` where False.
    developer_role: bool = True
    #: Content made of text parts only is sent as one string where True.
    string_content: bool = False
    #: `stream_options.include_usage` is understood.
    stream_usage: bool = True
    #: Fields beyond OpenAI's that it takes in messages, parts, calls and tools, such as `cache_control` and the
    #: `reasoning_content` of earlier answers; None for any.
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
    #: Features of capabilities.FEATURES it has, natively or by emulation; None for all.
    features: frozenset[str] | None = None
    #: Those it has by emulation only, and `image_url` and `file_url` where it wants bytes; see upstream/emulation.
    emulates: frozenset[str] = frozenset()
    #: Choices one call can give where `n` is emulated.
    native_n: int = 1
    #: Unknown top-level fields it understands; None for all.
    extra_body: frozenset[str] | None = None
    #: It continues an assistant turn that comes last.
    prefills: bool = False
    #: `format`s of reasoning signed by other dialects, which this endpoint must not be sent.
    foreign_formats: frozenset[str] = frozenset()
    #: Tokens; 0 where not configured.
    context_length: int = 0
    #: Tokens; 0 where not configured.
    max_output_tokens: int = 0
    #: Tells endpoints apart across the catalogue, for circuits and statistics; made of the other fields.
    id: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "id", f"{self.provider.key}/{self.name}/{self.model}")


P = TypeVar("P", bound=Platform)


def platform_of(endpoint: Endpoint, default: P) -> P:
    """Where `endpoint` is served: what its vendor's row says for its dialect, else `default`.

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
    #: Paths of parameters that this translation left out, beyond what the endpoint drops, e.g. `messages[0].name`.
    dropped: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Adds a provider's credentials to a call."""

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Headers to add. Raises ProviderError where there are no valid credentials."""
        ...


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
    """One dialect. `request` is the caller's, already without what the endpoint drops."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """The provider's request. Raises InvalidRequest for what the dialect cannot say."""
        ...

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer. Raises ProviderError for an error in a 200, or for a body that cannot be read."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What a non-2xx answer means. `headers` are lower case."""
        ...

    def decoder(self, request: ChatRequest) -> StreamDecoder:
        """A fresh decoder for one streamed answer."""
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

    #: The word in the configuration, in `Vendor.dialect` and in `Vendor.platforms`.
    name: str
    translator: Translator
    #: The platform of vendors whose row names none for this dialect.
    platform: Platform = Platform()
    #: Unknown top-level request fields it honours; None for all.
    extra_body: frozenset[str] | None = frozenset()
    #: By model: request fields that the model has no parameter for.
    drops: Callable[[str], frozenset[str]] = _no_fields
    #: What the gateway does for its endpoints whatever their vendor's row says: `json_object`, `json_schema`, `n`,
    #: `image_url`, `file_url`.
    emulates: frozenset[str] = frozenset()
    #: By request and model: it has the request's `response_format` although it emulates `json_object` and
    #: `json_schema`.
    native_format: Callable[[pb.ChatCompletionRequest, str], bool] = _no_format
    #: By URL: its providers can fetch it, and nobody else, although it emulates `image_url` or `file_url`.
    native_url: Callable[[str], bool] = _no_url
    #: By model: it continues an assistant turn that comes last, at vendors whose row has `prefill`.
    prefills: Callable[[str], bool] = _every_model
    #: `format`s of `reasoning_details`, and names in `extra_content`, under which it gets what it signed back.
    signature_formats: frozenset[str] = frozenset()
    #: Content parts of unknown type are passed on or understood.
    other_parts: bool = False
    #: Native finish reasons of turns that the provider paused; sending the turn back continues it.
    paused: frozenset[str] = frozenset()
