"""Credentials: what turns a provider's settings into the headers of a call."""

from __future__ import annotations

from collections.abc import Mapping

from server.config import ProviderSettings
from server.providers.base import HttpRequest, Vendor
from server.providers.upstream import Authenticator


class StaticHeaders:
    """An API key, or nothing: the same headers on every call."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """The same for every request."""
        return self._headers

    def __repr__(self) -> str:
        return f"StaticHeaders({', '.join(self._headers)})"


def authenticator(provider: ProviderSettings, vendor: Vendor) -> Authenticator:
    """What `provider` needs."""
    if provider.api_key is None:
        return StaticHeaders({})
    key = provider.api_key.reveal()
    if vendor.auth == "bearer":
        return StaticHeaders({"authorization": f"Bearer {key}"})
    return StaticHeaders({vendor.auth: key})
