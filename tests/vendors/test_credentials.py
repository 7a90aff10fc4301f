"""Which credentials a provider's settings select, and the renewal of credentials that expire."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from server.config.load import load
from server.config.model import ProviderSettings, Secret
from server.config.problems import ConfigError
from server.errors import ProviderError
from server.vendors.credentials import lease as credentials_lease
from server.vendors.credentials.lease import (
    MIN_REFRESH_INTERVAL,
    RENEWAL_MARGIN,
    REREAD_INTERVAL,
    RETRY_INTERVAL,
    Lease,
    LeaseCache,
    LeasedHeaders,
    NoCredentials,
    summarize,
)
from server.vendors.credentials.select import StaticHeaders, credentials_error
from server.vendors.registry import PLAIN, VENDORS
from tests.vendors.credentials_help import REQUEST, START, Clock, make, provider, refused

SECRET = "the-secret-itself"

# Selection


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        (provider("openai", SECRET), {"authorization": f"Bearer {SECRET}"}),
        (provider("openai", base_url="http://10.0.0.7:8000/v1"), {}),
        (provider("groq", SECRET), {"authorization": f"Bearer {SECRET}"}),
        (provider("anthropic", SECRET), {"x-api-key": SECRET}),
        (provider("gemini", SECRET), {"x-goog-api-key": SECRET}),
        (provider("azure", SECRET), {"api-key": SECRET}),
        (provider("azure", access_token=SECRET), {"authorization": f"Bearer {SECRET}"}),
        (provider("azure"), {}),
        (provider("vertex", SECRET), {"x-goog-api-key": SECRET}),
        (provider("vertex", access_token=SECRET), {"authorization": f"Bearer {SECRET}"}),
        (provider("vertex", base_url="http://127.0.0.1:9"), {}),
        (provider("bedrock", SECRET), {"authorization": f"Bearer {SECRET}"}),
        (provider("bedrock", bearer_token=SECRET), {"authorization": f"Bearer {SECRET}"}),
    ],
)
async def test_credentials_that_never_expire(settings: ProviderSettings, headers: dict[str, str]) -> None:
    auth = make(settings)
    assert await auth.headers(REQUEST) == headers
    assert repr(auth) == f"StaticHeaders({', '.join(headers)})"


@pytest.mark.parametrize(
    ("type_", "dialect", "header"),
    [("vertex", "anthropic", "x-goog-api-key"), ("azure", "anthropic", "api-key")],
)
async def test_another_dialect_has_its_vendors_credentials(type_: str, dialect: str, header: str) -> None:
    vendor = VENDORS[type_].in_dialect(PLAIN[dialect])
    assert await make(provider(type_, SECRET), vendor=vendor).headers(REQUEST) == {header: SECRET}


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (provider("vertex"), "LeasedHeaders(LeaseCache(my-vertex))"),
        (provider("vertex", adc=True, base_url="http://127.0.0.1:9"), "LeasedHeaders(LeaseCache(my-vertex))"),
        (provider("vertex", service_account_file="/run/sa.json"), "LeasedHeaders(LeaseCache(my-vertex))"),
        (
            provider("azure", tenant_id="t", client_id="c", client_secret=SECRET),
            "LeasedHeaders(LeaseCache(my-azure))",
        ),
        (provider("bedrock"), "BedrockAuthenticator(us-east-1)"),
        (provider("bedrock", profile="dev"), "BedrockAuthenticator(us-east-1)"),
        (
            provider("bedrock", access_key_id="AKID", secret_access_key=SECRET, session_token=SECRET),
            "BedrockAuthenticator(us-east-1)",
        ),
    ],
)
def test_credentials_fetched_at_the_first_call(settings: ProviderSettings, kind: str) -> None:
    assert repr(make(settings)) == kind


_VERTEX = "vertex takes one of: adc; service_account_file; access_token"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (provider("vertex", SECRET, adc=True), "there is an api_key too; one of them is enough"),
        (provider("vertex", adc=True, access_token=SECRET), _VERTEX),
        (provider("vertex", profile="dev"), _VERTEX),
        (provider("azure", adc=True), "azure takes one of: tenant_id + client_id + client_secret; access_token"),
        (
            provider("bedrock", session_token=SECRET),
            "bedrock takes one of: profile; access_key_id + secret_access_key; "
            "access_key_id + secret_access_key + session_token; bearer_token",
        ),
        (provider("groq", access_token=SECRET), "groq takes an api_key and nothing else"),
    ],
)
def test_errors_of_settings(settings: ProviderSettings, message: str) -> None:
    assert credentials_error(settings, VENDORS[settings.type]) == message
    with pytest.raises(ConfigError) as raised:
        make(settings)
    assert str(raised.value) == f"providers.my-{settings.type}.credentials: {message}"


def test_every_kind_can_be_configured(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("""\
providers:
  a: {type: azure, credentials: {tenant_id: t, client_id: c, client_secret: s}}
  b: {type: azure, credentials: {access_token: s}}
  c: {type: vertex, credentials: {adc: true}}
  d: {type: vertex, credentials: {service_account_file: /run/sa.json}}
  e: {type: vertex, credentials: {access_token: s}}
  f: {type: bedrock, credentials: {profile: p}}
  g: {type: bedrock, credentials: {access_key_id: i, secret_access_key: s}}
  h: {type: bedrock, credentials: {access_key_id: i, secret_access_key: s, session_token: s}}
  i: {type: bedrock, credentials: {bearer_token: s}}
models: {m: {endpoints: [{provider: a, model: x}]}}
""")
    providers = load(file, {}).providers
    assert [credentials_error(settings, VENDORS[settings.type]) for settings in providers.values()] == [""] * 9
    for settings in providers.values():
        assert Secret("s") in settings.credentials.values() or "s" not in settings.credentials.values()


def test_entra_takes_all_three(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("""\
providers:
  a: {type: azure, credentials: {client_id: c}}
models: {m: {endpoints: [{provider: a, model: x}]}}
""")
    with pytest.raises(ConfigError) as raised:
        load(file, {})
    assert [problem.field for problem in raised.value.problems] == [
        "providers.a.credentials.tenant_id",
        "providers.a.credentials.client_secret",
    ]
    assert {problem.message for problem in raised.value.problems} == {"missing; client_id needs it"}


# Renewal


class Source:
    """A source of leases: `outcome` is the length of the next lease in seconds, or an error."""

    def __init__(self, clock: Clock, outcome: float | Exception | None = 3600.0) -> None:
        self.clock = clock
        self.outcome = outcome
        self.calls = 0
        self.release = asyncio.Event()
        self.release.set()

    async def __call__(self) -> Lease[str]:
        self.calls += 1
        await self.release.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Lease(f"{SECRET}-{self.calls}", None if self.outcome is None else self.clock() + self.outcome)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(clock: Clock) -> Source:
    return Source(clock)


@pytest.fixture
def leased(source: Source, clock: Clock) -> LeaseCache[str]:
    return LeaseCache("mine", source, clock)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def failed(leased: LeaseCache[Any]) -> ProviderError:
    return await refused(LeasedHeaders(leased))


async def test_one_renewal_for_a_hundred_calls(leased: LeaseCache[str], source: Source, clock: Clock) -> None:
    for round_ in (1, 2):
        source.release.clear()
        calls = [asyncio.create_task(leased.get()) for _ in range(100)]
        await settle()
        assert (source.calls, any(call.done() for call in calls)) == (round_, False)
        source.release.set()
        assert set(await asyncio.gather(*calls)) == {f"{SECRET}-{round_}"}
        assert source.calls == round_
        clock.now += 3600  # until it expires


async def test_a_failed_renewal_fails_each_of_its_hundred_calls(leased: LeaseCache[str], source: Source) -> None:
    source.release.clear()
    source.outcome = NoCredentials("not today")
    calls = [asyncio.create_task(leased.get()) for _ in range(100)]
    await settle()
    source.release.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert source.calls == 1
    assert len({id(error) for error in errors}) == 100  # each is raised, with notes, separately
    assert {getattr(error, "raw", "") for error in errors} == {"not today"}


async def test_renewed_ahead_and_without_waiting(leased: LeaseCache[str], source: Source, clock: Clock) -> None:
    assert await leased.get() == f"{SECRET}-1"
    clock.now = START + 3600 - RENEWAL_MARGIN - 1
    assert await leased.get() == f"{SECRET}-1"
    await settle()
    assert source.calls == 1
    clock.now += 1
    source.release.clear()
    assert [await leased.get() for _ in range(100)] == [f"{SECRET}-1"] * 100
    await settle()
    assert source.calls == 2
    source.release.set()
    await settle()
    assert await leased.get() == f"{SECRET}-2"
    assert source.calls == 2


async def test_a_failed_renewal_keeps_the_credentials_until_they_expire(
    leased: LeaseCache[str], source: Source, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await leased.get()
    source.outcome = OSError(2, "No such file", "/run/sa.json")
    clock.now = START + 3600 - RENEWAL_MARGIN
    tries = 0
    while clock.now < START + 3600:
        assert await leased.get() == f"{SECRET}-1"
        await settle()
        tries += 1
        assert source.calls == 1 + tries
        clock.now += MIN_REFRESH_INTERVAL - 1
        assert await leased.get() == f"{SECRET}-1"
        await settle()
        assert source.calls == 1 + tries
        clock.now += 1
    assert tries == RENEWAL_MARGIN // MIN_REFRESH_INTERVAL
    error = await failed(leased)
    assert error.raw == "FileNotFoundError: [Errno 2] No such file: '/run/sa.json'"
    assert (
        caplog.messages[0]
        == f"provider mine: no new credentials, the current ones are used until they expire: {error.raw}"
    )
    assert caplog.messages[-1] == f"provider mine: no new credentials, calls fail: {error.raw}"
    calls = source.calls
    await failed(leased)  # at once, from memory
    assert source.calls == calls
    source.outcome = 3600.0
    clock.now += RETRY_INTERVAL
    assert await leased.get() == f"{SECRET}-{calls + 1}"


async def test_credentials_that_expire_between_two_renewals(
    leased: LeaseCache[str], source: Source, clock: Clock
) -> None:
    await leased.get()
    source.outcome = NoCredentials("not today")
    clock.now = START + 3600 - RETRY_INTERVAL - 1
    await leased.get()
    await settle()
    source.outcome = 3600.0
    clock.now = START + 3600
    assert (await leased.get(), source.calls) == (f"{SECRET}-3", 3)


async def test_a_caller_who_leaves_does_not_take_the_renewal_along(
    leased: LeaseCache[str], source: Source
) -> None:
    source.release.clear()
    first, second = asyncio.create_task(leased.get()), asyncio.create_task(leased.get())
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    source.release.set()
    assert await second == f"{SECRET}-1"
    assert source.calls == 1


async def test_a_renewal_continues_after_the_wait_timeout(
    leased: LeaseCache[str], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_lease, "WAIT_TIMEOUT", 0)
    source.release.clear()
    for _ in range(3):
        assert (await failed(leased)).raw == "getting credentials takes too long"
    source.release.set()
    await settle()
    assert await leased.get() == f"{SECRET}-1"
    assert source.calls == 1


@pytest.mark.parametrize("length", [0.0, -5.0])
async def test_expired_credentials_are_refused(leased: LeaseCache[str], source: Source, length: float) -> None:
    source.outcome = length
    assert (await failed(leased)).raw.startswith("the new ones have already expired")


async def test_short_leases_are_not_renewed_at_every_call(
    leased: LeaseCache[str], source: Source, clock: Clock
) -> None:
    source.outcome = 60.0
    await leased.get()
    for seconds, calls in ((MIN_REFRESH_INTERVAL - 1, 1), (1, 2), (MIN_REFRESH_INTERVAL - 1, 2), (1, 3)):
        clock.now += seconds
        await leased.get()
        await settle()
        assert source.calls == calls


async def test_credentials_without_an_end_are_read_again(
    leased: LeaseCache[str], source: Source, clock: Clock
) -> None:
    source.outcome = None
    await leased.get()
    clock.now += REREAD_INTERVAL - 1
    await leased.get()
    await settle()
    assert source.calls == 1
    clock.now += 1
    await leased.get()
    await settle()
    assert (source.calls, await leased.get()) == (2, f"{SECRET}-2")
    source.outcome = NoCredentials("the file is gone")
    clock.now += 10 * REREAD_INTERVAL
    await leased.get()
    await settle()
    assert (source.calls, await leased.get()) == (3, f"{SECRET}-2")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NoCredentials("none\n  to be had"), "none to be had"),
        (ValueError(), "ValueError: "),
        (ValueError("invalid_grant: no", {"access_token": SECRET}), "ValueError: invalid_grant: no"),
        (OSError(13, "Permission denied", "/run/x"), "PermissionError: [Errno 13] Permission denied: '/run/x'"),
        (ValueError(f"assertion {'eyJh' * 20}.{'x' * 50} refused"), "ValueError: assertion ***.*** refused"),
        (ValueError("word " * 500), "ValueError: " + ("word " * 100)),
    ],
)  # fmt: skip
def test_errors_for_logs(error: Exception, line: str) -> None:
    assert summarize(error) == line


async def test_nothing_shows_the_secret(
    leased: LeaseCache[str], source: Source, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [repr(leased), repr(StaticHeaders({"x": SECRET})), repr(Lease(SECRET, 1.0)), repr(Lease(SECRET, None))]
    await leased.get()
    shown.append(repr(leased))
    clock.now += 3600
    source.outcome = ValueError("refused", {"client_secret": SECRET})
    error = await failed(leased)
    shown += [str(error), error.raw, repr(error), caplog.text]
    assert not [text for text in shown if SECRET in text]
