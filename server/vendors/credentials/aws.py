"""AWS's credentials by botocore, and its Signature Version 4 for Bedrock.

The usual chain is botocore's: environment, profile (roles, IAM Identity Center
and credential processes included), web identity, container and instance role;
AWS_BEARER_TOKEN_BEDROCK before them all. botocore reads the environment and the
files itself; this module does not. It blocks, so it runs in a thread, with its
own HTTP client. Signing takes 0.15 ms and stays on the loop, but for long bodies:
their digest takes 2 ms a MB, and in a thread leaves the loop alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.tokens import ScopedEnvTokenProvider

from server.config.model import ProviderSettings
from server.dialects.base import HttpRequest
from server.vendors.credentials.lease import Lease, Leased, NoCredentials, plaintext

# In debugging it logs what AWS's token service answers, keys included; for information, where it found some, time
# and again; and it warns of failures with a traceback, which credentials_lease.py does in a line.
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

SERVICE = "bedrock"

#: For the calls botocore makes itself, to get credentials: seconds, and tries.
_CLIENT = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})

#: Bytes of a body that is signed in a thread.
_LONG = 1024 * 1024

#: An API key for Bedrock, or keys to sign with.
Keys = str | ReadOnlyCredentials


class BedrockAuthenticator:
    """A bearer token or a signature, as `keys` gives an API key or keys to sign with."""

    def __init__(self, keys: Callable[[], Awaitable[Keys]], region: str, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._region = region
        self._clock = clock

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Made for this request and this moment. Raises ProviderError."""
        keys = await self._keys()
        if isinstance(keys, str):
            return {"authorization": f"Bearer {keys}"}
        if len(request.body) >= _LONG:
            return await asyncio.to_thread(sign, request, keys, self._region, self._clock())
        return sign(request, keys, self._region, self._clock())

    def __repr__(self) -> str:
        return f"BedrockAuthenticator({self._region})"


def authenticator(provider: ProviderSettings, clock: Callable[[], float]) -> BedrockAuthenticator:
    """For `access_key_id` and `secret_access_key`, for `profile`, or else the usual chain."""
    given = provider.credentials
    if "access_key_id" in given:
        names = ("access_key_id", "secret_access_key", "session_token")
        held = ReadOnlyCredentials(*(plaintext(given.get(name)) for name in names))

        async def keys() -> Keys:
            return held

        return BedrockAuthenticator(keys, provider.region, clock)
    profile = plaintext(given.get("profile")) or None

    async def renew() -> Lease[Keys]:
        return await asyncio.to_thread(fetch, profile, provider.region)

    return BedrockAuthenticator(Leased(provider.key, renew, clock).get, provider.region, clock)


def fetch(profile: str | None, region: str) -> Lease[Keys]:
    """What a profile, or the usual chain, has now. Blocks; raises whatever went wrong.

    The session is a new one each time, so that files may change, and so that
    when to renew is decided in one place; botocore would keep an older answer.
    """
    session = botocore.session.Session(profile=profile)
    session.set_config_variable("region", region)
    session.set_default_client_config(_CLIENT)
    if profile is None:
        token = ScopedEnvTokenProvider(session).load_token(signing_name=SERVICE)
        if token is not None:
            return Lease(token.token, None)
    # It would ask at the terminal, which nobody watches.
    session.get_component("credential_provider").get_provider("assume-role")._prompter = _no_code
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentials("AWS's usual chain has none: no variables, profile, web identity or instance role")
    keys = credentials.get_frozen_credentials()
    # Public is only whether a time before it has come, by botocore's clock.
    expiry = getattr(credentials, "_expiry_time", None)
    return Lease(keys, expiry.timestamp() if expiry else None)


def _no_code(prompt: str) -> str:
    raise NoCredentials(
        "the profile's role wants a code from a device (mfa_serial), and nobody is there to type it"
    )


def sign(request: HttpRequest, keys: ReadOnlyCredentials, region: str, now: float) -> dict[str, str]:
    """The headers that sign `request` at `now`, in seconds since the epoch.

    Signed are `host`, `content-type` and what begins with `x-amz-`. The URL is
    as it is sent, each segment encoded once; the canonical path has it encoded
    once more: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"x-amz-date": stamp}
    if keys.token:
        added["x-amz-security-token"] = keys.token
    signed = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-amz-") or name == "content-type"
    }
    aws = AWSRequest(request.method, request.url, {**signed, **added}, request.body)
    aws.context["timestamp"] = stamp
    # The steps of its add_auth, which reads the clock and logs the session token.
    auth = SigV4Auth(keys, SERVICE, region)
    names = auth.signed_headers(auth.headers_to_sign(aws))
    signature = auth.signature(auth.string_to_sign(aws, auth.canonical_request(aws)), aws)
    added["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(aws)}, SignedHeaders={names}, Signature={signature}"
    )
    return added
