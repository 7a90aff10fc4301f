"""Builds endpoints from the configuration, the vendor registry and the dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.config.model import Config, EndpointSettings, ModelSettings, ProviderSettings, Secret
from server.config.problems import Problem, suggest
from server.dialects.base import Dialect, Endpoint, Vendor
from server.errors import LmchatError, Reason
from server.vendors.ambient import first_set
from server.vendors.credentials.select import credentials_error

#: Without userinfo: a password in the URL would appear in logs.
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")

#: Ends of addresses that people copy from examples: the gateway adds the path of the call itself.
_CALL_PATH = re.compile(r"/(chat/completions|completions|responses|messages|converse(-stream)?|embeddings)/?$")

#: Request fields without which an endpoint is unfit for requests that depend on them, and the features (see
#: capabilities.FEATURES) that go with each. Leaving these out would change what the answer is.
_FEATURE_FIELDS: Mapping[str, frozenset[str]] = {
    "tools": frozenset({"tools", "other_tools"}),
    "n": frozenset({"n"}),
    "response_format": frozenset({"json_object", "json_schema"}),
    "modalities": frozenset({"audio_output"}),
}
#: Features that the gateway can add to any endpoint; see upstream/emulation.
_EMULABLE = frozenset({"json_object", "json_schema", "n"})
#: The fields of _FEATURE_FIELDS that are dropped where the request does not depend on them.
_DROPPED_FEATURE_FIELDS = frozenset({"modalities"})


class EndpointBuilder:
    """Builds the endpoints of one configuration.

    Parameters as for Catalog. `problems` has every error in the providers' settings, and those of the models
    that `listed` was called with; while there are any, the endpoints are incomplete.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        dialects: Mapping[str, Dialect],
        vendors: Mapping[str, Vendor],
        plain: Mapping[str, Vendor],
    ) -> None:
        self._config = config
        self._dialects = dialects
        self._plain = {name: row for name, row in plain.items() if name in dialects}
        self.problems: list[Problem] = []
        formats = frozenset[str]().union(*(dialect.signature_formats for dialect in dialects.values()))
        self._foreign_formats = {name: formats - dialect.signature_formats for name, dialect in dialects.items()}
        self._providers: dict[str, tuple[Vendor, ProviderSettings, str]] = {}
        self._embedded_models = embedded_models(config, vendors)
        for key, provider in config.providers.items():
            vendor = vendors.get(provider.type)
            if vendor is None:
                hint = suggest(provider.type, vendors)
                self._report(f"providers.{key}.type", f'no type "{provider.type}"{hint}')
            else:
                self._providers[key] = self._provider(vendor, provider, environ)
        files = {key: config.providers[key].file for key in self._embedded_models}
        for key, file in files.items():
            first = next(iter(files))
            if file != files[first]:
                self._report(
                    f"providers.{key}.file", f'"{first}" serves another model; a gateway embeds one at a time'
                )

    def listed(self, model: ModelSettings) -> tuple[Endpoint, ...]:
        """A model's endpoints as ListModels shows them: those of a wildcard keep the star."""
        endpoints = []
        for index, settings in enumerate(model.endpoints):
            field = f"models.{model.id}.endpoints[{index}].dialect"
            if settings.dialect and settings.dialect not in self._plain:
                hint = suggest(settings.dialect, self._plain)
                self._report(field, f'no dialect "{settings.dialect}"{hint}')
            elif settings.provider in self._providers:
                served = self._embedded_models.get(settings.provider, settings.model)
                if settings.model != served:
                    self._report(
                        f"models.{model.id}.endpoints[{index}].model",
                        f'"{settings.provider}" serves only "{served}"; no model "{settings.model}"',
                    )
                endpoints.append(self._endpoint(settings, model, model.id, "*"))
        return tuple(endpoints)

    def resolved(self, model: ModelSettings, id_: str, star: str) -> tuple[Endpoint, ...]:
        """The endpoints of the wildcard `model` for the id `id_`, in which `star` replaces the star.

        Those for which the caller would have chosen a resource's address are left out, unless the configuration
        allows them. Raises LmchatError (MODEL_NOT_FOUND) where none is left.
        """
        endpoints = tuple(self._endpoint(settings, model, id_, star) for settings in model.endpoints)
        if model.resource_names:
            return endpoints
        allowed = tuple(
            endpoint
            for settings, endpoint in zip(model.endpoints, endpoints, strict=True)
            if "*" not in settings.model or not self._is_resource_name(endpoint)
        )
        if not allowed:
            raise LmchatError(
                Reason.MODEL_NOT_FOUND,
                f'"{star[:80]}" is the address of a resource. Callers cannot choose one through "{model.id}"; '
                "the gateway's operator can configure it as a model, or allow such names: `resource_names: true`.",
                param="model",
            )
        return allowed

    def _is_resource_name(self, endpoint: Endpoint) -> bool:
        platform = endpoint.vendor.platforms.get(endpoint.dialect, self._dialects[endpoint.dialect].platform)
        return platform.is_resource_name(endpoint.model)

    def _report(self, field: str, message: str) -> None:
        self.problems.append(self._config.problem(field, message))

    def _provider(
        self, vendor: Vendor, provider: ProviderSettings, environ: Mapping[str, str]
    ) -> tuple[Vendor, ProviderSettings, str]:
        """The vendor's row, the settings completed from the environment, and the base URL."""
        field = f"providers.{provider.key}"
        own_server = bool(provider.base_url)
        vendor_embeds = vendor.embedded is not None
        if provider.file:
            if vendor.with_file is None or own_server:
                self._report(f"{field}.file", "only a provider of type local without base_url serves a file")
            else:
                vendor = vendor.with_file
        if unsupported := environ.get(vendor.drops_variable):
            drops = vendor.drops.union(unsupported.split(","))
            vendor = msgspec.structs.replace(vendor, drops=drops)
        for name, variables in vendor.required.items():
            value = getattr(provider, name) or first_set(variables, environ)
            provider = msgspec.structs.replace(provider, **{name: value})
            if not value:
                self._report(f"{field}.{name}", f"missing; {vendor.type} needs it, here or as {variables[0]}")
        if vendor_embeds and not own_server and provider.api_key is None:
            key = first_set(vendor.env, environ)
            provider = msgspec.structs.replace(provider, api_key=Secret(key) if key else None)
        url = provider.base_url or vendor.url_for(
            region=provider.region, location=provider.location, project=provider.project
        )
        if url and not _URL.fullmatch(url):
            self._report(f"{field}.base_url", "expected a URL such as https://host/v1, without credentials")
        elif _CALL_PATH.search(url):
            self._report(
                f"{field}.base_url", "ends in the path of a call; write it without, up to `/v1` or the like"
            )
        vendor = vendor.at(url)
        keyless = provider.api_key is None and not provider.headers and not provider.credentials
        if keyless and not own_server and vendor.env and not vendor.required:
            self._report(f"{field}.api_key", f"missing; write ${{{vendor.env[0]}}}")
        if error := credentials_error(provider, vendor):
            self._report(f"{field}.credentials", error)
        return vendor, provider, url

    def _endpoint(self, settings: EndpointSettings, model: ModelSettings, id_: str, star: str) -> Endpoint:
        vendor, provider, base_url = self._providers[settings.provider]
        upstream = settings.model.replace("*", star)
        name = settings.dialect or vendor.dialect_for(upstream)
        if name != vendor.dialect:
            vendor = vendor.in_dialect(self._plain[name])
        vendor = vendor.for_model(upstream)
        dialect = self._dialects[name]
        dropped = vendor.drops | settings.drops | dialect.drops(upstream)
        native = _native_features(vendor, dialect, dropped)
        added = _EMULABLE - native
        platform = vendor.platforms.get(name, dialect.platform)
        return Endpoint(
            name=settings.name,
            model=upstream,
            public_model=id_,
            vendor=vendor,
            provider=provider,
            dialect=name,
            base_url=base_url,
            timeouts=settings.timeouts,
            weight=settings.weight,
            price=settings.price,
            drops=dropped - (_FEATURE_FIELDS.keys() - _DROPPED_FEATURE_FIELDS),
            features=native | added,
            emulates=added | dialect.emulates | platform.bytes_only,
            extra_body=dialect.extra_body,
            prefills=vendor.prefill and dialect.prefills(upstream),
            foreign_formats=frozenset() if vendor.foreign_signatures else self._foreign_formats[name],
            context_length=model.context_length,
            max_output_tokens=model.max_output_tokens,
        )


def embedded_models(config: Config, vendors: Mapping[str, Vendor]) -> dict[str, str]:
    """The providers that the embedded engine serves, and the name of the one model that each has.

    A file's model has its name, without the suffix.
    """
    return {
        key: Path(provider.file).stem if provider.file else vendor.embedded.model
        for key, provider in config.providers.items()
        if (vendor := vendors.get(provider.type)) and vendor.embedded and not provider.base_url
    }


def _native_features(vendor: Vendor, dialect: Dialect, dropped: frozenset[str]) -> frozenset[str]:
    """The features of capabilities.FEATURES that the endpoint has without emulation."""
    features = {"tools", "other_tools", "n", "audio_output", *vendor.response_formats, *vendor.modalities}
    features.discard("text")
    if dialect.other_parts and len(vendor.modalities) > 1:
        features.add("other_parts")
    for field in dropped & _FEATURE_FIELDS.keys():
        features -= _FEATURE_FIELDS[field]
    return frozenset(features)
