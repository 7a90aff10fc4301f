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


_Index = Mapping[str, tuple[str, ...]]
"""The last MIN_SECRET characters of secrets -> those that end so."""


class Redactor:
    """Replaces known secrets in texts, in time linear in the text, however many there are.

    A secret is also found as JSON and URLs write it. Those shorter than MIN_SECRET are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._configured = _index(secrets)
        #: Of each provider, the secrets of the headers it was sent last, and of those before.
        self._sent: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._renewed: _Index = {}

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
            self._renewed = _index(secret for pair in self._sent.values() for each in pair for secret in each)

    def __call__(self, text: str) -> str:
        """`text` with MASK in the place of each secret."""
        found: set[str] = set()
        for end in range(MIN_SECRET, len(text) + 1):
            tail = text[end - MIN_SECRET : end]
            for index in (self._configured, self._renewed):
                if tail in index:
                    found.update(form for form in index[tail] if text.endswith(form, 0, end))
        for form in sorted(found, key=lambda form: (-len(form), form)):  # one may be a part of another
            text = text.replace(form, MASK)
        return text

    def __repr__(self) -> str:
        return "Redactor(***)"


def _in_headers(headers: Mapping[str, str]) -> frozenset[str]:
    """Values of headers that may hold a secret, without the scheme (`Bearer`) before them.

    A signature of AWS is none: it is good for one request.
    """
    values = (value.split() for name, value in headers.items() if _SENSITIVE(name))
    return frozenset(words[-1] for words in values if words and not words[0].startswith("AWS4-"))


def _index(secrets: Iterable[str]) -> _Index:
    index: dict[str, tuple[str, ...]] = {}
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            for form in {secret, json.dumps(secret)[1:-1], quote(secret, safe="", errors="replace")}:
                index[form[-MIN_SECRET:]] = (*index.get(form[-MIN_SECRET:], ()), form)
    return index
