"""AWS's credentials by botocore, and its Signature Version 4 for Bedrock.

The usual chain is botocore's: environment, profile (roles, IAM Identity Center
and credential processes included), web identity, container and instance role;
AWS_BEARER_TOKEN_BEDROCK before them all. botocore reads the environment and the
files itself; this module does not. It blocks, so it runs in a thread, with its
own HTTP client. Signing takes 0.15 ms and is done on the event loop, except for
large bodies: their digest takes 2 ms a MB, so it is computed in a thread.
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
from server.vendors.credentials.lease import Lease, LeaseCache, NoCredentials, plaintext

# At DEBUG it logs the responses of AWS's token service, keys included; at INFO, at every renewal, where it found
# credentials; and it logs failures with a traceback, for which lease.py logs one line.
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

SERVICE = "bedrock"

#: For the requests that botocore makes for credentials: timeouts in seconds, and attempts.
_CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})

#: Bytes from which a body is signed in a thread.
MIN_THREADED_BODY = 1024 * 1024

#: An API key for Bedrock, or keys to sign with.
Keys = str | ReadOnlyCredentials


class BedrockAuthenticator:
    """A bearer token or a signature, as `keys` gives an API key or keys to sign with."""

    def __init__(self, keys: Callable[[], Awaitable[Keys]], region: str, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._region = region
        self._clock = clock

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """For this request and the current time. Raises ProviderError."""
        keys = await self._keys()
        if isinstance(keys, str):
            return {"authorization": f"Bearer {keys}"}
        if len(request.body) >= MIN_THREADED_BODY:
            return await asyncio.to_thread(sign, request, keys, self._region, self._clock())
        return sign(request, keys, self._region, self._clock())

    def __repr__(self) -> str:
        return f"BedrockAuthenticator({self._region})"


def authenticator(provider: ProviderSettings, clock: Callable[[], float]) -> BedrockAuthenticator:
    """For `access_key_id` and `secret_access_key`, for `profile`, or else the usual chain."""
    settings = provider.credentials
    if "access_key_id" in settings:
        names = ("access_key_id", "secret_access_key", "session_token")
        static = ReadOnlyCredentials(*(plaintext(settings.get(name)) for name in names))

        async def keys() -> Keys:
            return static

        return BedrockAuthenticator(keys, provider.region, clock)
    profile = plaintext(settings.get("profile")) or None

    async def renew() -> Lease[Keys]:
        return await asyncio.to_thread(fetch, profile, provider.region)

    return BedrockAuthenticator(LeaseCache(provider.key, renew, clock).get, provider.region, clock)


def fetch(profile: str | None, region: str) -> Lease[Keys]:
    """What a profile, or the usual chain, has now. Blocks; raises what botocore raises.

    The session is a new one each time, so that files may change, and so that
    lease.py alone decides when to renew; botocore would cache credentials.
    """
    session = botocore.session.Session(profile=profile)
    session.set_config_variable("region", region)
    session.set_default_client_config(_CLIENT_CONFIG)
    if profile is None:
        token = ScopedEnvTokenProvider(session).load_token(signing_name=SERVICE)
        if token is not None:
            return Lease(token.token, None)
    # botocore would prompt on the terminal.
    session.get_component("credential_provider").get_provider("assume-role")._prompter = _refuse_prompt
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentials("AWS's usual chain has none: no variables, profile, web identity or instance role")
    keys = credentials.get_frozen_credentials()
    # botocore's public interface only says whether they need a refresh, by its own clock.
    expiry = getattr(credentials, "_expiry_time", None)
    return Lease(keys, expiry.timestamp() if expiry else None)


def _refuse_prompt(prompt: str) -> str:
    raise NoCredentials(
        "the profile's role requires a code from a device (mfa_serial); use a role or a profile without one"
    )


def sign(request: HttpRequest, keys: ReadOnlyCredentials, region: str, now: float) -> dict[str, str]:
    """The headers that sign `request` at `now`, in seconds since the epoch.

    Signed are `host`, `content-type` and what begins with `x-amz-`. The URL is
    as it is sent, each segment encoded once; the canonical path has it encoded
    once more: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"x-amz-date": timestamp}
    if keys.token:
        added["x-amz-security-token"] = keys.token
    signed = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-amz-") or name == "content-type"
    }
    aws = AWSRequest(request.method, request.url, {**signed, **added}, request.body)
    aws.context["timestamp"] = timestamp
    # The steps of SigV4Auth.add_auth, which itself reads the clock and logs the session token.
    auth = SigV4Auth(keys, SERVICE, region)
    names = auth.signed_headers(auth.headers_to_sign(aws))
    signature = auth.signature(auth.string_to_sign(aws, auth.canonical_request(aws)), aws)
    added["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(aws)}, SignedHeaders={names}, Signature={signature}"
    )
    return added
