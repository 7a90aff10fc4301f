"""Answers of vendors that put reasoning into a list of content, whole and in a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.openai_help import DONE, TRANSLATOR, ask, chunk, decode, delta, sse
from tests.support.fold import fold_messages

TEXT = {"type": "text", "text": "Hi"}


@pytest.mark.parametrize(
    "reasoning",
    [
        # https://docs.mistral.ai/capabilities/reasoning
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        # https://github.com/tidyverse/ellmer/issues/822  https://github.com/databricks/appkit/pull/559
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "reasoning", "text": "Hm."},
    ],
)
def test_reasoning_in_content(reasoning: dict[str, Any]) -> None:
    message = {"role": "assistant", "content": [reasoning, TEXT]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    whole, _ = TRANSLATOR.completion(json.dumps(body).encode(), ask())
    stream = sse(chunk(delta(content=[reasoning])), chunk(delta(content=[TEXT])), chunk(delta("stop"))) + DONE
    for answer in (whole, fold_messages(decode([stream]))):
        found = answer.choices[0].message
        assert found.reasoning_content == "Hm."
        assert [part.text for part in found.content] == ["Hi"]
        assert not found.annotations
