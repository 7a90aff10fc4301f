"""Requests in Amazon Bedrock's Converse form: everything but the messages, which bedrock_messages.py writes.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
What varies by model family is in bedrock_models.py.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import at, decode, encode_text, kind, names, words
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.bedrock.media import unsupported
from server.dialects.bedrock.messages import Conversation, cache_point, further, tool_name
from server.dialects.bedrock.models import Family, extra_fields, family, grammar
from server.errors import InvalidRequest

_encode = msgspec.json.Encoder().encode

_ORIGIN = "https://bedrock-runtime.{region}.amazonaws.com"
_ACCEPT = {True: "application/vnd.amazon.eventstream", False: "application/json"}

#: Fields of Converse that go in as they are, with the kind each must have.
_NATIVE: dict[str, type] = {
    "additionalModelRequestFields": dict,
    "additionalModelResponseFieldPaths": list,
    "guardrailConfig": dict,
    "performanceConfig": dict,
    "requestMetadata": dict,
}
#: Parameters of the models that Converse passes on.
_PASSED_ON: dict[str, type] = {"thinking": dict, "anthropic_beta": list}
#: Unknown top-level fields that are honoured.
EXTRA_BODY = frozenset({*_NATIVE, *_PASSED_ON, "top_k", "cache_control"})

_SERVICE_TIERS = frozenset({"default", "flex", "priority", "reserved"})
_EFFORTS = words(names(pb.ReasoningEffort, "REASONING_EFFORT_"))
#: Stands in for `tool_choice: none` where tools must be listed for the sake of the history.
_NO_TOOLS = {"text": "Answer in text. Do not call any tool."}


def http_request(request: pb.ChatCompletionRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
    """`POST /model/{id}/converse` or `/converse-stream`; the id is encoded once, `:` and `/` too."""
    origin = (endpoint.base_url or _ORIGIN).replace("{region}", endpoint.provider.region).rstrip("/")
    url = f"{origin}/model/{quote(endpoint.model, safe='')}/converse" + ("-stream" if stream else "")
    headers = {"content-type": "application/json", "accept": _ACCEPT[stream], **endpoint.provider.headers}
    try:
        return HttpRequest(url, headers, _encode(converse(request, endpoint)))
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("Nested too deeply.") from None


def converse(request: pb.ChatCompletionRequest, endpoint: Endpoint) -> dict[str, Any]:
    """The body. Raises InvalidRequest for what Converse cannot say, DecodeError for a `*_json` without JSON."""
    row = family(endpoint.model)
    if "audio" in request.modalities:
        raise unsupported("Audio output is not available here.", "modalities")
    conversation = Conversation(row)
    for index, message in enumerate(request.messages):
        try:
            conversation.add(message)
        except InvalidRequest as error:
            raise at(at(error, index), "messages") from None
    body: dict[str, Any] = {
        "messages": conversation.finished(),
        "inferenceConfig": _inference(request, endpoint, row),
    }
    tools = _tool_config(request, conversation, endpoint.model, row)
    if tools:
        body["toolConfig"] = tools
    if conversation.system:
        body["system"] = conversation.system
    if request.HasField("response_format"):
        _set_format(body, request.response_format, endpoint.model)
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


def _set_format(body: dict[str, Any], format_: pb.ResponseFormat, model: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html."""
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return
    if which != "json_schema":
        raise unsupported("Bedrock has no such response format.", "response_format.type")
    schema = grammar(model, format_.json_schema.schema_json)
    if schema is None:
        raise unsupported("This model cannot be held to this schema.", "response_format.json_schema.schema")
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
    pairs = sorted((key, value) for key, value in request.metadata.items() if key)[:16]
    return {_NOT_IN_METADATA.sub("_", key)[:256]: _NOT_IN_METADATA.sub("_", value)[:256] for key, value in pairs}


def _set_extra(body: dict[str, Any], extra: dict[str, Any], row: Family) -> None:
    """The fields of EXTRA_BODY that are there."""
    for name, type_ in {**_NATIVE, **_PASSED_ON}.items():
        value = extra.get(name)
        if value is None:
            continue
        if not isinstance(value, type_):
            expected = "an object" if type_ is dict else "an array"
            raise InvalidRequest(f"Expected {expected}, got {kind(value)}.", name)
        (body if name in _NATIVE else extra_fields(body))[name] = value
    top_k = extra.get("top_k")
    if top_k is not None and row.top_k and row.sampling != "none":
        fields = extra_fields(body)
        for name in row.top_k[:-1]:
            fields = fields.setdefault(name, {})
        fields.setdefault(row.top_k[-1], top_k)
    body["messages"][-1]["content"] += cache_point(extra)


def _set_reasoning(body: dict[str, Any], request: pb.ChatCompletionRequest, row: Family) -> None:
    effort = _EFFORTS.get(request.reasoning_effort)
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
    request: pb.ChatCompletionRequest, conversation: Conversation, model: str, row: Family
) -> dict[str, Any] | None:
    """Tools and choice. A history with tool blocks cannot do without; there is no choice `none`.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html
    """
    choice, allowed = _choice(request.tool_choice)
    none = request.tool_choice.mode == pb.TOOL_CHOICE_MODE_NONE
    tools: list[dict[str, Any]] = []
    if not none or conversation.has_tool_blocks:
        for index, tool in enumerate(request.tools):
            try:
                if allowed is None or tool.function.name in allowed:
                    tools += _tool(tool, model)
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
        raise unsupported("This model cannot be made to call a tool.", "tool_choice")
    return {"tools": tools, "toolChoice": choice} if choice else {"tools": tools}


def _stub(name: str) -> dict[str, Any]:
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}


def _tool(tool: pb.Tool, model: str) -> list[dict[str, Any]]:
    if tool.HasField("other_json"):
        match decode(tool.other_json):
            case {"systemTool": {"name": str()} as system_tool}:  # Nova's own, e.g. nova_grounding
                return [{"systemTool": system_tool}]
        raise unsupported("Bedrock has no tool of this kind.", "type")
    function = tool.function
    schema = decode(function.parameters_json) if function.parameters_json else {"properties": {}}
    closed = grammar(model, function.parameters_json) if function.strict else None
    spec: dict[str, Any] = {"name": tool_name(function.name)}
    if function.description.strip():
        spec["description"] = function.description
    spec["inputSchema"] = {"json": {"type": "object", **(closed or schema)}}
    if closed is not None:
        spec["strict"] = True
    return [{"toolSpec": spec}, *cache_point(further(tool.extra_json, function.extra_json))]


def _choice(choice: pb.ToolChoice) -> tuple[dict[str, Any] | None, frozenset[str] | None]:
    """A toolChoice, unless it is the default; and the names of the only tools allowed, where it names them."""
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
    """`parallel_tool_calls: false`. Beside a toolChoice it would be a second one.

    https://github.com/BerriAI/litellm/issues/36536
    """
    wanted = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls
    if wanted and row.one_call and "toolConfig" in body and "toolChoice" not in body["toolConfig"]:
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        extra_fields(body).setdefault("tool_choice", choice)
