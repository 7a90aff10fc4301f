"""Entra ID: tokens for Azure by client credentials, over the gateway's transport.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from server.config.model import ProviderSettings
from server.vendors.credentials.lease import Lease, LeaseCache, LeasedHeaders, NoCredentials, plaintext

TOKEN_URL = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"  # noqa: S105
SCOPE = "https://cognitiveservices.azure.com/.default"

#: Seconds for one token request.
REQUEST_TIMEOUT = 15.0


def authenticator(
    provider: ProviderSettings, transport: httpx.AsyncBaseTransport, clock: Callable[[], float]
) -> LeasedHeaders:
    """For `tenant_id`, `client_id` and `client_secret`."""
    settings = provider.credentials
    tenant, client, secret = (plaintext(settings[name]) for name in ("tenant_id", "client_id", "client_secret"))

    async def renew() -> Lease[Mapping[str, str]]:
        return await token(transport, tenant, client, secret, clock)

    return LeasedHeaders(LeaseCache(provider.key, renew, clock))


async def token(
    transport: httpx.AsyncBaseTransport, tenant: str, client: str, secret: str, clock: Callable[[], float]
) -> Lease[Mapping[str, str]]:
    """The headers with a new token. Raises NoCredentials, httpx.TransportError or TimeoutError."""
    request = httpx.Request(
        "POST",
        TOKEN_URL.format(tenant=quote(tenant, safe="")),
        data={
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": secret,
            "scope": SCOPE,
        },
        headers={"accept": "application/json"},
        extensions={"timeout": {"connect": REQUEST_TIMEOUT}},
    )
    requested_at = clock()
    async with asyncio.timeout(REQUEST_TIMEOUT):
        response = await transport.handle_async_request(request)
        try:
            body = b"".join([piece async for piece in response.stream])  # type: ignore[union-attr]
        finally:
            await response.aclose()
    try:
        parsed: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        parsed = None
    fields = parsed if isinstance(parsed, dict) else {}
    if response.status_code != 200:
        reason = f"{fields.get('error', 'no reason given')}: {fields.get('error_description', '')}"
        raise NoCredentials(f"Entra ID answered {response.status_code}, {reason.replace(secret, '***')}")
    try:
        access_token, lifetime = fields["access_token"], float(fields["expires_in"])
    except (KeyError, TypeError, ValueError):
        raise NoCredentials("Entra ID's response has no access_token and expires_in") from None
    return Lease({"authorization": f"Bearer {access_token}"}, requested_at + lifetime)
