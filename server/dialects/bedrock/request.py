"""Requests in Amazon Bedrock's Converse form. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
Turns are written in messages.py; what differs between model families is in models.py.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode, encode_text, kind
from server.dialects import reasoning
from server.dialects.anthropic.limits import Limits
from server.dialects.base import Endpoint, HttpRequest, platform_of
from server.dialects.bedrock import tools as bedrock_tools
from server.dialects.bedrock.messages import CachePoints, Conversation
from server.dialects.bedrock.models import Family, additional_fields, drop_sampling, family, grammar
from server.dialects.bedrock.platform import DEFAULT_PLATFORM
from server.dialects.dropped import Dropped
from server.errors import InvalidRequest, unsupported

_encode = msgspec.json.Encoder().encode

_ACCEPT = {True: "application/vnd.amazon.eventstream", False: "application/json"}

#: Converse's own fields that callers may send, with their types.
_NATIVE: dict[str, type] = {
    "additionalModelRequestFields": dict,
    "additionalModelResponseFieldPaths": list,
    "guardrailConfig": dict,
    "performanceConfig": dict,
    "requestMetadata": dict,
}
#: The same of the models, which go into `additionalModelRequestFields`.
_MODEL_FIELDS: dict[str, type] = {"thinking": dict, "anthropic_beta": list}
#: Top-level fields in `extra_body_json` that are honoured; others are left out.
EXTRA_BODY = frozenset({*_NATIVE, *_MODEL_FIELDS, "top_k", "cache_control"})

_SERVICE_TIERS = frozenset({"default", "flex", "priority", "reserved"})
_MAX_METADATA_PAIRS = 16
_MAX_METADATA_LENGTH = 256


def http_request(request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
    """A POST to the platform's URL, unsigned."""
    platform = platform_of(endpoint, DEFAULT_PLATFORM)
    headers = {
        "content-type": "application/json",
        "accept": _ACCEPT[stream],
        **platform.headers,
        **endpoint.provider.headers,
    }
    dropped = Dropped()
    try:
        body = _encode(converse(request, endpoint, dropped))
        return HttpRequest(platform.url(endpoint, stream=stream), headers, body, dropped=dropped.paths)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("Nested too deeply.") from None


def converse(request: pb.ChatCompletionRequest, endpoint: Endpoint, dropped: Dropped) -> dict[str, Any]:
    """The body. What is left out goes to `dropped`.

    Raises InvalidRequest for what Converse cannot express, DecodeError for text that is not JSON.
    """
    row = family(endpoint.model)
    if "audio" in request.modalities:
        raise unsupported("Bedrock's Converse has no audio output.", "modalities")
    conversation = Conversation(row, dropped)
    for index, message in enumerate(request.messages):
        conversation.add(message, f"messages[{index}]")
    body: dict[str, Any] = {
        "messages": conversation.turns(),
        "inferenceConfig": _inference(request, endpoint, row, dropped),
    }
    limits = Limits()
    format_ = _format(request.response_format, row, limits, dropped)
    tools = bedrock_tools.config(request, conversation, row, limits, dropped)
    if tools:
        body["toolConfig"] = tools
    if conversation.system:
        body["system"] = conversation.system
    if format_:
        body["outputConfig"] = format_
    if request.metadata:
        body["requestMetadata"] = _metadata(request, dropped)
    if request.service_tier in _SERVICE_TIERS:
        body["serviceTier"] = {"type": request.service_tier}
    elif request.service_tier not in ("", "auto"):
        dropped.add("service_tier")
    if request.extra_body_json:
        _set_extra(body, decode(request.extra_body_json), conversation.cache, row, dropped)
    contents = [turn["content"] for turn in body["messages"]]
    conversation.cache.limit(tools["tools"] if tools else [], conversation.system, *contents)
    bedrock_tools.forbid_parallel_calls(body, request, row, dropped)
    _set_reasoning(body, request, row, dropped)
    return body


# Parameters


def _inference(
    request: pb.ChatCompletionRequest, endpoint: Endpoint, row: Family, dropped: Dropped
) -> dict[str, Any]:
    inference: dict[str, Any] = {}
    limit = request.max_completion_tokens or request.max_tokens or endpoint.max_output_tokens
    if limit:
        inference["maxTokens"] = limit
    if request.max_completion_tokens and request.max_tokens:
        dropped.add("max_tokens")
    if request.HasField("temperature") and row.sampling != "none":
        inference["temperature"] = min(request.temperature, 1.0)  # 0 to 1 here
    elif request.HasField("temperature"):
        dropped.add("temperature")
    refused = row.sampling == "none" or (row.sampling == "one" and "temperature" in inference)
    if request.HasField("top_p") and not refused:
        inference["topP"] = request.top_p
    elif request.HasField("top_p"):
        dropped.add("top_p")
    if len(request.stop) > endpoint.vendor.max_stop:
        raise InvalidRequest(f"At most {endpoint.vendor.max_stop} sequences, got {len(request.stop)}.", "stop")
    for index, sequence in enumerate(request.stop):
        if not sequence.strip() and not (sequence and row.blank_stop):
            raise unsupported("This model takes no stop sequence of white space only.", f"stop[{index}]")
    if request.stop:
        inference["stopSequences"] = list(request.stop)
    return inference


def _format(format_: pb.ResponseFormat, row: Family, limits: Limits, dropped: Dropped) -> dict[str, Any]:
    """`outputConfig`. https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return {}
    if which != "json_schema":
        raise unsupported("Bedrock has no such response format.", "response_format.type")
    path = "response_format.json_schema"
    schema_json = format_.json_schema.schema_json
    schema = grammar(row, decode(schema_json), limits, tool=False) if schema_json else None
    if schema is None:
        raise unsupported("Bedrock cannot enforce this schema for this model.", f"{path}.schema")
    dropped.pick(path, format_.json_schema.extra_json)
    definition = {"schema": encode_text(schema)}
    if format_.json_schema.name:
        definition["name"] = format_.json_schema.name
    if format_.json_schema.description:
        definition["description"] = format_.json_schema.description
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}


_NOT_IN_METADATA = re.compile(r"[^a-zA-Z0-9\s:_@$#=/+,.-]")


def _metadata(request: pb.ChatCompletionRequest, dropped: Dropped) -> dict[str, str]:
    """For the invocation logs; at most 16 pairs of a restricted alphabet and length."""
    pairs = sorted(request.metadata.items(), key=lambda pair: (not pair[0], pair))
    kept = [pair for pair in pairs if pair[0]][:_MAX_METADATA_PAIRS]
    for key, _ in pairs[len(kept) :]:
        dropped.add(f"metadata.{key}")
    return {_metadata_text(key): _metadata_text(value) for key, value in kept}


def _metadata_text(text: str) -> str:
    return _NOT_IN_METADATA.sub("_", text)[:_MAX_METADATA_LENGTH]


def _set_extra(
    body: dict[str, Any], extra: dict[str, Any], cache: CachePoints, row: Family, dropped: Dropped
) -> None:
    """Add the fields of EXTRA_BODY."""
    extra = dropped.pick_from("", extra, EXTRA_BODY)
    for name, type_ in {**_NATIVE, **_MODEL_FIELDS}.items():
        value = extra.get(name)
        if value is None:
            continue
        if not isinstance(value, type_):
            expected = "an object" if type_ is dict else "an array"
            raise InvalidRequest(f"Expected {expected}, got {kind(value)}.", name)
        fields = body if name in _NATIVE else additional_fields(body)
        if name in fields:
            dropped.add("metadata" if name in _NATIVE else f"additionalModelRequestFields.{name}")
        fields[name] = value
    _set_top_k(body, extra.get("top_k"), row, dropped)
    points = cache.after("cache_control", extra.get("cache_control"), "messages")
    body["messages"][-1]["content"] += points


def _set_top_k(body: dict[str, Any], top_k: Any, row: Family, dropped: Dropped) -> None:
    """Set the model's own field, unless the caller has set it."""
    if top_k is None:
        return
    if not row.top_k or row.sampling == "none":
        dropped.add("top_k")
        return
    fields = additional_fields(body)
    for name in row.top_k[:-1]:
        fields = fields.setdefault(name, {})
    if row.top_k[-1] in fields:
        dropped.add("top_k")
    fields.setdefault(row.top_k[-1], top_k)


def _set_reasoning(body: dict[str, Any], request: pb.ChatCompletionRequest, row: Family, dropped: Dropped) -> None:
    effort = reasoning.EFFORTS.get(request.reasoning_effort)
    if effort and row.effort is not None:
        row.effort(body, effort, dropped)
    elif effort and effort != "none":
        dropped.add("reasoning_effort")
    fields = body.get("additionalModelRequestFields", {})
    thinking = fields.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive"):
        # "Thinking isn't compatible with temperature, top_p, or top_k modifications."
        if fields.pop("top_k", None) is not None:
            own = decode(request.extra_body_json).get("additionalModelRequestFields") or {}
            dropped.add("additionalModelRequestFields.top_k" if "top_k" in own else "top_k")
        drop_sampling(body, dropped)
