"""The reason and the retry-after of a provider's failure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.public_error import MAX_MESSAGE, MAX_PARAM, PublicError
from server.dialects import errors as failures
from server.dialects.errors import CODES, classify, invalid_response, retry_after
from server.errors import Reason

R = Reason

#: Status, code and message of the provider; the reason, whether a retry at the same endpoint may succeed, and
#: whether another endpoint may.
TABLE: list[tuple[int, str, str, Reason, bool, bool]] = [
    (400, "", "bad", R.INVALID_REQUEST, False, False),
    (400, "context_length_exceeded", "x", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "", "This model's maximum context length is 8192 tokens.", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "", "prompt is too long: 3 tokens > 2 maximum", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (400, "content_filter", "x", R.CONTENT_POLICY_VIOLATION, False, False),
    (400, "ResponsibleAIPolicyViolation", "x", R.CONTENT_POLICY_VIOLATION, False, False),
    (400, "", "Incorrect API key provided.", R.UPSTREAM_AUTHENTICATION, False, True),
    (400, "", "API key not valid. Please pass a valid API key.", R.UPSTREAM_AUTHENTICATION, False, True),
    (401, "", "bad key", R.UPSTREAM_AUTHENTICATION, False, True),
    (402, "", "no money", R.UPSTREAM_AUTHENTICATION, False, True),
    (403, "", "not you", R.UPSTREAM_AUTHENTICATION, False, True),
    (404, "", "no such model", R.MODEL_NOT_FOUND, False, True),
    (404, "DeploymentNotFound", "x", R.MODEL_NOT_FOUND, False, True),
    (405, "", "x", R.UPSTREAM_ERROR, False, True),
    (408, "", "x", R.TIMEOUT, False, True),
    (409, "", "x", R.UPSTREAM_ERROR, False, True),
    (413, "", "too large", R.REQUEST_TOO_LARGE, False, False),
    (413, "", "prompt is too long", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (422, "", "bad", R.INVALID_REQUEST, False, False),
    (425, "", "x", R.UPSTREAM_ERROR, False, True),
    (429, "", "slow down", R.RATE_LIMITED, True, True),
    (429, "RateLimitReached", "slow down", R.RATE_LIMITED, True, True),
    (429, "insufficient_quota", "no money", R.RATE_LIMITED, False, True),
    (500, "", "x", R.UPSTREAM_ERROR, True, True),
    (500, "", "context window", R.UPSTREAM_ERROR, True, True),  # only a 4xx is believed
    (500, "context_length_exceeded", "x", R.CONTEXT_LENGTH_EXCEEDED, False, True),
    (500, "invalid_api_key", "x", R.UPSTREAM_AUTHENTICATION, False, True),
    (501, "", "x", R.UPSTREAM_ERROR, False, True),
    (502, "", "x", R.UPSTREAM_ERROR, True, True),
    (503, "", "x", R.OVERLOADED, True, True),
    (503, "model_not_found", "x", R.MODEL_NOT_FOUND, False, True),
    (504, "", "x", R.TIMEOUT, False, True),
    (520, "", "x", R.UPSTREAM_ERROR, False, True),
    (529, "", "x", R.OVERLOADED, True, True),
    (302, "", "x", R.UPSTREAM_ERROR, False, True),
]
OWN = {R.INVALID_REQUEST, R.CONTEXT_LENGTH_EXCEEDED, R.CONTENT_POLICY_VIOLATION, R.REQUEST_TOO_LARGE}


@pytest.mark.parametrize(("status", "code", "message", "reason", "here", "elsewhere"), TABLE)
def test_classify(status: int, code: str, message: str, reason: Reason, here: bool, elsewhere: bool) -> None:
    error = classify(status, code=code, message=message, param="messages", retry_after=3.0)
    assert (error.reason, error.retry_here, error.fall_over) == (reason, here, elsewhere)
    assert error.http_status == status
    assert error.raw == message
    assert error.retry_after == 3.0
    # The provider's message is passed on only where it concerns the caller's input.
    if reason in OWN:
        assert (error.message, error.param) == (message, "messages")
    else:
        assert message not in error.message
        assert error.message
        assert error.param is None


@pytest.mark.parametrize("code", CODES)
def test_codes_count_in_any_case_and_status(code: str) -> None:
    assert code == code.lower()
    assert classify(400, code=code.upper()).reason is classify(500, code=code).reason is CODES[code]


@pytest.mark.parametrize("phrase", failures._CONTEXT_PHRASES)
def test_a_context_too_long_in_words(phrase: str) -> None:
    assert phrase == phrase.lower()
    assert classify(400, message=f"Error: {phrase.upper()} 8192").reason is R.CONTEXT_LENGTH_EXCEEDED
    assert classify(401, message=phrase).reason is R.UPSTREAM_AUTHENTICATION


#: Refusals of the content: vendor or place, HTTP status, code, message.
REFUSALS: list[tuple[str, int, str, str]] = [
    # https://github.com/theopenco/llmgateway/pull/1785
    ("xAI", 403, "The caller does not have permission to execute the specified operation",
     "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"),
    # https://openrouter.ai/docs/api/reference/errors-and-debugging
    ("OpenRouter", 403, "403",
     'openai/gpt-4o requires moderation on OpenAI. Your input was flagged for "violence".'),
    # https://github.com/microsoft/PyRIT/pull/1463
    ("OpenAI's reasoning models", 400, "invalid_prompt",
     "Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    ("OpenAI's images", 400, "", "Your request was rejected as a result of our safety system."),
    # https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
    ("Azure", 400, "", "The prompt triggered Azure OpenAI's content management policy."),
    # https://platform.claude.com/docs/en/api/errors
    ("Anthropic", 400, "invalid_request_error", "Output blocked by content filtering policy"),
    # https://github.com/deepseek-ai/awesome-deepseek-integration/issues/13
    ("DeepSeek", 400, "invalid_request_error", "Content Exists Risk"),
    # https://www.alibabacloud.com/help/en/model-studio/error-code
    ("DashScope", 400, "data_inspection_failed", "x"),
    # https://github.com/QwenLM/qwen-code/issues/3145
    ("DashScope, in words", 500, "",
     "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content."),
    # https://docs.z.ai/api-reference/api-code
    ("Z.ai", 400, "1301", "x"),
    ("Z.ai, in words", 400, "", "System detected potentially unsafe or sensitive content in input or generation."),
    # https://platform.moonshot.ai/docs/api/chat
    ("Moonshot", 400, "content_filter", "The request was rejected because it was considered high risk"),
    ("inside a 200", 200, "", "Content violates usage guidelines."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "message"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_refusal_of_the_content(status: int, code: str, message: str) -> None:
    error = classify(status, code=code, message=message)
    assert (error.reason, error.message) == (R.CONTENT_POLICY_VIOLATION, message)
    assert (error.status.http, error.fall_over, error.retry_here) == (400, False, False)


#: Vendors' messages for a context that is too long.
TOO_LONG: list[tuple[str, int, str, str]] = [
    ("OpenAI, vLLM, DeepSeek", 400, "invalid_request_error",
     "This model's maximum context length is 65536 tokens. However, you requested 69648 tokens."),
    ("OpenAI's newer models", 400, "", "Your input exceeds the context window of this model."),
    ("Anthropic", 400, "invalid_request_error", "prompt is too long: 202095 tokens > 200000 maximum"),
    ("Anthropic, with max_tokens", 400, "invalid_request_error",
     "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"),
    ("Gemini", 400, "INVALID_ARGUMENT",
     "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."),
    ("Bedrock", 400, "ValidationException", "Input is too long for requested model."),
    # https://docs.x.ai/docs/key-information/debugging
    ("xAI", 400, "invalid-argument",
     "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    ("Groq, Cerebras", 400, "", "Please reduce the length of the messages or completion."),
    # https://github.com/earendil-works/pi (packages/ai/src/utils/overflow.ts) lists these
    ("Mistral", 400, "3051",
     "Prompt contains 40004 tokens and 0 draft tokens, too large for model with 32768 maximum context length"),
    ("Together, SGLang", 422, "",
     "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
    ("Moonshot", 400, "invalid_request_error",
     "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"),
    ("Poolside, behind OpenRouter", 400, "400",
     "Input length 9000 exceeds the maximum allowed input length of 8000 tokens."),
    ("llama.cpp", 400, "", "the request exceeds the available context size, try increasing it"),
    ("LM Studio", 400, "",
     "Trying to keep the first 9000 tokens when context the overflows: greater than the context length"),
    ("Ollama", 400, "", "prompt too long; exceeded max context length by 4 tokens"),
    # https://github.com/anomalyco/opencode/issues/45834
    ("DashScope", 400, "invalid_parameter_error", "Range of input length should be [1, 100000]"),
    # https://docs.z.ai/api-reference/api-code
    ("Z.ai", 400, "1261", "Prompt exceeds max length"),
    ("Fireworks", 400, "", "The prompt is too long: 140000, model maximum context length: 131071"),
    # https://huggingface.co/docs/text-generation-inference
    ("Text Generation Inference", 422, "",
     "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 9000 `inputs` tokens"),
    ("Cohere", 400, "", "too many tokens: size limit exceeded by 11326 tokens."),
    ("SiliconFlow", 400, "20015", "length of prompt_tokens (140000) must be less than max_seq_len (131072)."),
    ("Perplexity", 400, "too_many_prompt_tokens", "x"),
    ("LiteLLM", 400, "", "litellm.ContextWindowExceededError: Requested token count exceeds the context window"),
    ("inside a 200", 200, "", "This model's maximum context length is 8192 tokens."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "message"), [row[1:] for row in TOO_LONG], ids=[r[0] for r in TOO_LONG]
)
def test_a_context_that_is_too_long(status: int, code: str, message: str) -> None:
    error = classify(status, code=code, message=message)
    assert (error.reason, error.message, error.fall_over) == (R.CONTEXT_LENGTH_EXCEEDED, message, True)
    if code == "":
        assert classify(429, message=message).reason is R.RATE_LIMITED
        assert classify(401, message=message).reason is R.UPSTREAM_AUTHENTICATION


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("CachedContent not found (or permission denied)", R.INVALID_REQUEST),  # Gemini
        ("File not found: file_011", R.INVALID_REQUEST),  # Anthropic
        ("No such File object: file-1", R.INVALID_REQUEST),  # OpenAI
        ("models/gemini-0 is not found for API version v1beta", R.MODEL_NOT_FOUND),
        ("model: claude-x", R.MODEL_NOT_FOUND),
        ("", R.MODEL_NOT_FOUND),
    ],
)
def test_a_404_that_is_no_missing_model(message: str, reason: Reason) -> None:
    assert classify(404, message=message).reason is reason


def test_a_refused_key_is_the_gateways() -> None:
    error = classify(403, code="x", message="The API key has no access to this model.", details={"team": "t"})
    assert (error.reason, error.details) == (R.UPSTREAM_AUTHENTICATION, {})
    assert "API key" not in error.message


def test_the_callers_error_has_further_fields_under_the_known_ones() -> None:
    error = classify(
        400, message="x", own_code="tool_use_failed", details={"failed_generation": "<f>", "lmchat": 1}
    )
    written = PublicError.of(error, "req").body()["error"]
    assert written["failed_generation"] == "<f>"
    assert (written["code"], written["lmchat"]["reason"]) == ("tool_use_failed", "invalid_request")


def test_what_the_dialect_knows_wins() -> None:
    assert classify(400, code="content_filter", reason=R.OVERLOADED).reason is R.OVERLOADED


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_without_a_message(status: int) -> None:
    error = classify(status)
    assert error.message == "The provider refused the request without saying why."
    assert error.param is None


def test_long_messages_are_cut_for_the_caller() -> None:
    error = classify(400, message="x" * 50_000, param="y" * 50_000)
    shown = PublicError.of(error, "req")
    assert (len(shown.message.encode()), len((shown.param or "").encode())) == (MAX_MESSAGE, MAX_PARAM)
    assert len(error.raw) == 50_000


def test_invalid_response() -> None:
    error = invalid_response("<html>")
    assert (error.reason, error.http_status, error.raw) == (R.UPSTREAM_INVALID_RESPONSE, 200, "<html>")
    assert "<html>" not in error.message
    assert error.fall_over
    assert not error.retry_here


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20 GMT", "date": DATE}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 09:28:20 +0200", "date": DATE}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20", "date": DATE}, None),
        ({"retry-after": DATE, "date": "yesterday"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),  # Azure, recorded
        ({"retry-after-ms": "2500", "retry-after": "1"}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e308"}, 86400.0),
        ({"retry-after-ms": "1e308"}, 86400.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "-1e308"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, 86400.0),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": DATE, "date": "Fri, 31 Dec 9999 23:59:59 +2359"}, 0.0),
        ({"retry-after": "1 Jan 99999999999999999999 00:00:00 GMT", "date": DATE}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


_DATES = st.lists(
    st.sampled_from(["Wed,", "21", "Oct", "-", "2015", "99999999999999999999", "7:28", "+9999", "GMT"])
)


@given(st.text(max_size=12) | _DATES.map(" ".join), st.sampled_from([None, "", DATE, "21 Oct 99999"]))
@settings(deadline=None)
def test_any_retry_after_is_a_time_or_none(value: str, date: str | None) -> None:
    headers = {"retry-after": value, "retry-after-ms": value} | ({} if date is None else {"date": date})
    seconds = retry_after(headers)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (429, "429"), (None, ""), (True, ""), ({}, ""), ([], ""), (1.5, "")]
)
def test_text(value: object, text: str) -> None:
    assert failures.text(value) == text
