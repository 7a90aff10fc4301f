"""Requests in Gemini's generateContent form. Pure.

https://ai.google.dev/api/generate-content (AI Studio)
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (Vertex AI)
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.dialects import reasoning
from server.dialects.base import Endpoint, platform_of
from server.dialects.gemini import schema as gemini_schema
from server.dialects.gemini.contents import Contents, json_object
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.errors import InvalidRequest, unsupported

#: Request field -> field of generationConfig.
_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "n": "candidateCount",
}
#: Gemini's fields that callers may send beside OpenAI's, in camel or snake case, at the top level or under
#: `google`, as in Google's OpenAI-compatible API: name -> the object that it is part of.
#: https://ai.google.dev/gemini-api/docs/openai
_NATIVE = {
    "safetySettings": "",
    "cachedContent": "",
    "labels": "",
    "topK": "generationConfig",
    "thinkingConfig": "generationConfig",
    "mediaResolution": "generationConfig",
    "speechConfig": "generationConfig",
    "imageConfig": "generationConfig",
}
_NATIVE_TOOLS = frozenset(
    {
        "googleSearch",
        "urlContext",
        "codeExecution",
        "googleMaps",
        "fileSearch",
        "computerUse",
        "enterpriseWebSearch",
    }
)


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda letter: letter[1].upper(), name)


#: Top-level fields in `extra_body_json` that are honoured; others are left out.
EXTRA_BODY = frozenset({*_NATIVE, *map(_snake, _NATIVE), "google", "extra_body"})

# Tables below tell generations of models apart. A name that no pattern matches is taken for a newer model;
# what such a model refuses can be listed in the endpoint's `drops`.

_BUDGETS = {**reasoning.BUDGETS, "none": 0, "xhigh": 24_576, "max": 24_576}
_LEVELS = {"none": "LOW", **{effort: level.upper() for effort, level in reasoning.LEVELS.items()}}
#: Pattern of the model's name, field of thinkingConfig, and its values by effort. Not every model can stop
#: thinking or takes the lowest level; it then gets the least that it takes.
#: https://ai.google.dev/gemini-api/docs/openai
_THINKING: tuple[tuple[str, str, Mapping[str, int | str]], ...] = (
    (r"gemini-([01]|2\.0)|gemma|learnlm", "", {}),
    (r"gemini-2\.5-pro", "thinkingBudget", {**_BUDGETS, "none": 128}),
    (r"gemini-2\.5", "thinkingBudget", _BUDGETS),
    (r"gemini-3(\.[0-6])?-flash", "thinkingLevel", {**_LEVELS, "none": "MINIMAL", "minimal": "MINIMAL"}),
    ("", "thinkingLevel", _LEVELS),
)
#: Before Gemini 3: no JSON mode beside tools, no media inside a function's response, no signatures required.
_OLD = re.compile(r"gemini-[012]|gemma|learnlm")
#: Before Gemini 2.5: no VALIDATED mode. Vertex AI's v1 has none either.
_OLDER = re.compile(r"gemini-([01]|2\.0)|gemma|learnlm")


def body(request: pb.ChatCompletionRequest, endpoint: Endpoint) -> dict[str, Any]:
    """The request's JSON. Raises InvalidRequest for what Gemini cannot do."""
    model = endpoint.model.rpartition("/")[2]
    platform = platform_of(endpoint, DEFAULT_PLATFORM)
    contents = Contents(old=bool(_OLD.match(model)), ids=platform.call_ids)
    contents.add_all(request)
    out: dict[str, Any] = {"contents": contents.contents}
    if contents.system:
        out["systemInstruction"] = {"parts": contents.system}
    _add_tools(out, request, validated=platform.validated_calls and not _OLDER.match(model))
    config = out["generationConfig"] = _generation_config(request, endpoint, model)
    if platform.store and request.HasField("store"):
        out["store"] = request.store
    if not platform.tier_header and request.service_tier in TIERS:
        out["serviceTier"] = TIERS[request.service_tier]
    for name, value in _extra_body(request).items():
        (config if _NATIVE[name] else out)[name] = value
    if not config:
        del out["generationConfig"]
    return out


#: OpenAI's tiers -> Google's. On Vertex AI they are a header.
#: https://ai.google.dev/gemini-api/docs/priority-inference
TIERS = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}


def _extra_body(request: pb.ChatCompletionRequest) -> dict[str, Any]:
    extra = json_object(request.extra_body_json)
    inner = extra.get("extra_body")
    layers = [extra, extra.get("google"), inner, inner.get("google") if inner.__class__ is dict else None]
    found = {_camel(name): value for layer in layers if layer.__class__ is dict for name, value in layer.items()}
    return {name: found[name] for name in _NATIVE if found.get(name) is not None}


# Generation


def _generation_config(request: pb.ChatCompletionRequest, endpoint: Endpoint, model: str) -> dict[str, Any]:
    vendor = endpoint.vendor
    if len(request.stop) > vendor.max_stop:
        raise InvalidRequest(f"At most {vendor.max_stop} sequences, got {len(request.stop)}.", "stop")
    config: dict[str, Any] = {}
    for name, native in _GENERATION.items():
        value = getattr(request, name) if request.HasField(name) else vendor.defaults.get(name)  # type: ignore[arg-type]
        if value is not None:
            config[native] = value
    for name in ("max_completion_tokens", "max_tokens"):
        if request.HasField(name):  # type: ignore[arg-type]
            config["maxOutputTokens"] = getattr(request, name)
            break
    if request.HasField("seed"):
        config["seed"] = request.seed % 2**31  # an int32 there
    if request.stop:
        config["stopSequences"] = list(request.stop)
    _add_effort(config, request, model)
    _add_format(config, request, model)
    _add_modalities(config, request)
    return config


def _add_effort(config: dict[str, Any], request: pb.ChatCompletionRequest, model: str) -> None:
    field, efforts = next((field, table) for pattern, field, table in _THINKING if re.match(pattern, model))
    effort = reasoning.EFFORTS.get(request.reasoning_effort, "")
    if effort in efforts:
        thinking = config["thinkingConfig"] = {field: efforts[effort]}
        if effort != "none":
            thinking["includeThoughts"] = True


def _add_format(config: dict[str, Any], request: pb.ChatCompletionRequest, model: str) -> None:
    format_ = request.response_format
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return
    if which == "other_json":
        raise unsupported("Gemini has the formats text, json_object and json_schema.", "response_format.type")
    if (request.tools or request.HasField("web_search_options")) and _OLD.match(model):
        # A 400: "... with a response mime type: 'application/json' is unsupported".
        raise unsupported("Models before Gemini 3 have no JSON mode beside tools.", "response_format")
    config["responseMimeType"] = "application/json"
    if format_.json_schema.HasField("schema_json"):
        config["responseJsonSchema"] = gemini_schema.adapt(json_object(format_.json_schema.schema_json))


def _add_modalities(config: dict[str, Any], request: pb.ChatCompletionRequest) -> None:
    """Speech models answer in audio only; image models answer in images only when they are requested."""
    modalities = list(request.modalities)
    if "audio" in modalities:
        if request.audio.format != "pcm16":
            raise unsupported("Gemini's audio output is pcm16 only.", "audio.format")
        config["responseModalities"] = ["AUDIO"]
        voice = {"prebuiltVoiceConfig": {"voiceName": request.audio.voice}}
        config["speechConfig"] = {"voiceConfig": voice}
    elif modalities not in ([], ["text"]):
        config["responseModalities"] = [modality.upper() for modality in modalities]


# Tools

_MODES = {
    pb.TOOL_CHOICE_MODE_NONE: "NONE",
    pb.TOOL_CHOICE_MODE_AUTO: "AUTO",
    pb.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}


def _add_tools(out: dict[str, Any], request: pb.ChatCompletionRequest, *, validated: bool) -> None:
    """`validated`: the platform and the model have the mode VALIDATED, which is AUTO with schemas enforced.

    https://ai.google.dev/gemini-api/docs/function-calling
    """
    config, allowed = _calling_config(request.tool_choice)
    functions = [tool.function for tool in request.tools if tool.HasField("function")]
    if allowed is not None:
        functions = [function for function in functions if function.name in allowed]
    tools: list[dict[str, Any]] = []
    if functions:
        tools.append({"functionDeclarations": [_declaration(function) for function in functions]})
    for index, tool in enumerate(request.tools):
        if tool.HasField("other_json"):
            tools.append(_native_tool(json_object(tool.other_json), f"tools[{index}]"))
    if request.HasField("web_search_options"):
        tools.append({"googleSearch": {}})
    if tools:
        out["tools"] = tools
    if validated and config in ({}, {"mode": "AUTO"}) and all(function.strict for function in functions):
        config = {"mode": "VALIDATED"}
    if functions and config:  # a config without functions is refused
        out["toolConfig"] = {"functionCallingConfig": config}


def _declaration(function: pb.FunctionDefinition) -> dict[str, Any]:
    out: dict[str, Any] = {"name": function.name}
    if function.HasField("description"):
        out["description"] = function.description
    schema = json_object(function.parameters_json)
    if schema:
        out["parametersJsonSchema"] = gemini_schema.parameters(schema)
    return out


def _native_tool(tool: dict[str, Any], path: str) -> dict[str, Any]:
    """`{"type": "google_search", "google_search": {...}}`; the options may be missing."""
    type_ = str(tool.get("type"))
    name = _camel(type_)
    if name not in _NATIVE_TOOLS:
        raise unsupported(f"Gemini has no tool of type {type_[:40]!r}.", path)
    return {name: tool.get(type_) or tool.get(name) or {}}


def _calling_config(choice: pb.ToolChoice) -> tuple[dict[str, Any], Container[str] | None]:
    """`functionCallingConfig`, and the names of the functions to declare, None for all."""
    which = choice.WhichOneof("choice")
    if which == "function_name":
        return {"mode": "ANY", "allowedFunctionNames": [choice.function_name]}, None
    if which != "other_json":
        return ({"mode": _MODES[choice.mode]} if choice.mode else {}), None
    match json_object(choice.other_json):
        case {"type": "allowed_tools", "allowed_tools": {"mode": str(mode), "tools": list(tools)}}:
            names = [tool["function"]["name"] for tool in tools if _names_function(tool)]
            if len(names) == len(tools) and mode == "required":
                return {"mode": "ANY", "allowedFunctionNames": names}, None
            if len(names) == len(tools) and mode == "auto":
                return {"mode": "AUTO"}, frozenset(names)
    raise unsupported("Gemini can choose among functions only.", "tool_choice")


def _names_function(tool: Any) -> bool:
    match tool:
        case {"type": "function", "function": {"name": str()}}:
            return True
    return False
