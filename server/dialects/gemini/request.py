"""Requests in Gemini's generateContent form. Pure.

https://ai.google.dev/api/generate-content (AI Studio)
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference (Vertex AI)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.dialects import reasoning
from server.dialects.base import Endpoint, platform_of
from server.dialects.dropped import Dropped
from server.dialects.gemini import schema as gemini_schema
from server.dialects.gemini import tools as gemini_tools
from server.dialects.gemini.contents import Contents
from server.dialects.gemini.json_object import json_object
from server.dialects.gemini.names import camel, snake
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.dialects.schemas import described
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
#: Top-level fields in `extra_body_json` that are honoured; others are left out.
EXTRA_BODY = frozenset({*_NATIVE, *map(snake, _NATIVE), "google", "extra_body"})

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


def body(request: pb.ChatCompletionRequest, endpoint: Endpoint, dropped: Dropped) -> dict[str, Any]:
    """The request's JSON. What is left out goes to `dropped`. Raises InvalidRequest for what Gemini cannot do."""
    model = _name(endpoint.model)
    platform = platform_of(endpoint, DEFAULT_PLATFORM)
    contents = Contents(dropped, old=bool(_OLD.match(model)), ids=platform.call_ids)
    contents.add_all(request)
    out: dict[str, Any] = {"contents": contents.contents}
    if contents.system:
        out["systemInstruction"] = {"parts": contents.system}
    validated = platform.validated_calls and not _OLDER.match(model)
    out |= gemini_tools.tools(request, dropped, validated=validated, combined=not _OLD.match(model))
    config = out["generationConfig"] = _generation_config(request, endpoint, model, dropped)
    if platform.store and request.HasField("store"):
        out["store"] = request.store
    if request.service_tier in TIERS:
        if not platform.tier_header:
            out["serviceTier"] = TIERS[request.service_tier]
    elif request.service_tier not in ("", "auto"):
        dropped.add("service_tier")
    for name, value in _extra_body(request, dropped).items():
        (config if _NATIVE[name] else out)[name] = value
    if not config:
        del out["generationConfig"]
    return out


def _name(model: str) -> str:
    """A model's name by its id, which may be a path."""
    return model.rpartition("/")[2]


def native_format(request: pb.ChatCompletionRequest, model: str) -> bool:
    """Whether the model has a JSON mode for this request: before Gemini 3 there is none beside tools.

    It is then a 400: "... with a response mime type: 'application/json' is unsupported".
    """
    beside_tools = request.tools or request.HasField("web_search_options")
    return not request.response_format.HasField("other_json") and not (beside_tools and _OLD.match(_name(model)))


#: OpenAI's tiers -> Google's. On Vertex AI they are a header.
#: https://ai.google.dev/gemini-api/docs/priority-inference
TIERS = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}


def _extra_body(request: pb.ChatCompletionRequest, dropped: Dropped) -> dict[str, Any]:
    """The caller's fields of _NATIVE; those further inside win. They take precedence over OpenAI's fields."""
    extra = json_object(request.extra_body_json)
    layers = [("", extra), ("google", extra.get("google"))]
    inner = extra.get("extra_body")
    layers += [("extra_body", inner), ("extra_body.google", _field(inner, "google"))]
    found: dict[str, tuple[str, Any]] = {}
    for path, layer in layers:
        names = [name for name in layer if camel(name) in _NATIVE] if isinstance(layer, dict) else []
        fields = dropped.pick_from(path, layer, {*names, "google", *(() if path else ("extra_body",))})
        for name in names:
            if fields[name] is None:
                continue
            place = f"{path}.{name}" if path else name
            if camel(name) in found:
                dropped.add(found[camel(name)][0])
            found[camel(name)] = place, fields[name]
    if "thinkingConfig" in found and request.reasoning_effort:
        dropped.add("reasoning_effort")
    if "speechConfig" in found and "audio" in request.modalities:
        dropped.add("audio.voice")
    return {name: found[name][1] for name in _NATIVE if name in found}


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


# Generation


def _generation_config(
    request: pb.ChatCompletionRequest, endpoint: Endpoint, model: str, dropped: Dropped
) -> dict[str, Any]:
    vendor = endpoint.vendor
    if len(request.stop) > vendor.max_stop:
        raise InvalidRequest(f"At most {vendor.max_stop} sequences, got {len(request.stop)}.", "stop")
    config: dict[str, Any] = {}
    for name, native in _GENERATION.items():
        value = getattr(request, name) if request.HasField(name) else vendor.defaults.get(name)  # type: ignore[arg-type]
        if value is not None:
            config[native] = value
    limits = [name for name in ("max_completion_tokens", "max_tokens") if request.HasField(name)]
    if limits:
        config["maxOutputTokens"] = getattr(request, limits[0])
    if len(limits) > 1:
        dropped.add("max_tokens")
    if request.HasField("seed"):
        config["seed"] = request.seed % 2**31  # an int32 there
    if request.stop:
        config["stopSequences"] = list(request.stop)
    _add_effort(config, request, model, dropped)
    _add_format(config, request, model, dropped)
    _add_modalities(config, request, dropped)
    return config


def _add_effort(config: dict[str, Any], request: pb.ChatCompletionRequest, model: str, dropped: Dropped) -> None:
    field, efforts = next((field, table) for pattern, field, table in _THINKING if re.match(pattern, model))
    effort = reasoning.EFFORTS.get(request.reasoning_effort, "")
    if effort in efforts:
        thinking = config["thinkingConfig"] = {field: efforts[effort]}
        if effort != "none":
            thinking["includeThoughts"] = True
    elif effort not in ("", "none"):
        dropped.add("reasoning_effort")


def _add_format(config: dict[str, Any], request: pb.ChatCompletionRequest, model: str, dropped: Dropped) -> None:
    format_ = request.response_format
    which = format_.WhichOneof("format")
    if which in (None, "text"):
        return
    if which == "other_json":
        raise unsupported("Gemini has the formats text, json_object and json_schema.", "response_format.type")
    if not native_format(request, model):
        raise unsupported("Models before Gemini 3 have no JSON mode beside tools.", "response_format")
    config["responseMimeType"] = "application/json"
    path = "response_format.json_schema"
    dropped.pick(path, format_.json_schema.extra_json)
    if format_.json_schema.HasField("schema_json"):
        schema = gemini_schema.adapt(json_object(format_.json_schema.schema_json))
        config["responseJsonSchema"] = described(schema, format_.json_schema.description)
    elif format_.json_schema.description:
        dropped.add(f"{path}.description")


def _add_modalities(config: dict[str, Any], request: pb.ChatCompletionRequest, dropped: Dropped) -> None:
    """Speech models answer in audio only; image models answer in images only when they are requested."""
    modalities = list(request.modalities)
    if request.HasField("audio") and "audio" not in modalities:
        dropped.add("audio")
    elif request.HasField("audio"):
        dropped.pick("audio", request.audio.extra_json)
    if "audio" in modalities:
        if request.audio.format != "pcm16":
            raise unsupported("Gemini's audio output is pcm16 only.", "audio.format")
        config["responseModalities"] = ["AUDIO"]
        voice = {"prebuiltVoiceConfig": {"voiceName": request.audio.voice}}
        config["speechConfig"] = {"voiceConfig": voice}
    elif modalities not in ([], ["text"]):
        config["responseModalities"] = [modality.upper() for modality in modalities]
