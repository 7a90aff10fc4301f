"""Chat-completions requests: OpenAI's JSON to `ChatCompletionRequest` and back.

Both directions know the same fields, so `parse(dump(r)) == r`. The deprecated
`functions`, `function_call` and the `function` role are read as tools; the REST
API turns the answer back (see legacy.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json import fields as f
from server.chat.openai_json.bounds import INTEGERS, NUMBERS
from server.chat.openai_json.messages import content, dump_content, dump_message, message, tie_legacy_calls
from server.chat.openai_json.options import fill_options
from server.chat.openai_json.request_fields import REASONING_EFFORTS, VERBOSITIES
from server.chat.openai_json.surrogates import with_whole_pairs
from server.chat.openai_json.tools import (
    dump_tool,
    dump_tool_choice,
    legacy_choice,
    legacy_functions,
    tool,
    tool_choice,
)
from server.errors import InvalidRequest

_VERBOSITY_WORDS = f.words(VERBOSITIES)
_EFFORT_WORDS = f.words(REASONING_EFFORTS)
#: OpenAI requires a name for a schema; this is the default.
_SCHEMA_NAME = "response"


class Parsed(NamedTuple):
    """A request from the REST API: the typed message, and what only REST requests have."""

    request: pb.ChatCompletionRequest
    stream: bool
    #: The caller used `functions`; it expects `function_call` in the answer.
    legacy_functions: bool


_SCHEMA: f.Fields = {
    "name": f.text("name"),
    "description": f.text("description"),
    "schema": f.json_text("schema_json"),
    "strict": f.boolean("strict"),
}


def _response_format(msg: pb.ChatCompletionRequest, value: Any) -> None:
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    format_ = msg.response_format
    match value.get("type"):
        case "text":
            format_.text.SetInParent()
        case "json_object" if value.get("schema").__class__ is dict:
            # The form of llama.cpp, Together, Fireworks and others; converted to the equivalent json_schema.
            format_.json_schema.name = _SCHEMA_NAME
            format_.json_schema.schema_json = f.encode_text(value["schema"])
        case "json_object":
            format_.json_object.SetInParent()
        case "json_schema":
            if value.get("json_schema") is None:
                raise InvalidRequest("Required.", "json_schema")
            f.fill(format_, value, {"json_schema": f.message("json_schema", _SCHEMA)}, None, skip="type")
        case str() as other if other:  # a vendor's own: grammar, regex, structural_tag, ...
            format_.other_json = f.encode_text(value)
        case other:
            raise InvalidRequest(f"Expected a string, got {f.kind(other)}.", "type")


def _dump_response_format(format_: pb.ResponseFormat) -> dict[str, Any]:
    which = format_.WhichOneof("format") or "text"
    if which == "other_json":
        return f.load(format_.other_json)
    if which != "json_schema":
        return {"type": which}
    schema = format_.json_schema
    out: dict[str, Any] = {"name": schema.name} if schema.name else {}
    if schema.HasField("description"):
        out["description"] = schema.description
    if schema.HasField("schema_json"):
        out["schema"] = f.load(schema.schema_json)
    if schema.HasField("strict"):
        out["strict"] = schema.strict
    return {"type": "json_schema", "json_schema": f.with_extra(out, schema.extra_json)}


def _stop(msg: pb.ChatCompletionRequest, value: Any) -> None:
    if value.__class__ is str:
        msg.stop.append(value)
    elif value.__class__ is list:
        f.texts("stop", limits.MAX_STOP, "sequences")(msg, value)
    else:
        raise f.wrong_type("a string or an array of strings", value)


def _logit_bias(msg: pb.ChatCompletionRequest, value: Any) -> None:
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    limits.check_length(len(value), limits.MAX_ENTRIES)
    for token, bias in value.items():
        try:
            msg.logit_bias[token] = f.as_number(bias, -100, 100)
        except InvalidRequest as error:
            raise f.at(error, token) from None


def _metadata(msg: pb.ChatCompletionRequest, value: Any) -> None:
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    limits.check_length(len(value), limits.MAX_ENTRIES)
    for key, item in value.items():
        if item.__class__ is not str:
            raise f.at(f.wrong_type("a string", item), key)
        msg.metadata[key] = item


def _voice(msg: pb.AudioOutput, value: Any) -> None:
    if value.__class__ is not str and value.__class__ is not dict:
        raise f.wrong_type("a string or an object", value)
    msg.voice = value if value.__class__ is str else f.encode_text(value)


def _prediction(msg: pb.ChatCompletionRequest, value: Any) -> None:
    msg.prediction.SetInParent()
    f.fill(msg.prediction, value, {"content": content}, skip="type")


_WEB_SEARCH: f.Fields = {
    "search_context_size": f.text("search_context_size"),
    "user_location": f.json_text("user_location_json"),
}


def _lmchat(msg: pb.ChatCompletionRequest, value: Any) -> None:
    msg.lmchat.SetInParent()
    fill_options(msg.lmchat, value)


_REQUEST: f.Fields = {
    **{name: f.number(name, *bounds) for name, bounds in NUMBERS.items()},
    **{name: f.integer(name, *bounds) for name, bounds in INTEGERS.items()},
    "model": f.required_text("model"),
    "messages": f.each("messages", message, limits.MAX_MESSAGES),
    "stop": _stop,
    "logit_bias": _logit_bias,
    "logprobs": f.boolean("logprobs"),
    "response_format": _response_format,
    "modalities": f.texts("modalities"),
    "audio": f.message("audio", {"voice": _voice, "format": f.text("format")}),
    "prediction": _prediction,
    "verbosity": f.open_enum("verbosity", VERBOSITIES),
    "reasoning_effort": f.open_enum("reasoning_effort", REASONING_EFFORTS),
    "tools": f.each("tools", tool, limits.MAX_TOOLS),
    "functions": legacy_functions,
    "tool_choice": tool_choice,
    "function_call": legacy_choice,
    "parallel_tool_calls": f.boolean("parallel_tool_calls"),
    "web_search_options": f.message("web_search_options", _WEB_SEARCH),
    "stream_options": f.message("stream_options", {"include_usage": f.boolean("include_usage")}),
    "user": f.text("user"),
    "metadata": _metadata,
    "store": f.boolean("store"),
    "service_tier": f.text("service_tier"),
    "lmchat": _lmchat,
}


def _decoded(body: bytes) -> Any:
    """The JSON value of a body; JavaScript writes text that was cut inside a character as an escape that is none.

    https://github.com/anomalyco/opencode/issues/13988 https://github.com/CherryHQ/cherry-studio/pull/20565
    """
    if not body.strip():
        raise InvalidRequest("The body is empty: send a JSON object with `model` and `messages`.")
    try:
        return f.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = str(error)
    try:
        return f.decode(with_whole_pairs(body.decode()))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"The body is not valid JSON: {problem}") from None


def parse(body: bytes) -> Parsed:
    """A request from the REST API. Raises InvalidRequest with the path of the field at fault."""
    obj = _decoded(body.removeprefix(b"\xef\xbb\xbf"))
    if obj.__class__ is not dict:
        raise InvalidRequest(f"The body must be a JSON object, got {f.kind(obj)}.")
    stream = obj.pop("stream", None)
    if stream is not None and stream.__class__ is not bool:
        raise f.at(f.wrong_type("a boolean", stream), "stream")
    request = pb.ChatCompletionRequest()
    f.fill(request, obj, _REQUEST, "extra_body_json")
    legacy = obj.get("functions") is not None
    if any("function_call" in msg or msg.get("role") == "function" for msg in obj.get("messages") or ()):
        tie_legacy_calls(request)
    for name in ("model", "messages"):
        if not getattr(request, name):
            raise InvalidRequest("Required." if name not in obj else "Must not be empty.", name)
    check_logprobs(request)
    if len(body) > limits.UNCHECKED_BYTES:
        limits.check_parts(sum(map(limits.parts, request.messages)))
    return Parsed(request, bool(stream), legacy)


def check_logprobs(request: pb.ChatCompletionRequest) -> None:
    """Raise InvalidRequest for `top_logprobs` without `logprobs`, as OpenAI does."""
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("Needs `logprobs` to be true.", "top_logprobs")


def parse_object(obj: dict[str, Any]) -> pb.ChatCompletionRequest:
    """The message of a validated request."""
    request = pb.ChatCompletionRequest()
    f.fill(request, obj, _REQUEST, "extra_body_json")
    return request


_SCALARS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
    "logprobs", "top_logprobs", "n", "seed", "parallel_tool_calls", "user", "store", "service_tier",
)  # fmt: skip
_LISTS = ("stop", "modalities")
_MAPS = ("logit_bias", "metadata")


def dump(request: pb.ChatCompletionRequest) -> dict[str, Any]:
    """OpenAI's object for a request, without `lmchat`, which is not sent to providers."""
    out: dict[str, Any] = {"model": request.model, "messages": [dump_message(m) for m in request.messages]}
    for field, value in request.ListFields():
        writer = _WRITERS.get(field.name)
        if writer is not None:
            out[field.name] = writer(value)
    if request.extra_body_json:
        f.merge_extra(out, request.extra_body_json)
    return out


def _dump_web_search(options: pb.WebSearchOptions) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if options.HasField("search_context_size"):
        out["search_context_size"] = options.search_context_size
    if options.HasField("user_location_json"):
        out["user_location"] = f.load(options.user_location_json)
    return f.with_extra(out, options.extra_json)


def _dump_audio_output(audio: pb.AudioOutput) -> dict[str, Any]:
    voice = f.load(audio.voice) if audio.voice.startswith("{") else audio.voice
    return f.with_extra({"voice": voice, "format": audio.format}, audio.extra_json)


def _dump_stream_options(options: pb.StreamOptions) -> dict[str, Any]:
    out = {"include_usage": options.include_usage} if options.HasField("include_usage") else {}
    return f.with_extra(out, options.extra_json)


_WRITERS: dict[str, Any] = {
    **{name: lambda value: value for name in _SCALARS},
    **dict.fromkeys(_LISTS, list),
    **dict.fromkeys(_MAPS, dict),
    "response_format": _dump_response_format,
    "audio": _dump_audio_output,
    "prediction": lambda p: f.with_extra({"type": "content", "content": dump_content(p.content)}, p.extra_json),
    "verbosity": _VERBOSITY_WORDS.__getitem__,
    "reasoning_effort": _EFFORT_WORDS.__getitem__,
    "tools": lambda tools: [dump_tool(item) for item in tools],
    "tool_choice": dump_tool_choice,
    "web_search_options": _dump_web_search,
    "stream_options": _dump_stream_options,
}
