"""generateContent requests: a ChatCompletionRequest in Gemini's JSON. Pure.

https://ai.google.dev/api/generate-content (AI Studio)
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (Vertex AI)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.dialects.base import Endpoint
from server.dialects.gemini import schema as gemini_schema
from server.dialects.gemini.contents import Contents, json_object, unsupported
from server.errors import InvalidRequest

_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "n": "candidateCount",
}
#: Native fields that may stand beside OpenAI's, in Google's own spelling or in snake case, at the top level or
#: under `google`, as Google's OpenAI-compatible API has them: name -> what it is part of.
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


#: The unknown top-level fields of a request that are honoured.
EXTRA_BODY = frozenset({*_NATIVE, *map(_snake, _NATIVE), "google", "extra_body"})

# Generations of models differ where a table below says so. Names that no pattern matches are taken for newer
# ones; a model that refuses what it gets is told apart by an endpoint's `drops`.

_NONE, _MINIMAL, _LOW, _MEDIUM, _HIGH, _XHIGH, _MAX = range(pb.REASONING_EFFORT_NONE, pb.REASONING_EFFORT_MAX + 1)
_BUDGETS = {_NONE: 0, _MINIMAL: 1024, _LOW: 1024, _MEDIUM: 8192, _HIGH: 24576, _XHIGH: 24576, _MAX: 24576}
_LEVELS = {
    _NONE: "LOW", _MINIMAL: "LOW", _LOW: "LOW", _MEDIUM: "MEDIUM", _HIGH: "HIGH", _XHIGH: "HIGH", _MAX: "HIGH"
}  # fmt: skip
#: As Google's OpenAI-compatible API maps them. Not every model can stop thinking, nor be told to think least:
#: it then gets the least that it takes. https://ai.google.dev/gemini-api/docs/openai
_THINKING: tuple[tuple[str, str, Mapping[int, Any]], ...] = (
    (r"gemini-([01]|2\.0)|gemma|learnlm", "", {}),
    (r"gemini-2\.5-pro", "thinkingBudget", {**_BUDGETS, _NONE: 128}),
    (r"gemini-2\.5", "thinkingBudget", _BUDGETS),
    (r"gemini-3(\.[0-6])?-flash", "thinkingLevel", {**_LEVELS, _NONE: "MINIMAL", _MINIMAL: "MINIMAL"}),
    ("", "thinkingLevel", _LEVELS),
)
#: Before Gemini 3: no JSON mode beside tools, no media inside a function's response, and no need of signatures.
_OLD = re.compile(r"gemini-[012]|gemma|learnlm")
#: Before Gemini 2.5: no VALIDATED mode. Nor is there one in Vertex AI's v1.
_OLDER = re.compile(r"gemini-([01]|2\.0)|gemma|learnlm")


def body(request: pb.ChatCompletionRequest, endpoint: Endpoint) -> dict[str, Any]:
    """The request's JSON. Raises InvalidRequest for what Gemini has no word for."""
    model = endpoint.model.rpartition("/")[2]
    vertex = endpoint.vendor.type == "vertex"
    contents = Contents(old=bool(_OLD.match(model)), ids=not vertex)
    contents.add_all(request)
    out: dict[str, Any] = {"contents": contents.contents}
    if contents.system:
        out["systemInstruction"] = {"parts": contents.system}
    _add_tools(out, request, validated=not vertex and not _OLDER.match(model))
    config = out["generationConfig"] = _generation_config(request, endpoint, model)
    if not vertex:
        if request.HasField("store"):
            out["store"] = request.store
        if request.service_tier in TIERS:
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
    if request.reasoning_effort in efforts:
        thinking = config["thinkingConfig"] = {field: efforts[request.reasoning_effort]}
        if request.reasoning_effort != _NONE:
            thinking["includeThoughts"] = True


def _add_format(config: dict[str, Any], request: pb.ChatCompletionRequest, model: str) -> None:
    format_ = request.response_format
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return
    if which == "other_json":
        raise unsupported("Gemini knows text, json_object and json_schema.", "response_format.type")
    if (request.tools or request.HasField("web_search_options")) and _OLD.match(
        model
    ):  # "... with a response mime type: 'application/json' is unsupported"
        raise unsupported("Before Gemini 3 there is no JSON mode beside tools.", "response_format")
    config["responseMimeType"] = "application/json"
    if format_.json_schema.HasField("schema_json"):
        config["responseJsonSchema"] = gemini_schema.adapt(json_object(format_.json_schema.schema_json))


def _add_modalities(config: dict[str, Any], request: pb.ChatCompletionRequest) -> None:
    """Speech models give speech alone; image models want to be asked for text and images."""
    wanted = list(request.modalities)
    if "audio" in wanted:
        if request.audio.format != "pcm16":
            raise unsupported("Gemini speaks in pcm16 only.", "audio.format")
        config["responseModalities"] = ["AUDIO"]
        voice = {"prebuiltVoiceConfig": {"voiceName": request.audio.voice}}
        config["speechConfig"] = {"voiceConfig": voice}
    elif wanted not in ([], ["text"]):
        config["responseModalities"] = [kind.upper() for kind in wanted]


# Tools

_MODES = {
    pb.TOOL_CHOICE_MODE_NONE: "NONE",
    pb.TOOL_CHOICE_MODE_AUTO: "AUTO",
    pb.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}


def _add_tools(out: dict[str, Any], request: pb.ChatCompletionRequest, *, validated: bool) -> None:
    """`validated`: there is the mode of this name, which is AUTO with calls held to their schemas.

    https://ai.google.dev/gemini-api/docs/function-calling
    """
    config, only = _calling_config(request.tool_choice)
    functions = [tool.function for tool in request.tools if tool.HasField("function")]
    if only is not None:
        functions = [function for function in functions if function.name in only]
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
        raise unsupported(f"Gemini has no tool of the type {type_[:40]!r}.", path)
    return {name: tool.get(type_) or tool.get(name) or {}}


def _calling_config(choice: pb.ToolChoice) -> tuple[dict[str, Any], list[str] | None]:
    """Which functions may or must be called; and the only ones to declare, where it is some."""
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
                return {"mode": "AUTO"}, names
    raise unsupported("Gemini knows choices among functions only.", "tool_choice")


def _names_function(tool: Any) -> bool:
    match tool:
        case {"type": "function", "function": {"name": str()}}:
            return True
    return False
