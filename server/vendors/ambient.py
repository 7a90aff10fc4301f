"""The configuration that holds without a file: what the environment has credentials for."""

from __future__ import annotations

from collections.abc import Mapping

from server.config.model import Config, EndpointSettings, ModelSettings, ProviderSettings, Secret, environment_keys
from server.dialects.base import Vendor
from server.vendors.registry import VENDORS


def default_config(environ: Mapping[str, str], vendors: Mapping[str, Vendor] = VENDORS) -> Config:
    """The embedded model, and by wildcard every vendor whose variables are set.

    `LMCHAT_LOCAL_MODEL_URL` gives `local/smollm2`, `GROQ_API_KEY` gives
    `groq/*` and so on; `LMCHAT_API_KEY` is the key `env`. May have no models.
    """
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    for vendor in vendors.values():
        key = first_set(vendor.env, environ)
        complete = all(first_set(variables, environ) for variables in vendor.required.values())
        if not (key or vendor.embedded) or not complete:
            continue
        ambient = vendor.ambient_credentials
        providers[vendor.type] = ProviderSettings(
            key=vendor.type,
            type=vendor.type,
            api_key=Secret(key) if key and ambient is None else None,
            credentials=ambient or {},
        )
        model = _model(vendor)
        models[model.id] = model
    return Config(keys=environment_keys(environ), providers=providers, models=models)


def _model(vendor: Vendor) -> ModelSettings:
    embedded = vendor.embedded
    endpoint = EndpointSettings(name=vendor.type, provider=vendor.type, model=embedded.model if embedded else "*")
    return ModelSettings(
        id=embedded.id if embedded else f"{vendor.type}/*",
        endpoints=(endpoint,),
        context_length=embedded.context_length if embedded else 0,
    )


def first_set(variables: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """The value of the first of `variables` that is set; empty where none is."""
    return next((environ[name] for name in variables if environ.get(name)), "")
