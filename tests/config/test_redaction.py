"""Secrets in every form are found in texts, and nothing else is."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.model import Key, ProviderSettings, Secret
from server.config.redaction import MASK, MIN_SECRET, Redactor

KEYS = (Key(name="caller", key=Secret("sk-caller-0123")),)
PROVIDER = ProviderSettings(
    key="up",
    type="openai",
    base_url="https://user:pass-in-url@up.example/v1",
    api_key=Secret("sk-provider-0123"),
    headers={
        "authorization": "Basic dXNlcjpwYXNz",
        "x-title": "My application",
        "cf-access-client-secret": "cf-0123",
    },
    credentials={"profile": "production", "bearer_token": Secret('quoted"\n/token')},
)
REDACT = Redactor.of(KEYS, [PROVIDER])

#: Text, and what is shown of it.
TABLE = [
    ("key sk-caller-0123 wrong", f"key {MASK} wrong"),
    ("Bearer sk-provider-0123", f"Bearer {MASK}"),
    ("sk-provider-0123sk-provider-0123", MASK * 2),
    ("Basic dXNlcjpwYXNz", f"Basic {MASK}"),
    ("https://user:pass-in-url@up.example", f"https://user:{MASK}@up.example"),
    ('quoted"\n/token', MASK),
    (json.dumps({"got": 'quoted"\n/token'}), json.dumps({"got": MASK})),
    (f"?key={quote('quoted' + chr(34) + chr(10) + '/token', safe='')}&a=b", f"?key={MASK}&a=b"),
    ("My application in production", "My application in production"),
    ("cf-0123", "cf-0123"),  # shorter than MIN_SECRET
    ("sk-provider-012", "sk-provider-012"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), TABLE)
def test_texts(text: str, shown: str) -> None:
    assert REDACT(text) == shown


def test_repr_has_no_secret() -> None:
    assert "sk-" not in repr(REDACT)


def test_of_two_secrets_the_longer_is_replaced_whole() -> None:
    assert Redactor(["secret-01", "secret-01-and-more"])("secret-01-and-more secret-01") == f"{MASK} {MASK}"


def test_credentials_that_are_renewed() -> None:
    redact = Redactor(["sk-static-0"])
    for token in ("ya29.first", "ya29.second", "ya29.second", "ya29.third"):
        redact.remember("vertex", {"authorization": f"Bearer {token}", "x-goog-user-project": "project-01"})
    redact.remember("azure", {"authorization": "Bearer entra-token"})
    text = "ya29.first ya29.second ya29.third entra-token sk-static-0 project-01"
    signature = "AWS4-HMAC-SHA256 Credential=AKIA, Signature=0123456789abcdef"
    redact.remember("bedrock", {"authorization": signature, "x-amz-security-token": "session-token"})
    assert redact(f"{signature} session-token") == f"{signature} {MASK}"
    assert redact(text) == f"ya29.first {MASK} {MASK} {MASK} {MASK} project-01"


@given(
    secrets=st.lists(st.text(min_size=MIN_SECRET, max_size=20), max_size=5),
    pieces=st.lists(st.text(max_size=5), max_size=5),
)
def test_no_secret_is_left(secrets: list[str], pieces: list[str]) -> None:
    redact = Redactor(secrets)
    text = "".join(piece + secret for piece, secret in zip(pieces, secrets, strict=False))
    shown = redact(text)
    assert not any(secret in shown for secret in secrets if MASK not in secret)
