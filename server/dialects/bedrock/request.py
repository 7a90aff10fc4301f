"""Requests in Amazon Bedrock's Converse form. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
Turns are written in messages.py; what differs between model families is in models.py.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import at, decode, encode_text, kind
from server.dialects import reasoning
from server.dialects.anthropic import schema as anthropic_schema
from server.dialects.base import Endpoint, HttpRequest, platform_of
from server.dialects.bedrock.messages import Conversation, cache_point, extra_fields, tool_name
from server.dialects.bedrock.models import Family, additional_fields, family, grammar
from server.dialects.bedrock.platform import DEFAULT_PLATFORM
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
#: Replaces `tool_choice: none` where tools must be listed because the history has calls.
_NO_TOOLS = {"text": "Answer in text. Do not call any tool."}


def http_request(request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
    """A POST to the platform's URL, unsigned."""
    platform = platform_of(endpoint, DEFAULT_PLATFORM)
    headers = {
        "content-type": "application/json",
        "accept": _ACCEPT[stream],
        **platform.headers,
        **endpoint.provider.headers,
    }
    try:
        return HttpRequest(platform.url(endpoint, stream=stream), headers, _encode(converse(request, endpoint)))
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("Nested too deeply.") from None


def converse(request: pb.ChatCompletionRequest, endpoint: Endpoint) -> dict[str, Any]:
    """The body. Raises InvalidRequest for what Converse cannot express, DecodeError for text that is not JSON."""
    row = family(endpoint.model)
    if "audio" in request.modalities:
        raise unsupported("Bedrock's Converse has no audio output.", "modalities")
    conversation = Conversation(row)
    for index, message in enumerate(request.messages):
        try:
            conversation.add(message)
        except InvalidRequest as error:
            raise at(at(error, index), "messages") from None
    body: dict[str, Any] = {
        "messages": conversation.turns(),
        "inferenceConfig": _inference(request, endpoint, row),
    }
    tools = _tool_config(request, conversation, row)
    if tools:
        body["toolConfig"] = tools
    if conversation.system:
        body["system"] = conversation.system
    if request.HasField("response_format"):
        _set_format(body, request.response_format, row)
    if request.metadata:
        body["requestMetadata"] = _metadata(request)
    if request.service_tier in _SERVICE_TIERS:
        body["serviceTier"] = {"type": request.service_tier}
    if request.extra_body_json:
        _set_extra(body, decode(request.extra_body_json), row)
    _set_one_call(body, request, row)
    _set_reasoning(body, request, row)
    return body


# Parameters


def _inference(request: pb.ChatCompletionRequest, endpoint: Endpoint, row: Family) -> dict[str, Any]:
    inference: dict[str, Any] = {}
    limit = request.max_completion_tokens or request.max_tokens or endpoint.max_output_tokens
    if limit:
        inference["maxTokens"] = limit
    if request.HasField("temperature") and row.sampling != "none":
        inference["temperature"] = min(request.temperature, 1.0)  # 0 to 1 here
    if (
        request.HasField("top_p")
        and row.sampling != "none"
        and not (row.sampling == "one" and inference.get("temperature") is not None)
    ):
        inference["topP"] = request.top_p
    if len(request.stop) > endpoint.vendor.max_stop:
        raise InvalidRequest(f"At most {endpoint.vendor.max_stop} sequences, got {len(request.stop)}.", "stop")
    for index, sequence in enumerate(request.stop):
        if not sequence.strip() and not (sequence and row.blank_stop):
            raise unsupported("This model takes no stop sequence of white space only.", f"stop[{index}]")
    if request.stop:
        inference["stopSequences"] = list(request.stop)
    return inference


def _set_format(body: dict[str, Any], format_: pb.ResponseFormat, row: Family) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html."""
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return
    if which != "json_schema":
        raise unsupported("Bedrock has no such response format.", "response_format.type")
    schema_json = format_.json_schema.schema_json
    schema = grammar(row, decode(schema_json)) if schema_json else None
    if schema is None:
        raise unsupported(
            "Bedrock cannot enforce this schema for this model.", "response_format.json_schema.schema"
        )
    definition = {"schema": encode_text(schema)}
    if format_.json_schema.name:
        definition["name"] = format_.json_schema.name
    if format_.json_schema.description:
        definition["description"] = format_.json_schema.description
    text_format = {"type": "json_schema", "structure": {"jsonSchema": definition}}
    body["outputConfig"] = {"textFormat": text_format}


_NOT_IN_METADATA = re.compile(r"[^a-zA-Z0-9\s:_@$#=/+,.-]")


def _metadata(request: pb.ChatCompletionRequest) -> dict[str, str]:
    """For the invocation logs; at most 16 pairs of a restricted alphabet and length."""
    pairs = sorted((key, value) for key, value in request.metadata.items() if key)
    return {_metadata_text(key): _metadata_text(value) for key, value in pairs[:_MAX_METADATA_PAIRS]}


def _metadata_text(text: str) -> str:
    return _NOT_IN_METADATA.sub("_", text)[:_MAX_METADATA_LENGTH]


def _set_extra(body: dict[str, Any], extra: dict[str, Any], row: Family) -> None:
    """Add the fields of EXTRA_BODY."""
    for name, type_ in {**_NATIVE, **_MODEL_FIELDS}.items():
        value = extra.get(name)
        if value is None:
            continue
        if not isinstance(value, type_):
            expected = "an object" if type_ is dict else "an array"
            raise InvalidRequest(f"Expected {expected}, got {kind(value)}.", name)
        (body if name in _NATIVE else additional_fields(body))[name] = value
    top_k = extra.get("top_k")
    if top_k is not None and row.top_k and row.sampling != "none":
        fields = additional_fields(body)
        for name in row.top_k[:-1]:
            fields = fields.setdefault(name, {})
        fields.setdefault(row.top_k[-1], top_k)
    body["messages"][-1]["content"] += cache_point(extra, row, "messages")


def _set_reasoning(body: dict[str, Any], request: pb.ChatCompletionRequest, row: Family) -> None:
    effort = reasoning.EFFORTS.get(request.reasoning_effort)
    if effort and row.effort is not None:
        row.effort(body, effort)
    fields = body.get("additionalModelRequestFields", {})
    thinking = fields.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive"):
        # "Thinking isn't compatible with temperature, top_p, or top_k modifications."
        fields.pop("top_k", None)
        body["inferenceConfig"].pop("temperature", None)
        body["inferenceConfig"].pop("topP", None)


# Tools


def _tool_config(
    request: pb.ChatCompletionRequest, conversation: Conversation, row: Family
) -> dict[str, Any] | None:
    """Tools and choice. A history with tool blocks requires tools, and there is no choice `none`.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html
    """
    choice, allowed = _choice(request.tool_choice)
    none = request.tool_choice.mode == pb.TOOL_CHOICE_MODE_NONE
    tools: list[dict[str, Any]] = []
    if not none or conversation.has_tool_blocks:
        for index, tool in enumerate(request.tools):
            try:
                if allowed is None or tool.function.name in allowed:
                    tools += _tool(tool, row)
            except InvalidRequest as error:
                raise at(at(error, index), "tools") from None
    if conversation.has_tool_blocks:
        if none:
            conversation.system.append(_NO_TOOLS)
        if not tools:
            tools = [_stub(name) for name in conversation.called or ("unknown",)]
    if not tools:
        return None
    if choice and not row.forced_tools:
        raise unsupported("This model cannot be forced to call a tool.", "tool_choice")
    return {"tools": tools, "toolChoice": choice} if choice else {"tools": tools}


def _stub(name: str) -> dict[str, Any]:
    """The definition of a tool that the history calls and the request does not define."""
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}


def _tool(tool: pb.Tool, row: Family) -> list[dict[str, Any]]:
    """The tool, and after it the cache point for its `cache_control`."""
    if tool.HasField("other_json"):
        match decode(tool.other_json):
            case {"systemTool": {"name": str()} as system_tool}:  # Nova's own, e.g. nova_grounding
                return [{"systemTool": system_tool}]
        raise unsupported("Bedrock has no tool of this kind.", "type")
    function = tool.function
    schema = decode(function.parameters_json) if function.parameters_json else {"properties": {}}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"Expected an object, got {kind(schema)}.", "function.parameters")
    if not row.combined_tools:
        schema = anthropic_schema.tool_input(schema)
    closed = grammar(row, schema) if function.strict and function.parameters_json else None
    spec: dict[str, Any] = {"name": tool_name(function.name)}
    if function.description.strip():
        spec["description"] = function.description
    spec["inputSchema"] = {"json": {"type": "object", **(closed or schema)}}
    if closed is not None:
        spec["strict"] = True
    points = cache_point(extra_fields(tool.extra_json, function.extra_json), row, "tools")
    return [{"toolSpec": spec}, *points]


def _choice(choice: pb.ToolChoice) -> tuple[dict[str, Any] | None, frozenset[str] | None]:
    """`toolChoice`, None for the default, and the names of the allowed tools, None where all are."""
    match choice.WhichOneof("choice"):
        case None:
            return None, None
        case "mode":
            return _MODES.get(choice.mode), None
        case "function_name":
            return {"tool": {"name": tool_name(choice.function_name)}}, None
    match decode(choice.other_json):
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)},
        }:
            functions = (tool.get("function") for tool in tools if isinstance(tool, dict))
            names = frozenset(str(function.get("name")) for function in functions if isinstance(function, dict))
            return ({"any": {}} if mode == "required" else None), names
    raise unsupported("Bedrock has no tool choice of this kind.", "tool_choice.type")


_MODES: dict[int, dict[str, Any]] = {pb.TOOL_CHOICE_MODE_REQUIRED: {"any": {}}}


def _set_one_call(body: dict[str, Any], request: pb.ChatCompletionRequest, row: Family) -> None:
    """`parallel_tool_calls: false`, unless there is a toolChoice: it would be a second one.

    https://github.com/BerriAI/litellm/issues/36536
    """
    wanted = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls
    if wanted and row.one_call and "toolConfig" in body and "toolChoice" not in body["toolConfig"]:
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        additional_fields(body).setdefault("tool_choice", choice)
