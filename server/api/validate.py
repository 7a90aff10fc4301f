"""Validates typed requests by the rules of the JSON parser (chat/openai_json)."""

from __future__ import annotations

from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json.bounds import INTEGERS, NUMBERS
from server.chat.openai_json.fields import at, decode, kind
from server.chat.openai_json.request import check_logprobs
from server.errors import InvalidRequest

_BOUNDS = NUMBERS | INTEGERS
#: Fields of JSON text that hold what the contract does not know of an object.
_UNKNOWN_FIELDS = frozenset({"extra_json", "extra_body_json"})


def validate(request: pb.ChatCompletionRequest, *, large: bool = False) -> None:
    """Raise InvalidRequest with the path of the first invalid field. `large`: its JSON texts may be, too."""
    limits.check_typed(request)
    if not request.model:
        raise InvalidRequest("Required: the id of a model; Models.ListModels lists them.", "model")
    if not request.messages:
        raise InvalidRequest("Required: at least one message.", "messages")
    for field, value in request.ListFields():
        bounds = _BOUNDS.get(field.name)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            raise InvalidRequest(f"Must be between {bounds[0]:g} and {bounds[1]:g}, got {value:g}.", field.name)
    for token, bias in request.logit_bias.items():
        if not -100 <= bias <= 100:
            raise InvalidRequest(f"Must be between -100 and 100, got {bias:g}.", f"logit_bias.{token}")
    check_logprobs(request)
    if request.HasField("lmchat") and request.lmchat.routing.HasField("max_provider_tries"):
        tries = request.lmchat.routing.max_provider_tries
        if not 1 <= tries <= 100:
            raise InvalidRequest(f"Must be between 1 and 100, got {tries}.", "lmchat.routing.max_provider_tries")
    for index, message in enumerate(request.messages):
        try:
            _message(message)
        except InvalidRequest as error:
            raise at(at(error, index), "messages") from None
    for index, tool in enumerate(request.tools):
        if not tool.function.name and not tool.HasField("other_json"):
            raise InvalidRequest("Required.", f"tools[{index}].function.name")
    json_fields: list[tuple[str, str]] = []
    _walk(request, "", json_fields)
    if large:
        limits.check_texts(text for _, text in json_fields)
    for path, text in json_fields:
        _json_object(text, path)


def _message(message: pb.Message) -> None:
    if not message.role:
        raise InvalidRequest("Required.", "role")
    if message.role != pb.ROLE_ASSISTANT and not message.content:
        raise InvalidRequest("Required: at least one content part.", "content")
    if message.role == pb.ROLE_TOOL and not message.tool_call_id:
        raise InvalidRequest("Required on a tool message.", "tool_call_id")
    for index, part in enumerate(message.content):
        if part.WhichOneof("part") is None:
            raise InvalidRequest("A content part must hold something.", f"content[{index}]")
        if part.HasField("image_url") and not part.image_url.url:
            raise InvalidRequest("Required.", f"content[{index}].image_url.url")


def _walk(msg: Any, path: str, json_fields: list[tuple[str, str]]) -> None:
    """Check that every enum has a number of this contract, and list the fields of JSON text with their paths."""
    for field, value in msg.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        if field.message_type is None:
            if field.name.endswith("_json"):
                json_fields.append((here, value))
            elif field.enum_type is not None and value not in field.enum_type.values_by_number:
                raise InvalidRequest(f"{field.enum_type.name} has no number {value}.", here)
        elif field.message_type.GetOptions().map_entry:
            continue
        elif field.is_repeated:
            for index, item in enumerate(value):
                _walk(item, f"{here}[{index}]", json_fields)
        else:
            _walk(value, here, json_fields)


def _json_object(value: str, path: str) -> None:
    """Check that a field of JSON text, whose name ends in `_json`, holds one JSON object."""
    try:
        obj = decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Not valid JSON: {error}", path) from None
    if obj.__class__ is not dict:
        raise InvalidRequest(f"Must hold a JSON object, holds {kind(obj)}.", path)
    if path.rpartition(".")[2] in _UNKNOWN_FIELDS and len(obj) > limits.MAX_UNKNOWN:
        raise InvalidRequest(f"At most {limits.MAX_UNKNOWN} unknown fields, got {len(obj)}.", path)
