"""The configuration, typed and frozen. load.py reads it from a file."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from server.config.problems import Problem


class Secret:
    """A value that never shows in `repr`, logs or errors; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one provider call, in seconds. `first_token`: to the first content; `idle`: between reads."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0
    total: float = 600.0


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """USD per million tokens."""

    input: float
    output: float


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `providers`: an account at a vendor, or a server that the operator runs."""

    key: str
    type: str
    base_url: str = ""
    api_key: Secret | None = None
    api_version: str = ""
    region: str = ""
    project: str = ""
    location: str = ""
    #: The GGUF file that the embedded engine serves instead of its own model; relative to the configuration file.
    file: str = ""
    #: Further headers sent with every call; names in lower case.
    headers: Mapping[str, str] = {}
    #: What vendors/credentials understands: adc, service_account_file, access_token, profile, access_key_id, ...
    credentials: Mapping[str, str | bool | Secret] = {}


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a model's `endpoints`; its timeouts go over the provider's, and those over the file's."""

    name: str
    provider: str
    model: str
    dialect: str = ""
    timeouts: Timeouts = Timeouts()
    #: Share of the traffic among neighbours that have one; None keeps the order written.
    weight: float | None = None
    price: Price | None = None
    drops: frozenset[str] = frozenset()


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `models`; an id that ends in `*` is a wildcard.

    `resource_names`: callers of the wildcard may choose names that are addresses of resources, such as
    `projects/...` and ARNs; see `Platform.is_resource_name`.
    """

    id: str
    endpoints: tuple[EndpointSettings, ...]
    context_length: int = 0
    max_output_tokens: int = 0
    resource_names: bool = False


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key callers may use, with the name that logs show."""

    name: str
    key: Secret


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """`max_provider_tries`: provider calls for one request, retries included, where it does not say."""

    max_provider_tries: int = 3


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """When an endpoint is avoided. Times in seconds."""

    window: float = 30.0
    min_requests: int = 5
    failure_ratio: float = 0.5
    cooldown: float = 10.0


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """`keep_alive`: seconds of silence after which a REST stream gets a comment line."""

    keep_alive: float = 15.0


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """How images and files are fetched for providers that want bytes.

    `allow`: hosts (`*.` at the front for all below one) and addresses or CIDRs that may be fetched from although
    they are not public, over http and on any port. `max_bytes`: of one file. `timeout`: seconds for one file.
    """

    allow: tuple[str, ...] = ()
    max_bytes: int = 20 * 1024 * 1024
    timeout: float = 10.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration, defaults filled in."""

    keys: tuple[Key, ...] = ()
    retry: Retry = Retry()
    circuit: Circuit = Circuit()
    stream: Stream = Stream()
    fetch: Fetch = Fetch()
    providers: Mapping[str, ProviderSettings] = {}
    models: Mapping[str, ModelSettings] = {}
    #: Alias -> model id. `models` has those too that only an alias names, as `<provider>/<model>`.
    aliases: Mapping[str, str] = {}
    #: The file this was read from.
    source: str = "default configuration"
    #: Field, e.g. `providers.groq.type`, -> its line in the file.
    lines: Mapping[str, int] = {}

    def problem(self, field: str, message: str) -> Problem:
        """A problem that a later check found, at the line of `field` or of what contains it."""
        at = field
        while at and at not in self.lines:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return Problem(self.source, self.lines.get(at, 0), field, message)


def environment_keys(environ: Mapping[str, str]) -> tuple[Key, ...]:
    """The key `env`, where `LMCHAT_API_KEY` is set."""
    value = environ.get("LMCHAT_API_KEY")
    return (Key(name="env", key=Secret(value)),) if value else ()
