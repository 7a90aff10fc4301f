"""Which request parameters an endpoint may drop and which features it must support. Pure.

A tuning parameter (KNOBS) that an endpoint does not support is dropped and reported; without a feature
(FEATURES) that the request depends on, the endpoint is skipped.
"""

from __future__ import annotations

from server.chat.request import ChatRequest
from server.dialects.base import Endpoint

#: Tuning parameters: dropping one does not invalidate the completion.
KNOBS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "top_logprobs", "seed", "user", "metadata", "store", "service_tier", "verbosity",
        "reasoning_effort", "prediction", "parallel_tool_calls", "web_search_options", "stop",
    }
)  # fmt: skip

#: Features that a request can depend on; see `ChatRequest.needs`.
FEATURES = frozenset(
    {
        "tools", "other_tools", "json_object", "json_schema", "image", "audio", "file", "other_parts", "n",
        "audio_output",
    }
)  # fmt: skip


def dropped(request: ChatRequest, endpoint: Endpoint) -> list[str]:
    """Parameters of `request` that `endpoint` does not support, by their JSON names."""
    drops, supported = endpoint.drops, endpoint.extra_body
    names = [name for name in request.parameters() if name in drops] if drops else []
    if drops or supported is not None:
        names += [
            name
            for name in request.unknown_parameters()
            if name in drops or (supported is not None and name not in supported)
        ]
    return names
