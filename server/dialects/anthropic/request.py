"""Requests in Anthropic's Messages dialect, without what the platform adds. Pure.

https://platform.claude.com/docs/en/api/messages/create
A `temperature` above 1 is sent as 1. Sampling parameters are left out while the model
thinks and for models that refuse them; where a model refuses `temperature` and `top_p`
together, `top_p` is left out. `max_tokens` is the caller's, else the endpoint's, else
the model's maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, kind
from server.dialects import reasoning
from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import tools as anthropic_tools
from server.dialects.anthropic.limits import MAX_CACHE_MARKERS, Limits
from server.dialects.anthropic.messages import Conversation
from server.dialects.anthropic.models import Claude
from server.dialects.anthropic.replay import Block
from server.dialects.anthropic.schema import InexpressibleError
from server.dialects.base import Endpoint
from server.dialects.dropped import Dropped
from server.dialects.schemas import described
from server.dialects.users import opaque_user
from server.errors import InvalidRequest, unsupported

#: Anthropic's top-level fields that callers may send in `extra_body_json`; others are left out.
EXTRA_BODY = frozenset({"cache_control", "container", "inference_geo", "output_config", "thinking", "top_k"})

#: https://platform.claude.com/docs/en/api/service-tiers
_SERVICE_TIERS = {
    "auto": "auto",
    "priority": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}
#: A 400 from Anthropic: "user_id appears to contain an email address. Please send a uuid or hash value".
#: https://github.com/BerriAI/litellm/issues/10106
_MAX_USER_LENGTH = 512


def body(
    request: pb.ChatCompletionRequest, endpoint: Endpoint, dropped: Dropped, *, remote: bool
) -> dict[str, Any]:
    """The request's JSON, without `model` and `stream`. `remote`: the platform fetches URLs and keeps files.

    What is left out goes to `dropped`. Raises InvalidRequest for what Anthropic cannot do, and msgspec.DecodeError
    for a `*_json` field that does not hold JSON.
    """
    if "audio" in request.modalities:
        raise unsupported("Anthropic's models have no audio output.", "modalities")
    model = anthropic_models.of(endpoint.model)
    extra = dropped.pick("", request.extra_body_json, EXTRA_BODY)
    ends_with_user = anthropic_models.ends_with_user(model)
    conversation = Conversation(request.messages, dropped, remote=remote, ends_with_user=ends_with_user)
    limit = request.max_completion_tokens or request.max_tokens or endpoint.max_output_tokens or model.max_output
    if request.max_completion_tokens and request.max_tokens:
        dropped.add("max_tokens")
    out: dict[str, Any] = {"max_tokens": limit, "messages": conversation.turns}
    if conversation.system:
        out["system"] = conversation.system
    if conversation.container:
        out["container"] = conversation.container
    limits = Limits()
    format_ = _output_format(request.response_format, model, limits, dropped)
    out |= anthropic_tools.tools(request, model, conversation, limits, dropped)
    # `cache_control` of the request itself marks one more place.
    for path, block in conversation.markers.excess(MAX_CACHE_MARKERS - ("cache_control" in extra)):
        del block["cache_control"]
        dropped.add(path)
    native = _native_config(extra.pop("output_config", None), format_, dropped)
    # "Thinking may not be enabled when tool_choice forces tool use."
    accepts_budget = not anthropic_tools.is_forced(out) and conversation.accepts_budget()
    wanted, own = reasoning.EFFORTS.get(request.reasoning_effort, ""), extra.pop("thinking", None)
    if wanted and isinstance(own, dict) and "effort" in native:  # nothing is left for it to say
        wanted = ""
        dropped.add("reasoning_effort")
    thinking, effort = _reasoning(wanted, own, model, limit, accepts_budget, dropped)
    if thinking:
        out["thinking"] = thinking
    if "effort" in native and effort and not thinking:
        dropped.add("reasoning_effort")
    config = effort | format_ | native
    if config:
        out["output_config"] = config
    sampling = model.sampling
    if thinking and thinking.get("type") in ("enabled", "adaptive"):
        sampling = "none"
    out |= _sampling(request, sampling, extra.pop("top_k", None), dropped)
    if request.stop:
        out["stop_sequences"] = _stop(request.stop, endpoint.vendor.max_stop)
    if request.user:
        out["metadata"] = {"user_id": opaque_user(request.user, _MAX_USER_LENGTH)}
    if request.service_tier in _SERVICE_TIERS:
        out["service_tier"] = _SERVICE_TIERS[request.service_tier]
    elif request.service_tier:
        dropped.add("service_tier")
    return out | {name: value for name, value in extra.items() if value is not None}


def _sampling(request: pb.ChatCompletionRequest, accepted: str, top_k: Any, dropped: Dropped) -> dict[str, Any]:
    """The sampling parameters; `accepted`: as `Claude.sampling`."""
    out: dict[str, Any] = {}
    present = [name for name in ("temperature", "top_p") if request.HasField(name)]
    for name in present[:1] if accepted == "one" else present if accepted == "both" else ():
        out[name] = getattr(request, name)
    if "temperature" in out:
        out["temperature"] = min(out["temperature"], 1.0)
    for name in present:
        if name not in out:
            dropped.add(name)
    if top_k is not None and accepted != "none":
        out["top_k"] = top_k
    elif top_k is not None:
        dropped.add("top_k")
    return out


def _stop(stop: Sequence[str], max_stop: int) -> list[str]:
    if len(stop) > max_stop:
        raise InvalidRequest(f"At most {max_stop} sequences, got {len(stop)}.", "stop")
    for index, sequence in enumerate(stop):
        if not sequence.strip():  # a 400: "each stop sequence must contain non-whitespace"
            raise unsupported("Anthropic takes no stop sequence of white space only.", f"stop[{index}]")
    return list(stop)


def _reasoning(
    effort: str,
    native: Any,
    model: Claude,
    limit: int,
    accepts_budget: bool,
    dropped: Dropped,
) -> tuple[Block | None, Block]:
    """`thinking`, and the effort for `output_config`, for the effort of the request, empty where it has none.

    `native`: the caller's own `thinking`, which takes precedence.
    """
    if isinstance(native, dict) and (native.get("type") != "enabled" or "budget_tokens" in native):
        config = _effort(model, effort) if effort not in ("", "none") else {}
        if effort and not config:
            dropped.add("reasoning_effort")
        return native, config
    source = "reasoning_effort"
    if isinstance(native, dict):  # `{"type": "enabled"}` turns thinking on at DeepSeek and others
        source = "reasoning_effort" if effort else "thinking"
        if effort:
            dropped.add("thinking")
        else:
            dropped.pick_from("thinking", native, ("type",))
        effort = effort or "medium"
    elif native is not None:
        dropped.add("thinking")
    if effort == "none":
        off = model.off in ("disabled", "between_tools")
        return ({"type": model.off}, {}) if off else (None, _effort(model, "low") if model.off == "never" else {})
    if not effort:
        return None, {}
    config = _effort(model, effort)
    thinking = anthropic_models.thinking(model, effort, limit, accepts_budget=accepts_budget)
    if not config and thinking is None:
        dropped.add(source)
    return thinking, config


def _effort(model: Claude, wanted: str) -> Block:
    level = anthropic_models.effort(model, wanted)
    return {"effort": level} if level else {}


def _output_format(format_: pb.ResponseFormat, model: Claude, limits: Limits, dropped: Dropped) -> Block:
    """Anthropic enforces schemas only. https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return {}
    if which != "json_schema" or not model.structured:
        raise unsupported("This model has no such response format.", "response_format.type")
    path = "response_format.json_schema"
    if not format_.json_schema.schema_json:
        raise unsupported("Anthropic needs a schema.", f"{path}.schema")
    schema = _object(format_.json_schema.schema_json, f"{path}.schema")
    try:
        schema = limits.enforce(schema, tool=False)
    except InexpressibleError as error:
        raise unsupported(f"Anthropic's structured outputs do not support {error}.", f"{path}.schema") from None
    dropped.pick(path, format_.json_schema.extra_json)
    return {"format": {"type": "json_schema", "schema": described(schema, format_.json_schema.description)}}


def _native_config(config: Any, format_: Block, dropped: Dropped) -> Block:
    """The caller's own `output_config`, which takes precedence over `response_format`."""
    if not isinstance(config, dict):
        if config is not None:
            dropped.add("output_config")
        return {}
    if format_ and "format" in config:
        dropped.add("response_format")
    return config


def _object(text: str, param: str) -> dict[str, Any]:
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidRequest(f"Expected an object, got {kind(value)}.", param)
    return value
