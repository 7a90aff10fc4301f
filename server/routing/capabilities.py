"""What an endpoint may leave out of a request, and what it must have: pure functions over the capability tables.

A tuning knob that an endpoint lacks is left out and reported; a feature the answer
depends on makes the endpoint unfit. This module decides which is which.
"""

from __future__ import annotations

from server.chat.request import ChatRequest
from server.dialects.base import Endpoint

#: Fields that may be left out without changing what the answer is.
KNOBS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "top_logprobs", "seed", "user", "metadata", "store", "service_tier", "verbosity",
        "reasoning_effort", "prediction", "parallel_tool_calls", "web_search_options", "stop",
    }
)  # fmt: skip

#: What an answer can depend on; see `ChatRequest.needs`.
FEATURES = frozenset(
    {
        "tools", "other_tools", "json_object", "json_schema", "image", "audio", "file", "other_parts", "n",
        "audio_output",
    }
)  # fmt: skip


def dropped(request: ChatRequest, endpoint: Endpoint) -> list[str]:
    """Parameters of `request` that `endpoint` does not honour, by their names in JSON."""
    drops, honoured = endpoint.drops, endpoint.extra_body
    names = [name for name in request.parameters() if name in drops] if drops else []
    if drops or honoured is not None:
        names += [
            name
            for name in request.unknown_parameters()
            if name in drops or (honoured is not None and name not in honoured)
        ]
    return names
