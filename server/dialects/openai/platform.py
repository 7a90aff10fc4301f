"""Where the OpenAI dialect is served."""

from __future__ import annotations

from server.dialects.base import Endpoint, Platform


class OpenAIPlatform(Platform, frozen=True, kw_only=True):
    """api.openai.com and every server with the same paths: base URLs hold the version (`/v1`)."""

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`<base URL>/chat/completions`, with the provider's `api_version` where it has one."""
        return self.chat_completions(endpoint.base_url.rstrip("/"), endpoint.provider.api_version)

    @staticmethod
    def chat_completions(base: str, version: str) -> str:
        """The address below `base`; `version` goes into the query."""
        return f"{base}/chat/completions" + (f"?api-version={version}" if version else "")


DEFAULT_PLATFORM = OpenAIPlatform()
