"""Where Converse is served."""

from __future__ import annotations

from urllib.parse import quote

from server.dialects.base import Endpoint, Platform


class BedrockPlatform(Platform, frozen=True, kw_only=True):
    """Bedrock's runtime endpoints, one a region. https://docs.aws.amazon.com/general/latest/gr/bedrock.html."""

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`<base URL>/model/{id}/converse` or `/converse-stream`; the id is encoded once, `:` and `/` too.

        `{region}` in a configured base URL stands for the provider's.
        """
        region = endpoint.provider.region
        base = (endpoint.base_url or endpoint.vendor.url_for(region=region)).replace("{region}", region)
        return f"{base.rstrip('/')}/model/{quote(endpoint.model, safe='')}/converse" + (
            "-stream" if stream else ""
        )

    def is_resource_name(self, model: str) -> bool:
        """ARNs: the account is in them, and may be another."""
        return model.startswith("arn:")


DEFAULT_PLATFORM = BedrockPlatform()
