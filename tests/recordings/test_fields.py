"""Every field of every recorded answer reaches callers, or is left out for a reason: see tests/support/kept.py."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.recordings import readings
from tests.recordings.recorded import Recording, recordings
from tests.support.kept import Kept, completion, streamed
from tests.support.needs import RECORDINGS, missing

#: Vendor -> its dialect, and how many unary and streamed answers it has.
VENDORS = {
    "anthropic": ("anthropic", 71, 39),
    "azure": ("openai", 41, 6),
    "bedrock": ("bedrock", 60, 13),
    "bedrock-openai": ("openai", 1, 0),
    "deepseek": ("openai", 33, 10),
    "gemini": ("gemini", 71, 27),
    "gpustack": ("openai", 56, 11),
    "mistral": ("openai", 51, 8),
    "ollama": ("openai", 33, 9),
    "openai": ("openai", 34, 20),
    "openrouter": ("openai", 61, 13),
    "perplexity": ("openai", 14, 1),
    "vertex": ("gemini", 57, 11),
}


def lost(dialect: str, recording: Recording) -> list[str]:
    fields = {"n": recording.n} if recording.n > 1 else None
    if recording.stream:
        answers, body = readings.answers_in_stream(dialect, recording.body)
        served = [streamed(dialect, body, fields)]
    else:
        answers = [json.loads(recording.body)]
        served = [[form] for form in completion(dialect, recording.body, fields)]
    return [
        f"{path} = {value!r:.80}"
        for form in served
        for a in answers
        for path, value in Kept(dialect, form).lost(a)
    ]


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_field_is_kept_or_left_out_for_a_reason(vendor: str) -> None:
    if not RECORDINGS.is_dir():
        missing("../shared/recordings")
    dialect, *counts = VENDORS[vendor]
    seen: Counter[bool] = Counter()
    faults: dict[str, list[str]] = {}
    for recording in recordings(vendor):
        if recording.status == 200 and not recording.batch:
            seen[recording.stream] += 1
            if found := lost(dialect, recording):
                faults[recording.path.name] = found
    assert faults == {}
    assert [seen[False], seen[True]] == counts
