"""Helpers of the tests of credentials: a clock, a provider's settings, and a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import httpx
import pytest

from server.config.model import ProviderSettings, Secret
from server.dialects.base import Authenticator, HttpRequest, Vendor
from server.errors import ProviderError, Reason
from server.vendors.credentials.select import authenticator
from server.vendors.registry import VENDORS

REQUEST = HttpRequest("https://provider.test/v1/chat", {"content-type": "application/json"}, b"{}")
#: 2030-01-01, later than the libraries' current time.
START = 1_893_456_000.0


class Clock:
    """A manual clock in seconds since the epoch."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def provider(type_: str, api_key: str = "", base_url: str = "", **credentials: str | bool) -> ProviderSettings:
    """Settings as from the configuration, with secrets wrapped."""
    secret = {"access_token", "secret_access_key", "session_token", "bearer_token", "client_secret"}
    return ProviderSettings(
        key=f"my-{type_}",
        type=type_,
        base_url=base_url,
        region="us-east-1",
        api_key=Secret(api_key) if api_key else None,
        credentials={
            name: Secret(value) if name in secret and isinstance(value, str) else value
            for name, value in credentials.items()
        },
    )


def refuse(request: httpx.Request) -> httpx.Response:
    """A transport that must not be used."""
    raise AssertionError(f"{request.method} {request.url}")


def make(
    settings: ProviderSettings,
    *,
    vendor: Vendor | None = None,
    handler: Callable[[httpx.Request], httpx.Response] = refuse,
    clock: Clock | None = None,
) -> Authenticator:
    """The authenticator; its transport is `handler`."""
    return authenticator(
        settings, vendor or VENDORS[settings.type], httpx.MockTransport(handler), clock or Clock()
    )


async def refused(auth: Authenticator) -> ProviderError:
    """The error of a call without valid credentials."""
    with pytest.raises(ProviderError) as raised:
        await auth.headers(REQUEST)
    error = raised.value
    assert (error.reason, error.http_status) == (Reason.UPSTREAM_AUTHENTICATION, None)
    assert (error.fall_over, error.retry_here) == (True, False)
    assert error.message == (
        "The gateway has no valid credentials for this provider. Tell the gateway's operator."
    )
    return error


class Seen(NamedTuple):
    """One request as the server on loopback received it; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


#: A status and a body, JSON unless it is text.
Reply = tuple[int, Any]


class Loopback:
    """A server on loopback whose `answer` may be replaced; `seen` are its requests so far."""

    def __init__(self, host: str, answer: Callable[[Seen], Reply]) -> None:
        self.host = host
        self.url = f"http://{host}"
        self.answer = answer
        self.seen: list[Seen] = []

    def reply(self, seen: Seen) -> Reply:
        """Record the request and answer it."""
        self.seen.append(seen)
        return self.answer(seen)


def not_found(seen: Seen) -> Reply:
    """The default answer."""
    return 404, f"nothing at {seen.path}"


@contextmanager
def loopback() -> Iterator[Loopback]:
    """Serve from a thread until the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = here.reply(Seen(self.command, self.path, headers, body))
            text = isinstance(answer, str)
            data = (answer if text else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain" if text else "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("metadata-flavor", "Google")
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET  # noqa: N815  # the base class's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Loopback(f"127.0.0.1:{server.server_address[1]}", not_found)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join()
