"""Entra ID's client credentials, by its token endpoint's documented answers."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from server.dialects.base import Authenticator
from server.vendors.credentials.lease import RENEWAL_MARGIN, RETRY_INTERVAL
from tests.vendors.credentials_help import REQUEST, START, Clock, make, provider, refused
from tests.vendors.test_credentials import settle

SECRET = "Q8x~client.secret-of_the_app"
TOKEN = "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJ0ZXN0.c2lnbmF0dXJl"


class Entra:
    """The token endpoint: `status` and `answer` are its next response."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {"token_type": "Bearer", "expires_in": 3599, "access_token": f"{TOKEN}-1"}
        self.broken: Exception | None = None
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.broken:
            raise self.broken
        body = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return httpx.Response(self.status, content=body)


@pytest.fixture
def entra() -> Entra:
    return Entra()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(entra: Entra, clock: Clock) -> Authenticator:
    settings = provider("azure", tenant_id="contoso/x", client_id="app", client_secret=SECRET)
    return make(settings, handler=entra, clock=clock)


async def test_the_request_and_the_token(auth: Authenticator, entra: Entra) -> None:
    assert not entra.seen  # nothing before the first call
    for _ in range(3):
        assert await auth.headers(REQUEST) == {"authorization": f"Bearer {TOKEN}-1"}
    (request,) = entra.seen
    assert (request.method, str(request.url)) == (
        "POST",
        "https://login.microsoftonline.com/contoso%2Fx/oauth2/v2.0/token",
    )
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.content.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": SECRET,
        "scope": "https://cognitiveservices.azure.com/.default",
    }


@pytest.mark.parametrize("lifetime", [3599, "3599", 3599.0])
async def test_renewed_ahead_of_its_end(auth: Authenticator, entra: Entra, clock: Clock, lifetime: object) -> None:
    entra.answer["expires_in"] = lifetime
    await auth.headers(REQUEST)
    entra.answer = {**entra.answer, "access_token": f"{TOKEN}-2"}
    clock.now = START + 3599 - RENEWAL_MARGIN - 1
    await auth.headers(REQUEST)
    assert len(entra.seen) == 1
    clock.now += 1
    assert await auth.headers(REQUEST) == {"authorization": f"Bearer {TOKEN}-1"}
    for _ in range(3):
        await settle()
    assert await auth.headers(REQUEST) == {"authorization": f"Bearer {TOKEN}-2"}
    assert len(entra.seen) == 2


@pytest.mark.parametrize(
    ("status", "answer", "raw"),
    [
        (
            401,
            {"error": "invalid_client", "error_description": f"AADSTS7000215: Invalid client secret {SECRET}."},
            "Entra ID answered 401, invalid_client: AADSTS7000215: Invalid client secret ***.",
        ),
        (400, {"error": "invalid_request"}, "Entra ID answered 400, invalid_request:"),
        (503, b"<html>down</html>", "Entra ID answered 503, no reason given:"),
        (302, b"", "Entra ID answered 302, no reason given:"),
        (200, b"<html>portal</html>", "Entra ID's response has no access_token and expires_in"),
        (200, b"\xff", "Entra ID's response has no access_token and expires_in"),
        (200, ["x"], "Entra ID's response has no access_token and expires_in"),
        (200, {"access_token": TOKEN}, "Entra ID's response has no access_token and expires_in"),
        (
            200,
            {"access_token": TOKEN, "expires_in": None},
            "Entra ID's response has no access_token and expires_in",
        ),
        (
            200,
            {"access_token": TOKEN, "expires_in": "x"},
            "Entra ID's response has no access_token and expires_in",
        ),
    ],
)
async def test_failures(auth: Authenticator, entra: Entra, status: int, answer: Any, raw: str) -> None:
    entra.status, entra.answer = status, answer
    assert (await refused(auth)).raw == raw


async def test_it_recovers(auth: Authenticator, entra: Entra, clock: Clock) -> None:
    entra.broken = httpx.ConnectError("no route")
    assert (await refused(auth)).raw == "ConnectError: no route"
    await refused(auth)
    assert len(entra.seen) == 1
    entra.broken = None
    clock.now += RETRY_INTERVAL
    assert await auth.headers(REQUEST) == {"authorization": f"Bearer {TOKEN}-1"}


async def test_nothing_shows_the_secrets(
    auth: Authenticator, entra: Entra, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await auth.headers(REQUEST)
    clock.now += 3600
    entra.status, entra.answer = 401, {"error": "invalid_client", "error_description": SECRET}
    error = await refused(auth)
    shown = f"{auth!r} {error!r} {error} {error.raw} {caplog.text}"
    assert SECRET not in shown
    assert TOKEN not in shown
    assert "no new credentials" in shown
