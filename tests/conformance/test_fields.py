"""Callers get every field of the golden answers, or it is left out for a reason: see tests/support/kept.py."""

from __future__ import annotations

import json
from functools import cache

import pytest

from server.dialects.registry import DIALECTS
from tests.conformance.test_answers import ANSWERS, Answer, each_answer
from tests.recordings.readings import answers_in_stream
from tests.support.kept import LEFT_OUT, PLACES, Kept, completion, leaves, streamed
from tests.support.streams import written

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@each_answer
def test_a_completion_has_every_field(answer: Answer) -> None:
    sent = answer.load()["answer"]
    for served in completion(answer.dialect, json.dumps(sent).encode(), answer.fields):
        assert Kept(answer.dialect, [served]).lost(sent) == []


@each_answer
def test_a_stream_has_every_field(answer: Answer) -> None:
    body = b"".join(written(answer.dialect, answer.load()["stream"]))
    kept = Kept(answer.dialect, streamed(answer.dialect, body, answer.fields))
    sent, _ = answers_in_stream(answer.dialect, body)
    assert [lost for piece in sent for lost in kept.lost(piece)] == []


@cache
def used_rows(dialect: str) -> set[str]:
    """The rows that the goldens use."""
    used: set[str] = set()
    for [answer] in (param.values for param in ANSWERS):
        if isinstance(answer, Answer) and answer.dialect == dialect:
            golden = answer.load()
            kept = Kept(dialect, completion(dialect, json.dumps(golden["answer"]).encode(), answer.fields)[:1])
            kept.lost(golden["answer"])
            used |= kept.rows
            body = b"".join(written(dialect, golden["stream"]))
            kept = Kept(dialect, streamed(dialect, body, answer.fields))
            for piece in answers_in_stream(dialect, body)[0]:
                kept.lost(piece)
            used |= kept.rows
    return used


@each_dialect
def test_a_golden_teaches_every_row(dialect: str) -> None:
    assert {*PLACES[dialect], *LEFT_OUT[dialect]} - used_rows(dialect) == set()


@each_answer
def test_an_empty_completion_loses_all_but_what_is_left_out(answer: Answer) -> None:
    sent = answer.load()["answer"]
    kept = Kept(answer.dialect, [])
    found = {lost.path for lost in kept.lost(sent)}
    assert found
    left_out = {path for path, _ in leaves(sent)} - found
    assert all(path.startswith(tuple(LEFT_OUT[answer.dialect])) for path in left_out)
