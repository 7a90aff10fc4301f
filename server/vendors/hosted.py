"""Rows of vendors that host open models in the OpenAI dialect.

The comment of a row says what differs and with which effect; `source` is the vendor's own page, further pages
stand in the comment.
"""

from __future__ import annotations

from server.dialects.base import Vendor
from server.vendors.compatible import (
    ALL_FORMATS,
    CHECKED,
    DETAILS,
    IMAGES,
    JSON_OBJECT,
    LOGPROBS,
    NEWER,
    NEWER_LIMIT,
    OF_ANSWERS,
    PENALTIES,
    PLATFORM,
    compatible,
    efforts,
)

#: What no model of Groq's takes.
_GROQ = LOGPROBS | PENALTIES | PLATFORM | {"logit_bias", "n", "metadata"}

ROWS: tuple[Vendor, ...] = (
    # A 400 for logprobs, logit_bias, n, names of participants, an effort where the model has none, and every field
    # it does not know, in the request and in messages ("property 'reasoning_content' is unsupported"; reasoning
    # models know it as `reasoning`). Penalties do nothing. Some models take schemas.
    # https://console.groq.com/docs/structured-outputs  https://console.groq.com/docs/reasoning
    # https://github.com/tashfeenahmed/freellmapi/issues/1070  https://github.com/iamsrikanthnani/pluely/issues/242
    compatible(
        "groq",
        "https://api.groq.com/openai/v1",
        ["GROQ_API_KEY"],
        source="https://github.com/groq/groq-python/blob/main/src/groq/types/chat/completion_create_params.py",
        checked=CHECKED,
        drops=_GROQ | {"reasoning_effort"},
        refused_in_requests=NEWER,
        extensions=frozenset({"reasoning"}),
        refused_in_messages=OF_ANSWERS | {"name"},
        response_formats=JSON_OBJECT,
        by_model={
            r"gpt-oss|kimi-k2|llama-4": {"response_formats": ALL_FORMATS},
            r"gpt-oss": {
                "drops": _GROQ,
                "efforts": efforts("low", "medium", "high", minimal="low", xhigh="high", max="high"),
                "reasoning_name": "reasoning",
            },
            r"qwen": {"drops": _GROQ, "efforts": efforts("none"), "reasoning_name": "reasoning"},
        },
        service_tiers={"auto": "auto", "default": "on_demand", "flex": "flex", "priority": "performance"},
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
        image_details=DETAILS,
    ),
    # Images have no `detail`; thinking is turned off under `reasoning`, where the model allows it.
    compatible(
        "together",
        "https://api.together.ai/v1",
        ["TOGETHER_API_KEY"],
        source="https://github.com/togethercomputer/openapi/blob/main/openapi.yaml",
        checked=CHECKED,
        efforts={"none": {"reasoning": {"enabled": False}}, "minimal": {"reasoning_effort": "low"}},
        image_details=frozenset[str](),
        modalities=IMAGES | {"audio"},
    ),
    # A 400 for unknown fields ("Extra inputs are not permitted"), `cache_control` among them; besides the usual
    # tier there is one with priority. https://github.com/musistudio/claude-code-router/issues/377
    compatible(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ["FIREWORKS_API_KEY"],
        source="https://docs.fireworks.ai/serverless/serverless-modes",
        checked=CHECKED,
        drops=PLATFORM - {"prediction"},
        refused_in_requests=NEWER - {"prompt_cache_key"},
        service_tiers={"auto": "", "default": "", "priority": "priority"},
        extensions=frozenset({"reasoning_content"}),
    ),
    # A 400 for these and for unknown fields in messages: reasoning goes back as `reasoning`; `strict` must be the
    # same for all tools. GPT-OSS always thinks; GLM's thinking can be turned off.
    # https://inference-docs.cerebras.ai/resources/openai
    # https://inference-docs.cerebras.ai/capabilities/reasoning https://github.com/QwenLM/qwen-code/issues/11045
    # (reasoning) https://github.com/mpfaffenberger/code_puppy/pull/368 (strict)
    compatible(
        "cerebras",
        "https://api.cerebras.ai/v1",
        ["CEREBRAS_API_KEY"],
        source="https://inference-docs.cerebras.ai/capabilities/reasoning",
        checked=CHECKED,
        drops=PENALTIES
        | (PLATFORM - {"prediction"})
        | {"logit_bias", "parallel_tool_calls", "service_tier", "metadata"},
        extensions=frozenset({"reasoning"}),
        reasoning_name="reasoning",
        refused_in_messages=OF_ANSWERS,
        by_model={
            r"gpt-oss": {"efforts": efforts("low", "medium", "high", minimal="low", xhigh="high", max="high")},
        },
        strict_tools="same",
        temperatures=(0.0, 1.5),
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
    # A 400 or 422 for fields of a request that it does not know ("Unsupported parameter(s)", "Extra inputs are not
    # permitted"). https://github.com/Gitlawb/openclaude/issues/1950  https://github.com/sipeed/picoclaw/issues/1019
    # Penalties are refused by some models: https://github.com/Kilo-Org/kilocode/issues/9652
    compatible(
        "nvidia",
        "https://integrate.api.nvidia.com/v1",
        ["NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"],
        source="https://docs.api.nvidia.com/nim/reference/llm-apis",
        drops=PLATFORM | {"metadata", "service_tier"},
        refused_in_requests=NEWER,
        by_model={r"gemma-2|nemotron-4": {"drops": PLATFORM | PENALTIES | {"metadata", "service_tier", "n"}}},
    ),
    # Ignores these; content of text parts must be one string.
    # https://github.com/BerriAI/litellm/blob/main/litellm/llms/sambanova/chat.py (content)
    compatible(
        "sambanova",
        "https://api.sambanova.ai/v1",
        ["SAMBANOVA_API_KEY"],
        source="https://docs.sambanova.ai/docs/en/features/openai-compatibility",
        checked=CHECKED,
        drops=LOGPROBS | PENALTIES | {"n", "logit_bias", "seed"},
        string_content=True,
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
    # Keys are per site; the other is api.siliconflow.cn. Thinking is `enable_thinking`.
    # https://docs.siliconflow.com/en/api-reference
    compatible(
        "siliconflow",
        "https://api.siliconflow.com/v1",
        ["SILICONFLOW_API_KEY"],
        source="https://docs.siliconflow.cn/en/faqs/error-code",
        checked=CHECKED,
        efforts={"none": {"enable_thinking": False}},
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
        source="https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion",
        checked=CHECKED,
        efforts={"none": {"enable_thinking": False}},
    ),
    compatible(
        "nebius",
        "https://api.tokenfactory.nebius.com/v1",
        ["NEBIUS_API_KEY"],
        source="https://docs.tokenfactory.nebius.com/",
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
)
