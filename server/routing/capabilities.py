"""What requests need and what endpoints drop: pure functions over the capability tables.

A tuning knob an endpoint lacks is left out and reported; a feature the answer
depends on makes the endpoint unfit. Which is which is decided here, once.
"""

from __future__ import annotations

from typing import TypeVar

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.openai_json import ChatRequest, PlainRequest
from server.dialects.base import Endpoint

#: Fields that may be left out without changing what the answer is.
KNOBS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "top_logprobs", "seed", "user", "metadata", "store", "service_tier", "verbosity",
        "reasoning_effort", "prediction", "parallel_tool_calls", "web_search_options", "stop",
    }
)  # fmt: skip

#: What an answer can depend on.
FEATURES = frozenset(
    {
        "tools",
        "json_object",
        "json_schema",
        "image",
        "audio",
        "file",
        "other_parts",
        "other_tools",
        "n",
        "audio_output",
    }
)

R = TypeVar("R", pb.ChatCompletionRequest, PlainRequest, ChatRequest)

_NOTHING: frozenset[str] = frozenset()
_TOOLS = frozenset({"tools"})
_PARTS = {"image_url": "image", "input_audio": "audio", "file": "file", "other_json": "other_parts"}
_FORMATS = {"json_object": "json_object", "json_schema": "json_schema", "other_json": "json_schema"}


def needs(request: ChatRequest) -> frozenset[str]:
    """The features of FEATURES that an answer to `request` depends on."""
    if isinstance(request, PlainRequest):
        return _TOOLS if request.fields.tools else _NOTHING
    found = set()
    for message in request.messages:
        for part in message.content:
            which = part.WhichOneof("part")
            if which in _PARTS:
                found.add(_PARTS[which])
    for tool in request.tools:
        found.add("tools" if tool.HasField("function") else "other_tools")
    if request.HasField("response_format"):
        which_format = request.response_format.WhichOneof("format")
        if which_format in _FORMATS:
            found.add(_FORMATS[which_format])
    if request.n > 1:
        found.add("n")
    if "audio" in request.modalities:
        found.add("audio_output")
    return frozenset(found)


def dropped(request: ChatRequest, endpoint: Endpoint) -> list[str]:
    """Parameters of `request` that `endpoint` does not honour, by their names in JSON."""
    drops = endpoint.drops
    if isinstance(request, PlainRequest):
        return [name for name in request.names() if name in drops] if drops else []
    names = [field.name for field, _ in request.ListFields() if field.name in drops] if drops else []
    if request.extra_body_json and (endpoint.extra_body is not None or drops):
        extra = openai_json.decode_json(request.extra_body_json)
        names += [
            name
            for name in extra
            if name in drops or (endpoint.extra_body is not None and name not in endpoint.extra_body)
        ]
    return names


def without(request: R, names: list[str]) -> R:
    """`request` less the parameters in `names`; the same object when there are none."""
    if not names:
        return request
    if isinstance(request, PlainRequest):
        return request.without(names)
    stripped = pb.ChatCompletionRequest()
    stripped.CopyFrom(request)
    fields = pb.ChatCompletionRequest.DESCRIPTOR.fields_by_name
    for name in names:
        if name in fields:
            stripped.ClearField(name)  # type: ignore[arg-type]
    if request.extra_body_json:
        extra = openai_json.decode_json(request.extra_body_json)
        kept = {name: value for name, value in extra.items() if name not in names}
        stripped.extra_body_json = openai_json.encode_text(kept) if kept else ""
    return stripped
