"""Rows of the vendors that serve the OpenAI dialect besides OpenAI and Azure.

The comment of a row says what differs and with which effect; `source` is the vendor's own page, further pages
stand in the comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.dialects.base import Vendor
from server.vendors import databricks
from server.vendors.compatible import (
    ALL_FORMATS,
    CHECKED,
    DETAILS,
    DOCUMENTS,
    IMAGES,
    JSON_OBJECT,
    JSON_SCHEMA,
    LABELS,
    LOGPROBS,
    NEWER_LIMIT,
    NO_EXTENSIONS,
    OF_ANSWERS,
    PENALTIES,
    PLATFORM,
    TEXT,
    TEXT_ONLY,
    compatible,
)

#: Z.ai and Zhipu, one API at two addresses: tools are the model's choice, a 400 for other choices ("Tool choice
#: must be auto", https://github.com/vectorize-io/hindsight/issues/4246); one stop sequence; `temperature` up to 1.
_GLM: Mapping[str, Any] = {
    "source": "https://docs.z.ai/api-reference/llm/chat-completion",
    "drops": LOGPROBS | PENALTIES | PLATFORM | {"logit_bias", "n", "seed"},
    "tool_choices": frozenset({"auto"}),
    "temperatures": (0.0, 1.0),
    "response_formats": JSON_OBJECT,
    "modalities": IMAGES,
    "max_stop": 1,
}

ROWS: tuple[Vendor, ...] = (
    # A 400 for logprobs, logit_bias, n, names of participants, and every field it does not know, in the request
    # and in messages ("property 'reasoning_content' is unsupported"; its own name is `reasoning`). Penalties do
    # nothing. Some models take schemas. https://console.groq.com/docs/api-reference
    # https://console.groq.com/docs/structured-outputs  https://github.com/tashfeenahmed/freellmapi/issues/1070
    compatible(
        "groq",
        "https://api.groq.com/openai/v1",
        ["GROQ_API_KEY"],
        source="https://console.groq.com/docs/openai",
        checked=CHECKED,
        drops=LOGPROBS | PENALTIES | PLATFORM | {"logit_bias", "n", "metadata"},
        extensions=frozenset({"reasoning"}),
        refused_in_messages=OF_ANSWERS | {"name"},
        response_formats=JSON_OBJECT,
        by_model={r"gpt-oss|kimi-k2|llama-4": {"response_formats": ALL_FORMATS}},
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
        image_details=DETAILS,
    ),
    # A 422 for any field it does not know: `seed` is its `random_seed`, users have no names; streams carry usage
    # without `stream_options`. Tool call ids are nine letters and digits.
    # https://github.com/Gage-Technologies/mistral-go/pull/2 (names)
    compatible(
        "mistral",
        "https://api.mistral.ai/v1",
        ["MISTRAL_API_KEY"],
        source="https://docs.mistral.ai/api/",
        drops=LOGPROBS | (PLATFORM - {"prediction"}) | {"logit_bias", "seed", "user", "service_tier"},
        stream_usage=False,
        extensions=frozenset({"prefix"}),
        refused_in_messages=OF_ANSWERS | {"name"},
        call_id_length=9,
        temperatures=(0.0, 1.5),
        modalities=IMAGES | {"audio"},
        image_details=DETAILS,
    ),
    # A 400 for json_schema ("This response_format type is unavailable now"). A turn of tool calls must come back
    # with its reasoning: https://api-docs.deepseek.com/guides/thinking_mode
    compatible(
        "deepseek",
        "https://api.deepseek.com",
        ["DEEPSEEK_API_KEY"],
        source="https://api-docs.deepseek.com/api/create-chat-completion",
        checked=CHECKED,
        drops=PLATFORM | LABELS | {"logit_bias", "n", "seed", "parallel_tool_calls"},
        extensions=frozenset({"reasoning_content", "prefix"}),
        response_formats=JSON_OBJECT,
        modalities=TEXT,
        max_stop=16,
    ),
    # Reasoning models answer 400 to penalties and stop sequences; only the others take them.
    # https://docs.x.ai/docs/guides/reasoning
    compatible(
        "xai",
        "https://api.x.ai/v1",
        ["XAI_API_KEY"],
        source="https://docs.x.ai/docs/api-reference",
        drops=PENALTIES | {"stop", "logit_bias"},
        by_model={r"non-reasoning|^grok-(2|3)(?!-mini)": {"drops": frozenset({"logit_bias"})}},
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
    compatible(
        "together",
        "https://api.together.ai/v1",
        ["TOGETHER_API_KEY"],
        source="https://docs.together.ai/docs/inference/openai-compatibility",
    ),
    # A 400 for unknown fields ("Extra inputs are not permitted"), `cache_control` among them.
    # https://github.com/musistudio/claude-code-router/issues/377
    compatible(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ["FIREWORKS_API_KEY"],
        source="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        drops=PLATFORM - {"prediction"},
        extensions=frozenset({"reasoning_content"}),
    ),
    # A 400 for these and for unknown fields in messages: reasoning goes back as `reasoning`; `strict` must be the
    # same for all tools. https://inference-docs.cerebras.ai/api-reference/chat-completions
    # https://github.com/QwenLM/qwen-code/issues/11045 (reasoning)
    # https://github.com/mpfaffenberger/code_puppy/pull/368 (strict)
    compatible(
        "cerebras",
        "https://api.cerebras.ai/v1",
        ["CEREBRAS_API_KEY"],
        source="https://inference-docs.cerebras.ai/resources/openai",
        drops=PENALTIES
        | (PLATFORM - {"prediction"})
        | {"logit_bias", "parallel_tool_calls", "service_tier", "metadata"},
        extensions=frozenset({"reasoning"}),
        refused_in_messages=OF_ANSWERS,
        strict_tools="same",
        temperatures=(0.0, 1.5),
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
    # It searches and has no tools.
    compatible(
        "perplexity",
        "https://api.perplexity.ai",
        ["PERPLEXITY_API_KEY"],
        source="https://docs.perplexity.ai/api-reference/chat-completions-post",
        drops=LOGPROBS
        | {"tools", "tool_choice", "parallel_tool_calls", "seed", "logit_bias", "user", "service_tier", "n"},
        response_formats=JSON_SCHEMA,
        modalities=IMAGES,
    ),
    # Takes `developer` for every model, as recorded.
    compatible(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ["OPENROUTER_API_KEY"],
        source="https://openrouter.ai/docs/api-reference/overview",
        developer_role=True,
    ),
    # A 400 for fields of a request that it does not know ("Validation: Unsupported parameter(s)").
    # https://github.com/Gitlawb/openclaude/issues/1950
    compatible(
        "nvidia",
        "https://integrate.api.nvidia.com/v1",
        ["NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"],
        source="https://docs.api.nvidia.com/nim/reference/llm-apis",
        drops=PLATFORM | {"metadata", "service_tier"},
    ),
    # Ignores these.
    compatible(
        "sambanova",
        "https://api.sambanova.ai/v1",
        ["SAMBANOVA_API_KEY"],
        source="https://docs.sambanova.ai/docs/en/features/openai-compatibility",
        drops=LOGPROBS | PENALTIES | {"n", "logit_bias", "seed"},
    ),
    compatible(
        "deepinfra",
        "https://api.deepinfra.com/v1/openai",
        ["DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"],
        source="https://deepinfra.com/docs/openai_api",
    ),
    compatible(
        "hyperbolic",
        "https://api.hyperbolic.xyz/v1",
        ["HYPERBOLIC_API_KEY"],
        source="https://docs.hyperbolic.xyz/docs/rest-api",
    ),
    # Kimi K2.5 and later take one value of each sampling parameter, a 400 for others, and while they think, which
    # is the default, no forced tool; K3 can be forced to call some tool. Older models have no such limits.
    # https://github.com/UKGovernmentBEIS/inspect_ai/pull/5152 (tools)  .../pull/5156 (sampling)
    compatible(
        "moonshot",
        "https://api.moonshot.ai/v1",
        ["MOONSHOT_API_KEY"],
        source="https://platform.kimi.ai/docs/api/chat",
        drops=PENALTIES | {"temperature", "top_p", "n"},
        tool_choices=frozenset({"none", "auto"}),
        by_model={
            r"^kimi-k3": {"tool_choices": frozenset({"none", "auto", "required"})},
            r"^moonshot-v1|^kimi-k2-": {"drops": frozenset[str](), "temperatures": (0.0, 1.0)},
        },
        modalities=IMAGES,
    ),
    compatible("zai", "https://api.z.ai/api/paas/v4", ["ZAI_API_KEY"], **_GLM),
    compatible("zhipu", "https://open.bigmodel.cn/api/paas/v4", ["ZHIPUAI_API_KEY", "ZHIPU_API_KEY"], **_GLM),
    # Keys are per region; this is Singapore's, China's has no `-intl`. A tool can be forced by its name only.
    compatible(
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ["DASHSCOPE_API_KEY"],
        source="https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-openai-chat-completions",
        drops=frozenset({"logit_bias"}),
        tool_choices=frozenset({"none", "auto", "function"}),
    ),
    # Keys are per site; the other is api.siliconflow.cn.
    compatible(
        "siliconflow",
        "https://api.siliconflow.com/v1",
        ["SILICONFLOW_API_KEY"],
        source="https://docs.siliconflow.com/en/api-reference",
    ),
    # MiniMax ignores these, has one choice and no `tool_choice`, and only its oldest model knows response formats.
    # `temperature` 0 is a 400. https://github.com/HKUDS/OpenSpace/pull/33
    compatible(
        "minimax",
        "https://api.minimax.io/v1",
        ["MINIMAX_API_KEY"],
        source="https://platform.minimax.io/docs/api-reference/text-openai-api",
        checked=CHECKED,
        drops=PENALTIES | {"logit_bias", "n"},
        token_limit=NEWER_LIMIT,
        tool_choices=frozenset({"auto"}),
        temperatures=(0.01, 1.0),
        response_formats=TEXT_ONLY,
        by_model={r"-M2(\b|\.)|-M1\b": {"modalities": TEXT}},
        modalities=IMAGES,
    ),
    # A 422 for unknown fields, `strict` of tools among them; no function can be forced by its name. Streams carry
    # usage without `stream_options`. https://github.com/OpenRouterTeam/openrouter-examples/issues/71
    # https://strandsagents.com/latest/documentation/docs/community/model-providers/cohere (stream_options)
    compatible(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        ["COHERE_API_KEY", "CO_API_KEY"],
        source="https://docs.cohere.com/docs/compatibility-api",
        checked=CHECKED,
        drops=PLATFORM | LABELS | {"logit_bias", "top_logprobs", "n", "parallel_tool_calls"},
        stream_usage=False,
        extensions=NO_EXTENSIONS,
        strict_tools="refused",
        tool_choices=frozenset({"none", "auto", "required"}),
        temperatures=(0.0, 1.0),
        max_stop=5,
        developer_role=True,
        modalities=IMAGES,
    ),
    # Jamba: text, JSON objects, no sampling beyond temperature and top_p. https://docs.ai21.com/reference/jamba-api-response
    compatible(
        "ai21",
        "https://api.ai21.com/studio/v1",
        ["AI21_API_KEY"],
        source="https://docs.ai21.com/reference/jamba-1-6-api-ref",
        drops=LOGPROBS
        | PENALTIES
        | PLATFORM
        | LABELS
        | {"logit_bias", "seed", "tool_choice", "parallel_tool_calls", "reasoning_effort"},
        stream_usage=False,
        extensions=NO_EXTENSIONS,
        strict_tools="refused",
        string_content=True,
        response_formats=JSON_OBJECT,
        modalities=TEXT,
    ),
    compatible(
        "huggingface",
        "https://router.huggingface.co/v1",
        ["HF_TOKEN"],
        source="https://huggingface.co/docs/inference-providers/tasks/chat-completion",
    ),
    compatible(
        "baseten",
        "https://inference.baseten.co/v1",
        ["BASETEN_API_KEY"],
        source="https://docs.baseten.co/inference/model-apis/overview",
    ),
    compatible(
        "novita",
        "https://api.novita.ai/openai/v1",
        ["NOVITA_API_KEY"],
        source="https://novita.ai/docs/guides/llm-api",
    ),
    compatible(
        "nebius",
        "https://api.tokenfactory.nebius.com/v1",
        ["NEBIUS_API_KEY"],
        source="https://docs.tokenfactory.nebius.com/",
    ),
    # Content as text, no function forced by its name, no `store`. https://github.com/can1357/oh-my-pi/pull/12509
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
    # The page lists these as unsupported.
    compatible(
        "scaleway",
        "https://api.scaleway.ai/v1",
        ["SCW_SECRET_KEY"],
        source="https://www.scaleway.com/en/docs/generative-apis/api-cli/using-chat-api/",
        checked=CHECKED,
        drops=frozenset({"frequency_penalty", "n", "top_logprobs", "logit_bias", "user"}),
    ),
    compatible(
        "ovhcloud",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        ["OVH_AI_ENDPOINTS_ACCESS_TOKEN", "OVHCLOUD_API_KEY"],
        source="https://help.ovhcloud.com/csm/en-public-cloud-ai-endpoints-getting-started",
    ),
    # A workspace's address. A 400 for `strict` and `include_usage` with some models; streams carry usage anyway.
    # https://github.com/tidyverse/ellmer/issues/548  https://github.com/anomalyco/opencode/issues/4698
    compatible(
        "databricks",
        "",
        ["DATABRICKS_TOKEN"],
        source="https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference",
        platforms={"openai": databricks.OPENAI},
        required={"base_url": ("DATABRICKS_HOST",)},
        drops=PLATFORM | LABELS | PENALTIES | {"logit_bias", "seed", "parallel_tool_calls"},
        stream_usage=False,
        extensions=frozenset({"cache_control"}),
        strict_tools="refused",
        modalities=DOCUMENTS,
    ),
    # An account's address, and a programmatic access token.
    compatible(
        "snowflake",
        "https://{project}.snowflakecomputing.com/api/v2/cortex/v1",
        ["SNOWFLAKE_PAT", "SNOWFLAKE_API_KEY"],
        source="https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api",
        checked=CHECKED,
        required={"project": ("SNOWFLAKE_ACCOUNT",)},
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
)
