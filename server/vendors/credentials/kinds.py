"""What vendors accept besides API keys: the values of `Vendor.credentials`.

Each library is imported where one of its vendors is configured: it takes half a second and its share of memory.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from server.config.model import ProviderSettings
from server.dialects.base import Authenticator, CredentialKinds

Clock = Callable[[], float]


def _entra(provider: ProviderSettings, transport: httpx.AsyncBaseTransport, clock: Clock) -> Authenticator | None:
    if not provider.credentials:
        return None
    from server.vendors.credentials import azure

    return azure.authenticator(provider, transport, clock)


def _google(provider: ProviderSettings, transport: httpx.AsyncBaseTransport, clock: Clock) -> Authenticator | None:
    if provider.base_url and not provider.credentials:
        return None
    from server.vendors.credentials import google

    return google.authenticator(provider, clock)


def _aws(provider: ProviderSettings, transport: httpx.AsyncBaseTransport, clock: Clock) -> Authenticator | None:
    from server.vendors.credentials import aws

    return aws.authenticator(provider, clock)


#: Entra ID, where a provider configures it.
ENTRA = CredentialKinds(
    accepted=(("tenant_id", "client_id", "client_secret"), ("access_token",)), authenticator=_entra
)
#: Google's; the application default credentials where nothing is configured, unless the base URL is configured.
GOOGLE = CredentialKinds(accepted=(("adc",), ("service_account_file",), ("access_token",)), authenticator=_google)
#: AWS's; its usual chain where nothing is configured.
AWS = CredentialKinds(
    accepted=(
        ("profile",),
        ("access_key_id", "secret_access_key"),
        ("access_key_id", "secret_access_key", "session_token"),
        ("bearer_token",),
    ),
    authenticator=_aws,
)
