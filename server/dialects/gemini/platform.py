"""Where the Gemini dialect is served."""

from __future__ import annotations

import re
from urllib.parse import quote

from server.dialects.base import Endpoint, Platform


class GeminiPlatform(Platform, frozen=True, kw_only=True):
    """Google AI Studio's API; what others lack of it. https://ai.google.dev/api/generate-content."""

    #: What follows a base URL without a version.
    version: str = "v1beta"
    #: Function calls and their responses have ids.
    call_ids: bool = True
    #: There is the function calling mode VALIDATED.
    validated_calls: bool = True
    #: There is the field `store`.
    store: bool = True
    #: The header that carries the service tier; empty where the body does.
    tier_header: str = ""

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`.../{resource}:generateContent`, or `:streamGenerateContent?alt=sse`. A base URL's version stays."""
        base = self.base_url(endpoint).rstrip("/")
        if not re.search(r"/v1(alpha|beta)?\d*$", base):
            base = f"{base}/{self.version}"
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{base}/{quote(self.resource(endpoint), safe='/@')}:{method}"

    def base_url(self, endpoint: Endpoint) -> str:
        """The endpoint's, else its vendor's."""
        return endpoint.base_url or endpoint.vendor.url_for()

    def resource(self, endpoint: Endpoint) -> str:
        """The path of the model: `models/` before its id, unless it is a path itself."""
        model = endpoint.model
        return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


DEFAULT_PLATFORM = GeminiPlatform()
