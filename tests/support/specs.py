"""Validates requests against the providers' API descriptions and the services' further rules."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from tests.support import needs

Violations = list[str]


def _listed(validator: jsonschema.protocols.Validator, body: Any) -> Violations:
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(body)]


# OpenAI and Anthropic: OpenAPI


@cache
def openapi(file: str, schema: str) -> jsonschema.protocols.Validator:
    """One schema of an OpenAPI description in ../shared/specs."""
    spec = json.loads((needs.specs() / file).read_bytes())
    return jsonschema.Draft202012Validator({**spec, "$ref": f"#/components/schemas/{schema}"})


def openai(body: dict[str, Any]) -> Violations:
    """A request to /chat/completions."""
    return _listed(openapi("openai-chat.json", "CreateChatCompletionRequest"), body)


def anthropic(body: dict[str, Any]) -> Violations:
    """A request to /v1/messages."""
    return _listed(openapi("anthropic-messages.json", "CreateMessageParams"), body)


@cache
def _message() -> jsonschema.protocols.Validator:
    """Anthropic's answer; its required fields are those of the newest version, so none is required here."""

    def relaxed(node: Any) -> Any:
        if isinstance(node, list):
            return [relaxed(item) for item in node]
        if not isinstance(node, dict):
            return node
        optional = {key: relaxed(value) for key, value in node.items()}
        return optional | ({"required": ["type"]} if "type" in node.get("properties", ()) else {"required": []})

    schema = relaxed(openapi("anthropic-messages.json", "Message").schema)
    return jsonschema.Draft202012Validator(schema)


# Gemini: Google's discovery document


@cache
def _discovery(schema: str) -> jsonschema.protocols.Validator:
    """One schema of Google's as JSON Schema; unlike Google's description it refuses fields it does not know."""
    schemas = json.loads((needs.specs() / "gemini-discovery.json").read_bytes())["schemas"]

    def convert(node: Any) -> Any:
        if "$ref" in node:
            return {"$ref": f"#/$defs/{node['$ref']}"}
        out = {key: node[key] for key in ("type", "enum") if node.get(key) not in (None, "any")}
        if "properties" in node:
            out["properties"] = {name: convert(child) for name, child in node["properties"].items()}
            out["additionalProperties"] = False
        elif "additionalProperties" in node:
            out["additionalProperties"] = convert(node["additionalProperties"])
        if "items" in node:
            out["items"] = convert(node["items"])
        return out

    root = {"$ref": f"#/$defs/{schema}", "$defs": {name: convert(s) for name, s in schemas.items()}}
    return jsonschema.Draft202012Validator(root)


def gemini(body: dict[str, Any]) -> Violations:
    """A request to :generateContent."""
    return _listed(_discovery("GenerateContentRequest"), body) + list(_gemini_rules(body["contents"]))


def _gemini_rules(contents: list[dict[str, Any]]) -> Iterator[str]:
    """Google's rules for a conversation beyond its schema."""
    for index, content in enumerate(contents):
        kinds = {kind for part in content["parts"] for kind in part}
        if not content["parts"] or any(part.get("text") == "" for part in content["parts"]):
            yield f"contents[{index}] is empty or has empty text"
        if "functionResponse" in kinds and content["role"] != "user":
            yield f"contents[{index}] has results, and is the model's"
        if "functionCall" in kinds and content["role"] != "model":
            yield f"contents[{index}] has calls, and is the user's"
    for index, (content, following) in enumerate(itertools.pairwise(contents)):
        if content["role"] == following["role"]:
            yield f"contents[{index}] and the next are both the {content['role']}'s"
        calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
        results = [part["functionResponse"]["name"] for part in following["parts"] if "functionResponse" in part]
        if calls != results:
            yield f"contents[{index}] calls {calls}, and the next has results of {results}"


# Bedrock: botocore's description of the service


@cache
def bedrock_service() -> ServiceModel:
    """The description in ../shared/specs."""
    return ServiceModel(json.loads((needs.specs() / "bedrock-runtime-service-2.json").read_bytes()))


def converse(model: ServiceModel, operation: str, model_id: str, sent: dict[str, Any]) -> Violations:
    """Violations of a request by botocore's validation and the limits of the shapes."""
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    params = {"modelId": model_id, **sent}
    report = ParamValidator().validate(params, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(_limits(shape, params, "")) + list(_rules(sent))


def _limits(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Patterns, enums, upper bounds and unions, which botocore leaves to the service."""
    if getattr(shape, "is_document_type", False):
        return
    meta = shape.metadata
    if shape.type_name == "structure":
        known = shape.members
        if getattr(shape, "is_tagged_union", False) and len(value) != 1:
            yield f"{path}: {len(value)} members in a union"
        for name, item in value.items():
            if name in known:
                yield from _limits(known[name], item, f"{path}.{name}")
    elif shape.type_name == "list":
        if "max" in meta and len(value) > meta["max"]:
            yield f"{path}: {len(value)} items"
        for index, item in enumerate(value):
            yield from _limits(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _limits(shape.key, key, f"{path}.{key}")
            yield from _limits(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not one of {shape.enum}"
        if "max" in meta and len(value) > meta["max"]:
            yield f"{path}: too long"
        if "pattern" in meta and not re.fullmatch(meta["pattern"], value):
            yield f"{path}: {value!r} does not match {meta['pattern']}"
    elif "max" in meta and shape.type_name in ("integer", "float") and value > meta["max"]:
        yield f"{path}: {value} is more than {meta['max']}"


def _rules(sent: dict[str, Any]) -> Iterator[str]:
    """Rules of the service beyond the shapes."""
    messages = sent["messages"]
    roles = [message["role"] for message in messages]
    if roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
        yield f"roles do not alternate: {roles}"
    names: list[str] = []
    for index, message in enumerate(messages):
        content = message["content"]
        kinds = [kind for block in content for kind in block]
        if not content:
            yield f"messages[{index}] is empty"
        if any(not block["text"].strip() for block in content if "text" in block):
            yield f"messages[{index}] has blank text"
        if "document" in kinds and "text" not in kinds:
            yield f"messages[{index}] has a document and no text"
        others = [kind for kind in kinds if kind != "cachePoint"]
        if "toolResult" in others[others.count("toolResult") :]:
            yield f"messages[{index}] has results after other content"
        if {"toolUse", "toolResult"} & set(kinds) and "toolConfig" not in sent:
            yield "toolConfig is missing"
        inner = [b for block in content if "toolResult" in block for b in block["toolResult"]["content"]]
        names += [block["document"]["name"] for block in [*content, *inner] if "document" in block]
    if len(names) != len({name.lower() for name in names}):
        yield f"document names are not unique: {names}"
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9\-()\[\]]+( [A-Za-z0-9\-()\[\]]+)*", name):
            yield f"bad document name {name!r}"
    for tool in sent.get("toolConfig", {}).get("tools", []):
        if "toolSpec" in tool and tool["toolSpec"]["inputSchema"]["json"].get("type") != "object":
            yield "an inputSchema is no object's"


def bedrock(body: dict[str, Any]) -> Violations:
    """A request to Converse or ConverseStream."""
    model = bedrock_service()
    return [found for name in ("Converse", "ConverseStream") for found in converse(model, name, "m", body)]


def _converse_answer(body: dict[str, Any]) -> Violations:
    shape = bedrock_service().operation_model("Converse").output_shape
    assert shape is not None
    report = ParamValidator().validate(body, shape)
    return [report.generate_report()] if report.has_errors() else list(_limits(shape, body, ""))


#: By dialect: the violations of a request's body.
VIOLATIONS: Mapping[str, Callable[[dict[str, Any]], Violations]] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
}

#: By dialect: the violations of an answer's body.
ANSWER_VIOLATIONS: Mapping[str, Callable[[dict[str, Any]], Violations]] = {
    "openai": lambda body: _listed(openapi("openai-chat.json", "CreateChatCompletionResponse"), body),
    "anthropic": lambda body: _listed(_message(), body),
    "gemini": lambda body: _listed(_discovery("GenerateContentResponse"), body),
    "bedrock": _converse_answer,
}
