"""AWS's credentials, with token service and metadata endpoints on loopback, and independently computed signatures.

The reference for signatures is `expected`, written from AWS's description, and checked against AWS's own vector:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from server.dialects.base import Authenticator, HttpRequest
from server.vendors.credentials import aws as credentials_aws
from server.vendors.credentials.aws import BedrockAuthenticator, fetch, sign
from server.vendors.credentials.lease import RENEWAL_MARGIN, REREAD_INTERVAL, RETRY_INTERVAL, Lease, LeaseCache
from server.wire.transport import Transport
from tests.vendors.credentials_help import (
    REQUEST,
    START,
    Clock,
    Loopback,
    Reply,
    Seen,
    loopback,
    make,
    provider,
    refused,
)

#: From AWS's documentation.
ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = "IQoJb3JpZ2luX2VjEXAMPLE//////////session+token=="
ROLE_ID, ROLE_SECRET = "ASIAROLE", "role/secret+EXAMPLEKEYrole/secret+EXAMPLE"
ROLE = "arn:aws:iam::123456789012:role/gateway"
KEYS = ReadOnlyCredentials(ID, SECRET, None)
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
#: 2015-08-30T12:36:00Z
THEN = 1_440_938_160.0

# Signatures


def expected(
    method: str, target: str, headers: Mapping[str, str], body: bytes, *, secret: str, scope: str, service: str
) -> str:
    """Signature Version 4 of a request as it is on the wire. `headers` are those signed."""
    path, _, query = target.partition("?")
    canonical = [
        method,
        "/".join(quote(segment, safe="-_.~") for segment in path.split("/")),
        query,
        *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
        "",
        ";".join(sorted(headers)),
        hashlib.sha256(body).hexdigest(),
    ]
    date, region, *_ = scope.split("/")
    to_sign = [
        "AWS4-HMAC-SHA256",
        headers["x-amz-date"],
        scope,
        hashlib.sha256("\n".join(canonical).encode()).hexdigest(),
    ]
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request", "\n".join(to_sign)):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def check(
    method: str, target: str, headers: Mapping[str, str], body: bytes, secret: str = SECRET, id_: str = ID
) -> list[str]:
    """Verify a request as Bedrock does, from the bytes on the wire; the names of the signed headers."""
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
        headers["authorization"],
    )
    assert match
    names = match[3].split(";")
    assert (match[1], match[2]) == (id_, f"{headers['x-amz-date'][:8]}/us-east-1/bedrock/aws4_request")
    signed = {name: headers[name] for name in names}
    assert match[4] == expected(method, target, signed, body, secret=secret, scope=match[2], service="bedrock")
    return names


def converse(
    model: str, call: str = "converse", origin: str = "https://bedrock-runtime.us-east-1.amazonaws.com"
) -> str:
    """A URL as the translator makes it."""
    return f"{origin}/model/{quote(model, safe='')}/{call}"


def test_the_reference_agrees_with_aws() -> None:
    """The vector `get-vanilla` of AWS's test suite."""
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    scope = "20150830/us-east-1/service/aws4_request"
    signature = expected("GET", "/", headers, b"", secret=SECRET, scope=scope, service="service")
    assert signature == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


@pytest.mark.parametrize(
    ("model", "path", "signature"),
    [
        (
            "amazon.nova-lite",
            "/model/amazon.nova-lite/converse",
            "c5c84be8af5b8286eb4de512809b46479cf36498e2d6ac5818ec24fdc14e009a",
        ),
        (
            "us.anthropic.claude-v1:0",
            "/model/us.anthropic.claude-v1%253A0/converse",
            "bba776efee154adee7777f932ad9a3b54721c0287b0e1f65fa6dde4952f0fe54",
        ),
        (
            ARN,
            "/model/arn%253Aaws%253Abedrock%253Aus-east-1%253A123456789012%253Ainference-profile"
            "%252Fus.anthropic.claude-sonnet-4-5-20250929-v1%253A0/converse",
            "674758b81f7823acbf846502cf55f33cfb492e4da728a78e1323062c97f1278d",
        ),
    ],
)
def test_the_path_is_encoded_twice(model: str, path: str, signature: str) -> None:
    url = converse(model)
    headers = {"content-type": "application/json", "accept": "application/json", "x-team": "t"}
    signed = sign(HttpRequest(url, headers, b'{"messages":[]}'), KEYS, "us-east-1", THEN)
    assert list(signed) == ["x-amz-date", "authorization"]
    assert signed["x-amz-date"] == "20150830T123600Z"
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, "
        f"SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
    )
    split = urlsplit(url)
    check("POST", split.path, {**headers, "host": split.netloc, **signed}, b'{"messages":[]}')
    aws = AWSRequest("POST", url, {"content-type": "application/json", "x-amz-date": "x"}, b"")
    assert botocore.auth.SigV4Auth(KEYS, "bedrock", "us-east-1").canonical_request(aws).split("\n")[1] == path


@pytest.mark.parametrize("token", [None, SESSION])
@pytest.mark.parametrize("body", [b"", b"{}", '{"text":"héllo"}'.encode()])
@pytest.mark.parametrize(
    "url",
    [converse(ARN), converse("m", "converse-stream"), converse("a:b", origin="http://127.0.0.1:8000/proxy/x")],
)
def test_it_is_what_botocore_would_send(
    url: str, body: bytes, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ReadOnlyCredentials(ID, SECRET, token)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(THEN, UTC))
    aws = AWSRequest("POST", url, {"content-type": "application/json"}, body)
    botocore.auth.SigV4Auth(keys, "bedrock", "us-east-1").add_auth(aws)
    signed = sign(HttpRequest(url, {"content-type": "application/json"}, body), keys, "us-east-1", THEN)
    theirs = {name.lower(): value for name, value in aws.headers.items()}
    assert {"content-type": "application/json", **signed} == theirs
    split = urlsplit(url)
    check("POST", split.path, {**theirs, "host": split.netloc}, body)


def test_signed_headers() -> None:
    headers = {
        "accept": "x",
        "content-type": "application/json",
        "user-agent": "u",
        "x-amz-meta": "m",
        "x-other": "o",
    }
    signed = sign(HttpRequest(converse("m"), headers, b""), KEYS._replace(token=SESSION), "us-east-1", THEN)
    assert signed["x-amz-security-token"] == SESSION
    names = check("POST", "/model/m/converse", {**headers, "host": urlsplit(converse("m")).netloc, **signed}, b"")
    assert names == ["content-type", "host", "x-amz-date", "x-amz-meta", "x-amz-security-token"]


@pytest.mark.parametrize("model", [ARN, "us.anthropic.claude-v1:0"])
@pytest.mark.parametrize("size", [2, 1024 * 1024])
async def test_what_arrives_is_what_was_signed(model: str, size: int) -> None:
    """Through the gateway's own transport, checked on the bytes that a server got."""
    body = b"x" * size
    with loopback() as server:
        server.answer = lambda seen: (200, {})
        url = converse(model, origin=server.url)
        request = HttpRequest(url, {"content-type": "application/json", "accept": "application/json"}, body)
        settings = provider("bedrock", access_key_id=ID, secret_access_key=SECRET, session_token=SESSION)
        headers = await make(settings).headers(request)
        transport = Transport()
        try:
            response = await transport.handle_async_request(
                httpx.Request("POST", url, headers={**request.headers, **headers}, content=body)
            )
            await response.aread()
        finally:
            await transport.aclose()
    (seen,) = server.seen
    assert seen.path == urlsplit(url).path
    assert "x-amz-security-token" in check(seen.method, seen.path, seen.headers, seen.body)


async def test_the_time_is_the_clocks() -> None:
    clock = Clock(THEN)
    auth = make(provider("bedrock", access_key_id=ID, secret_access_key=SECRET), clock=clock)
    first = await auth.headers(REQUEST)
    clock.now += 1
    second = await auth.headers(REQUEST)
    assert (first["x-amz-date"], second["x-amz-date"]) == ("20150830T123600Z", "20150830T123601Z")
    assert first["authorization"] != second["authorization"]


# Where keys come from


def expiration(seconds: float) -> str:
    return datetime.fromtimestamp(START + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class AWS(Loopback):
    """A server with the security token service and the metadata of an instance and a container."""

    def __init__(self, host: str) -> None:
        super().__init__(host, self.aws)
        self.issued = 0
        self.fails: Reply | None = None

    def aws(self, seen: Seen) -> Reply:
        """One answer; keys are numbered."""
        if seen.path == "/latest/api/token":
            return 200, "imds-token"
        roles = "/latest/meta-data/iam/security-credentials/"
        if seen.path == roles:
            return 200, "the-role"
        if self.fails:
            return self.fails
        self.issued += 1
        id_, expires = f"{ROLE_ID}{self.issued}", expiration(3600)
        if seen.path in (f"{roles}the-role", "/container"):
            names = ("Code", "AccessKeyId", "SecretAccessKey", "Token", "Expiration")
            return 200, dict(zip(names, ("Success", id_, ROLE_SECRET, SESSION, expires), strict=True))
        action = seen.form["Action"]
        return 200, (
            f"<{action}Response><{action}Result><Credentials><AccessKeyId>{id_}</AccessKeyId>"
            f"<SecretAccessKey>{ROLE_SECRET}</SecretAccessKey><SessionToken>{SESSION}</SessionToken>"
            f"<Expiration>{expires}</Expiration></Credentials></{action}Result></{action}Response>"
        )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AWS]:
    """The server; libraries find no credentials of this machine."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with loopback() as server:
        aws = AWS(server.host)
        server.answer = aws.reply
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
        yield aws


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def used(auth: Authenticator) -> tuple[str, str]:
    """The id and session token that sign a call."""
    headers = await auth.headers(REQUEST)
    id_ = headers["authorization"].partition("Credential=")[2].partition("/")[0]
    host = urlsplit(REQUEST.url).netloc
    secret = ROLE_SECRET if id_.startswith(ROLE_ID) else SECRET
    check("POST", "/v1/chat", {**REQUEST.headers, "host": host, **headers}, REQUEST.body, secret, id_)
    return id_, headers.get("x-amz-security-token", "")


async def test_keys_in_the_environment(server: AWS, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    auth = make(provider("bedrock"), clock=clock)
    assert await used(auth) == (ID, "")
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    clock.now += REREAD_INTERVAL
    await used(auth)
    await renewed(auth)
    assert await used(auth) == (ID, SESSION)


async def test_a_bearer_token_in_the_environment_comes_first(
    server: AWS, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-x")
    auth = make(provider("bedrock"), clock=clock)
    assert await auth.headers(REQUEST) == {"authorization": "Bearer bedrock-api-key-x"}
    explicit = make(provider("bedrock", access_key_id=ID, secret_access_key=SECRET), clock=clock)
    assert await used(explicit) == (ID, "")


def write_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = tmp_path / "process.json"
    keys = {"Version": 1, "AccessKeyId": f"{ROLE_ID}P", "SecretAccessKey": ROLE_SECRET, "SessionToken": SESSION}
    process.write_text(json.dumps(keys))
    (tmp_path / "credentials").write_text(f"[plain]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "config").write_text(
        f"[profile role]\nrole_arn = {ROLE}\nsource_profile = plain\n"
        f"[profile mfa]\nrole_arn = {ROLE}\nsource_profile = plain\nmfa_serial = arn:aws:iam::1:mfa/me\n"
        f"[profile process]\ncredential_process = cat {shlex.quote(str(process))}\n"
        f"[profile broken]\ncredential_process = {shlex.quote(sys.executable)} -c 'raise SystemExit(3)'\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("profile", "keys"),
    [("plain", (ID, "")), ("process", (f"{ROLE_ID}P", SESSION)), ("role", (f"{ROLE_ID}1", SESSION))],
)
@pytest.mark.parametrize("by", ["name", "environment"])
async def test_profiles(
    server: AWS,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    keys: tuple[str, str],
    by: str,
) -> None:
    write_profiles(tmp_path, monkeypatch)
    if by == "name":  # before what the environment has
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "another")
        auth = make(provider("bedrock", profile=profile), clock=clock)
    else:
        monkeypatch.setenv("AWS_PROFILE", profile)
        auth = make(provider("bedrock"), clock=clock)
    assert await used(auth) == keys
    if profile == "role":
        (request,) = server.seen
        assert (request.form["Action"], request.form["RoleArn"]) == ("AssumeRole", ROLE)
        assert f"Credential={ID}/" in request.headers["authorization"]


async def test_a_web_identity(server: AWS, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("the-oidc-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    assert await used(make(provider("bedrock"), clock=clock)) == (f"{ROLE_ID}1", SESSION)
    (request,) = server.seen
    assert request.form["Action"] == "AssumeRoleWithWebIdentity"
    assert (request.form["WebIdentityToken"], request.form["RoleArn"]) == ("the-oidc-token", ROLE)


async def test_a_containers_role(server: AWS, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me")
    assert await used(make(provider("bedrock"), clock=clock)) == (f"{ROLE_ID}1", SESSION)
    assert server.seen[0].headers["authorization"] == "let me"


@pytest.fixture
def instance(server: AWS, monkeypatch: pytest.MonkeyPatch) -> AWS:
    """An instance with a role."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    return server


async def test_an_instances_role(instance: AWS, clock: Clock) -> None:
    auth = make(provider("bedrock"), clock=clock)
    assert not instance.seen
    answers = await asyncio.gather(*(used(auth) for _ in range(100)))
    assert answers == [(f"{ROLE_ID}1", SESSION)] * 100
    assert instance.issued == 1
    assert instance.seen[-1].headers["x-aws-ec2-metadata-token"] == "imds-token"


# Expiry


async def renewed(auth: Authenticator) -> None:
    """Wait for the renewal under way, in its thread."""
    assert isinstance(auth, BedrockAuthenticator)
    leased = auth._keys.__self__  # type: ignore[attr-defined]
    assert isinstance(leased, LeaseCache)
    if leased._renewal:
        await asyncio.wait((leased._renewal,))


async def test_tokens_are_renewed_before_they_expire(instance: AWS, clock: Clock) -> None:
    auth = make(provider("bedrock"), clock=clock)
    await used(auth)
    clock.now = START + 3600 - RENEWAL_MARGIN
    instance.fails = 500, "down"
    assert await used(auth) == (f"{ROLE_ID}1", SESSION)
    await renewed(auth)
    clock.now = START + 3599
    assert await used(auth) == (f"{ROLE_ID}1", SESSION)
    await renewed(auth)
    clock.now = START + 3600
    assert (await refused(auth)).raw.startswith("AWS's usual chain has none")
    instance.fails = None  # and the new credentials have the same expiry
    clock.now += RETRY_INTERVAL
    assert (await refused(auth)).raw.startswith("the new ones have already expired")


async def test_failures_of_botocore(
    server: AWS, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refused(make(provider("bedrock"), clock=clock))
    assert error.raw == "AWS's usual chain has none: no variables, profile, web identity or instance role"
    write_profiles(tmp_path, monkeypatch)
    for profile, raw in (
        ("no-such-profile", "ProfileNotFound: The config profile (no-such-profile) could not be found"),
        (
            "mfa",
            "the profile's role requires a code from a device (mfa_serial); use a role or a profile without one",
        ),
        ("broken", "CredentialRetrievalError: Error when retrieving credentials from custom-process:"),
    ):
        assert (await refused(make(provider("bedrock", profile=profile), clock=clock))).raw == raw
    denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    server.fails = 403, denied
    error = await refused(make(provider("bedrock", profile="role"), clock=clock))
    assert error.raw == "ClientError: An error occurred (AccessDenied) when calling the AssumeRole operation: no"


async def test_nothing_shows_the_secrets(
    server: AWS,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    write_profiles(tmp_path, monkeypatch)
    auth = make(provider("bedrock", profile="role"), clock=clock)
    explicit = make(
        provider("bedrock", access_key_id=ID, secret_access_key=SECRET, session_token=SESSION), clock=clock
    )
    await used(auth)
    await used(explicit)
    lease: Lease[credentials_aws.Keys] = fetch("plain", "us-east-1")
    clock.now += 3600
    server.fails = 403, "<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
    error = await refused(auth)
    logged = [str(record.__dict__) for record in caplog.records]
    assert any("urllib3" in line for line in logged)
    shown = " ".join((repr(auth), repr(explicit), repr(lease), repr(error), error.raw, caplog.text, *logged))
    for secret in (SECRET, ROLE_SECRET, SESSION):
        assert secret not in shown
