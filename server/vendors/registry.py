"""The vendors: one row each, with the account's settings and what differs from the dialect's plain form.

A new vendor of the OpenAI dialect is a row here and nothing else; see dialects/ADDING.md.
Base URLs of that dialect hold the version (`/v1`), as the vendors' own pages give them,
since `/chat/completions` is all that is added; those of the other dialects are bare
origins. A quirk is listed only with the vendor's page, or the recording, that
shows it; what is not known to be refused is sent.

In `drops`, `n` means that a call gives one choice, `tools` that there are none,
and `modalities` that the answer is text. `developer` turns go out as `system`
wherever the vendor does not name that role: every vendor knows `system`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.dialects.base import EmbeddedModel, Vendor
from server.dialects.openai.platform import OpenAIPlatform
from server.vendors import azure, vertex
from server.vendors.credentials.kinds import AWS, ENTRA, GOOGLE

_TEXT = frozenset({"text"})
_IMAGES = frozenset({"text", "image"})
_DOCUMENTS = frozenset({"text", "image", "file"})
_JSON_OBJECT = frozenset({"text", "json_object"})
_JSON_SCHEMA = frozenset({"text", "json_schema"})

_NEWER_LIMIT = "max_completion_tokens"

_LOGPROBS = frozenset({"logprobs", "top_logprobs"})
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
#: Fields that only OpenAI's own service has.
_PLATFORM = frozenset({"store", "prediction", "verbosity", "modalities", "audio", "web_search_options"})
#: Labels of a request, and its queue.
_LABELS = frozenset({"user", "metadata", "service_tier"})
#: Fields that only the OpenAI dialect has.
_FOREIGN = frozenset({"logit_bias", "prediction", "verbosity"})
#: Vendors that refuse fields which OpenAI does not know.
_NO_EXTENSIONS: frozenset[str] = frozenset()

#: llama.cpp continues a last assistant turn by itself, but a model that thinks would begin with thinking: a 400.
#: https://github.com/ggml-org/llama.cpp/tree/master/tools/server
_LLAMA_PREFILL: Mapping[str, Any] = {
    "prefill": True,
    "prefill_body": {"chat_template_kwargs": {"enable_thinking": False}},
}
#: What `up` tells the workers.
_LOCAL_URL: Mapping[str, tuple[str, ...]] = {"base_url": ("LMCHAT_LOCAL_MODEL_URL",)}


def _compatible(type_: str, base_url: str = "", *env: str, **quirks: Any) -> Vendor:
    """A server of the OpenAI dialect that is not OpenAI: the older names, which they all know."""
    plain = {"dialect": "openai", "token_limit": "max_tokens", "developer_role": False}
    return Vendor(type=type_, base_url=base_url, env=env, **{**plain, **quirks})


_ANTHROPIC = Vendor(
    type="anthropic",
    dialect="anthropic",
    base_url="https://api.anthropic.com",
    auth="x-api-key",
    env=("ANTHROPIC_API_KEY",),
    # https://platform.claude.com/docs/en/api/messages/create
    drops=_FOREIGN | _PENALTIES | _LOGPROBS | {"n", "seed", "metadata", "store", "modalities", "audio"},
    response_formats=_JSON_SCHEMA,
    modalities=_DOCUMENTS,
    max_stop=16,
    prefill=True,
)

_GEMINI = Vendor(
    type="gemini",
    dialect="gemini",
    base_url="https://generativelanguage.googleapis.com",
    auth="x-goog-api-key",
    env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    # https://ai.google.dev/api/generate-content
    drops=_FOREIGN | {"user", "metadata", "parallel_tool_calls", "n"},
    max_stop=5,
)

_BEDROCK = Vendor(
    type="bedrock",
    dialect="bedrock",
    base_url="https://bedrock-runtime.{region}.amazonaws.com",
    env=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"),
    required={"region": ("AWS_REGION", "AWS_DEFAULT_REGION")},
    credentials=AWS,
    ambient_credentials={},
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    drops=_FOREIGN
    | _PENALTIES
    | _LOGPROBS
    | {"n", "seed", "user", "store", "modalities", "audio", "web_search_options"},
    response_formats=_JSON_SCHEMA,
    modalities=_DOCUMENTS | {"audio"},
    max_stop=2500,
)

#: Each dialect's plain form: what holds for an endpoint whose `dialect` is not its vendor's own. That of the
#: OpenAI dialect is also what `type: openai` with a base URL elsewhere means; it sends the token limit under
#: the caller's name, since some servers know only `max_tokens` and some models only `max_completion_tokens`.
PLAIN: Mapping[str, Vendor] = {
    "openai": _compatible("openai", token_limit="", foreign_signatures=True),
    "anthropic": _ANTHROPIC,
    "gemini": _GEMINI,
    "bedrock": _BEDROCK,
}

_ROWS = (
    Vendor(
        type="openai",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        own_urls=r"https://([a-z]+\.)?api\.openai\.com(/.*)?",
        elsewhere=PLAIN["openai"],
        env=("OPENAI_API_KEY",),
        # Reasoning models refuse `max_tokens`, and all others know the newer name too.
        # https://platform.openai.com/docs/api-reference/chat/create
        token_limit=_NEWER_LIMIT,
        extensions=_NO_EXTENSIONS,
    ),
    Vendor(
        type="azure",
        dialect="openai",
        platforms={"openai": azure.OPENAI},
        auth="api-key",
        env=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        required={"base_url": ("AZURE_OPENAI_ENDPOINT",)},
        credentials=ENTRA,
        # The token limit goes under the caller's name: behind a deployment may be a reasoning model, which
        # refuses `max_tokens`, or Mistral's, which refuse `max_completion_tokens`. `system` is read as
        # `developer` where the model has that role.
        # https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning
        developer_role=False,
        extensions=_NO_EXTENSIONS,
    ),
    _ANTHROPIC,
    _GEMINI,
    # The plain row of Gemini's dialect, or Anthropic's for Claude, with this one's URLs and credentials. The
    # header is that of express mode, the only one with API keys.
    # https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview
    Vendor(
        type="vertex",
        dialect="gemini",
        model_dialects={"claude-": "anthropic"},
        base_url=vertex.REGION_URL,
        location_urls=vertex.LOCATION_URLS,
        platforms={"gemini": vertex.GEMINI, "anthropic": vertex.ANTHROPIC},
        auth="x-goog-api-key",
        env=("GOOGLE_APPLICATION_CREDENTIALS",),
        required={"project": ("GOOGLE_CLOUD_PROJECT",), "location": ("GOOGLE_CLOUD_LOCATION",)},
        credentials=GOOGLE,
        ambient_credentials={"adc": True},
        drops=_GEMINI.drops | {"store"},
        max_stop=_GEMINI.max_stop,
    ),
    _BEDROCK,
    # The embedded model, a small one: steadier at a low temperature, and not trained to call tools. The model of a
    # file has its own template and sampling.
    _compatible(
        "local",
        required=_LOCAL_URL,
        # As many tokens as launcher/local_model.py gives each request.
        embedded=EmbeddedModel(id="local/smollm2", model="smollm2", context_length=4096),
        modalities=_TEXT,
        drops=frozenset({"tools"}),
        defaults={"temperature": 0.2},
        with_file=_compatible("local", required=_LOCAL_URL, modalities=_TEXT, **_LLAMA_PREFILL),
        **_LLAMA_PREFILL,
    ),
    # A 400 for logprobs, logit_bias and n, and for unknown fields in messages, `reasoning_content` among them (its
    # own name is `reasoning`); penalties, metadata and store do nothing. Some models only take schemas.
    # https://console.groq.com/docs/openai  https://console.groq.com/docs/api-reference
    # https://console.groq.com/docs/structured-outputs  https://github.com/tashfeenahmed/freellmapi/issues/1070
    _compatible(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        drops=_LOGPROBS | _PENALTIES | {"logit_bias", "n", "metadata", "store"},
        extensions=frozenset({"reasoning"}),
        schema_models=r"gpt-oss|kimi-k2|llama-4",
        token_limit=_NEWER_LIMIT,
        modalities=_IMAGES,
    ),
    # A 422 for any field it does not know: `seed` is its `random_seed`; streams carry usage without being told to.
    # Tool call ids are nine letters and digits. https://docs.mistral.ai/api/
    _compatible(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        drops=_LOGPROBS | (_PLATFORM - {"prediction"}) | {"logit_bias", "seed", "user", "service_tier"},
        stream_usage=False,
        extensions=frozenset({"prefix"}),
        call_id_length=9,
        modalities=_IMAGES | {"audio"},
    ),
    # A 400 for content other than text and for json_schema. https://api-docs.deepseek.com/api/create-chat-completion
    _compatible(
        "deepseek",
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        drops=_PLATFORM | _LABELS | {"logit_bias", "n", "seed", "parallel_tool_calls"},
        # A turn of tool calls must come back with its reasoning. https://api-docs.deepseek.com/guides/thinking_mode
        extensions=frozenset({"reasoning_content", "prefix"}),
        response_formats=_JSON_OBJECT,
        modalities=_TEXT,
        max_stop=16,
    ),
    # Reasoning models, which most of them are, answer 400 to these. https://docs.x.ai/docs/guides/reasoning
    _compatible(
        "xai",
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        drops=_PENALTIES | {"stop"},
        token_limit=_NEWER_LIMIT,
        modalities=_IMAGES,
    ),
    # https://docs.together.ai/docs/inference/openai-compatibility
    _compatible("together", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
    # https://docs.fireworks.ai/tools-sdks/openai-compatibility
    # A 400 for unknown fields, `cache_control` among them. https://github.com/musistudio/claude-code-router/issues/377
    _compatible(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        extensions=frozenset({"reasoning_content"}),
    ),
    # A 400 for these, and for unknown fields in messages: reasoning goes back as `reasoning`.
    # https://inference-docs.cerebras.ai/resources/openai  https://github.com/QwenLM/qwen-code/issues/11045
    _compatible(
        "cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        drops=_PENALTIES | {"logit_bias", "parallel_tool_calls", "service_tier"},
        extensions=frozenset({"reasoning"}),
        token_limit=_NEWER_LIMIT,
        modalities=_IMAGES,
    ),
    # It searches and has no tools. https://docs.perplexity.ai/api-reference/chat-completions-post
    _compatible(
        "perplexity",
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        drops=frozenset({"tools", "tool_choice", "parallel_tool_calls", "seed", "logit_bias", "user"}),
        response_formats=_JSON_SCHEMA,
        modalities=_IMAGES,
    ),
    # Takes `developer` for every model, as recorded. https://openrouter.ai/docs/api-reference/overview
    _compatible("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", developer_role=True),
    # https://docs.api.nvidia.com/nim/reference/llm-apis
    _compatible("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    # https://docs.sambanova.ai/docs/en/features/openai-compatibility
    _compatible("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    # https://deepinfra.com/docs/openai_api
    _compatible("deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
    # https://docs.hyperbolic.xyz/docs/rest-api
    _compatible("hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    # Kimi K2.5 and later take one temperature and one top_p, a 400 for others.
    # https://platform.kimi.ai/docs/guide/kimi-k2-6-quickstart
    _compatible(
        "moonshot",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        drops=frozenset({"temperature", "top_p"}),
        modalities=_IMAGES,
    ),
    # Tools are the model's choice, a 400 for other choices; one stop sequence.
    # https://docs.z.ai/api-reference/llm/chat-completion
    *(
        _compatible(
            type_,
            base_url,
            *env,
            drops=_LOGPROBS | _PENALTIES | _PLATFORM | {"logit_bias", "n", "seed", "tool_choice"},
            response_formats=_JSON_OBJECT,
            modalities=_IMAGES,
            max_stop=1,
        )
        for type_, base_url, *env in (
            ("zai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
            ("zhipu", "https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY", "ZHIPU_API_KEY"),
        )
    ),
    # Keys are per region; this is Singapore's, China's has no `-intl`.
    # https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    _compatible("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    # Keys are per site; the other is api.siliconflow.cn. https://docs.siliconflow.com/en/api-reference
    _compatible("siliconflow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
    # The list of what it lacks: https://docs.cohere.com/docs/compatibility-api
    _compatible(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        "COHERE_API_KEY",
        "CO_API_KEY",
        drops=frozenset({"store", "metadata", "logit_bias", "top_logprobs", "n", "modalities", "prediction"})
        | {"audio", "service_tier", "parallel_tool_calls"},
        developer_role=True,
    ),
    # https://huggingface.co/docs/inference-providers
    _compatible("huggingface", "https://router.huggingface.co/v1", "HF_TOKEN"),
    # https://docs.baseten.co/inference/model-apis/overview
    _compatible("baseten", "https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    # https://novita.ai/docs/guides/llm-api
    _compatible("novita", "https://api.novita.ai/openai/v1", "NOVITA_API_KEY"),
    # https://docs.tokenfactory.nebius.com/
    _compatible("nebius", "https://api.tokenfactory.nebius.com/v1", "NEBIUS_API_KEY"),
    # Self-hosted servers, at the port they listen on by default; none is part of the default catalogue.
    # It knows images as data only, not by URL. https://docs.ollama.com/api/openai-compatibility
    _compatible(
        "ollama",
        "http://localhost:11434/v1",
        platforms={"openai": OpenAIPlatform(bytes_only=frozenset({"image_url"}))},
        drops=frozenset({"tool_choice", "logit_bias", "user", "n"}),
        modalities=_IMAGES,
    ),
    # https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
    _compatible(
        "vllm",
        "http://localhost:8000/v1",
        drops=frozenset({"user"}),
        prefill=True,
        prefill_body={"continue_final_message": True, "add_generation_prompt": False},
    ),
    # https://github.com/ggml-org/llama.cpp/tree/master/tools/server
    _compatible("llamacpp", "http://localhost:8080/v1", **_LLAMA_PREFILL),
    # A 400 for json_object. https://lmstudio.ai/docs/developer/openai-compat
    _compatible("lmstudio", "http://localhost:1234/v1", response_formats=_JSON_SCHEMA),
    # https://docs.sglang.ai/basic_usage/openai_api_completions.html
    _compatible("sglang", "http://localhost:30000/v1"),
    # Takes and ignores these. https://huggingface.github.io/text-generation-inference/
    _compatible("tgi", "http://localhost:8080/v1", drops=frozenset({"n", "logit_bias"}), modalities=_IMAGES),
    # https://docs.litellm.ai/docs/proxy/user_keys
    _compatible("litellm", "http://localhost:4000/v1", token_limit=""),
)

#: Every `type` a provider may have.
VENDORS: Mapping[str, Vendor] = {vendor.type: vendor for vendor in _ROWS}
