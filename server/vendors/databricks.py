"""Databricks: where a workspace serves OpenAI's dialect."""

from __future__ import annotations

from server.dialects.base import Endpoint
from server.dialects.openai.platform import OpenAIPlatform

_PATH = "/serving-endpoints"


class Databricks(OpenAIPlatform, frozen=True, kw_only=True):
    """`DATABRICKS_HOST` is the workspace's origin; `/serving-endpoints` at its end is optional.

    https://docs.databricks.com/aws/en/machine-learning/model-serving/score-foundation-models
    """

    def url(self, endpoint: Endpoint, *, stream: bool) -> str:
        """`<workspace>/serving-endpoints/chat/completions`."""
        base = endpoint.base_url.rstrip("/").removesuffix(_PATH)
        return self.chat_completions(f"{base}{_PATH}", endpoint.provider.api_version)


OPENAI = Databricks()
