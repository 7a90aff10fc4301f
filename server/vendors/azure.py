"""Azure AI Foundry: where it serves OpenAI's dialect."""

from __future__ import annotations

from server.dialects.base import Endpoint
from server.dialects.openai.platform import OpenAIPlatform


class AzureOpenAI(OpenAIPlatform, frozen=True, kw_only=True):
    """Deployments in the path and a version in the query, but for base URLs that end in `/v1` or `/models`.

    https://learn.microsoft.com/azure/ai-foundry/openai/reference
    https://learn.microsoft.com/rest/api/aifoundry/modelinference/ (`/models`, which takes a version only)
    """

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """By the end of the base URL; `/openai` at its end is optional."""
        base = endpoint.base_url.rstrip("/")
        version = endpoint.provider.api_version
        if base.endswith("/models"):
            version = version or "2024-05-01-preview"
        elif not base.endswith("/v1"):
            base = f"{base.removesuffix('/openai')}/openai/deployments/{endpoint.model}"
            version = version or "2024-10-21"
        return self.chat_completions(base, version)

    def is_resource_name(self, model: str) -> bool:
        """A deployment's name is one segment of the path; `a/b` would be another address."""
        return "/" in model


OPENAI = AzureOpenAI()
