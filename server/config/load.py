"""The configuration file: YAML in, a Config out; every error names file, line and field.

What a provider's `type` means is checked by the catalogue.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.config.model import (
    Circuit,
    Config,
    EndpointSettings,
    Fetch,
    Key,
    ModelSettings,
    Price,
    ProviderSettings,
    Retry,
    Secret,
    Stream,
    Timeouts,
    environment_keys,
)
from server.config.problems import ConfigError, Problem, suggest
from server.config.yaml import NAME_FORM, Document, Section, is_name

#: A host's name, its last label not a number (that would be an address); or all names below one.
_HOST = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]*[a-z][a-z0-9_-]*\.?", re.ASCII | re.IGNORECASE)


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`; as `parse`. Raises ConfigError."""
    return parse(read(path), str(path), environ)


def read(path: Path) -> str:
    """The text of the file at `path`. Raises ConfigError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError([Problem(str(path), 0, "", f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), line, "", "is not UTF-8")]) from None


def parse(text: str, source: str, environ: Mapping[str, str]) -> Config:
    """The configuration that `text` describes; `environ` gives its variables, and the key `env`.

    `source` is the file's name in errors. Raises ConfigError with every problem found. Top-level keys
    that start with `x-` are ignored: they are a place for anchors.
    """
    document = Document(source, environ)
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
            if not is_name(key):
                section.report("", f"expected {NAME_FORM}")
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


def _timeouts(section: Section, default: Timeouts) -> Timeouts:
    """The section's timeouts, the absent ones from `default`."""
    with section:
        return Timeouts(
            connect=section.duration("connect", default.connect),
            first_token=section.duration("first_token", default.first_token),
            idle=section.duration("idle", default.idle),
            total=section.duration("total", default.total),
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
            file=section.text("file"),
            headers={name.lower(): value for name, value in section.section("headers").table().items()},
            credentials=_credentials(section.section("credentials")),
        )


def _secret(section: Section, name: str) -> Secret | None:
    """None where absent or empty."""
    value = section.text(name)
    return Secret(value) if value else None


def _credentials(section: Section) -> dict[str, str | bool | Secret]:
    """The credentials that are present, secrets wrapped."""
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
            present = [name for name in group if name in section]
            for name in group:
                if present and name not in present:
                    section.report(name, f"missing; {present[0]} needs it")
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
            resource_names=_resource_names(id_, section),
        )


def _resource_names(id_: str, section: Section) -> bool:
    if "resource_names" in section and not id_.endswith("*"):
        section.report("resource_names", "means something only under a model id that ends in a star")
    return section.flag("resource_names")


def _endpoint(section: Section, providers: Mapping[str, Timeouts]) -> EndpointSettings:
    provider = section.text("provider", required=True)
    if provider and provider not in providers:
        section.report("provider", f'no provider "{provider}"{suggest(provider, providers)}')
    with section:
        return EndpointSettings(
            name=section.name("name") or provider,
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
    """The models that only aliases name, as `<provider>/<model>`."""
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
