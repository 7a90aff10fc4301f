"""Every golden conforms to its provider's API description: requests, answers, and the completions for callers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.dialects.registry import DIALECTS
from tests.conformance.test_answers import Answer, each_answer
from tests.conformance.test_requests import CASES, case_of, endpoint_of
from tests.support import goldens, specs

#: Goldens with fields of another API that callers sent and that are passed on unchanged: case and target -> the
#: beginning of each violation. The provider refuses these, or accepts more than it documents.
PASSED_ON: dict[tuple[str, str], tuple[str, ...]] = {
    ("native-fields-of-gemini", "gemini"): ("$.generationConfig.thinkingConfig: ",),  # snake case
    ("native-tools-of-anthropic", "openai"): ("$.tools[0]: ",),
    ("native-tools-of-gemini", "openai"): ("$.tools[0]: ",),
    ("tool-result-with-parts", "openai"): ("$.messages[2]: ",),
    ("unknown-part-type", "openai"): ("$.messages[0]: ",),
    ("unknown-part-type-of-nobody", "openai"): ("$.messages[0]: ",),
}


def sent() -> list[Any]:
    """Case and target of every golden that is a request. (test_requests.py checks that none is missing.)"""
    return [
        pytest.param(folder, path.stem, id=f"{folder.name}-{path.stem}")
        for folder in CASES
        for path in sorted(folder.glob("*.json"))
        if "body" in goldens.load(path)
    ]


@pytest.mark.parametrize(("folder", "target"), sent())
def test_request_is_documented(folder: Path, target: str) -> None:
    endpoint = endpoint_of(case_of(folder), target)
    body = goldens.load(folder / f"{target}.json")["body"]
    if target == "vertex-anthropic":  # which has the model in its path, and a version in its body
        assert body.pop("anthropic_version") == "vertex-2023-10-16"
        body["model"] = endpoint.model
    found = specs.VIOLATIONS[endpoint.dialect](body)
    known = PASSED_ON.get((folder.name, target), ())
    assert [violation for violation in found if not violation.startswith(known)] == []
    assert bool(found) == bool(known)


#: Where Vertex AI's answers differ from the description, which is AI Studio's.
VERTEX = ("$.candidates[0].citationMetadata: ", "$.usageMetadata: ", "$: ")
#: Answers and completions that deviate from the description: case, dialect, which -> beginning of the violation.
STRAY: dict[tuple[str, str, str], str | tuple[str, ...]] = {
    ("without-usage", "bedrock", "answer"): "Missing required parameter",
    # Google gives no transcript.
    ("spoken", "gemini", "completion"): "$.choices[0].message.audio: ",
    # A license without a page.
    ("fields-of-the-provider", "gemini", "completion"): (
        "$.choices[0].message.annotations[1]: ",
        "$.choices[0].message.annotations[1].type: ",
    ),
    # What vendors send beyond the description.
    ("cited-with-a-license", "gemini", "answer"): VERTEX,
    ("content-in-parts", "openai", "answer"): "$.choices[0].message.content: ",
    ("fields-of-the-provider", "bedrock", "answer"): "Unknown parameter in usage: ",
    ("tools-of-the-provider", "openai", "answer"): "$.service_tier: ",
}


@each_answer
def test_answer_is_documented(answer: Answer) -> None:
    golden = answer.load()
    for which, dialect in (("answer", answer.dialect), ("completion", "openai")):
        found = specs.ANSWER_VIOLATIONS[dialect](golden[which])
        known = STRAY.get((answer.path.parent.name, answer.dialect, which))
        assert [violation for violation in found if not (known and violation.startswith(known))] == []
        assert bool(found) == bool(known)


def test_every_dialect_has_a_description() -> None:
    assert specs.VIOLATIONS.keys() == specs.ANSWER_VIOLATIONS.keys() == DIALECTS.keys()
