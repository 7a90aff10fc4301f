"""The `lmchat` object of a request: the gateway's own options, parsed and written."""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import fields as f

_SORT = f.names(pb.RoutingSort, "ROUTING_SORT_")
_SORT_WORDS = f.words(_SORT)

_ROUTING: f.Fields = {
    "prefer": f.texts("prefer"),
    "only": f.texts("only"),
    "ignore": f.texts("ignore"),
    "allow_fallbacks": f.boolean("allow_fallbacks"),
    "max_provider_tries": f.integer("max_provider_tries", 1, 100),
    "sort": f.enum("sort", _SORT),
    "require_parameters": f.boolean("require_parameters"),
    "models": f.texts("models"),
    "resume_streams": f.boolean("resume_streams"),
}
_OPTIONS: f.Fields = {"routing": f.message("routing", _ROUTING, None), "debug": f.texts("debug")}


def fill_options(options: pb.RequestOptions, value: Any) -> None:
    """Set `options` from JSON. Unknown fields are errors, since a directive must not be ignored."""
    f.fill(options, value, _OPTIONS, None)


def dump_options(options: pb.RequestOptions) -> dict[str, Any]:
    """The JSON object, for clients of a gateway."""
    out: dict[str, Any] = {}
    if options.HasField("routing"):
        routing = out["routing"] = {}
        for field, value in options.routing.ListFields():
            is_list = field.name in ("prefer", "only", "ignore", "models")
            routing[field.name] = list(value) if is_list else _SORT_WORDS[value] if field.name == "sort" else value
    if options.debug:
        out["debug"] = list(options.debug)
    return out
