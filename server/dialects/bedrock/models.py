"""What differs between the model families behind Converse: one row each.

Converse gives all models one shape, but not what a model takes: how it is told
to think, which sampling it knows, whether it has structured outputs. What holds
for Claude everywhere is in anthropic_models.py.
https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
`drops` and `native_json_schema` are for the capability table, the rest for the
request side.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec

from server.chat.openai_json.fields import decode
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.anthropic.models import Claude

#: Edits a Converse request in place for a `reasoning_effort`.
Effort = Callable[[dict[str, Any], str], None]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `replays` are the formats of reasoning blocks that may be sent back."""

    effort: Effort | None = None
    #: Where `top_k` goes inside `additionalModelRequestFields`; empty where there is none.
    top_k: tuple[str, ...] = ("top_k",)
    replays: frozenset[str] = frozenset()
    #: Whether temperature and top_p may be given together, only one of them, or neither (nor top_k).
    sampling: Literal["both", "one", "none"] = "both"
    #: Stop sequences may be white space only.
    blank_stop: bool = True
    #: A call can be forced.
    forced_tools: bool = True
    #: Several calls in one turn can be forbidden.
    one_call: bool = False
    #: `outputConfig.textFormat` and strict tools are understood.
    #: https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
    structured: bool = False


def extra_fields(body: dict[str, Any]) -> dict[str, Any]:
    """The request's `additionalModelRequestFields`, where the families' own parameters go."""
    fields: dict[str, Any] = body.setdefault("additionalModelRequestFields", {})
    return fields


# Claude

#: Tokens of thinking for models that take a budget, and what is left for the answer where nobody sets a limit.
_BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEAST_BUDGET = 1_024
_ANSWER = 8_192


def _claude(model: Claude) -> Family:
    return Family(
        effort=partial(_claude_effort, model) if model.thinking else None,
        replays=frozenset({"anthropic"}),
        sampling=model.sampling,
        blank_stop=False,
        forced_tools=model.forced_tools,
        one_call=model.structured,  # the same generations
        structured=model.structured,
    )


def _claude_effort(model: Claude, body: dict[str, Any], effort: str) -> None:
    """Thinking in the model's own fields, the effort in Converse's. The caller's own `thinking` wins.

    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html
    """
    level, thinking = "", None
    if effort != "none":
        level = anthropic_models.effort(model, "low" if effort == "minimal" else effort)
        # "Thinking may not be enabled when tool_choice forces tool use": the choice weighs more.
        if "toolChoice" not in body.get("toolConfig", {}):
            thinking = _thinking(model, body, effort)
    elif model.off == "never":
        level = anthropic_models.effort(model, "low")
    elif model.off:
        thinking = {"type": model.off}
    if level:
        body.setdefault("outputConfig", {})["effort"] = level
    if (
        thinking is not None
        and not {"thinking", "reasoning_config"} & body.get("additionalModelRequestFields", {}).keys()
    ):
        extra_fields(body)["thinking"] = thinking
        if "budget_tokens" in thinking:  # it counts towards the limit
            limit = min(thinking["budget_tokens"] + _ANSWER, model.max_output)
            body["inferenceConfig"].setdefault("maxTokens", limit)


def _thinking(model: Claude, body: dict[str, Any], effort: str) -> dict[str, Any] | None:
    if model.thinking == "adaptive":
        # Newer models send empty thinking unless asked for a summary.
        return {"type": "adaptive", "display": "summarized"}
    messages = body["messages"]
    # An assistant turn that goes on must begin with a thinking block: another model's does not.
    goes_on = len(messages) > 1 and any("toolResult" in block for block in messages[-1]["content"])
    if goes_on and "reasoningContent" not in messages[-2]["content"][0]:
        return None
    limit = body["inferenceConfig"].get("maxTokens", model.max_output)
    budget = min(_BUDGETS[effort], limit * 4 // 5)
    return {"type": "enabled", "budget_tokens": budget} if budget >= _LEAST_BUDGET else None


# Others

_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def _nova_effort(body: dict[str, Any], effort: str) -> None:
    """Nova 2; its high effort refuses a token limit and sampling parameters: the limit weighs more.

    https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
    """
    inference = body["inferenceConfig"]
    level = _LEVELS.get(effort)
    if level == "high" and "maxTokens" in inference:
        level = "medium"
    elif level == "high":
        inference.pop("temperature", None)
        inference.pop("topP", None)
    if level:
        extra_fields(body).setdefault("reasoningConfig", {"type": "enabled", "maxReasoningEffort": level})


def _gpt_oss_effort(body: dict[str, Any], effort: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html."""
    extra_fields(body).setdefault("reasoning_effort", _LEVELS.get(effort, "low"))


def _gpt_effort(body: dict[str, Any], effort: str) -> None:
    """https://github.com/stdapi-ai/stdapi.ai/issues/283."""
    extra_fields(body).setdefault("reasoning", {"effort": "low" if effort == "minimal" else effort})


def _qwen_effort(body: dict[str, Any], effort: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html."""
    if effort in _LEVELS:
        extra_fields(body).setdefault("reasoning_config", _LEVELS[effort])


#: Reasoning that OpenAI's and xAI's models give encrypted.
_OPAQUE = frozenset({"bedrock"})
_NOVA_TOP_K = ("inferenceConfig", "topK")
_NEWER_MISTRALS = "ministral|magistral|mistral-large-3"

#: The first whose pattern is found at the start of a model's name; region prefixes and ARNs stand before it.
_ROWS: tuple[tuple[str, Family], ...] = (
    (r"amazon\.nova-2", Family(effort=_nova_effort, top_k=_NOVA_TOP_K)),
    (r"amazon\.nova", Family(top_k=_NOVA_TOP_K)),
    (r"openai\.gpt-oss", Family(effort=_gpt_oss_effort, top_k=(), structured=True)),
    (r"openai\.", Family(effort=_gpt_effort, top_k=(), replays=_OPAQUE, sampling="none")),
    (r"xai\.", Family(replays=_OPAQUE)),
    (r"qwen\.", Family(effort=_qwen_effort, structured=True)),
    (r"cohere\.", Family(top_k=("k",))),
    (r"meta\.", Family(top_k=())),
    (
        rf"(?:deepseek\.v|google\.|minimax\.|moonshot|nvidia\.|zai\.|mistral\.(?:{_NEWER_MISTRALS}))",
        Family(structured=True),
    ),
    (r"(?:ai21|amazon|deepseek|mistral|writer)\.", Family()),
)
_START = r"(?:^|[./])"
_FAMILIES = tuple((re.compile(_START + pattern), row) for pattern, row in _ROWS)
_IS_CLAUDE = re.compile(_START + r"anthropic\.")
#: Behind an ARN of one's own may be any model.
_UNKNOWN = Family(replays=_OPAQUE | {"anthropic"})


def family(model: str) -> Family:
    """The row for a model id, an inference profile or an ARN."""
    if _IS_CLAUDE.search(model):
        return _claude(anthropic_models.of(model))
    return next((row for pattern, row in _FAMILIES if pattern.search(model)), _UNKNOWN)


def drops(model: str) -> frozenset[str]:
    """Request fields that the model has no parameter for, beyond what all of Converse lacks."""
    row = family(model)
    lacks = {
        "reasoning_effort": row.effort is None,
        "parallel_tool_calls": not row.one_call,
        "temperature": row.sampling == "none",
        "top_p": row.sampling == "none",
        "top_k": row.sampling == "none" or not row.top_k,
    }
    return frozenset(name for name, lacking in lacks.items() if lacking)


def grammar(model: str, schema_json: str) -> dict[str, Any] | None:
    """The schema as structured outputs take it; None where the model or the schema is not for them.

    The limits are Anthropic's, for all models.
    https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
    """
    if not schema_json or not family(model).structured:
        return None
    schema = decode(schema_json)
    try:
        return anthropic_schema.strict(schema) if isinstance(schema, dict) else None
    except anthropic_schema.InexpressibleError:
        return None


def native_json_schema(model: str, schema_json: str) -> bool:
    """Whether Bedrock itself can hold the model to the schema's structure; otherwise it takes emulation."""
    return grammar(model, schema_json) is not None
