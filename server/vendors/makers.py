"""Rows of vendors that serve their own models in the OpenAI dialect, besides OpenAI and Azure.

The comment of a row says what differs and with which effect; `source` is the vendor's own page, further pages
stand in the comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.dialects.base import Vendor
from server.dialects.openai.platform import OpenAIPlatform
from server.vendors.compatible import (
    CHECKED,
    DETAILS,
    EFFORTS,
    IMAGES,
    JSON_OBJECT,
    JSON_SCHEMA,
    LABELS,
    LOGPROBS,
    NEWER,
    NEWER_LIMIT,
    NO_EXTENSIONS,
    OF_ANSWERS,
    PENALTIES,
    PLATFORM,
    TEXT,
    TEXT_ONLY,
    compatible,
    efforts,
)

#: Z.ai and Zhipu, one API at two addresses: tools are the model's choice, a 400 for other choices ("Tool choice
#: must be auto", https://github.com/vectorize-io/hindsight/issues/4246); one stop sequence; `temperature` up to 1;
#: `user` is `user_id` and has at least six characters. Thinking is switched under `thinking`; GLM 5.2 and later
#: have efforts, 5.3 always thinks. https://docs.z.ai/guides/capabilities/thinking-mode
#: https://github.com/zai-org/z-ai-sdk-python/blob/main/src/zai/api_resource/chat/completions.py
_GLM: Mapping[str, Any] = {
    "source": "https://docs.z.ai/api-reference/api-code",
    "checked": CHECKED,
    "drops": LOGPROBS | PENALTIES | PLATFORM | {"logit_bias", "n", "seed", "metadata", "service_tier"},
    "renames": {"user": "user_id"},
    "min_user_length": 6,
    "max_user_length": 128,
    "efforts": efforts(
        none={"thinking": {"type": "disabled"}},
        **{word: {"thinking": {"type": "enabled"}} for word in EFFORTS[1:]},
    ),
    "by_model": {
        r"^glm-5\.2": {"efforts": {"none": {"thinking": {"type": "disabled"}}}},
        r"^glm-5\.[3-9]|^glm-[6-9]": {
            "efforts": efforts("low", "high", "max", minimal="low", medium="high", xhigh="max")
        },
    },
    "strict_tools": "refused",
    "refused_in_messages": frozenset({"name"}),
    "tool_choices": frozenset({"auto"}),
    "temperatures": (0.0, 1.0),
    "response_formats": JSON_OBJECT,
    "modalities": IMAGES,
    "max_stop": 1,
}

ROWS: tuple[Vendor, ...] = (
    # A 422 for any field it does not know ("Extra inputs are not permitted") and for functions without
    # `parameters`; a 400 for a last turn of the assistant without `prefix`. `seed` is its `random_seed`, users
    # have no names; streams carry usage without `stream_options`. Tool call ids are nine letters and digits.
    # https://docs.mistral.ai/capabilities/completion/usage#prefix
    # https://github.com/Gage-Technologies/mistral-go/pull/2 (names)
    compatible(
        "mistral",
        "https://api.mistral.ai/v1",
        ["MISTRAL_API_KEY"],
        source="https://github.com/mistralai/client-python/blob/main/docs/models/chatcompletionrequest.md",
        checked=CHECKED,
        drops=LOGPROBS | (PLATFORM - {"prediction"}) | {"logit_bias", "user", "service_tier"},
        refused_in_requests=NEWER - {"prompt_cache_key"},
        renames={"seed": "random_seed"},
        stream_usage=False,
        extensions=frozenset({"prefix"}),
        refused_in_messages=OF_ANSWERS | {"name"},
        last_turn={"prefix": True},
        needs_parameters=True,
        call_id_length=9,
        temperatures=(0.0, 1.5),
        modalities=IMAGES | {"audio"},
        image_details=DETAILS,
    ),
    # A 400 for json_schema ("This response_format type is unavailable now"). Where the model thinks, which is the
    # default, turns must come back with their reasoning, and no tool can be forced ("Thinking mode does not
    # support this tool_choice"); all words for the effort are taken but `none`.
    # https://api-docs.deepseek.com/api/create-chat-completion
    compatible(
        "deepseek",
        "https://api.deepseek.com",
        ["DEEPSEEK_API_KEY"],
        source="https://api-docs.deepseek.com/guides/thinking_mode",
        checked=CHECKED,
        drops=PLATFORM | LABELS | {"logit_bias", "n", "seed", "parallel_tool_calls"},
        efforts={"none": {"thinking": {"type": "disabled"}}},
        extensions=frozenset({"reasoning_content", "prefix"}),
        response_formats=JSON_OBJECT,
        by_model={
            r"reasoner|flash|pro": {"tool_choices": frozenset({"none", "auto"})},
            r"v[4-9]|flash|pro": {"needs_reasoning": True},
        },
        modalities=TEXT,
        max_stop=16,
    ),
    # Reasoning models answer 400 to penalties and stop sequences ("Argument not supported on this model"), older
    # ones and those with `reasoning` in their name to an effort, too; Grok 4.3's thinking can be turned off.
    # https://docs.x.ai/developers/model-capabilities/text/reasoning
    # https://github.com/NousResearch/hermes-agent/pull/23435 (efforts, by model)
    compatible(
        "xai",
        "https://api.x.ai/v1",
        ["XAI_API_KEY"],
        source="https://docs.x.ai/docs/guides/reasoning",
        drops=PENALTIES | {"stop", "logit_bias"},
        efforts=efforts("low", "medium", "high", minimal="low", xhigh="high", max="high"),
        by_model={
            r"^grok-4($|-)|^grok-4\.20(-\d+)?-reasoning|^grok-(build-0|code)": {
                "drops": PENALTIES | {"stop", "logit_bias", "reasoning_effort"}
            },
            r"non-reasoning|^grok-(2|3)(?!-mini)": {"drops": frozenset({"logit_bias", "reasoning_effort"})},
            r"^grok-3-mini": {
                "efforts": efforts("low", "high", minimal="low", medium="high", xhigh="high", max="high")
            },
            r"^grok-4\.3|^grok-latest": {
                "efforts": efforts("none", "low", "medium", "high", minimal="low", xhigh="high", max="high")
            },
            r"^grok-4\.[6-9]": {"efforts": efforts("low", "medium", "high", "xhigh", minimal="low", max="xhigh")},
        },
        token_limit=NEWER_LIMIT,
        modalities=IMAGES,
    ),
    # Kimi K2.5 and later take one value of each sampling parameter, a 400 for others, and while they think, which
    # is the default, no forced tool; K3 can be forced to call some tool. `thinking` turns thinking
    # off, and turns must come back with their reasoning ("reasoning_content is missing"). Older models take any
    # sampling parameters. Images as data only. A last turn of the assistant is continued with `partial`.
    # https://platform.kimi.ai/docs/api/chat  https://github.com/Lapis0x0/obsidian-yolo/pull/243 (reasoning)
    # https://github.com/UKGovernmentBEIS/inspect_ai/pull/5152 (tools)  .../pull/5156 (sampling)
    # https://github.com/vercel/ai/tree/main/packages/moonshotai (images, efforts)
    compatible(
        "moonshot",
        "https://api.moonshot.ai/v1",
        ["MOONSHOT_API_KEY"],
        source="https://platform.kimi.ai/docs/api/errors",
        checked=CHECKED,
        platforms={"openai": OpenAIPlatform(bytes_only=frozenset({"image_url"}))},
        drops=PENALTIES | {"temperature", "top_p", "n"},
        efforts={"none": {"thinking": {"type": "disabled"}}},
        last_turn={"partial": True},
        tool_choices=frozenset({"none", "auto"}),
        by_model={
            r"^kimi-(k2\.[5-9]|k[3-9]|k2-thinking|thinking)": {"needs_reasoning": True},
            r"^kimi-k3": {"tool_choices": frozenset({"none", "auto", "required"}), "efforts": {"none": {}}},
            r"^moonshot-v1|^kimi-k2-": {
                "drops": frozenset[str](),
                "temperatures": (0.0, 1.0),
                "efforts": {"none": {}},
            },
        },
        modalities=IMAGES,
    ),
    compatible("zai", "https://api.z.ai/api/paas/v4", ["ZAI_API_KEY"], **_GLM),
    compatible("zhipu", "https://open.bigmodel.cn/api/paas/v4", ["ZHIPUAI_API_KEY", "ZHIPU_API_KEY"], **_GLM),
    # Keys are per region; this is Singapore's, China's has no `-intl`. A tool can be forced by its name only.
    # Thinking is `enable_thinking`, in streams only; open Qwen3 models think by default, so that a call that is
    # not streamed says not to, and those that always think, or speak, answer in streams only. Sound is a data URL;
    # no files. https://help.aliyun.com/en/model-studio/qwen-omni (sound)
    # https://github.com/langgenius/dify-official-plugins/pull/2626 (which models stream)
    compatible(
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ["DASHSCOPE_API_KEY"],
        source="https://www.alibabacloud.com/help/model-studio/error-code",
        checked=CHECKED,
        drops=frozenset({"logit_bias", "frequency_penalty"}),
        efforts=efforts(
            none={"enable_thinking": False}, **{word: {"enable_thinking": True} for word in EFFORTS[1:]}
        ),
        streams_only_with={"enable_thinking": True},
        by_model={
            r"^qwen3-[\d.]+b(-a\d+b)?$": {"unary_body": {"enable_thinking": False}},
            r"^(qwq|qvq)|-thinking|-omni": {"streams_only": True, "efforts": efforts()},
        },
        tool_choices=frozenset({"none", "auto", "function"}),
        last_turn={"partial": True},
        audio_as_url=True,
        modalities=IMAGES | {"audio"},
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
    # The effort is all or nothing.
    # https://strandsagents.com/latest/documentation/docs/community/model-providers/cohere (stream_options)
    compatible(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        ["COHERE_API_KEY", "CO_API_KEY"],
        source="https://docs.cohere.com/docs/compatibility-api",
        checked=CHECKED,
        drops=PLATFORM | LABELS | {"logit_bias", "top_logprobs", "n", "parallel_tool_calls"},
        stream_usage=False,
        refused_in_requests=NEWER,
        extensions=NO_EXTENSIONS,
        strict_tools="refused",
        efforts=efforts("none", "high"),
        tool_choices=frozenset({"none", "auto", "required"}),
        temperatures=(0.0, 1.0),
        max_stop=5,
        developer_role=True,
        modalities=IMAGES,
    ),
    # Jamba: text, JSON objects, no sampling beyond temperature and top_p.
    # https://docs.ai21.com/reference/jamba-api-response
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
    # It searches and has no tools. Turns must alternate, a 400 ("should alternate with assistant message"):
    # https://github.com/BerriAI/litellm/issues/2226
    compatible(
        "perplexity",
        "https://api.perplexity.ai",
        ["PERPLEXITY_API_KEY"],
        source="https://github.com/perplexityai/perplexity-py/blob/main/src/perplexity/types/chat/completion_create_params.py",
        checked=CHECKED,
        drops=LOGPROBS
        | {
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "seed",
            "logit_bias",
            "user",
            "metadata",
            "service_tier",
            "n",
        },
        efforts=efforts("minimal", "low", "medium", "high", xhigh="high", max="high"),
        alternating=True,
        response_formats=JSON_SCHEMA,
        modalities=IMAGES,
    ),
)
