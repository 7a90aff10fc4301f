"""What differs between the model families behind Converse: one row each. Pure.

Converse has one format for all models, but their parameters differ: how thinking is enabled,
sampling parameters, structured outputs. What applies to Claude on every platform is in anthropic/models.py.
https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
`drops` and `native_format` are for the capability table, the rest for requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic.limits import Limits
from server.dialects.anthropic.models import Claude
from server.dialects.dropped import Dropped
from server.dialects.reasoning import LEVELS

#: Edits a Converse request in place for a `reasoning_effort`; fields left out for it are reported as dropped.
Effort = Callable[[dict[str, Any], str, Dropped], None]

#: Sections of a request that take cache points.
#: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html#prompt-caching-models
_ALL_SECTIONS = frozenset({"system", "messages", "tools"})
_TEXT_SECTIONS = frozenset({"system", "messages"})


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `replays`: formats of the reasoning blocks that may be sent back."""

    effort: Effort | None = None
    #: Where `top_k` goes inside `additionalModelRequestFields`; empty where there is none.
    top_k: tuple[str, ...] = ("top_k",)
    replays: frozenset[str] = frozenset()
    #: Whether temperature and top_p are accepted together, only one of them, or neither (nor top_k).
    sampling: Literal["both", "one", "none"] = "both"
    #: Stop sequences may be white space only.
    blank_stop: bool = True
    #: A call can be forced.
    forced_tools: bool = True
    #: Several calls in one turn can be forbidden.
    one_call: bool = False
    #: `anyOf`, `oneOf` and `allOf` are accepted at the root of a tool's schema.
    #: https://github.com/code-yeongyu/senpi/issues/1947
    combined_tools: bool = True
    #: `outputConfig.textFormat` and strict tools are accepted.
    #: https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
    structured: bool = False
    #: The last turn must be the user's.
    ends_with_user: bool = False
    #: Sections of a request that take cache points; elsewhere they are a 400.
    cache: frozenset[str] = frozenset()
    #: Cache points may have a `ttl`.
    cache_ttl: bool = False


def additional_fields(body: dict[str, Any]) -> dict[str, Any]:
    """The request's `additionalModelRequestFields`, where the families' own parameters go."""
    fields: dict[str, Any] = body.setdefault("additionalModelRequestFields", {})
    return fields


# Claude

#: Tokens for the answer, added to the budget where a request has no limit.
_ANSWER_TOKENS = 8_192
#: Claude models without prompt caching.
_UNCACHED = re.compile(r"claude-(v?[12]|instant|3-(opus|sonnet|haiku)|3-5-sonnet-20240620)")


def _claude(model: Claude, *, cached: bool) -> Family:
    # Structured outputs, hour-long caches and the ban on parallel calls came with the same generation.
    return Family(
        effort=partial(_claude_effort, model) if model.thinking else None,
        replays=frozenset({"anthropic"}),
        sampling=model.sampling,
        blank_stop=False,
        forced_tools=model.forced_tools,
        one_call=model.structured,
        combined_tools=False,
        structured=model.structured,
        ends_with_user=anthropic_models.ends_with_user(model),
        cache=_ALL_SECTIONS if cached else frozenset(),
        cache_ttl=model.structured,
    )


def _claude_effort(model: Claude, body: dict[str, Any], effort: str, dropped: Dropped) -> None:
    """Thinking in the model's own fields, the effort in Converse's. The caller's own `thinking` takes precedence.

    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html
    """
    level, thinking = "", None
    if effort != "none":
        level = anthropic_models.effort(model, effort)
        # "Thinking may not be enabled when tool_choice forces tool use": the choice takes precedence.
        if "toolChoice" not in body.get("toolConfig", {}):
            limit = body["inferenceConfig"].get("maxTokens", model.max_output)
            accepts_budget = _accepts_budget(body["messages"])
            thinking = anthropic_models.thinking(model, effort, limit, accepts_budget=accepts_budget)
    elif model.off == "never":
        level = anthropic_models.effort(model, "low")
    elif model.off:
        thinking = {"type": model.off}
    own = {"thinking", "reasoning_config"} & body.get("additionalModelRequestFields", {}).keys()
    if not level and (own or (thinking is None and effort != "none")):
        dropped.add("reasoning_effort")
    if level:
        body.setdefault("outputConfig", {})["effort"] = level
    if thinking is None or own:
        return
    additional_fields(body)["thinking"] = thinking
    if "budget_tokens" in thinking:  # it counts towards the limit
        limit = min(thinking["budget_tokens"] + _ANSWER_TOKENS, model.max_output)
        body["inferenceConfig"].setdefault("maxTokens", limit)


def _accepts_budget(turns: list[dict[str, Any]]) -> bool:
    """An assistant turn that is continued must begin with a thinking block; another model's does not."""
    continued = len(turns) > 1 and any("toolResult" in block for block in turns[-1]["content"])
    return not continued or "reasoningContent" in turns[-2]["content"][0]


# Others


def _set_own(body: dict[str, Any], name: str, value: Any, dropped: Dropped) -> None:
    """Set the model's field for the effort, unless the caller has set it."""
    if additional_fields(body).setdefault(name, value) is not value:
        dropped.add("reasoning_effort")


def _nova_effort(body: dict[str, Any], effort: str, dropped: Dropped) -> None:
    """Nova 2; at high effort it refuses a token limit, which takes precedence, and sampling parameters.

    https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
    """
    inference = body["inferenceConfig"]
    level = LEVELS.get(effort)
    if "reasoningConfig" in body.get("additionalModelRequestFields", {}):
        dropped.add("reasoning_effort")
        return
    if level == "high" and "maxTokens" in inference:
        level = "medium"
    elif level == "high":
        drop_sampling(body, dropped)
    if level:
        additional_fields(body)["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}


def drop_sampling(body: dict[str, Any], dropped: Dropped) -> None:
    """Remove `temperature` and `top_p` from the request `body`."""
    for name, native in (("temperature", "temperature"), ("top_p", "topP")):
        if body["inferenceConfig"].pop(native, None) is not None:
            dropped.add(name)


def _gpt_oss_effort(body: dict[str, Any], effort: str, dropped: Dropped) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html."""
    _set_own(body, "reasoning_effort", LEVELS.get(effort, "low"), dropped)


def _gpt_effort(body: dict[str, Any], effort: str, dropped: Dropped) -> None:
    """https://github.com/stdapi-ai/stdapi.ai/issues/283."""
    _set_own(body, "reasoning", {"effort": "low" if effort == "minimal" else effort}, dropped)


def _qwen_effort(body: dict[str, Any], effort: str, dropped: Dropped) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html."""
    if effort in LEVELS:
        _set_own(body, "reasoning_config", LEVELS[effort], dropped)


#: The format of the encrypted reasoning of OpenAI's and xAI's models.
_OPAQUE = frozenset({"bedrock"})
_NOVA_TOP_K = ("inferenceConfig", "topK")
_NEWER_MISTRALS = "ministral|magistral|mistral-large-3"

#: The first row whose pattern is found where a model's name begins, which is after region prefixes and ARNs.
_ROWS: tuple[tuple[str, Family], ...] = (
    (r"amazon\.nova-2", Family(effort=_nova_effort, top_k=_NOVA_TOP_K, cache=_TEXT_SECTIONS)),
    (r"amazon\.nova", Family(top_k=_NOVA_TOP_K, cache=_TEXT_SECTIONS)),
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
#: The ARN of an inference profile or a provisioned model does not name the model, which may be Claude.
_UNKNOWN = Family(replays=_OPAQUE | {"anthropic"}, combined_tools=False, cache=_ALL_SECTIONS, cache_ttl=True)


def family(model: str) -> Family:
    """The row for a model id, an inference profile or an ARN."""
    if _IS_CLAUDE.search(model):
        return _claude(anthropic_models.of(model), cached=not _UNCACHED.search(model))
    return next((row for pattern, row in _FAMILIES if pattern.search(model)), _UNKNOWN)


def drops(model: str) -> frozenset[str]:
    """Request fields that the model has no parameter for, beyond those that Converse lacks for all models."""
    row = family(model)
    lacks = {
        "reasoning_effort": row.effort is None,
        "parallel_tool_calls": not row.one_call,
        "temperature": row.sampling == "none",
        "top_p": row.sampling == "none",
        "top_k": row.sampling == "none" or not row.top_k,
    }
    return frozenset(name for name, lacking in lacks.items() if lacking)


def grammar(row: Family, schema: Any, limits: Limits, *, tool: bool) -> dict[str, Any] | None:
    """The schema as structured outputs take it; None where the model or the schema is not for them.

    `tool`: it is a strict tool's. The limits are Anthropic's, for all models.
    https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
    """
    return limits.enforced(schema, tool=tool) if row.structured and isinstance(schema, dict) else None


def native_format(request: pb.ChatCompletionRequest, model: str) -> bool:
    """Whether Bedrock itself enforces the `response_format` for this model; otherwise it has to be emulated."""
    text = request.response_format.json_schema.schema_json
    return bool(text) and grammar(family(model), decode(text), Limits(), tool=False) is not None
