"""Google's credentials by google-auth: service account files and application default credentials.

The defaults are those of google.auth.default: a service account, a user or a
workload identity federation in the file that GOOGLE_APPLICATION_CREDENTIALS
names, gcloud's own, or the metadata server. google-auth reads the environment
itself, for that and for proxies; this module does not. It blocks, so it runs in
a thread, with its own HTTP client, which implements the metadata server's protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import google.auth
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from server.config.model import ProviderSettings
from server.vendors.credentials.lease import Lease, LeaseCache, LeasedHeaders, plaintext

# At DEBUG it logs requests, signed assertions included.
logging.getLogger("google.auth").setLevel(logging.INFO)

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

#: Seconds for one of google-auth's requests, whose default is 120.
REQUEST_TIMEOUT = 10.0


def authenticator(provider: ProviderSettings, clock: Callable[[], float]) -> LeasedHeaders:
    """For `service_account_file`, or else the application default credentials."""
    path = plaintext(provider.credentials.get("service_account_file")) or None

    async def renew() -> Lease[Mapping[str, str]]:
        return await asyncio.to_thread(fetch, path)

    return LeasedHeaders(LeaseCache(provider.key, renew, clock))


def fetch(path: str | None) -> Lease[Mapping[str, str]]:
    """The headers with a new token, the quota project's among them. Blocks; raises what google-auth raises.

    Credentials are loaded again each time, so that a key file may be replaced.
    """
    request = _Request()
    try:
        credentials: Any
        if path is None:
            credentials, _ = google.auth.default(SCOPES, request)
        else:
            kind: Any = service_account.Credentials  # untyped
            credentials = kind.from_service_account_file(path, scopes=SCOPES)
        credentials.refresh(request)
    finally:
        request.session.close()
    headers: dict[str, str] = {}
    credentials.apply(headers)
    expiry = credentials.expiry
    # A naive datetime in UTC.
    return Lease(headers, expiry.replace(tzinfo=UTC).timestamp() if expiry else None)


class _Request(Request):
    """google-auth's requests, with a shorter timeout."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """See the base class."""
        limit = min(timeout or REQUEST_TIMEOUT, REQUEST_TIMEOUT)
        return super().__call__(url, method, body, headers, limit, **kwargs)  # type: ignore[no-untyped-call]
