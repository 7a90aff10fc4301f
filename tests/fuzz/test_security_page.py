"""server/SECURITY.md is correct: its tests exist, its limits have the documented values."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "server" / "SECURITY.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


LIMITS = [pytest.param(*row[:2], id=row[0].strip("`")) for row in rows("Limits")]
TESTS = [pytest.param(row[-1], id=row[0]) for row in rows("What is tested")]


@pytest.mark.parametrize(("name", "value"), LIMITS)
def test_a_limit_has_its_value(name: str, value: str) -> None:
    module, _, constant = name.strip("`").rpartition(".")
    assert getattr(importlib.import_module(module), constant) == int(value)


@pytest.mark.parametrize("cell", TESTS)
def test_a_line_names_a_test_that_exists(cell: str) -> None:
    path, _, name = cell.strip("`").partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^((async )?def {name}\(|{name} = )", text, re.MULTILINE)


def test_the_tables_are_there() -> None:
    assert len(LIMITS) >= 20
    assert len(TESTS) >= 30
    for heading in ("Assets", "Entry points", "Who may do what"):
        assert len(rows(heading)) >= 4
