"""Joins a stream's chunks as clients do, and checks the contract of streams.

The contract: chunks have one model, and one id and time once these are known; a choice's first chunk has the role,
and no other has; a choice has exactly one finish_reason and nothing after it; a tool call has its id on its first
piece only, its name once, and calls are numbered without gaps; usage comes once, last, on a chunk without choices.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json

Json = dict[str, Any]

#: Fields of a chunk that do not replace earlier ones, and of a choice and a delta that are not appended to them.
_CHUNK = frozenset({"id", "object", "created", "model", "choices", "usage"})
_CHOICE = frozenset({"index", "delta", "finish_reason"})
_DELTA = frozenset({"role", "tool_calls", "audio"})
#: Texts that every piece repeats in full.
_WORDS = frozenset({"id", "service_tier", "system_fingerprint"})


def fold(chunks: Iterable[Json]) -> Json:
    """The completion of chunks in OpenAI's JSON."""
    whole: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        assert "usage" not in whole, "something follows the usage"
        whole = whole or {"object": "chat.completion", "id": "", "created": 0, "model": "", "choices": []}
        for name in ("id", "created"):
            assert not whole[name] or chunk[name] == whole[name], f"{name} changed"
        assert not (whole["model"] and chunk["model"]) or chunk["model"] == whole["model"], "model changed"
        whole |= {name: chunk[name] or whole[name] for name in ("id", "created", "model")}
        if chunk.get("usage") is not None:
            assert not chunk["choices"], "usage beside choices"
            whole["usage"] = chunk["usage"]
        beside = {name: value for name, value in chunk.items() if name not in _CHUNK}
        whole |= {name: value for name, value in beside.items() if value is not None or name not in whole}
        for piece in chunk["choices"]:
            _add_choice(choices, piece)
    assert all(choice["finish_reason"] for choice in choices.values()), "a choice without a finish_reason"
    assert choices, "no choice"
    whole["choices"] = [choices[index] for index in sorted(choices)]
    return whole


def fold_messages(chunks: Iterable[pb.ChatCompletionChunk]) -> pb.ChatCompletion:
    """The same of the contract's chunks."""
    return openai_json.parse_completion(fold(openai_json.dump_chunk(c, include_usage=False) for c in chunks))


def _add_choice(choices: dict[int, Json], piece: Json) -> None:
    delta, index = piece["delta"], piece["index"]
    assert (delta.get("role") == "assistant") == (index not in choices), "the role comes first, and once"
    assert "role" not in delta or delta["role"] == "assistant"
    if index not in choices:
        message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        choices[index] = {"index": index, "message": message, "logprobs": None, "finish_reason": None}
    choice = choices[index]
    assert choice["finish_reason"] is None, "something follows the finish_reason"
    choice["finish_reason"] = piece["finish_reason"]
    _add(choice, piece, _CHOICE)
    _add(choice["message"], delta, _DELTA)
    for call in delta.get("tool_calls", ()):
        _add_call(choice["message"].setdefault("tool_calls", []), call)
    if "audio" in delta:
        _add_audio(choice["message"].setdefault("audio", {}), delta["audio"])


def _add_call(calls: list[Json], piece: Json) -> None:
    index, kind = piece["index"], "custom" if "custom" in piece else "function"
    assert index <= len(calls), "calls are numbered with a gap"
    assert bool(piece.get("id")) == (index == len(calls)), "a call's id comes first, and once"
    if index == len(calls):
        calls.append({"id": piece["id"], "type": piece["type"]})
    inner = piece.get(kind, {})
    if kind in piece:
        known = calls[index].setdefault(kind, {"name": ""})
        assert not (known["name"] and inner.get("name")), "a call's name comes once"
        _add(known, inner)
    _add(calls[index], piece, frozenset({"index", "id", "type", kind}))


def _add_audio(audio: Json, piece: Json) -> None:
    """Audio is base64: pieces after padding are joined as bytes."""
    data = audio.get("data", "")
    _add(audio, piece, _WORDS)
    audio |= {name: piece[name] for name in _WORDS & piece.keys()}
    if data.endswith("=") and piece.get("data"):
        audio["data"] = base64.b64encode(
            base64.b64decode(data) + base64.b64decode(piece["data"].encode())
        ).decode()


def _add(whole: Json, piece: Json, but: frozenset[str] = frozenset()) -> None:
    """Add the fields of `piece` that are not in `but`: texts and lists are appended, all else is replaced."""
    for key, value in piece.items():
        known = whole.get(key)
        if key in but:
            continue
        if value is None:
            whole.setdefault(key, None)
        elif key == "logprobs" and known is not None:
            _add(known, value)
        elif key not in _WORDS and (_both(str, known, value) or _both(list, known, value)):
            whole[key] = known + value
        else:
            whole[key] = value


def _both(kind: type, one: Any, other: Any) -> bool:
    return isinstance(one, kind) and isinstance(other, kind)
