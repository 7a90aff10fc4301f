"""What a provider's failure means for the caller and for the next attempt.

Every dialect parses its error body and passes the parts to `classify`, which alone decides what may be retried
and what may be tried at another endpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from server.errors import ProviderError, Reason

_TOO_LONG_STRING = "string_above_max_length"
#: A provider's codes and types in lower case -> Reason, whatever the HTTP status.
CODES: Mapping[str, Reason] = {
    "context_length_exceeded": Reason.CONTEXT_LENGTH_EXCEEDED,
    _TOO_LONG_STRING: Reason.CONTEXT_LENGTH_EXCEEDED,
    "too_many_prompt_tokens": Reason.CONTEXT_LENGTH_EXCEEDED,  # Perplexity
    "exceed_context_size_error": Reason.CONTEXT_LENGTH_EXCEEDED,  # llama.cpp
    "contextwindowexceedederror": Reason.CONTEXT_LENGTH_EXCEEDED,  # LiteLLM
    "1261": Reason.CONTEXT_LENGTH_EXCEEDED,  # Z.ai: https://docs.z.ai/api-reference/api-code
    "content_filter": Reason.CONTENT_POLICY_VIOLATION,
    "content_policy_violation": Reason.CONTENT_POLICY_VIOLATION,
    "contentpolicyviolationerror": Reason.CONTENT_POLICY_VIOLATION,  # LiteLLM
    "responsibleaipolicyviolation": Reason.CONTENT_POLICY_VIOLATION,  # Azure
    "moderation_blocked": Reason.CONTENT_POLICY_VIOLATION,
    # DashScope: https://www.alibabacloud.com/help/en/model-studio/error-code
    "data_inspection_failed": Reason.CONTENT_POLICY_VIOLATION,
    "datainspectionfailed": Reason.CONTENT_POLICY_VIOLATION,
    "1301": Reason.CONTENT_POLICY_VIOLATION,  # Z.ai
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "deploymentnotfound": Reason.MODEL_NOT_FOUND,
    "invalid_api_key": Reason.UPSTREAM_AUTHENTICATION,
    "insufficient_quota": Reason.RATE_LIMITED,
    "rate_limit_exceeded": Reason.RATE_LIMITED,
    "ratelimitreached": Reason.RATE_LIMITED,
}

#: Phrases of messages that refuse the content, whatever the HTTP status; comments name the vendors.
_REFUSAL_PHRASES = (
    "violates usage guidelines",  # xAI: https://github.com/theopenco/llmgateway/pull/1785
    "violating our usage policy",  # OpenAI's invalid_prompt: https://platform.openai.com/docs/guides/reasoning
    "rejected as a result of our safety system",  # OpenAI
    "content management policy",  # Azure
    "blocked by content filtering",  # Anthropic, Bedrock
    "input was flagged",  # OpenRouter: https://openrouter.ai/docs/api/reference/errors-and-debugging
    "content exists risk",  # DeepSeek: https://github.com/deepseek-ai/awesome-deepseek-integration/issues/13
    "may contain inappropriate content",  # DashScope: https://github.com/QwenLM/qwen-code/issues/3145
    "unsafe or sensitive content",  # Z.ai: https://docs.z.ai/api-reference/api-code
    "considered high risk",  # Moonshot: https://platform.moonshot.ai/docs/api/chat
)

#: Phrases of messages about a prompt that is too long, for statuses that concern the request; comments name the
#: vendors.
_CONTEXT_PHRASES = (
    "maximum context length",  # OpenAI, DeepSeek, vLLM, Mistral, OpenRouter, Fireworks
    "context length",  # Together, SGLang, LM Studio, Ollama
    "context window",  # OpenAI, Anthropic
    "context_length",
    "context size",  # llama.cpp
    "context limit",  # Anthropic
    "prompt is too long",  # Anthropic, Fireworks
    "prompt too long",  # Ollama
    "input is too long",  # Bedrock
    "too many input tokens",  # Bedrock
    "input tokens exceed",  # OpenAI
    "input token count",  # Gemini
    "exceeds the maximum number of tokens",  # Gemini
    "exceeds maximum length",
    "exceeds max length",  # Z.ai
    "maximum prompt length",  # xAI
    "maximum allowed input length",  # Poolside, behind OpenRouter
    "maximum input length",  # TensorRT-LLM, behind Baseten and NVIDIA
    "range of input length",  # DashScope
    "reduce the length of the messages",  # Groq, Cerebras
    "exceeded model token limit",  # Moonshot
    "prompt contains too many tokens",  # Mistral
    "too large for model",  # Mistral
    "max_seq_len",  # SiliconFlow
    "input token length too long",  # Moonshot: https://platform.kimi.ai/docs/api/errors
    "total length of all messages is too long",  # Perplexity
    "while limit is",  # Cerebras
    "too many tokens",  # Cohere
    "`inputs` tokens + `max_new_tokens` must be",  # Text Generation Inference
    "`inputs` must have less than",  # Text Generation Inference
)

#: Phrases of messages about a refused API key in a 400: xAI, Google.
_KEY_PHRASES = ("incorrect api key", "invalid api key", "api key not valid", "api key is not valid")

#: Phrases about an account without credit, whatever the HTTP status: Anthropic, DeepSeek, MiniMax, DashScope.
_CREDIT_PHRASES = (
    "credit balance is too low",
    "insufficient balance",
    "insufficient_balance",
    "make sure your account is in good standing",
)

#: Phrases of a 400 about the model: OpenRouter; DeepSeek, SiliconFlow; Mistral; Z.ai, GitHub; Cloudflare;
#: Scaleway.
_MODEL_PHRASES = (
    "is not a valid model id",
    "model not exist",
    "model does not exist",
    "invalid model:",
    "unknown model",
    "no such model",
    "model not found",
)

#: Phrases of a 404 about a feature that no provider behind OpenRouter has for the model.
#: https://openrouter.ai/docs/guides/routing/provider-selection
_FEATURE_PHRASES = ("no endpoints found that support", "no endpoints found that can handle")

#: Phrases of a 404 for something other than the model: Gemini's caches and files, Anthropic's and OpenAI's files.
_RESOURCE_PHRASES = ("cachedcontent", "cached content", "file not found", "no such file", "files/", "file_id")

_MASKED = {
    Reason.UPSTREAM_AUTHENTICATION: "The provider refused the gateway's credentials. Tell the gateway's operator.",
    Reason.UPSTREAM_ERROR: "The provider failed.",
    Reason.UPSTREAM_INVALID_RESPONSE: "The provider's answer made no sense.",
    Reason.OVERLOADED: "The provider is overloaded. Try again in a moment.",
    Reason.RATE_LIMITED: "The provider's rate limit is reached. Try again later.",
    Reason.TIMEOUT: "The provider did not answer in time.",
    Reason.MODEL_NOT_FOUND: "The provider does not know this model.",
}


_NO_MESSAGE = "The provider refused the request without saying why."


def classify(
    status: int,
    *,
    code: str = "",
    message: str = "",
    param: str | None = None,
    reason: Reason | None = None,
    retry_after: float | None = None,
    own_code: str = "",
    details: Mapping[str, Any] | None = None,
) -> ProviderError:
    """The error for a provider's HTTP status (200 for an error inside a 200 that has none), its code and message.

    `reason` is by default derived from the other parameters; a dialect passes one that it knows. Where the error
    concerns the caller's request, the caller gets the provider's `message`, `param` and further fields
    (`details`), and where the reason is only `invalid_request`, `own_code` as the code.
    `retry_after` is in seconds. Texts are bounded where they are shown.
    """
    reason = reason or _reason(status, code, message, param)
    callers = reason not in _MASKED
    own = callers and bool(message)
    return ProviderError(
        reason,
        message if own else _MASKED.get(reason, _NO_MESSAGE),
        http_status=status,
        retry_here=(reason in _TRANSIENT and status in (500, 502, 503, 529))
        or (reason is Reason.RATE_LIMITED and code != "insufficient_quota"),
        fall_over=reason in _FALLS_OVER,
        param=param if own else None,
        code=own_code if reason is Reason.INVALID_REQUEST else None,
        retry_after=retry_after,
        raw=message,
        details=details if callers else None,
    )


#: Reasons after which a retry at the same endpoint may succeed.
_TRANSIENT = frozenset({Reason.UPSTREAM_ERROR, Reason.UPSTREAM_INVALID_RESPONSE, Reason.OVERLOADED})

#: Reasons after which another endpoint may succeed.
_FALLS_OVER = frozenset(
    {
        Reason.CONTEXT_LENGTH_EXCEEDED,
        Reason.MODEL_NOT_FOUND,
        Reason.UNSUPPORTED_FEATURE,
        Reason.RATE_LIMITED,
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_INVALID_RESPONSE,
        Reason.UPSTREAM_AUTHENTICATION,
        Reason.OVERLOADED,
        Reason.TIMEOUT,
    }
)

_STATUSES: Mapping[int, Reason] = {
    400: Reason.INVALID_REQUEST,
    401: Reason.UPSTREAM_AUTHENTICATION,
    402: Reason.UPSTREAM_AUTHENTICATION,  # the gateway's account has no credit
    403: Reason.UPSTREAM_AUTHENTICATION,
    404: Reason.MODEL_NOT_FOUND,
    410: Reason.MODEL_NOT_FOUND,
    408: Reason.TIMEOUT,
    413: Reason.REQUEST_TOO_LARGE,
    422: Reason.INVALID_REQUEST,
    429: Reason.RATE_LIMITED,
    503: Reason.OVERLOADED,
    504: Reason.TIMEOUT,
    529: Reason.OVERLOADED,
}


def _reason(status: int, code: str, message: str, param: str | None) -> Reason:
    known = CODES.get(code.lower())
    if known is not None:
        # OpenAI has one code for every string that is too long: of a message, of `user`, of a tool's name.
        elsewhere = code.lower() == _TOO_LONG_STRING and param and not param.startswith(("messages", "input"))
        return Reason.INVALID_REQUEST if elsewhere else known
    text = message.lower()
    if any(phrase in text for phrase in _REFUSAL_PHRASES):
        return Reason.CONTENT_POLICY_VIOLATION
    if any(phrase in text for phrase in _CREDIT_PHRASES):
        return Reason.UPSTREAM_AUTHENTICATION
    reason = _STATUSES.get(status, Reason.UPSTREAM_ERROR)
    if status < 400 or reason in (Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE):
        if any(phrase in text for phrase in _CONTEXT_PHRASES):
            return Reason.CONTEXT_LENGTH_EXCEEDED
        if any(phrase in text for phrase in _KEY_PHRASES):
            return Reason.UPSTREAM_AUTHENTICATION
        if any(phrase in text for phrase in _MODEL_PHRASES):
            return Reason.MODEL_NOT_FOUND
    if reason is Reason.MODEL_NOT_FOUND:
        if any(phrase in text for phrase in _FEATURE_PHRASES):
            return Reason.UNSUPPORTED_FEATURE
        if any(phrase in text for phrase in _RESOURCE_PHRASES):
            return Reason.INVALID_REQUEST
    return reason


def invalid_response(what: str, *, http_status: int | None = 200) -> ProviderError:
    """The error for an answer that cannot be read; `what` says why, for logs."""
    reason = Reason.UPSTREAM_INVALID_RESPONSE
    return ProviderError(reason, _MASKED[reason], http_status=http_status, raw=what)


#: Seconds; the upper bound of a provider's `retry-after`.
MAX_RETRY_AFTER = 24 * 3600.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, at most MAX_RETRY_AFTER: the longer of `retry-after-ms` and `retry-after`.

    A date is relative to the response's `date`. Azure sends both headers, with a zero in the first.
    """
    waits = []
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        seconds = _seconds(value, headers) if value else None
        if seconds is not None:
            waits.append(bounded_wait(seconds * scale))
    return max(waits, default=None)


def bounded_wait(seconds: float) -> float:
    """`seconds` as a wait that is not negative and at most MAX_RETRY_AFTER."""
    return min(max(0.0, seconds), MAX_RETRY_AFTER)


def _seconds(value: str, headers: Mapping[str, str]) -> float | None:
    try:
        number = float(value)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return wait.total_seconds()


def text(value: Any) -> str:
    """`value` as a string if it is a string or an integer, else an empty string."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
