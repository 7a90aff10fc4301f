"""Which parameters each generation of Claude models accepts: one row each.

https://platform.claude.com/docs/en/models/overview (output limits)
https://platform.claude.com/docs/en/build-with-claude/effort (effort levels)
https://platform.claude.com/docs/en/build-with-claude/thinking (adaptive thinking, budgets)
https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6#prefill-removal
https://platform.claude.com/docs/en/models/opus-5-5/migration-guide and its siblings (what newer models refuse)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from server.dialects import reasoning

#: Levels of `output_config.effort`, lowest first. There is no `minimal`.
EFFORTS = ("low", "medium", "high", "xhigh", "max")
#: Above Google's figures: what Anthropic takes without advising batches.
_BUDGETS: Mapping[str, int] = {**reasoning.BUDGETS, "xhigh": 32_768, "max": 32_768}
#: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
_MIN_BUDGET = 1_024


class Claude(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    `max_output`: tokens; the `max_tokens` of requests without a limit.
    `thinking`: how it is turned on; empty for models without. `off`: the `thinking.type` that turns it
    off; empty where leaving `thinking` out does, `never` where nothing does.
    `efforts`: the effort levels accepted. `sampling`: whether temperature and top_p
    are accepted together, only one of them, or neither. `forced_tools`:
    `tool_choice` any and tool. `structured`: `output_config.format` and strict tools.
    `prefill`: continues an assistant turn that comes last; a 400 where not.
    """

    max_output: int
    thinking: Literal["", "budget", "adaptive"] = "budget"
    off: Literal["", "disabled", "between_tools", "never"] = ""
    efforts: tuple[str, ...] = ()
    sampling: Literal["both", "one", "none"] = "one"
    forced_tools: bool = True
    structured: bool = True
    prefill: bool = False


_3 = Claude(max_output=4_096, thinking="", sampling="both", structured=False, prefill=True)
_3_7 = Claude(max_output=64_000, sampling="both", structured=False, prefill=True)
_4_5 = Claude(max_output=64_000, prefill=True)
_4_6 = Claude(max_output=128_000, thinking="adaptive", efforts=("low", "medium", "high", "max"))
_4_7 = Claude(max_output=128_000, thinking="adaptive", efforts=EFFORTS, sampling="none")
_5 = msgspec.structs.replace(_4_7, off="disabled")
_ALWAYS = msgspec.structs.replace(_4_7, off="never")
_ALWAYS_FREE = msgspec.structs.replace(_ALWAYS, forced_tools=False)

#: The longest key found in a model's id selects the row; dates (`@20250929`, `-20250929`) and resellers' prefixes
#: are ignored.
_ROWS: Mapping[str, Claude] = {
    "claude": _ALWAYS,  # not in this table, so newer
    "claude-3": _3,
    "claude-3-5": msgspec.structs.replace(_3, max_output=8_192),
    "claude-3-7": _3_7,
    "claude-sonnet-4": _3_7,
    "claude-opus-4": msgspec.structs.replace(_3_7, max_output=32_000),
    "claude-opus-4-1": msgspec.structs.replace(_3_7, max_output=32_000, sampling="one"),
    "claude-haiku-4-5": _4_5,
    "claude-sonnet-4-5": _4_5,
    "claude-opus-4-5": msgspec.structs.replace(_4_5, efforts=("low", "medium", "high")),
    "claude-sonnet-4-6": _4_6,
    "claude-opus-4-6": _4_6,
    "claude-opus-4-7": _4_7,
    "claude-opus-4-8": _4_7,
    "claude-sonnet-5": _5,
    "claude-opus-5": _5,
    "claude-haiku-5": _5,
    "claude-sonnet-5-5": msgspec.structs.replace(_4_7, off="between_tools", forced_tools=False),
    "claude-opus-5-5": _ALWAYS_FREE,
    "claude-fable-5": _ALWAYS,
    "claude-fable-5-1": _ALWAYS_FREE,
    "claude-fable-5-2": _ALWAYS_FREE,
    "claude-mythos-5": _ALWAYS,
    "claude-mythos-5-1": _ALWAYS_FREE,
    "claude-mythos-preview": msgspec.structs.replace(_ALWAYS, efforts=_4_6.efforts),
}

#: Models that are not Claude, behind servers that speak Anthropic's dialect (llama.cpp, DeepSeek, ...).
_OTHER = Claude(max_output=4_096, off="disabled", sampling="both", structured=False)

#: The turn after an assistant's text that comes last, for models that refuse to continue it: "This model does not
#: support assistant message prefill. The conversation must end with a user message."
#: https://github.com/QwenLM/qwen-code/issues/8039
CONTINUE = "Continue."


def ends_with_user(model: Claude) -> bool:
    """Whether the last turn must be the user's; of models that are not Claude nothing is known."""
    return not model.prefill and model is not _OTHER


def of(model: str) -> Claude:
    """The row for a model's id at the provider."""
    id_ = model.lower().replace(".", "-")
    keys = [key for key in _ROWS if key in id_]
    return _ROWS[max(keys, key=len)] if keys else _OTHER


def drops(model: str) -> frozenset[str]:
    """The request fields that the model refuses whatever their value, and that are therefore left out."""
    return frozenset({"temperature", "top_p", "top_k"}) if of(model).sampling == "none" else frozenset()


def effort(model: Claude, wanted: str) -> str:
    """The model's highest level that is not above `wanted`, else its lowest; empty where it has none."""
    rank = EFFORTS.index(wanted) if wanted in EFFORTS else 0  # minimal
    accepted = [level for level in model.efforts if EFFORTS.index(level) <= rank]
    return accepted[-1] if accepted else next(iter(model.efforts), "")


def thinking(model: Claude, wanted: str, max_tokens: int, *, accepts_budget: bool) -> dict[str, Any] | None:
    """The `thinking` parameter for an effort other than `none`; None where the model does not think.

    `max_tokens` is the request's limit. `accepts_budget`: a budget is possible with the request's turns and tools.
    """
    if model.thinking == "adaptive":
        # Newer models send empty thinking unless a summary is requested.
        return {"type": "adaptive", "display": "summarized"}
    if model.thinking == "budget" and accepts_budget:
        tokens = reasoning.budget(_BUDGETS, wanted, max_tokens, _MIN_BUDGET)
        return {"type": "enabled", "budget_tokens": tokens} if tokens else None
    return None
