"""The golden matrix of requests: one request of OpenAI's form per case, and what every dialect sends for it.

`tests/golden/requests/<case>/request.json` holds `about` (what the case shows), `request` (the body of the REST
call) and, where a case has them, `models` (target -> model, other than the default) and `also` (optional targets
that the case has goldens for).
Beside it is one file per target: method, URL, headers and body, and the fields that the endpoint drops; or
`unsupported` (another endpoint may do it) or `invalid` (no endpoint would take it), with field and message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from server.dialects.base import Endpoint
from server.dialects.registry import DIALECTS
from server.errors import InvalidRequest, Reason
from tests.support import goldens
from tests.support.dialects import endpoint_for, request_for

GOLDEN = Path(__file__).parents[1] / "golden" / "requests"
CASES = sorted(path.parent for path in GOLDEN.glob("*/request.json"))
_INPUT = frozenset({"about", "request", "models", "also"})


class Target(NamedTuple):
    """A vendor, and the model where a case names no other."""

    vendor: str
    model: str


#: Where the matrix sends requests: every dialect's own vendor, under the dialect's name; then other vendors and
#: models of these dialects, where the URL, the headers or the body differ.
TARGETS: Mapping[str, Target] = {
    "openai": Target("openai", "gpt-5.2"),
    "anthropic": Target("anthropic", "claude-sonnet-4-6"),
    "gemini": Target("gemini", "gemini-3-flash-preview"),
    "bedrock": Target("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    "azure": Target("azure", "my-deployment"),
    "vertex-anthropic": Target("vertex", "claude-sonnet-4-5@20250929"),
    "vertex-gemini": Target("vertex", "gemini-2.5-flash"),
    "bedrock-nova": Target("bedrock", "us.amazon.nova-2-lite-v1:0"),
}


def case_of(folder: Path) -> dict[str, Any]:
    case: dict[str, Any] = goldens.load(folder / "request.json")
    return case


def targets_of(case: Mapping[str, Any]) -> list[str]:
    return [*DIALECTS, *case.get("also", ())]


def matrix() -> list[Any]:
    """Every case with every one of its targets."""
    return [
        pytest.param(folder, target, id=f"{folder.name}-{target}")
        for folder in CASES
        for target in targets_of(case_of(folder))
    ]


def endpoint_of(case: Mapping[str, Any], target: str) -> Endpoint:
    vendor, model = TARGETS[target]
    return endpoint_for(vendor, case.get("models", {}).get(target, model))


def sent_for(case: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The content of a target's golden."""
    try:
        request, dropped = request_for(case["request"], endpoint_of(case, target))
    except InvalidRequest as error:
        kind = "unsupported" if error.reason is Reason.UNSUPPORTED_FEATURE else "invalid"
        return {kind: {"param": error.param, "message": error.message}}
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": json.loads(request.body),
        **({"dropped": dropped} if dropped else {}),
    }


@pytest.mark.parametrize(("folder", "target"), matrix())
def test_request(folder: Path, target: str, update_goldens: bool) -> None:
    goldens.check(folder / f"{target}.json", sent_for(case_of(folder), target), update=update_goldens)


def test_every_dialect_has_a_target() -> None:
    assert TARGETS.keys() >= DIALECTS.keys()


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_a_case_has_its_files_and_no_other(folder: Path) -> None:
    case = case_of(folder)
    assert case.keys() <= _INPUT
    assert case["about"]
    targets = targets_of(case)
    assert {path.name for path in folder.iterdir()} == {"request.json", *(f"{target}.json" for target in targets)}
    assert set(case.get("models", ())) <= set(targets)


def test_there_is_nothing_beside_the_cases() -> None:
    assert sorted(GOLDEN.iterdir()) == CASES
    assert len(CASES) >= 30
