"""The valid inputs that fuzzing begins with: the golden requests, answers and streams, and the table of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat.request import read
from server.dialects.registry import DIALECTS
from server.errors import InvalidRequest
from tests.conformance.test_errors import FAULTS
from tests.support.streams import Event

GOLDEN = Path(__file__).parents[1] / "golden"


class Answers(NamedTuple):
    """One dialect's golden answers: bodies, lists of events, bodies of errors."""

    whole: list[Any]
    streams: list[list[Event]]
    errors: list[Any]


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def requests() -> list[dict[str, Any]]:
    """The bodies of the golden REST requests."""
    return [_load(path)["request"] for path in sorted(GOLDEN.glob("requests/*/request.json"))]


@cache
def messages() -> list[pb.ChatCompletionRequest]:
    """The golden requests in their typed form, those that are valid."""
    found = []
    for body in requests():
        try:
            found.append(read(json.dumps(body).encode()).to_proto())
        except InvalidRequest:
            continue
    return found


@cache
def answers() -> Mapping[str, Answers]:
    """By dialect: its golden answers."""
    found = {name: Answers([], [], [fault.body for fault in FAULTS[name]]) for name in DIALECTS}
    for path in sorted(GOLDEN.glob("answers/*/*.json")):
        golden = _load(path)
        if path.stem in found and "none" not in golden:
            found[path.stem].whole.append(golden["answer"])
            found[path.stem].streams.append(golden["stream"])
    return found
