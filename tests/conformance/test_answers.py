"""The golden answers: provider responses, unary and streamed, and the completions and chunks for callers.

`tests/golden/answers/<case>/case.json` holds `about` (what the case shows) and, where an answer depends on it,
`request` (fields of the request). Beside it is one file per dialect: `answer`, the provider's body, and `stream`,
the events of the same answer streamed, both written by hand; and the expected `completion` and `chunks`. For a
dialect without such an answer the file has the reason under `none`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from server.dialects.registry import DIALECTS
from tests.support import goldens
from tests.support.dialects import chunks_of, completion_of
from tests.support.fold import fold
from tests.support.streams import written

GOLDEN = Path(__file__).parents[1] / "golden" / "answers"
CASES = sorted(GOLDEN.iterdir())


class Answer(NamedTuple):
    """One dialect's answer in one case; `fields` are the request's."""

    dialect: str
    path: Path
    fields: dict[str, Any]

    def load(self) -> dict[str, Any]:
        golden: dict[str, Any] = goldens.load(self.path)
        return golden


def _answers() -> Iterator[Answer]:
    for folder in CASES:
        fields = goldens.load(folder / "case.json").get("request", {})
        for dialect in DIALECTS:
            path = folder / f"{dialect}.json"
            if path.is_file() and "none" not in goldens.load(path):
                yield Answer(dialect, path, fields)


ANSWERS = [pytest.param(answer, id=f"{answer.path.parent.name}-{answer.dialect}") for answer in _answers()]
each_answer = pytest.mark.parametrize("answer", ANSWERS)


@each_answer
def test_answer(answer: Answer, update_goldens: bool) -> None:
    golden = answer.load()
    body = json.dumps(golden["answer"], ensure_ascii=False, separators=(",", ":")).encode()
    whole = completion_of(answer.dialect, body, answer.fields)
    chunks = chunks_of(answer.dialect, written(answer.dialect, golden["stream"]), answer.fields)
    inputs = {name: golden[name] for name in ("answer", "stream")}
    goldens.check(answer.path, inputs | {"completion": whole, "chunks": chunks}, update=update_goldens)


@each_answer
def test_a_folded_stream_is_the_completion(answer: Answer) -> None:
    golden = answer.load()
    assert fold(golden["chunks"]) == golden["completion"]


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_a_case_has_its_files_and_no_other(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"case.json", *(f"{dialect}.json" for dialect in DIALECTS)}
    case = goldens.load(folder / "case.json")
    assert case["about"]
    assert case.keys() <= {"about", "request"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_answers(dialect: str) -> None:
    assert sum(answer.dialect == dialect for answer in _answers()) >= 10
