"""Token counts and service tiers in OpenAI's terms, whatever the vendor's.

`prompt_tokens` include what was read from and written to a cache, `completion_tokens` include reasoning, and
`total_tokens` is their sum. https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

#: Vendors' names of service tiers -> OpenAI's; other names are passed on unchanged.
#: https://platform.openai.com/docs/api-reference/chat/object
_TIERS: Mapping[str, str] = {
    "on_demand": "default",  # Groq: https://console.groq.com/docs/service-tiers
    "performance": "priority",  # Groq
    "standard": "default",  # Anthropic: https://platform.claude.com/docs/en/api/service-tiers
    "on_demand_flex": "flex",  # Vertex AI: https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo
    "on_demand_priority": "priority",
}
#: OpenAI's service tiers.
TIERS = frozenset({"auto", "default", "flex", "priority", "scale"})

#: Where vendors of the OpenAI dialect count tokens read from a cache, beside `prompt_tokens_details`: DeepSeek;
#: Moonshot; vLLM and Together; gateways to Anthropic.
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
#: Where they count tokens written to a cache, beside `prompt_tokens_details` and in it: gateways to Anthropic;
#: DashScope (https://www.alibabacloud.com/help/en/model-studio/context-cache), LiteLLM.
_WRITTEN = ("cache_creation_input_tokens", "cache_creation_tokens")
#: Keys of a usage object that only some vendors have, and that `place_counts` reads.
_OTHER_NAMES = frozenset(
    {*_CACHED, *_WRITTEN, "input_tokens", "output_tokens", "input_tokens_details", "reasoning_tokens"}
)
#: Counts above this, or below zero, are not used.
_MAX_COUNT = 10**15
#: Count -> its other name, in the usage of some gateways.
_NAMES: Mapping[str, str] = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def service_tier(word: str) -> str:
    """OpenAI's name of a vendor's service tier `word`; an unknown one is returned unchanged."""
    return _TIERS.get(word.lower(), word)


def has_other_names(usage: Mapping[str, Any]) -> bool:
    """Whether `usage` has counts under keys that OpenAI does not have, which `place_counts` reads."""
    return any(usage.get(name) for name in _OTHER_NAMES)


def place_counts(usage: dict[str, Any]) -> None:
    """Copy counts under vendors' keys to OpenAI's keys, in place.

    Raises TypeError or AttributeError where `usage` is not of the documented shape.
    """
    for name, other in _NAMES.items():
        if usage.get(name) is None and usage.get(other) is not None:
            usage[name] = usage[other]
    cached = next((usage[name] for name in _CACHED if usage.get(name)), None)
    other_details = usage.get("input_tokens_details")
    if cached is None and isinstance(other_details, dict):
        cached = other_details.get("cached_tokens")
    _place(usage, "prompt_tokens_details", "cached_tokens", cached)
    holders = (usage, usage.get("prompt_tokens_details") or {})
    written = next((holder[name] for holder in holders for name in _WRITTEN if holder.get(name)), None)
    _place(usage, "prompt_tokens_details", "cache_write_tokens", written)
    _place(usage, "completion_tokens_details", "reasoning_tokens", usage.get("reasoning_tokens"))  # Perplexity


def _place(usage: dict[str, Any], details: str, name: str, count: Any) -> None:
    if count is None:
        return
    inner = usage.get(details)
    if inner is None:
        usage[details] = {name: count}
    elif inner.get(name) is None:
        inner[name] = count


def add_up(usage: pb.Usage) -> None:
    """Make the totals those of the contract, in place.

    Tokens that are in the total alone are reasoning (xAI, https://docs.x.ai/docs/guides/reasoning, and Google's
    OpenAI-compatible API), or audio of the prompt where there are as many (Mistral, as recorded).
    """
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, prompt.cached_tokens)
    if any(not 0 <= count <= _MAX_COUNT for count in (*counts, completion.reasoning_tokens)):
        return
    if prompt.cached_tokens > usage.prompt_tokens:  # counted beside the prompt
        usage.prompt_tokens += prompt.cached_tokens + prompt.cache_write_tokens
    rest = usage.total_tokens - usage.prompt_tokens - usage.completion_tokens
    if completion.reasoning_tokens > usage.completion_tokens:  # counted beside the completion
        usage.completion_tokens += completion.reasoning_tokens
    elif rest > 0 and rest == prompt.audio_tokens:
        usage.prompt_tokens += rest
    elif rest > 0:
        usage.completion_tokens += rest
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
