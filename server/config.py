"""Configuration: typed, frozen, from one YAML file; every error names file, line and field.

The only module that reads the environment. What a provider's `type` means is
not known here: the catalogue checks that.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.config_yaml import ConfigError as ConfigError
from server.config_yaml import Document, Section
from server.config_yaml import Problem as Problem
from server.config_yaml import suggest as suggest

#: A host's name, its last label not a number (that would be an address); or all names below one.
_HOST = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]*[a-z][a-z0-9_-]*\.?", re.ASCII | re.IGNORECASE)


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
    """One entry of `providers`: an account at a vendor, or a server of one's own."""

    key: str
    type: str
    base_url: str = ""
    api_key: Secret | None = None
    api_version: str = ""
    region: str = ""
    project: str = ""
    location: str = ""
    #: Further headers sent with every call; names in lower case.
    headers: Mapping[str, str] = {}
    #: What credentials.py understands: adc, service_account_file, access_token, profile, access_key_id, ...
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
    """One entry of `models`; an id that ends in `*` is a wildcard."""

    id: str
    endpoints: tuple[EndpointSettings, ...]
    context_length: int = 0
    max_output_tokens: int = 0


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
        """What a later check found wrong, at the line of `field` or of what holds it."""
        at = field
        while at and at not in self.lines:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return Problem(self.source, self.lines.get(at, 0), field, message)


def environment() -> dict[str, str]:
    """A copy of the process's environment; what `load` and the catalogue take as `environ`."""
    return dict(os.environ)


def environment_keys(environ: Mapping[str, str]) -> tuple[Key, ...]:
    """The key `env`, where `LMCHAT_API_KEY` is set."""
    value = environ.get("LMCHAT_API_KEY")
    return (Key(name="env", key=Secret(value)),) if value else ()


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read the file at `path`; `environ` gives its variables, and the key `env`.

    Raises ConfigError with every problem found. Top-level keys that start with
    `x-` are left alone: they are a place for anchors.
    """
    document = Document(str(path), environ)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError([Problem(document.file, 0, "", f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(document.file, line, "", "is not UTF-8")]) from None
    config = _config(document.root(text), environ)
    if document.problems:
        raise ConfigError(document.problems)
    return msgspec.structs.replace(config, source=document.file, lines=document.lines)


def _config(root: Section, environ: Mapping[str, str]) -> Config:
    root.extensions = "x-"
    retry, circuit, stream = root.section("retry"), root.section("circuit"), root.section("stream")
    with root, retry, circuit, stream:
        timeouts = _timeouts(root.section("timeouts"), Timeouts())
        providers: dict[str, ProviderSettings] = {}
        provider_timeouts: dict[str, Timeouts] = {}
        for key, section in root.sections("providers").items():
            provider_timeouts[key] = _timeouts(section.section("timeouts"), timeouts)
            providers[key] = _provider(key, section)
        entries = root.sections("models")
        models = {id_: _model(id_, entry, provider_timeouts) for id_, entry in entries.items()}
        alias_section = root.section("aliases")
        aliases = alias_section.table()
        models |= _aliases(alias_section, aliases, models, provider_timeouts)
        if not models:
            root.report("models", "at least one model is needed")
        return Config(
            keys=_keys(root.section("auth"), environment_keys(environ)),
            retry=Retry(max_provider_tries=retry.integer("max_provider_tries", 3, minimum=1)),
            circuit=Circuit(
                window=circuit.duration("window", 30.0),
                min_requests=circuit.integer("min_requests", 5, minimum=1),
                failure_ratio=circuit.number("failure_ratio", 0.5, minimum=0, maximum=1),
                cooldown=circuit.duration("cooldown", 10.0),
            ),
            stream=Stream(keep_alive=stream.duration("keep_alive", 15.0)),
            fetch=_fetch(root.section("fetch")),
            providers=providers,
            models=models,
            aliases=aliases,
        )


def _keys(auth: Section, from_environment: tuple[Key, ...]) -> tuple[Key, ...]:
    names = {"env"}  # that of LMCHAT_API_KEY
    keys: list[Key] = []
    with auth:
        for section in auth.items("keys"):
            with section:
                name, value = section.text("name", required=True), section.text("key", required=True)
            key = Key(name=name, key=Secret(value))
            if name in names:
                taken = "is the name of LMCHAT_API_KEY's key" if name == "env" else "is used twice"
                section.report("name", f'"{name}" {taken}')
            same = next((other.name for other in keys if value and other.key == key.key), None)
            if same is not None:
                section.report("key", f'the same key as that of "{same}"')
            names.add(name)
            keys.append(key)
    keys.extend(key for key in from_environment if all(key.key != other.key for other in keys))
    return tuple(keys)


def _fetch(section: Section) -> Fetch:
    default = Fetch()
    with section:
        allow = section.texts("allow")
        for index, entry in enumerate(allow):
            if not _HOST.fullmatch(entry) and not _is_network(entry):
                section.report("allow", f"item {index + 1} is no host, address or CIDR such as 10.1.0.0/16")
        return Fetch(
            allow=allow,
            max_bytes=section.integer("max_bytes", default.max_bytes, minimum=1),
            timeout=section.duration("timeout", default.timeout),
        )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _timeouts(section: Section, over: Timeouts) -> Timeouts:
    """What the section says, the rest from `over`."""
    with section:
        return Timeouts(
            connect=section.duration("connect", over.connect),
            first_token=section.duration("first_token", over.first_token),
            idle=section.duration("idle", over.idle),
            total=section.duration("total", over.total),
        )


def _provider(key: str, section: Section) -> ProviderSettings:
    with section:
        return ProviderSettings(
            key=key,
            type=section.text("type", required=True),
            base_url=section.text("base_url"),
            api_key=_secret(section, "api_key"),
            api_version=section.text("api_version"),
            region=section.text("region"),
            project=section.text("project"),
            location=section.text("location"),
            headers={name.lower(): value for name, value in section.section("headers").table().items()},
            credentials=_credentials(section.section("credentials")),
        )


def _secret(section: Section, name: str) -> Secret | None:
    """None where absent or empty."""
    value = section.text(name)
    return Secret(value) if value else None


def _credentials(section: Section) -> dict[str, str | bool | Secret]:
    """Those given, secrets wrapped."""
    credentials: dict[str, str | bool | Secret] = {}
    with section:
        if section.flag("adc"):
            credentials["adc"] = True
        for name in ("service_account_file", "profile", "access_key_id", "tenant_id", "client_id"):
            if text := section.text(name):
                credentials[name] = text
        for name in ("access_token", "secret_access_key", "session_token", "bearer_token", "client_secret"):
            if secret := _secret(section, name):
                credentials[name] = secret
        for group in (("access_key_id", "secret_access_key"), ("tenant_id", "client_id", "client_secret")):
            given = [name for name in group if name in section]
            for name in group:
                if given and name not in given:
                    section.report(name, f"missing; {given[0]} needs it")
    return credentials


def _model(id_: str, section: Section, providers: Mapping[str, Timeouts]) -> ModelSettings:
    if "*" in id_[:-1]:
        section.report("", "a wildcard has its star at the end, and only there")
    endpoints: dict[str, EndpointSettings] = {}
    with section:
        items = section.items("endpoints")
        for item in items:
            endpoint = _endpoint(item, providers)
            if endpoint.name in endpoints:
                item.report("name", f'this model has two endpoints named "{endpoint.name}"')
            if "*" in endpoint.model and not id_.endswith("*"):
                item.report("model", "a star means something only under a model id that ends in one")
            endpoints[endpoint.name] = endpoint
        if not items:
            section.report("endpoints", "at least one endpoint is needed")
        return ModelSettings(
            id=id_,
            endpoints=tuple(endpoints.values()),
            context_length=section.integer("context_length", 0, minimum=1),
            max_output_tokens=section.integer("max_output_tokens", 0, minimum=1),
        )


def _endpoint(section: Section, providers: Mapping[str, Timeouts]) -> EndpointSettings:
    provider = section.text("provider", required=True)
    if provider and provider not in providers:
        section.report("provider", f'no provider "{provider}"{suggest(provider, providers)}')
    with section:
        return EndpointSettings(
            name=section.text("name") or provider,
            provider=provider,
            model=section.text("model", required=True),
            dialect=section.text("dialect"),
            timeouts=_timeouts(section.section("timeouts"), providers.get(provider, Timeouts())),
            weight=section.number("weight", 1.0, minimum=0, positive=True) if "weight" in section else None,
            price=_price(section.section("price")) if "price" in section else None,
            drops=frozenset(section.texts("drops")),
        )


def _price(section: Section) -> Price:
    for name in ("input", "output"):
        if name not in section:
            section.report(name, "missing")
    with section:
        return Price(
            input=section.number("input", 0.0, minimum=0), output=section.number("output", 0.0, minimum=0)
        )


def _aliases(
    section: Section,
    aliases: Mapping[str, str],
    models: Mapping[str, ModelSettings],
    timeouts: Mapping[str, Timeouts],
) -> dict[str, ModelSettings]:
    """The models that aliases bring in themselves: those they name as `<provider>/<model>`."""
    prefixes = tuple(id_[:-1] for id_ in models if id_.endswith("*"))
    implied: dict[str, ModelSettings] = {}
    for alias, target in aliases.items():
        if alias in models:
            section.report(alias, "a model has this id")
        elif "*" in alias:
            section.report(alias, "an alias has no wildcard")
        provider, _, model = target.partition("/")
        if target in models or any(target.startswith(p) and target != p for p in prefixes):
            continue
        if provider in timeouts and model and "*" not in model:
            limits = timeouts[provider]
            endpoint = EndpointSettings(name=provider, provider=provider, model=model, timeouts=limits)
            implied[target] = ModelSettings(id=target, endpoints=(endpoint,))
        elif target:
            hint = "; an alias cannot name another" if target in aliases else suggest(target, models)
            section.report(alias, f'no model "{target}"{hint}')
    return implied
