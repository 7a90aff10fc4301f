"""Token counts as vendors send them, whole and in a stream: what the caller gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from tests.dialects.openai_help import DONE, TRANSLATOR, ask, chunk, decode, delta, sse

#: Vendor, its usage, and of the caller's: prompt, completion, total, cached, written to a cache, reasoning.
USAGE: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    # https://docs.x.ai/docs/guides/reasoning
    (
        "xAI",
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        (10, 25, 35, 0, 0, 20),
    ),
    # https://github.com/vercel/ai/blob/main/packages/deepinfra/src/deepinfra-chat-language-model.ts
    (
        "DeepInfra, Gemini",
        {
            "prompt_tokens": 19,
            "completion_tokens": 84,
            "total_tokens": 103,
            "completion_tokens_details": {"reasoning_tokens": 1081},
        },
        (19, 1165, 1184, 0, 0, 1081),
    ),
    # https://www.alibabacloud.com/help/en/model-studio/context-cache
    (
        "DashScope",
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 90},
        },
        (100, 5, 105, 0, 90, 0),
    ),
    # https://docs.litellm.ai/docs/completion/prompt_caching
    (
        "LiteLLM",
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_tokens_details": {"cached_tokens": 40},
            "cache_creation_input_tokens": 50,
            "cache_read_input_tokens": 40,
        },
        (100, 5, 105, 40, 50, 0),
    ),
    # https://api-docs.deepseek.com/guides/kv_cache
    (
        "DeepSeek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
        },
        (100, 5, 105, 64, 0, 0),
    ),
    # https://platform.kimi.ai/docs/api/chat
    (
        "Moonshot",
        {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cached_tokens": 64},
        (100, 5, 105, 64, 0, 0),
    ),
    # https://github.com/perplexityai/perplexity-py
    (
        "Perplexity",
        {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60, "reasoning_tokens": 30},
        (10, 50, 60, 0, 0, 30),
    ),
]


def counts(usage: pb.Usage) -> tuple[int, ...]:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        prompt.cached_tokens,
        prompt.cache_write_tokens,
        completion.reasoning_tokens,
    )


@pytest.mark.parametrize(("usage", "expected"), [row[1:] for row in USAGE], ids=[row[0] for row in USAGE])
def test_usage(usage: dict[str, Any], expected: tuple[int, ...]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    whole, _ = TRANSLATOR.completion(json.dumps({**answer, "usage": usage}).encode(), ask())
    assert counts(whole.usage) == expected
    stream = sse(chunk(delta(content="Hi")), chunk(delta("stop")), chunk(usage=usage)) + DONE
    assert counts(decode([stream])[-1].usage) == expected
