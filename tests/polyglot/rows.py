"""What rows of the table of scenarios are made of: the provider's answers and the lines that clients print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.faults import Behaviour, Call, chunk

Json = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One row of the matrix."""

    name: str
    #: What the client sends.
    request: str
    #: The provider's answers in turn; the last one is repeated.
    provider: Sequence[Behaviour]
    #: What the client prints.
    printed: Sequence[Json]
    #: The number of calls that reach the provider.
    calls: int = 1
    #: Fields of the last call's body.
    body: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the provider waits after its first token until the client has printed it.
    held: bool = False
    #: Whether the client ends the call before the provider has answered.
    closed: bool = False


def done(
    content: str = "",
    *,
    finish_reason: str = "STOP",
    stop_sequence: str = "",
    reasoning: str = "",
    refusal: str = "",
    tool_calls: Sequence[Json] = (),
    tokens: int = 0,
    provider: str = "first",
) -> Json:
    """The line of a completion with one choice."""
    choice = {
        "content": content,
        "reasoning": reasoning,
        "refusal": refusal,
        "tool_calls": list(tool_calls),
        "finish_reason": f"FINISH_REASON_{finish_reason}",
        "stop_sequence": stop_sequence,
    }
    return {"done": {"choices": [choice], "total_tokens": tokens, "provider": provider}}


def error(code: str, reason: str, param: str = "", retry_after: float | None = None) -> Json:
    """The line of an error; `retry_after` is in seconds."""
    return {"error": {"code": code, "reason": reason, "param": param, "retry_after": retry_after}}


def tokens(*texts: str) -> list[Json]:
    """The lines of tokens."""
    return [{"token": text} for text in texts]


def events(*choices: Json) -> Behaviour:
    """A stream with one event for each of `choices`."""

    async def behave(call: Call) -> None:
        await call.head()
        for choice in choices:
            await call.event(chunk([{"index": 0, "finish_reason": None, **choice}]))
        await call.event(b"[DONE]")
        await call.end()

    return behave


def deltas(*deltas: Json, finish_reason: str = "stop") -> Behaviour:
    """A stream with the role, one event for each of `deltas`, and the finish reason."""
    end = {"delta": {}, "finish_reason": finish_reason}
    return events({"delta": {"role": "assistant", "content": None}}, *({"delta": delta} for delta in deltas), end)


def call_piece(index: int, arguments: str, **more: Any) -> Json:
    """A delta that adds to the arguments of one tool call."""
    name = {"name": more.pop("name")} if "name" in more else {}
    return {"tool_calls": [{"index": index, **more, "function": {**name, "arguments": arguments}}]}


def call_start(index: int, id_: str, name: str, **more: Any) -> Json:
    """The first delta of one tool call."""
    return call_piece(index, "", id=id_, type="function", name=name, **more)


def tool_call(id_: str, name: str, arguments: str) -> Json:
    """A tool call as clients print it."""
    return {"id": id_, "name": name, "arguments": arguments}
