"""Response bodies of the OpenAI dialect, of realistic form and size; cached."""

from __future__ import annotations

from functools import lru_cache
from itertools import cycle, islice

import msgspec

WORDS = (
    " The",
    " gate",
    "way",
    " passes",
    " every",
    " token",
    " on",
    ",",
    " as",
    " soon",
    " as",
    " it",
    " is",
    " there",
    ".",
)
"""About one token each."""

DONE = b"data: [DONE]\n\n"

_MODEL = "gpt-4o-mini-2024-07-18"
_CREATED = 1_750_000_000
_FINGERPRINT = "fp_62a23a81ef"


def usage(tokens: int) -> dict[str, object]:
    """The usage object of a call with so many completion tokens."""
    return {
        "prompt_tokens": 27,
        "completion_tokens": tokens,
        "total_tokens": 27 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


@lru_cache(64)
def completion(tokens: int) -> bytes:
    """A whole answer, as JSON."""
    message = {"role": "assistant", "content": "".join(islice(cycle(WORDS), tokens)), "refusal": None}
    return msgspec.json.encode(
        {
            "id": "chatcmpl-BqF3uT0q7ZyVb1mXcKdLe5RsWn2Ao",
            "object": "chat.completion",
            "created": _CREATED,
            "model": _MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage(tokens),
            "service_tier": "default",
            "system_fingerprint": _FINGERPRINT,
        }
    )


@lru_cache(64)
def events(tokens: int, *, with_usage: bool = False) -> tuple[bytes, ...]:
    """The events of a streamed answer: role, one for each token, finish, usage with `with_usage`, [DONE]."""
    found = [_event({"role": "assistant", "content": "", "refusal": None}, None, with_usage=with_usage)]
    by_word = {word: _event({"content": word}, None, with_usage=with_usage) for word in WORDS}
    found += [by_word[word] for word in islice(cycle(WORDS), tokens)]
    found.append(_event({}, "stop", with_usage=with_usage))
    if with_usage:
        found.append(_data({**_envelope(), "choices": [], "usage": usage(tokens)}))
    return (*found, DONE)


def error(status: int) -> bytes:
    """The body of an error with this HTTP status; streams carry it as an event's data."""
    kind = {429: "rate_limit_exceeded", 400: "invalid_request_error"}.get(status, "server_error")
    message = f"The mock fails with {status}, as the model's name requests."
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": kind}})


def grouped(pieces: tuple[bytes, ...], size: int) -> list[bytes]:
    """`pieces` joined, `size` at a time."""
    return [b"".join(pieces[at : at + size]) for at in range(0, len(pieces), size)]


def _event(delta: dict[str, object], finish: str | None, *, with_usage: bool) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data({**_envelope(), "choices": [choice], **({"usage": None} if with_usage else {})})


def _envelope() -> dict[str, object]:
    return {
        "id": "chatcmpl-BqF3uT0q7ZyVb1mXcKdLe5RsWn2Ao",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": _MODEL,
        "service_tier": "default",
        "system_fingerprint": _FINGERPRINT,
    }


def _data(obj: object) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(obj)
