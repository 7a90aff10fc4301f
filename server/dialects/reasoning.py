"""What `reasoning_effort` means for models that take a budget of tokens to think with."""

from __future__ import annotations

from collections.abc import Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import names, words

#: `pb.ReasoningEffort` -> its word in JSON; REASONING_EFFORT_UNSPECIFIED is not in it.
EFFORTS: Mapping[int, str] = words(names(pb.ReasoningEffort, "REASONING_EFFORT_"))

#: Effort -> tokens, as Google's OpenAI-compatible API maps them.
#: https://ai.google.dev/gemini-api/docs/openai#thinking
BUDGETS: Mapping[str, int] = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}

#: Effort -> level, for models with three; `none` is not in it.
LEVELS: Mapping[str, str] = {
    "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"
}  # fmt: skip

#: The most of `max_tokens` that a budget may take where it counts towards it; the rest stays for the answer.
_MAX_SHARE = (4, 5)


def budget(budgets: Mapping[str, int], effort: str, max_tokens: int, minimum: int) -> int:
    """Tokens to think with: those for `effort`, but at most four fifths of `max_tokens`.

    0 where that is less than `minimum`, the least that the provider takes: the model then does not think.
    """
    share, whole = _MAX_SHARE
    tokens = min(budgets[effort], max_tokens * share // whole)
    return tokens if tokens >= minimum else 0
