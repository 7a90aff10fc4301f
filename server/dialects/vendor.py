"""A vendor: its account, how it serves a dialect, and how it differs from the dialect's plain form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import httpx
import msgspec

from server.config.model import ProviderSettings

if TYPE_CHECKING:
    from server.dialects.base import Authenticator, Endpoint

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
    #: Request fields beyond the contract's that it refuses, such as OpenAI's `prompt_cache_key`.
    refused_in_requests: frozenset[str] = _NONE
    #: OpenAI's own fields of messages that it refuses, such as `name` (but of tool results) and `refusal`. A
    #: user's name is then written into the text.
    refused_in_messages: frozenset[str] = _NONE
    #: The values of `image_url.detail` that it takes; None for any.
    image_details: frozenset[str] | None = None
    #: Whether `input_audio.data` must be a data URL.
    audio_as_url: bool = False
    #: Whether turns of the user and the assistant must alternate; those that follow one another are sent as one.
    alternating: bool = False
    #: Fields of an assistant's turn that comes last, which the model continues, unless the caller sets them.
    last_turn: Mapping[str, Any] = {}
    #: Characters that `user` may have; 0 for any number. One that does not fit is sent as a digest.
    min_user_length: int = 0
    max_user_length: int = 0
    #: OpenAI's request fields -> the vendor's names for them.
    renames: Mapping[str, str] = {}
    #: Words of `reasoning_effort` -> the body fields that say the same to this vendor; without any fields, the
    #: effort is left out. Other words are sent as they are.
    efforts: Mapping[str, Mapping[str, Any]] = {}
    #: Whether an effort other than `none` may stand beside tools; if not, it is left out.
    effort_with_tools: bool = True
    #: OpenAI's words for `service_tier` -> the vendor's, an empty one where that tier is what it serves without
    #: being asked. Others of OpenAI's words are left out, words that are not OpenAI's are sent; None sends all.
    service_tiers: Mapping[str, str] | None = None
    #: Whether it takes tools of any name, not only of 1 to 64 letters, digits, `_` and `-`.
    any_tool_name: bool = False
    #: Tool call ids must have exactly so many letters and digits; 0 for any.
    call_id_length: int = 0
    #: The kinds of `tool_choice` that it takes; `function` is a function by its name.
    tool_choices: frozenset[str] = frozenset({"none", "auto", "required", "function"})
    #: What `strict` of tools may be: `any` for each tool, the `same` for all, or `refused`.
    strict_tools: Literal["any", "same", "refused"] = "any"
    #: Whether a function must have `parameters`; one without any takes no arguments.
    needs_parameters: bool = False
    #: Whether the assistant's turns must come back with `reasoning_content`, be it empty.
    needs_reasoning: bool = False
    #: Body fields of calls that are not streamed, unless the caller sets them.
    unary_body: Mapping[str, Any] = {}
    #: Whether it answers in streams only: always, or to bodies with one of these fields. The gateway then asks
    #: for a stream and makes one answer of it.
    streams_only: bool = False
    streams_only_with: Mapping[str, Any] = {}
    #: The vendor's name for the `reasoning_content` of earlier turns; empty where it is the same.
    reasoning_name: str = ""

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
