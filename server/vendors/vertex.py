"""Google's Vertex AI: where it serves Gemini's dialect, and Anthropic's for Claude."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from server.config.model import ProviderSettings
from server.dialects.anthropic.platform import AnthropicPlatform
from server.dialects.base import Endpoint
from server.dialects.gemini.platform import GeminiPlatform

#: The base URL of a region.
REGION_URL = "https://{location}-aiplatform.googleapis.com"

#: Locations that are not regions have hosts of their own.
#: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations
LOCATION_URLS: Mapping[str, str] = {
    "global": "https://aiplatform.googleapis.com",
    "us": "https://aiplatform.us.rep.googleapis.com",
    "eu": "https://aiplatform.eu.rep.googleapis.com",
}


def location(provider: ProviderSettings) -> str:
    """Where the provider's models are; without a project it is express mode, which is global.

    https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/vertex-ai-express-mode-api-reference
    """
    return (provider.location or provider.region or "global") if provider.project else "global"


def base_url(endpoint: Endpoint) -> str:
    """The endpoint's base URL, else its location's."""
    return endpoint.base_url or endpoint.vendor.url_for(location=location(endpoint.provider))


class VertexGemini(GeminiPlatform, frozen=True, kw_only=True):
    """Google's models, tuned ones by `endpoints/{id}`, or any by full name.

    Its v1 has no ids of calls and no VALIDATED mode, and refuses the fields `store` and `serviceTier`.
    https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
    https://github.com/pydantic/pydantic-ai/issues/5081 (ids)
    https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo (the tier's header)
    """

    version: str = "v1"
    call_ids: bool = False
    validated_calls: bool = False
    store: bool = False
    tier_header: str = "x-vertex-ai-llm-shared-request-type"

    def base_url(self, endpoint: Endpoint) -> str:
        """The endpoint's base URL, else its location's."""
        return base_url(endpoint)

    def resource(self, endpoint: Endpoint) -> str:
        """The path of the model, in the provider's project unless the model's name is a full one."""
        provider, resource = endpoint.provider, endpoint.model
        if resource.startswith("projects/"):
            return resource
        if not resource.startswith(("publishers/", "endpoints/")):
            resource = f"publishers/google/models/{resource}"
        if provider.project:
            resource = f"projects/{provider.project}/locations/{location(provider)}/{resource}"
        return resource

    def is_resource_name(self, model: str) -> bool:
        """`projects/...` may be another project's; `endpoints/...` is a deployment, not a model of Google's."""
        return model.startswith(("projects/", "endpoints/"))


class VertexAnthropic(AnthropicPlatform, frozen=True, kw_only=True):
    """Claude: the model is in the URL, the version in the body. It fetches no URLs and keeps no files.

    https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
    """

    model_in_body: bool = False
    bytes_only: frozenset[str] = frozenset({"image_url", "file_url"})

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`.../models/{model}:rawPredict` or `:streamRawPredict`; a base URL may have the version."""
        provider = endpoint.provider
        base = base_url(endpoint).rstrip("/").removesuffix("/v1")
        path = f"projects/{provider.project}/locations/{location(provider)}/publishers/anthropic/models"
        call = "streamRawPredict" if stream else "rawPredict"
        return f"{base}/v1/{path}/{quote(endpoint.model, safe='@')}:{call}"


GEMINI = VertexGemini()
ANTHROPIC = VertexAnthropic(body={"anthropic_version": "vertex-2023-10-16"})
