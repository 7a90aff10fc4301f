"""Where the Anthropic dialect is served."""

from __future__ import annotations

from collections.abc import Mapping

from server.dialects.base import Endpoint, Platform


class AnthropicPlatform(Platform, frozen=True, kw_only=True):
    """api.anthropic.com and every server with the same paths.

    A platform whose `bytes_only` is not empty fetches no URLs and keeps no files either.
    """

    #: Fields added to the body.
    body: Mapping[str, str] = {}
    #: The body names the model; where False, the URL does.
    model_in_body: bool = True

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`<base URL>/v1/messages`; a base URL may have the version."""
        base = endpoint.base_url or endpoint.vendor.url_for()
        return f"{base.rstrip('/').removesuffix('/v1')}/v1/messages"


#: https://platform.claude.com/docs/en/api/versioning
DEFAULT_PLATFORM = AnthropicPlatform(headers={"anthropic-version": "2023-06-01"})
