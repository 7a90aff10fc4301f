"""The 30 prompts and the table of `uv run prompts`: what it counts as sensible. No model runs here."""

from __future__ import annotations

from pathlib import Path

import httpx
import msgspec
import pytest
from lmchat_dev.prompts import complete, read, sensible, table

PROMPTS = {prompt.prompt: prompt for prompt in read()}


def test_there_are_thirty_different_prompts() -> None:
    assert len(PROMPTS) == len(read()) == 30


@pytest.mark.parametrize(
    ("prompt", "completion", "accepted"),
    [
        ("Reply with OK.", "OK", True),
        ("Reply with OK.", "OK.", True),
        ("Reply with OK.", "I'm OK with that.", False),
        ("Hello", "Hello! How can I help you today?", True),
        ("Hello", "This new season of The Crown is fantastic.", False),
        ("Hello", "Hello" + " there" * 40, False),
        ("Who are you?", "I am an AI assistant.", True),
        ("Who are you?", "I am Dr. Elena Zephyr, a scientist.", False),
        ("What is 2 + 2?", "It is 24.", False),
        ("What is the capital of France?", "", False),
    ],
)
def test_what_is_sensible(prompt: str, completion: str, accepted: bool) -> None:
    assert PROMPTS[prompt].accepts(completion) is accepted


def test_the_table_counts_before_and_after() -> None:
    prompts = [PROMPTS["Hello"], PROMPTS["What is 2 + 2?"]]
    before, after = {"Hello": "a | b\nc"}, {"Hello": "Hi!", "What is 2 + 2?": "4"}
    assert (sensible(prompts, before), sensible(prompts, after)) == (0, 2)
    lines = table(prompts, after, before).splitlines()
    assert lines == [
        "| prompt | before | after |",
        "| --- | --- | --- |",
        "| Hello | - a \\| b c | + Hi! |",
        "| What is 2 + 2? | - (no end) | + 4 |",
        "| sensible | 0 of 2 | 2 of 2 |",
    ]


@pytest.mark.parametrize(("finish_reason", "completion"), [("stop", "Hi!"), ("length", "")])
def test_a_completion_that_was_cut_off_is_not_sensible(finish_reason: str, completion: str) -> None:
    choice = {"finish_reason": finish_reason, "message": {"content": " Hi!\n"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"choices": [choice]}))
    with httpx.Client(base_url="http://model", transport=transport) as client:
        assert complete("Hello", client) == completion


def test_a_malformed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("- {prompt: a, expects: b}\n")
    with pytest.raises(msgspec.ValidationError):
        read(file)
