"""The vendors: one row each, with the account's settings and what differs from the dialect's plain form.

A new vendor of the OpenAI dialect is one row in makers.py, hosted.py, gateways.py or self_hosted.py; see
dialects/ADDING.md. VENDORS.md, which table.py writes, lists all rows with their sources.
Base URLs of that dialect hold the version (`/v1`), as the vendors' own pages give them, since `/chat/completions`
is all that is added; those of the other dialects are bare origins. A quirk is listed only with the vendor's page,
or the recording, that shows it; what is not known to be refused is sent.

In `drops`, `n` means that a call gives one choice, `tools` that there are none,
and `modalities` that the answer is text. `developer` turns go out as `system`
wherever the vendor does not name that role: every vendor knows `system`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.dialects.base import Vendor
from server.vendors import azure, gateways, hosted, makers, self_hosted, vertex
from server.vendors.compatible import (
    CHECKED,
    DOCUMENTS,
    JSON_SCHEMA,
    LOGPROBS,
    NEWER_LIMIT,
    NO_EXTENSIONS,
    PENALTIES,
    compatible,
    efforts,
)
from server.vendors.credentials.kinds import AWS, ENTRA, GOOGLE

#: Fields that only the OpenAI dialect has.
_FOREIGN = frozenset({"logit_bias", "prediction", "verbosity"})

_ANTHROPIC = Vendor(
    type="anthropic",
    dialect="anthropic",
    base_url="https://api.anthropic.com",
    auth="x-api-key",
    env=("ANTHROPIC_API_KEY",),
    source="https://platform.claude.com/docs/en/api/messages/create",
    checked=CHECKED,
    drops=_FOREIGN | PENALTIES | LOGPROBS | {"n", "seed", "metadata", "store", "modalities", "audio"},
    response_formats=JSON_SCHEMA,
    modalities=DOCUMENTS,
    max_stop=16,
    prefill=True,
)

_GEMINI = Vendor(
    type="gemini",
    dialect="gemini",
    base_url="https://generativelanguage.googleapis.com",
    auth="x-goog-api-key",
    env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    source="https://ai.google.dev/api/generate-content",
    checked=CHECKED,
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
    source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
    checked=CHECKED,
    drops=_FOREIGN
    | PENALTIES
    | LOGPROBS
    | {"n", "seed", "user", "store", "modalities", "audio", "web_search_options"},
    response_formats=JSON_SCHEMA,
    modalities=DOCUMENTS | {"audio"},
    max_stop=2500,
)

#: Each dialect's plain form: what holds for an endpoint whose `dialect` is not its vendor's own. That of the
#: OpenAI dialect is also what `type: openai` with a base URL elsewhere means; it sends the token limit under
#: the caller's name, since some servers know only `max_tokens` and some models only `max_completion_tokens`.
PLAIN: Mapping[str, Vendor] = {
    "openai": compatible(
        "openai",
        source="https://platform.openai.com/docs/api-reference/chat/create",
        token_limit="",
        foreign_signatures=True,
        any_tool_name=True,
    ),
    "anthropic": _ANTHROPIC,
    "gemini": _GEMINI,
    "bedrock": _BEDROCK,
}

#: OpenAI's models that always think and refuse sampling parameters, and those parameters.
_ALWAYS_THINKING = r"^(o\d|gpt-5(-mini|-nano)?(-20\d\d-.*)?$)"
_SAMPLING = PENALTIES | LOGPROBS | {"temperature", "top_p", "logit_bias"}
#: What differs for OpenAI's models, by their ids. A 400 for efforts that a model has not ("Supported values are"),
#: for any effort at models that do not reason, and from 5.4 on for an effort beside tools. Sampling parameters of
#: later models go with `reasoning_effort: none`. https://platform.openai.com/docs/guides/reasoning
#: https://platform.openai.com/docs/guides/latest-model
#: https://learn.microsoft.com/en-us/javascript/api/@azure/ai-projects/reasoningeffort
#: https://github.com/openai/openai-agents-python/issues/2089 (5.1)
#: https://github.com/egoist/chatwise-releases/issues/1257 (chat)
#: https://github.com/pipecat-ai/pipecat/issues/4043 (5.4)
_BY_MODEL: Mapping[str, Mapping[str, Any]] = {
    r"^(gpt-(3|4)|chatgpt-4)": {"drops": frozenset({"reasoning_effort"})},
    _ALWAYS_THINKING: {"drops": _SAMPLING},
    r"^o\d": {"efforts": efforts("low", "medium", "high", minimal="low", xhigh="high", max="high")},
    r"^gpt-5(-mini|-nano|-20|$)": {
        "efforts": efforts("minimal", "low", "medium", "high", none="minimal", xhigh="high", max="high")
    },
    r"^gpt-5\.1(-20|$)": {
        "efforts": efforts("none", "low", "medium", "high", minimal="low", xhigh="high", max="high")
    },
    r"^gpt-5\.([2-9]|\d\d)": {"efforts": {"minimal": {"reasoning_effort": "low"}}},
    r"^gpt-5\.([4-9]|\d\d)": {"effort_with_tools": False},
    r"^gpt-5.*-chat": {"efforts": efforts("medium")},
    r"^gpt-5-pro": {"efforts": efforts("high")},
}

_ROWS = (
    Vendor(
        type="openai",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        own_urls=r"https://([a-z]+\.)?api\.openai\.com(/.*)?",
        elsewhere=PLAIN["openai"],
        env=("OPENAI_API_KEY",),
        source="https://platform.openai.com/docs/api-reference/chat/create",
        checked=CHECKED,
        # Reasoning models refuse `max_tokens`, and all others know the newer name too.
        token_limit=NEWER_LIMIT,
        extensions=NO_EXTENSIONS,
        max_user_length=64,
        by_model=_BY_MODEL,
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
        source="https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning",
        developer_role=False,
        extensions=NO_EXTENSIONS,
    ),
    _ANTHROPIC,
    _GEMINI,
    # The plain row of Gemini's dialect, or Anthropic's for Claude, with this one's URLs and credentials. The
    # header is that of express mode, the only one with API keys.
    Vendor(
        type="vertex",
        source="https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview",
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
    *makers.ROWS,
    *hosted.ROWS,
    *gateways.ROWS,
    *self_hosted.ROWS,
)

#: Every `type` a provider may have.
VENDORS: Mapping[str, Vendor] = {vendor.type: vendor for vendor in _ROWS}
