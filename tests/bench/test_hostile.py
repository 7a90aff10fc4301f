"""`bench hostile`: its bodies and its verdict. The run itself takes too long for a test."""

from __future__ import annotations

from collections import Counter

import pytest
from lmchat_dev.bench.hostile import HOSTILE_KINDS, Group, problems
from lmchat_dev.bench.soak_mix import Kind

from server.chat.request import read
from server.errors import InvalidRequest

BEFORE = {"worker": {7: 100, 8: 100}, "envoy": {9: 50}}


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE_KINDS if kind.name != "a long unknown model"])
def test_hostile_bodies_are_refused_by_reading_alone(kind: Kind) -> None:
    with pytest.raises(InvalidRequest):
        read(kind.raw)


def test_percentiles() -> None:
    group = Group([number / 1000 for number in range(100, 0, -1)])
    assert [round(group.p(share)) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]
    assert Group().p(0.99) == 0


@pytest.mark.parametrize(
    ("wrong", "after", "found"),
    [
        ({}, BEFORE, []),
        ({}, {"worker": {7: 1000, 8: 1}, "envoy": {9: 50}}, []),
        ({"ordinary: 503": 2}, BEFORE, ["2 x ordinary: 503 (with hostile caller)"]),
        ({}, {"worker": {7: 100, 11: 100}, "envoy": {9: 50}}, ["a process of the gateway ended"]),
    ],
)
def test_problems(wrong: dict[str, int], after: dict[str, dict[int, int]], found: list[str]) -> None:
    assert problems(Group(), Group(wrong=Counter(wrong)), Group(), BEFORE, after) == found
