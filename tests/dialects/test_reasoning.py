"""Efforts and budgets."""

from __future__ import annotations

import pytest

from server.dialects import reasoning


def test_every_effort_has_a_level_and_google_a_budget_for_each_of_its_own() -> None:
    efforts = set(reasoning.EFFORTS.values())
    assert efforts == {"none", "minimal", "low", "medium", "high", "xhigh", "max"}
    assert set(reasoning.LEVELS) == efforts - {"none"}
    assert set(reasoning.BUDGETS) == {"minimal", "low", "medium", "high"}


@pytest.mark.parametrize(
    ("effort", "max_tokens", "tokens"),
    [
        ("low", 64_000, 1_024),
        ("high", 64_000, 24_576),
        ("high", 10_000, 8_000),
        ("low", 1_280, 1_024),
        ("low", 9, 0),
    ],
)
def test_a_fifth_is_left_for_the_answer(effort: str, max_tokens: int, tokens: int) -> None:
    assert reasoning.budget(reasoning.BUDGETS, effort, max_tokens, 1_024) == tokens
