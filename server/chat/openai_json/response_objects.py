"""Parts of completions and chunks in OpenAI's JSON: usage, log probabilities, the gateway's routing report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from lmchat.v1 import chat_pb2 as pb

from server.chat import limits
from server.chat.openai_json import fields as f
from server.errors import InvalidRequest


def count(name: str) -> f.Setter:
    """A token count or a time; some vendors send floats, or numbers as strings."""

    def set_count(msg: Any, value: Any) -> None:
        if value.__class__ is str or value.__class__ is float:
            try:
                value = int(float(value))
            except (ValueError, OverflowError):
                raise f.wrong_type("an integer", value) from None
        if value.__class__ is not int or not -f.INT64_MAX <= value <= f.INT64_MAX:
            raise f.wrong_type("an integer", value)
        setattr(msg, name, value)

    return set_count


# Usage

_PROMPT_DETAILS: f.Fields = {
    n: count(n)
    for n in ("cached_tokens", "audio_tokens", "cache_write_tokens", "text_tokens", "image_tokens", "video_tokens")
}
_COMPLETION_DETAILS: f.Fields = {
    n: count(n)
    for n in (
        "reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
        "text_tokens", "image_tokens",
    )
}  # fmt: skip
_DETAILS: Mapping[Literal["prompt_tokens_details", "completion_tokens_details"], f.Fields] = {
    "prompt_tokens_details": _PROMPT_DETAILS,
    "completion_tokens_details": _COMPLETION_DETAILS,
}
USAGE: f.Fields = {
    **{n: count(n) for n in ("prompt_tokens", "completion_tokens", "total_tokens")},
    **{name: f.message(name, fields) for name, fields in _DETAILS.items()},
}


def _dump_details(details: Any, names: Iterable[str]) -> dict[str, Any]:
    out = {name: getattr(details, name) for name in names if details.HasField(name)}
    if details.extra_json:
        f.merge_extra(out, details.extra_json)
    return out


def dump_usage(usage: pb.Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    out: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    for name, fields in _DETAILS.items():
        if usage.HasField(name):
            out[name] = _dump_details(getattr(usage, name), fields)
    if usage.extra_json:
        f.merge_extra(out, usage.extra_json)
    return out


# Log probabilities


_TOKEN = frozenset({"token", "logprob", "bytes", "top_logprobs"})


def _token(msg: pb.TokenLogprob, value: Any) -> None:
    if value.__class__ is not dict:
        raise f.wrong_type("an object", value)
    try:
        msg.token = value.get("token") or ""
        msg.logprob = value["logprob"]
        if value.get("bytes") is not None:
            msg.bytes = bytes(iter(value["bytes"]))  # bytes(int) would return zeros
        if not value.keys() <= _TOKEN:  # such as a token's id
            rest = {name: item for name, item in value.items() if name not in _TOKEN}
            limits.check_unknown(len(rest))
            msg.extra_json = f.encode_text(rest)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidRequest("Expected a token, its logprob and its bytes.") from None


def _position(msg: pb.TokenLogprob, value: Any) -> None:
    """A token with its most likely alternatives."""
    _token(msg, value)
    if value.get("top_logprobs") is not None:
        try:
            _alternatives(msg, value["top_logprobs"])
        except InvalidRequest as error:
            raise f.at(error, "top_logprobs") from None


_alternatives = f.each("top_logprobs", _token)
#: Tokens of an answer; in answers the number of all values is limited.
LOGPROBS: f.Fields = {name: f.each(name, _position, limits.MAX_ANSWER_VALUES) for name in ("content", "refusal")}


def _dump_token(token: pb.TokenLogprob) -> dict[str, Any]:
    out = {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.bytes) if token.HasField("bytes") else None,
    }
    return f.with_extra(out, token.extra_json)


def _dump_tokens(tokens: Any) -> list[dict[str, Any]] | None:
    rows = [_dump_token(t) | {"top_logprobs": [_dump_token(a) for a in t.top_logprobs]} for t in tokens]
    return rows or None


def dump_logprobs(choice: pb.Choice | pb.ChunkChoice) -> dict[str, Any] | None:
    """OpenAI's logprobs object; None where the choice has none."""
    if not choice.HasField("logprobs"):
        return None
    out: dict[str, Any] = {
        "content": _dump_tokens(choice.logprobs.content),
        "refusal": _dump_tokens(choice.logprobs.refusal),
    }
    if choice.logprobs.extra_json:
        f.merge_extra(out, choice.logprobs.extra_json)
    return out


# The gateway's report

_SKIPPED: f.Fields = {name: f.text(name) for name in ("provider", "model", "reason")}
_ATTEMPT: f.Fields = {**_SKIPPED, **{name: f.integer(name, 0, f.INT32_MAX) for name in ("status", "ms")}}
REPORT: f.Fields = {
    "provider": f.text("provider"),
    "tries": f.integer("tries", 0, f.INT32_MAX),
    "native_finish_reason": f.text("native_finish_reason"),
    "dropped_params": f.texts("dropped_params"),
    "attempts": f.each("attempts", lambda msg, value: f.fill(msg, value, _ATTEMPT, None)),
    "skipped": f.each("skipped", lambda msg, value: f.fill(msg, value, _SKIPPED, None)),
    "resumed": f.boolean("resumed"),
    "native_model": f.text("native_model"),
}


def dump_report(report: pb.RoutingReport) -> dict[str, Any]:
    """The `lmchat` object of a completion."""
    out: dict[str, Any] = {
        "provider": report.provider,
        "tries": report.tries,
        "native_finish_reason": report.native_finish_reason,
        "dropped_params": list(report.dropped_params),
    }
    if report.attempts:
        out["attempts"] = [
            {"provider": a.provider, "model": a.model, "status": a.status, "reason": a.reason, "ms": a.ms}
            for a in report.attempts
        ]
    if report.skipped:
        out["skipped"] = [{"provider": s.provider, "model": s.model, "reason": s.reason} for s in report.skipped]
    if report.resumed:
        out["resumed"] = True
    if report.native_model:
        out["native_model"] = report.native_model
    return out
