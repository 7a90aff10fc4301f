"""Takes the secrets of the configuration out of texts that callers or logs get to see.

Providers repeat what they were sent, keys included, in errors that are passed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Self
from urllib.parse import quote, urlsplit

from server.config.model import Key, ProviderSettings, Secret

#: What takes the place of a secret.
MASK = "***"
#: Characters; shorter values are placeholders like "x" or "ollama", whose removal would only garble texts.
MIN_SECRET = 8
#: Headers that may hold a secret, by their names.
_SENSITIVE = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE).search


class Redactor:
    """Replaces known secrets in texts, in linear time: one search for each of them.

    A secret is also found as JSON and URLs write it. Those shorter than MIN_SECRET are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._static = frozenset(secrets)
        #: Of each provider, the secrets of the headers it was sent last, and of those before.
        self._sent: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._forms = _forms(self._static)

    @classmethod
    def of(cls, keys: Iterable[Key], providers: Iterable[ProviderSettings]) -> Self:
        """For the keys of callers and all credentials of `providers`."""
        secrets = {key.key.reveal() for key in keys}
        for provider in providers:
            secrets.update(value.reveal() for value in provider.credentials.values() if isinstance(value, Secret))
            secrets.update(_in_headers(provider.headers))
            secrets.add(provider.api_key.reveal() if provider.api_key else "")
            secrets.add(urlsplit(provider.base_url).password or "")
        return cls(secrets)

    def remember(self, provider: str, headers: Mapping[str, str]) -> None:
        """Add the secrets in `headers`, with which `provider` is called from now on; credentials are renewed."""
        secrets = _in_headers(headers)
        sent, _ = self._sent.get(provider, (frozenset(), frozenset()))
        if secrets != sent:
            self._sent[provider] = secrets, sent
            self._forms = _forms(self._static.union(*(each for pair in self._sent.values() for each in pair)))

    def __call__(self, text: str) -> str:
        """`text` with MASK in the place of each secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"


def _in_headers(headers: Mapping[str, str]) -> frozenset[str]:
    """Values of headers that may hold a secret, without the scheme (`Bearer`) before them."""
    values = (value.split() for name, value in headers.items() if _SENSITIVE(name))
    return frozenset(words[-1] for words in values if words)


def _forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """How texts may write `secrets`, the longest first: one may be a part of another."""
    kept = [secret for secret in secrets if len(secret) >= MIN_SECRET]
    forms = {form for secret in kept for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))
