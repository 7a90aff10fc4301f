"""Credentials: what turns a provider's settings into the headers of a call.

Chooses only. What ends is renewed by credentials_lease.py; how it is got is in
credentials_google.py, credentials_aws.py and credentials_azure.py. None of them
reads the environment: google-auth and botocore do, as the vendors document it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from server.config.model import ProviderSettings, Secret
from server.config.problems import ConfigError, Problem
from server.dialects.base import HttpRequest, Vendor
from server.vendors.credentials.base import Authenticator
from server.vendors.credentials.lease import revealed

#: Vendor type -> what its `credentials` may hold: one of these sets of names, or nothing.
_KINDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "azure": (("tenant_id", "client_id", "client_secret"), ("access_token",)),
    "vertex": (("adc",), ("service_account_file",), ("access_token",)),
    "bedrock": (
        ("profile",),
        ("access_key_id", "secret_access_key"),
        ("access_key_id", "secret_access_key", "session_token"),
        ("bearer_token",),
    ),
}


class StaticHeaders:
    """An API key, a token, or nothing: the same headers on every call."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """The same for every request."""
        return self._headers

    def __repr__(self) -> str:
        return f"StaticHeaders({', '.join(self._headers)})"


def authenticator(
    provider: ProviderSettings,
    vendor: Vendor,
    transport: httpx.AsyncBaseTransport,
    clock: Callable[[], float] = time.time,
) -> Authenticator:
    """What `provider` needs. Nothing is fetched or read before the first call.

    `transport` is the way to Entra ID; `clock` gives seconds since the epoch.
    Raises ConfigError for what `mistake` finds.
    """
    if wrong := mistake(provider, vendor):
        raise ConfigError([Problem("", 0, f"providers.{provider.key}.credentials", wrong)])
    given = provider.credentials
    if provider.api_key is not None:
        return _with_key(provider.api_key, vendor)
    for name in ("access_token", "bearer_token"):
        if name in given:
            return StaticHeaders({"authorization": f"Bearer {revealed(given[name])}"})
    # Loaded where wanted: each library takes half a second and its share of memory.
    if vendor.type == "vertex" and (given or not provider.base_url):
        from server.vendors.credentials import google as credentials_google

        return credentials_google.authenticator(provider, clock)
    if vendor.type == "bedrock":
        from server.vendors.credentials import aws as credentials_aws

        return credentials_aws.authenticator(provider, clock)
    if vendor.type == "azure" and given:
        from server.vendors.credentials import azure as credentials_azure

        return credentials_azure.authenticator(provider, transport, clock)
    return StaticHeaders({})


def mistake(provider: ProviderSettings, vendor: Vendor) -> str:
    """What is wrong with a provider's `credentials`, for its operator; empty where nothing is.

    Without any, and without an API key, `bedrock` uses AWS's usual chain and
    `vertex` Google's default credentials, unless its base URL is one's own;
    others send nothing.
    """
    given = set(provider.credentials)
    if not given:
        return ""
    if provider.api_key is not None:
        return "there is an api_key too; one of them is enough"
    kinds = _KINDS.get(vendor.type)
    if kinds is None:
        return f"{vendor.type} takes an api_key and nothing else"
    if any(given == set(names) for names in kinds):
        return ""
    return f"{vendor.type} takes one of: {'; '.join(' + '.join(names) for names in kinds)}"


def _with_key(key: Secret, vendor: Vendor) -> StaticHeaders:
    # Vertex AI in express mode. https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview
    header = "x-goog-api-key" if vendor.type == "vertex" else vendor.auth
    if header == "bearer":
        return StaticHeaders({"authorization": f"Bearer {key.reveal()}"})
    return StaticHeaders({header: key.reveal()})
