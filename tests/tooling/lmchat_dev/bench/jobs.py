"""Messages between the benchmark and its load generators, one line of JSON each."""

from __future__ import annotations

from typing import Literal

import msgspec

Api = Literal["rest", "grpc"]

SYSTEM = "You are a helpful assistant. Answer in one short paragraph."
QUESTION = "Explain in plain words what a gateway between an application and a language model is for."


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of load: `concurrency` callers, each of which makes one call after the other."""

    api: Api
    port: int
    path: str = "/api/v1/chat/completions"
    headers: dict[str, str] = {}
    model: str
    stream: bool = False
    concurrency: int = 1
    turns: int = 1
    """Messages of the conversation, after the system's."""
    min_events: int = 0
    """The fewest events of a complete stream."""
    ramp_up: float = 0.0
    """Seconds over which the callers begin."""
    endless: bool = False
    """The streams have no end: they are cancelled when the slice is over."""


class Window(msgspec.Struct, frozen=True):
    """The measured interval: from `begin` to `end`, seconds of the monotonic clock."""

    begin: float
    end: float


class Tally(msgspec.Struct, kw_only=True):
    """What was received in the window. Times are milliseconds; errors are of the whole slice."""

    requests: int = 0
    events: int = 0
    reads: int = 0
    """Reads that brought events."""
    latencies: list[float] = []
    first_tokens: list[float] = []
    """From sending to the first content."""
    gaps: list[float] = []
    """Between one read of a stream that brought events and the next."""
    open: int = 0
    """Streams that had begun and not ended when the window closed."""
    unfinished: int = 0
    """Calls that had not finished FINISH_TIMEOUT after the window."""
    errors: int = 0
    problems: list[str] = []
    """Some of the errors, each kind once."""
    busy: float = 0.0
    """CPU seconds per second that the generator itself used."""


def conversation(turns: int) -> list[tuple[str, str]]:
    """Role and text of each message. From two turns on, half a kilobyte each, as long chats have."""
    if turns <= 1:
        return [("system", SYSTEM), ("user", QUESTION)]
    filler = (QUESTION + " ") * 8
    roles = ("user", "assistant")
    return [
        ("system", SYSTEM),
        *((roles[turn % 2], f"{turn}: {filler}"[:500]) for turn in range(turns - 1)),
        ("user", QUESTION),
    ]


def body(model: str, *, stream: bool, turns: int = 1) -> bytes:
    """The JSON of a request."""
    messages = [{"role": role, "content": text} for role, text in conversation(turns)]
    request: dict[str, object] = {"model": model, "messages": messages, "temperature": 0.7}
    if stream:
        request["stream"] = True
    return msgspec.json.encode(request)
