"""From a provider's settings to the authenticator of its calls.

What each vendor accepts is in kinds.py. Credentials that expire are renewed by lease.py; google.py, aws.py and
azure.py fetch them. None of these modules reads the environment: google-auth and botocore do, as the vendors
document it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from server.config.model import ProviderSettings, Secret
from server.config.problems import ConfigError, Problem
from server.dialects.base import Authenticator, HttpRequest, Vendor
from server.vendors.credentials.lease import plaintext

#: Names in `credentials` whose value is a ready token.
_TOKENS = ("access_token", "bearer_token")


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
    """The authenticator for `provider`. Nothing is fetched or read before the first call.

    `transport` sends token requests; `clock` gives seconds since the epoch. An
    API key comes first, then a token, then what the vendor's row makes of the
    settings; without any of these nothing is sent. Raises ConfigError where
    `credentials_error` finds one.
    """
    if error := credentials_error(provider, vendor):
        raise ConfigError([Problem("", 0, f"providers.{provider.key}.credentials", error)])
    if provider.api_key is not None:
        return _api_key_headers(provider.api_key, vendor)
    for name in _TOKENS:
        if name in provider.credentials:
            return _bearer(plaintext(provider.credentials[name]))
    renewed = vendor.credentials.authenticator(provider, transport, clock) if vendor.credentials else None
    return renewed or StaticHeaders({})


def credentials_error(provider: ProviderSettings, vendor: Vendor) -> str:
    """What is wrong with a provider's `credentials`, for the operator; empty where nothing is."""
    names = set(provider.credentials)
    if not names:
        return ""
    if provider.api_key is not None:
        return "there is an api_key too; one of them is enough"
    if vendor.credentials is None:
        return f"{vendor.type} takes an api_key and nothing else"
    accepted = vendor.credentials.accepted
    if any(names == set(kind) for kind in accepted):
        return ""
    return f"{vendor.type} takes one of: {'; '.join(' + '.join(kind) for kind in accepted)}"


def _api_key_headers(key: Secret, vendor: Vendor) -> StaticHeaders:
    return _bearer(key.reveal()) if vendor.auth == "bearer" else StaticHeaders({vendor.auth: key.reveal()})


def _bearer(token: str) -> StaticHeaders:
    return StaticHeaders({"authorization": f"Bearer {token}"})
