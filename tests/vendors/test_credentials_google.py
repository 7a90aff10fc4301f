"""Google's credentials, with the token endpoints and the metadata server on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth.compute_engine._metadata as metadata
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import _helpers
from google.oauth2 import credentials as authorized_user

from server.dialects.base import Authenticator
from server.vendors.credentials.lease import RENEWAL_MARGIN, RETRY_INTERVAL, LeaseCache
from server.vendors.registry import PLAIN, VENDORS
from tests.vendors.credentials_help import REQUEST, Clock, Loopback, Reply, Seen, loopback, make, provider, refused

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN = "ya29.the-token"
JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: The current time of google-auth, from which it computes expiry.
NOW = datetime(2030, 1, 1)


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class Google(Loopback):
    """A server with the token endpoints, the security token service and the metadata server."""

    def __init__(self, host: str) -> None:
        super().__init__(host, self.google)
        self.tokens = 0
        self.fails: Reply | None = None

    def google(self, seen: Seen) -> Reply:
        """One answer; tokens are numbered."""
        path = seen.path.partition("?")[0]
        if path == "/":
            return 200, "computeMetadata/\n"
        if path == "/computeMetadata/v1/project/project-id":
            return 200, "a-project"
        if path == "/computeMetadata/v1/instance/service-accounts/default/":
            return 200, {
                "email": "vm@a-project.iam.gserviceaccount.com",
                "scopes": [SCOPE],
                "aliases": ["default"],
            }
        if self.fails:
            return self.fails
        self.tokens += 1
        return 200, {"access_token": f"{TOKEN}-{self.tokens}", "expires_in": 3599, "token_type": "Bearer"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """The server; libraries find no credentials of this machine."""
    for name in ("APPLICATION_CREDENTIALS", "CLOUD_QUOTA_PROJECT", "CLOUD_PROJECT"):
        monkeypatch.delenv(f"GOOGLE_{name}", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "GCLOUD_PROJECT", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr(_helpers, "utcnow", lambda: NOW)
    with loopback() as server:
        google = Google(server.host)
        server.answer = google.reply
        # Read when the module was imported, from GCE_METADATA_HOST and NO_GCE_CHECK.
        monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", server.host)
        monkeypatch.setattr(metadata, "_NO_GCE_CHECK", False)
        monkeypatch.setenv("GCE_METADATA_IP", server.host)
        yield google


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW.replace(tzinfo=UTC).timestamp())


@pytest.fixture
def key_file(server: Google, tmp_path: Path, private_key: str) -> Path:
    return write(
        tmp_path / "sa.json",
        type="service_account",
        project_id="a-project",
        private_key_id="kid",
        private_key=private_key,
        client_email="sa@a-project.iam.gserviceaccount.com",
        token_uri=f"{server.url}/token",
    )


def write(path: Path, **info: Any) -> Path:
    path.write_text(json.dumps(info))
    return path


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def claims(assertion: str) -> dict[str, Any]:
    """The claims of a JWT."""
    part = assertion.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def bearer(number: int) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}-{number}"}


async def renewed(auth: Authenticator) -> None:
    """Wait for the renewal under way, in its thread."""
    leased: LeaseCache[Any] = auth._cache  # type: ignore[attr-defined]
    if leased._renewal:
        await asyncio.wait((leased._renewal,))


# Sources


async def test_a_service_accounts_file(server: Google, key_file: Path, clock: Clock) -> None:
    auth = make(provider("vertex", service_account_file=str(key_file)), clock=clock)
    assert not server.seen
    for _ in range(3):
        assert await auth.headers(REQUEST) == bearer(1)
    (request,) = server.seen
    assert (request.method, request.path, request.form["grant_type"]) == ("POST", "/token", JWT)
    claimed = claims(request.form["assertion"])
    assert (claimed["iss"], claimed["scope"]) == ("sa@a-project.iam.gserviceaccount.com", SCOPE)


@pytest.mark.parametrize("explicit", [True, False])
async def test_the_default_may_be_a_service_account(
    server: Google, key_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    settings = provider("vertex", adc=True) if explicit else provider("vertex")
    assert await make(settings, clock=clock).headers(REQUEST) == bearer(1)
    assert claims(server.seen[0].form["assertion"])["scope"] == SCOPE


@pytest.mark.parametrize("quota", ["", "payer"])
async def test_the_default_may_be_a_user(
    server: Google, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, quota: str
) -> None:
    monkeypatch.setattr(authorized_user, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{server.url}/token")
    info = {"type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "r"}
    file = write(tmp_path / "user.json", **info, **({"quota_project_id": quota} if quota else {}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    auth = make(provider("vertex", adc=True), clock=clock)
    assert await auth.headers(REQUEST) == bearer(1) | ({"x-goog-user-project": quota} if quota else {})
    form = server.seen[0].form
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "r")


async def test_the_quota_project_may_come_from_the_environment(
    server: Google, key_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    auth = make(provider("vertex", adc=True), clock=clock)
    assert await auth.headers(REQUEST) == bearer(1) | {"x-goog-user-project": "payer"}


async def test_the_default_may_be_a_workload_identity(
    server: Google, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oidc").write_text("the-oidc-token")
    audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
    file = write(
        tmp_path / "wif.json",
        type="external_account",
        audience=audience,
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=f"{server.url}/sts",
        credential_source={"file": str(tmp_path / "oidc")},
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "a-project")  # or the resource manager is called for it
    auth = make(provider("vertex", adc=True), clock=clock)
    assert await auth.headers(REQUEST) == bearer(1)
    (request,) = server.seen
    assert (request.path, request.form["subject_token"]) == ("/sts", "the-oidc-token")
    assert (request.form["audience"], request.form["scope"]) == (audience, SCOPE)


async def test_the_default_may_be_the_metadata_server(server: Google, clock: Clock) -> None:
    auth = make(provider("vertex", adc=True), clock=clock)
    for _ in range(3):
        assert await auth.headers(REQUEST) == bearer(1)
    assert all(request.headers["metadata-flavor"] == "Google" for request in server.seen)
    (token,) = (request.path for request in server.seen if "/token" in request.path)
    path, _, query = token.partition("?")
    assert path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert parse_qs(query) == {"scopes": [SCOPE]}


async def test_claude_on_vertex_has_the_same(server: Google, key_file: Path, clock: Clock) -> None:
    vendor = VENDORS["vertex"].in_dialect(PLAIN["anthropic"])
    auth = make(provider("vertex", service_account_file=str(key_file)), vendor=vendor, clock=clock)
    assert await auth.headers(REQUEST) == bearer(1)


# Expiry


async def test_one_token_for_a_hundred_calls(server: Google, key_file: Path, clock: Clock) -> None:
    auth = make(provider("vertex", service_account_file=str(key_file)), clock=clock)
    answers = await asyncio.gather(*(auth.headers(REQUEST) for _ in range(100)))
    assert answers == [bearer(1)] * 100
    assert server.tokens == 1


async def test_renewed_ahead_of_its_end(
    server: Google, key_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = make(provider("vertex", service_account_file=str(key_file)), clock=clock)
    await auth.headers(REQUEST)
    clock.now += 3599 - RENEWAL_MARGIN - 1
    await auth.headers(REQUEST)
    assert server.tokens == 1
    clock.now += 1
    monkeypatch.setattr(_helpers, "utcnow", lambda: NOW + timedelta(seconds=3599 - RENEWAL_MARGIN))
    assert await auth.headers(REQUEST) == bearer(1)
    await renewed(auth)
    assert await auth.headers(REQUEST) == bearer(2)


async def test_a_failure_leaves_the_old_token_until_it_ends(server: Google, key_file: Path, clock: Clock) -> None:
    auth = make(provider("vertex", service_account_file=str(key_file)), clock=clock)
    await auth.headers(REQUEST)
    server.fails = 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    clock.now += 3598
    assert await auth.headers(REQUEST) == bearer(1)
    await renewed(auth)
    assert await auth.headers(REQUEST) == bearer(1)
    clock.now += 1
    assert (await refused(auth)).raw == "RefreshError: invalid_grant: Invalid JWT Signature."


async def test_the_file_may_be_replaced(
    server: Google, key_file: Path, tmp_path: Path, clock: Clock, private_key: str
) -> None:
    linked = tmp_path / "current.json"  # as a mounted secret is
    broken = write(tmp_path / "broken.json", **read(key_file) | {"private_key": private_key[11:]})
    auth = make(provider("vertex", service_account_file=str(linked)), clock=clock)
    assert (await refused(auth)).raw == f"FileNotFoundError: [Errno 2] No such file or directory: '{linked}'"
    os.symlink(broken, linked)
    clock.now += RETRY_INTERVAL
    error = await refused(auth)
    assert error.raw.startswith(("ValueError: ", "MalformedError: "))
    assert private_key.splitlines()[1] not in error.raw
    os.unlink(linked)
    os.symlink(key_file, linked)
    clock.now += RETRY_INTERVAL
    assert await auth.headers(REQUEST) == bearer(1)


async def test_no_default_credentials(server: Google, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_NO_GCE_CHECK", True)
    error = await refused(make(provider("vertex", adc=True), clock=clock))
    assert error.raw.startswith("DefaultCredentialsError: Your default credentials were not found.")


async def test_nothing_shows_the_secrets(
    server: Google, key_file: Path, clock: Clock, private_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "google")  # only then would google-auth log requests
    auth = make(provider("vertex", service_account_file=str(key_file)), clock=clock)
    await auth.headers(REQUEST)
    assertion = server.seen[0].form["assertion"]
    server.fails = 400, {"error": "invalid_grant", "access_token": f"{TOKEN}-x"}
    clock.now += 3599
    error = await refused(auth)
    logged = [str(record.__dict__) for record in caplog.records]
    assert any("urllib3" in line for line in logged)
    shown = " ".join((repr(auth), repr(error), str(error), error.raw, caplog.text, *logged))
    for secret in (TOKEN, assertion, private_key.splitlines()[1]):
        assert secret not in shown
