"""Answers for callers of the deprecated `functions`: a tool call becomes a `function_call`.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-functions
Works on the JSON objects that response.py writes, in place.
"""

from __future__ import annotations

from typing import Any


def rewrite(answer: dict[str, Any]) -> dict[str, Any]:
    """Convert a completion or a chunk to the deprecated form, which has at most one call per message."""
    key = "delta" if answer["object"] == "chat.completion.chunk" else "message"
    for choice in answer["choices"]:
        message = choice[key]
        calls = message.pop("tool_calls", None)
        if calls and calls[0].get("index", 0) == 0 and "function" in calls[0]:
            message["function_call"] = calls[0]["function"]
        if choice["finish_reason"] == "tool_calls":
            choice["finish_reason"] = "function_call"
    return answer
