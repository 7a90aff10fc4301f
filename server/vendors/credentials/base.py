"""What every kind of credentials is to a provider call: headers to add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.dialects.base import HttpRequest


class Authenticator(Protocol):
    """Adds a provider's credentials to a call."""

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        """Headers to add. Raises ProviderError when there are no credentials to be had."""
        ...
