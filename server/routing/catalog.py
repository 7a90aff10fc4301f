"""Model id -> its endpoints, in order: the configuration and the vendors' rows put together.

Built once; after that it only answers. Knows no network and no health.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

import msgspec

from server.config.model import Config, EndpointSettings, ModelSettings, ProviderSettings, Secret, environment_keys
from server.config.problems import ConfigError, Problem, suggest
from server.dialects.base import Endpoint, Vendor
from server.dialects.registry import DIALECTS, Dialect
from server.errors import LmchatError, Reason
from server.vendors.credentials.select import mistake
from server.vendors.registry import PLAIN, REQUIRED, VENDORS, VERTEX_ORIGINS

#: The embedded model's id where no configuration file gives it one.
LOCAL_MODEL = "local/smollm2"
#: Tokens of prompt and answer together; what launcher/local_model.py gives each request.
LOCAL_CONTEXT = 4096

#: Wildcard ids kept resolved; callers choose them, so their number has a bound.
_REMEMBERED = 1024
#: What may stand for a wildcard's star. It becomes part of URLs that carry our credentials.
_STAR = re.compile(r"(?!.*\.\.)[A-Za-z0-9~][A-Za-z0-9._:@/+~-]{0,511}", re.ASCII)
#: A user and password in it would show in logs.
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_OPENAI = re.compile(r"https://([a-z]+\.)?api\.openai\.com(/.*)?")

#: Request fields whose lack makes an endpoint unfit for requests that depend on them, and the features
#: (see providers.features) that go with each. Leaving these out would change what the answer is.
_FEATURE_FIELDS: Mapping[str, frozenset[str]] = {
    "tools": frozenset({"tools", "other_tools"}),
    "n": frozenset({"n"}),
    "response_format": frozenset({"json_object", "json_schema"}),
    "modalities": frozenset({"audio_output"}),
}
#: Features that the gateway can add to any endpoint (see providers.emulation).
_EMULABLE = frozenset({"json_object", "json_schema", "n"})
#: Of those, the ones that are left out all the same when the request does not depend on them.
_SPARE = frozenset({"modalities"})
#: Vendors whose environment variables are not API keys, and the credentials that use them.
_AMBIENT: Mapping[str, Mapping[str, bool]] = {"vertex": {"adc": True}, "bedrock": {}}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model callers can name; a wildcard is listed as such. Lengths in tokens, 0 where not configured."""

    id: str
    endpoints: tuple[Endpoint, ...]
    context_length: int = 0
    max_output_tokens: int = 0
    aliases: tuple[str, ...] = ()


class Catalog:
    """Every model of one configuration.

    `environ` gives what the file leaves out and registry.REQUIRED names, such
    as the embedded model's address. Raises ConfigError with every problem.
    """

    def __init__(
        self, config: Config, environ: Mapping[str, str], dialects: Mapping[str, Dialect] = DIALECTS
    ) -> None:
        builder = _Builder(config, environ, dialects)
        self._models = tuple(map(builder.model, config.models.values()))
        if builder.problems:
            raise ConfigError(builder.problems)
        self._exact = {model.id: model for model in self._models if not model.id.endswith("*")}
        self._prefixes = dict.fromkeys(model.id[:-1] for model in self._models if model.id.endswith("*"))
        self._lengths = sorted(set(map(len, self._prefixes)), reverse=True)
        self._aliases = dict(config.aliases)
        self._builder = builder
        self._find = lru_cache(_REMEMBERED)(self._resolve)
        self._names = frozenset(endpoint.name for model in self._models for endpoint in model.endpoints)
        known = [*self._exact, *self._aliases]
        self._by_id = sorted(known)
        self._by_tail = sorted((_tail(id_), id_) for id_ in known)

    @property
    def default_model(self) -> str:
        """The first model that is no wildcard; empty where there is none."""
        return next(iter(self._exact), "")

    def models(self) -> tuple[Model, ...]:
        """All models in the file's order, wildcards as such."""
        return self._models

    def endpoint_names(self) -> frozenset[str]:
        """The name of every endpoint of every model: what routing directives may say."""
        return self._names

    def resolve(self, model: str) -> Model:
        """The model that `model` names: its id, else an alias, else the longest wildcard's prefix.

        Raises LmchatError (MODEL_NOT_FOUND) with the nearest ids.
        """
        return self._find(model)

    def _resolve(self, model: str) -> Model:
        id_ = model if model in self._exact else self._aliases.get(model, model)
        if id_ in self._exact:
            return self._exact[id_]
        for length in self._lengths:
            prefix, star = id_[:length], id_[length:]
            if prefix in self._prefixes and _STAR.fullmatch(star):
                return self._builder.resolved(prefix, star)
        raise self._unknown(model)

    def _unknown(self, model: str) -> LmchatError:
        shown = model if len(model) <= 80 else f"{model[:80]}..."
        near = difflib.get_close_matches(shown, self._neighbours(shown) - {model}, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "GET /api/v1/models lists those there are."
        return LmchatError(Reason.MODEL_NOT_FOUND, f'There is no model "{shown}". {hint}', param="model")

    def _neighbours(self, model: str) -> set[str]:
        """Ids worth comparing: comparing all would cost too much where there are thousands."""
        tail = _tail(model)
        i = bisect.bisect(self._by_id, model)
        j = bisect.bisect(self._by_tail, (tail, ""))
        near = {*self._by_id[max(0, i - 8) : i + 8]}
        near.update(id_ for _, id_ in self._by_tail[max(0, j - 8) : j + 8])
        near.update(prefix + tail for prefix in islice(self._prefixes, 64) if _STAR.fullmatch(tail))
        return near


class _Builder:
    """Settings in, endpoints out, with every problem on the way."""

    def __init__(self, config: Config, environ: Mapping[str, str], dialects: Mapping[str, Dialect]) -> None:
        self._config = config
        self._dialects = dialects
        self.problems: list[Problem] = []
        self._aliases: dict[str, tuple[str, ...]] = {}
        for alias, target in config.aliases.items():
            self._aliases[target] = (*self._aliases.get(target, ()), alias)
        self._providers: dict[str, tuple[Vendor, ProviderSettings, str]] = {}
        for key, provider in config.providers.items():
            vendor = VENDORS.get(provider.type)
            if vendor is None:
                hint = suggest(provider.type, VENDORS)
                self._report(f"providers.{key}.type", f'no type "{provider.type}"{hint}')
            else:
                self._providers[key] = self._provider(vendor, provider, environ)

    def model(self, settings: ModelSettings) -> Model:
        """A model as it is listed: a wildcard with its stars in place."""
        endpoints = []
        for index, endpoint in enumerate(settings.endpoints):
            field = f"models.{settings.id}.endpoints[{index}].dialect"
            if endpoint.dialect and endpoint.dialect not in PLAIN:
                self._report(field, f'no dialect "{endpoint.dialect}"{suggest(endpoint.dialect, PLAIN)}')
            elif endpoint.provider in self._providers:
                endpoints.append(self._endpoint(endpoint, settings, settings.id, "*"))
        return self._model(settings, settings.id, endpoints)

    def resolved(self, prefix: str, star: str) -> Model:
        """What the wildcard with this prefix stands for when it is asked for `star`."""
        settings = self._config.models[f"{prefix}*"]
        id_ = prefix + star
        endpoints = [self._endpoint(endpoint, settings, id_, star) for endpoint in settings.endpoints]
        return self._model(settings, id_, endpoints)

    def _model(self, settings: ModelSettings, id_: str, endpoints: list[Endpoint]) -> Model:
        return Model(
            id=id_,
            endpoints=tuple(endpoints),
            context_length=settings.context_length,
            max_output_tokens=settings.max_output_tokens,
            aliases=self._aliases.get(id_, ()),
        )

    def _report(self, field: str, message: str) -> None:
        self.problems.append(self._config.problem(field, message))

    def _provider(
        self, vendor: Vendor, provider: ProviderSettings, environ: Mapping[str, str]
    ) -> tuple[Vendor, ProviderSettings, str]:
        """The vendor's row, the settings with what the environment adds, and the base URL."""
        field = f"providers.{provider.key}"
        elsewhere = bool(provider.base_url)
        for name, variables in REQUIRED.get(vendor.type, {}).items():
            value = getattr(provider, name) or _first(variables, environ)
            provider = msgspec.structs.replace(provider, **{name: value})
            if not value:
                self._report(f"{field}.{name}", f"missing; {vendor.type} needs it, here or as {variables[0]}")
        url = provider.base_url or _origin(vendor, provider)
        if url and not _URL.fullmatch(url):
            self._report(f"{field}.base_url", "expected a URL such as https://host/v1, without credentials")
        if vendor.type == "openai" and not _OPENAI.fullmatch(url):
            vendor = PLAIN["openai"]
        keyless = provider.api_key is None and not provider.headers and not provider.credentials
        if keyless and not elsewhere and vendor.env and vendor.type not in REQUIRED:
            self._report(f"{field}.api_key", f"missing; write ${{{vendor.env[0]}}}")
        if wrong := mistake(provider, vendor):
            self._report(f"{field}.credentials", wrong)
        return vendor, provider, url

    def _endpoint(self, settings: EndpointSettings, model: ModelSettings, id_: str, star: str) -> Endpoint:
        vendor, provider, base_url = self._providers[settings.provider]
        upstream = settings.model.replace("*", star)
        dialect = settings.dialect or _dialect(vendor, upstream)
        if dialect != vendor.dialect:
            vendor = msgspec.structs.replace(PLAIN[dialect], type=vendor.type, auth=vendor.auth)
        known = self._dialects[dialect]
        dropped = vendor.drops | settings.drops | known.drops(upstream)
        native = _features(vendor, dropped)
        added = _EMULABLE - native
        return Endpoint(
            name=settings.name,
            model=upstream,
            public_model=id_,
            vendor=vendor,
            provider=provider,
            dialect=dialect,
            base_url=base_url,
            timeouts=settings.timeouts,
            weight=settings.weight,
            price=settings.price,
            drops=dropped - (_FEATURE_FIELDS.keys() - _SPARE),
            features=native | added,
            emulates=added | known.emulates.get(vendor.type, known.emulates.get("", frozenset())),
            extra_body=known.extra_body,
            context_length=model.context_length,
            max_output_tokens=model.max_output_tokens,
        )


def default_config(environ: Mapping[str, str]) -> Config:
    """What holds without a file: the embedded model, and by wildcard every vendor whose variables are set.

    `LMCHAT_LOCAL_MODEL_URL` gives `local/smollm2`, `GROQ_API_KEY` gives
    `groq/*` and so on; `LMCHAT_API_KEY` is the key `env`. May have no models.
    """
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    for vendor in VENDORS.values():
        required = REQUIRED.get(vendor.type, {})
        key = _first(vendor.env, environ)
        local = vendor.type == "local"
        if not (key or local) or not all(_first(variables, environ) for variables in required.values()):
            continue
        providers[vendor.type] = ProviderSettings(
            key=vendor.type,
            type=vendor.type,
            api_key=Secret(key) if key and vendor.type not in _AMBIENT else None,
            credentials=_AMBIENT.get(vendor.type, {}),
        )
        id_, upstream = (LOCAL_MODEL, _tail(LOCAL_MODEL)) if local else (f"{vendor.type}/*", "*")
        endpoint = EndpointSettings(name=vendor.type, provider=vendor.type, model=upstream)
        models[id_] = ModelSettings(id=id_, endpoints=(endpoint,), context_length=LOCAL_CONTEXT if local else 0)
    return Config(keys=environment_keys(environ), providers=providers, models=models)


def _first(variables: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """The first of the variables that is set; empty where none is."""
    return next((environ[name] for name in variables if environ.get(name)), "")


def _origin(vendor: Vendor, provider: ProviderSettings) -> str:
    if vendor.type == "vertex" and provider.location in VERTEX_ORIGINS:
        return VERTEX_ORIGINS[provider.location]
    return vendor.base_url.format(region=provider.region, location=provider.location)


def _dialect(vendor: Vendor, model: str) -> str:
    return "anthropic" if vendor.type == "vertex" and model.startswith("claude-") else vendor.dialect


def _features(vendor: Vendor, dropped: frozenset[str]) -> frozenset[str]:
    """What of providers.features the endpoint has natively."""
    features = {"tools", "other_tools", "n", "audio_output", *vendor.response_formats, *vendor.modalities}
    features.discard("text")
    if vendor.dialect in ("openai", "gemini") and len(vendor.modalities) > 1:
        features.add("other_parts")
    for field in dropped & _FEATURE_FIELDS.keys():
        features -= _FEATURE_FIELDS[field]
    return frozenset(features)


def _tail(id_: str) -> str:
    """`gpt-5` of `openai/gpt-5`."""
    return id_.rpartition("/")[2]
