"""Rows of gateways and clouds that serve models of several makers in the OpenAI dialect.

The comment of a row says what differs and with which effect; `source` is the vendor's own page, further pages
stand in the comment.
"""

from __future__ import annotations

from server.dialects.base import Vendor
from server.vendors import databricks
from server.vendors.compatible import (
    ALL_FORMATS,
    CHECKED,
    DOCUMENTS,
    IMAGES,
    JSON_SCHEMA,
    LABELS,
    NEWER_LIMIT,
    NO_EXTENSIONS,
    PENALTIES,
    PLATFORM,
    TEXT_ONLY,
    compatible,
)

#: What no model of Databricks's takes.
_DATABRICKS = PLATFORM | LABELS | PENALTIES | {"logit_bias", "seed", "parallel_tool_calls"}
#: Claude 4.7 and later.
_SAMPLING_IS_FIXED = r"claude-opus-4-[7-9]|claude-[a-z]+-[5-9]"

ROWS: tuple[Vendor, ...] = (
    # Takes `developer` for every model, as recorded.
    compatible(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ["OPENROUTER_API_KEY"],
        source="https://github.com/OpenRouterTeam/typescript-sdk/blob/main/docs/models/chatrequest.mdx",
        checked=CHECKED,
        developer_role=True,
    ),
    compatible(
        "huggingface",
        "https://router.huggingface.co/v1",
        ["HF_TOKEN"],
        source="https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        checked=CHECKED,
    ),
    # Content as text, no function forced by its name, no `store`. https://github.com/can1357/oh-my-pi/pull/12509
    # Errors are a list: https://developers.cloudflare.com/workers-ai/platform/errors/
    compatible(
        "cloudflare",
        "https://api.cloudflare.com/client/v4/accounts/{project}/ai/v1",
        ["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_KEY"],
        source="https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility",
        checked=CHECKED,
        required={"project": ("CLOUDFLARE_ACCOUNT_ID",)},
        drops=frozenset({"store"}),
        tool_choices=frozenset({"none", "auto", "required"}),
        string_content=True,
    ),
    # Behind it are OpenAI's models, some of which refuse `max_tokens`, and others, which know nothing else.
    compatible(
        "github",
        "https://models.github.ai/inference",
        ["GITHUB_MODELS_TOKEN"],
        source="https://docs.github.com/en/rest/models/inference",
        checked=CHECKED,
        token_limit="",
        extensions=NO_EXTENSIONS,
    ),
    compatible(
        "vercel",
        "https://ai-gateway.vercel.sh/v1",
        ["AI_GATEWAY_API_KEY"],
        source="https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions",
        checked=CHECKED,
    ),
    # A workspace's address. A 400 for `strict` and `include_usage` with some models; streams carry usage anyway.
    # Newer models of Claude refuse sampling parameters. https://github.com/leonardovida/duckdb-ai/issues/85
    # https://github.com/tidyverse/ellmer/issues/548  https://github.com/anomalyco/opencode/issues/4698
    compatible(
        "databricks",
        "",
        ["DATABRICKS_TOKEN"],
        source="https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference",
        platforms={"openai": databricks.OPENAI},
        required={"base_url": ("DATABRICKS_HOST",)},
        drops=_DATABRICKS,
        by_model={_SAMPLING_IS_FIXED: {"drops": _DATABRICKS | {"temperature", "top_p"}}},
        stream_usage=False,
        extensions=frozenset({"cache_control"}),
        strict_tools="refused",
        modalities=DOCUMENTS,
    ),
    # An account's address, and a programmatic access token. Tools and formats are OpenAI's and Claude's models'
    # only: of others tools are an error and a format does nothing; Claude has no JSON mode.
    # https://github.com/pydantic/pydantic-ai/blob/main/pydantic_ai_slim/pydantic_ai/providers/snowflake.py
    compatible(
        "snowflake",
        "https://{project}.snowflakecomputing.com/api/v2/cortex/v1",
        ["SNOWFLAKE_PAT", "SNOWFLAKE_API_KEY"],
        source="https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api",
        checked=CHECKED,
        required={"project": ("SNOWFLAKE_ACCOUNT",)},
        drops=frozenset({"tools", "tool_choice", "parallel_tool_calls"}),
        response_formats=TEXT_ONLY,
        by_model={
            r"^claude": {"response_formats": JSON_SCHEMA, "drops": frozenset[str]()},
            r"^openai": {"response_formats": ALL_FORMATS, "drops": frozenset[str]()},
        },
        strict_tools="refused",
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
)
