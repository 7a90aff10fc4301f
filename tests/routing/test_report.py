"""Reports are equal in JSON and as the contract's message."""

from __future__ import annotations

import json

import msgspec
import pytest

from server.chat.openai_json.response_objects import dump_report
from server.errors import AttemptRecord, SkippedRecord
from server.routing.report import Report

ATTEMPTS = [AttemptRecord("a", "m", 503, "overloaded", 12), AttemptRecord("b", "m", 200, "ok", 345)]
SKIPPED = [SkippedRecord("c", "m", "in `ignore`")]


@pytest.mark.parametrize(
    ("report", "keys"),
    [
        (Report("a", 1, [], "stop"), set()),
        (Report("a", 1, ["seed", "top_k"], ""), set()),
        (Report("b", 2, [], "end_turn", ATTEMPTS), {"attempts"}),
        (Report("b", 2, [], "stop", ATTEMPTS, SKIPPED, resumed=True), {"attempts", "skipped", "resumed"}),
    ],
)
def test_both_forms_agree(report: Report, keys: set[str]) -> None:
    shown = json.loads(msgspec.json.encode(report))
    assert shown.keys() == {"provider", "tries", "dropped_params", "native_finish_reason"} | keys
    assert shown == dump_report(report.to_proto())
