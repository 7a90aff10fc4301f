"""Errors as vendors send them: what they mean for the caller and for the next attempt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.openai import errors
from server.errors import ProviderError, Reason

R = Reason

#: Vendor, HTTP status, body, reason.
ERRORS: list[tuple[str, int, Any, Reason]] = [
    # https://docs.z.ai/api-reference/api-code
    (
        "Z.ai: arrears",
        429,
        {"error": {"code": "1113", "message": "Insufficient balance"}},
        R.UPSTREAM_AUTHENTICATION,
    ),
    ("Z.ai: concurrency", 429, {"error": {"code": "1302", "message": "x"}}, R.RATE_LIMITED),
    ("Z.ai: the plan's limit", 400, {"error": {"code": "1308", "message": "x"}}, R.RATE_LIMITED),
    ("Z.ai: fair use", 400, {"error": {"code": "1313", "message": "x"}}, R.RATE_LIMITED),
    ("Z.ai: busy", 429, {"error": {"code": "1312", "message": "x"}}, R.OVERLOADED),
    ("Z.ai: the key", 400, {"error": {"code": "1002", "message": "x"}}, R.UPSTREAM_AUTHENTICATION),
    ("Z.ai: no such model", 400, {"error": {"code": "1211", "message": "Unknown Model"}}, R.MODEL_NOT_FOUND),
    ("Z.ai: refused", 400, {"error": {"code": "1301", "message": "x"}}, R.CONTENT_POLICY_VIOLATION),
    ("Z.ai: a parameter", 400, {"error": {"code": "1214", "message": "x"}}, R.INVALID_REQUEST),
    # https://platform.minimax.io/docs/api-reference/errorcode
    ("MiniMax: busy", 200, {"base_resp": {"status_code": 1039, "status_msg": "x"}}, R.RATE_LIMITED),
    ("MiniMax: the plan's limit", 200, {"base_resp": {"status_code": 2056, "status_msg": "x"}}, R.RATE_LIMITED),
    ("MiniMax: the key", 200, {"base_resp": {"status_code": 2049, "status_msg": "x"}}, R.UPSTREAM_AUTHENTICATION),
    ("MiniMax: refused", 200, {"base_resp": {"status_code": 1027, "status_msg": "x"}}, R.CONTENT_POLICY_VIOLATION),
    # https://github.com/esengine/DeepSeek-Reasonix/issues/6818
    (
        "MiniMax: refused, in words",
        422,
        {"type": "error", "error": {"type": "x", "message": "input new_sensitive (1026)", "http_code": "422"}},
        R.CONTENT_POLICY_VIOLATION,
    ),
    # https://github.com/MiniMax-AI/MiniMax-M2/issues/62
    (
        "MiniMax: no money",
        500,
        {"type": "error", "error": {"type": "api_error", "message": "insufficient balance (1008)"}},
        R.UPSTREAM_AUTHENTICATION,
    ),
    # https://github.com/BigPizzaV3/CodexPlusPlus/issues/267
    (
        "MiniMax: a parameter",
        400,
        {"error": {"type": "bad_request_error", "message": "invalid chat setting (2013)", "http_code": "400"}},
        R.INVALID_REQUEST,
    ),
    # https://www.alibabacloud.com/help/en/model-studio/error-code
    (
        "DashScope: arrears",
        400,
        {"error": {"code": "Arrearage", "type": "Arrearage", "param": None, "message": "x"}},
        R.UPSTREAM_AUTHENTICATION,
    ),
    ("DashScope: a limit", 400, {"error": {"code": "Throttling.RateQuota", "message": "x"}}, R.RATE_LIMITED),
    ("DashScope: a limit", 429, {"error": {"code": "limit_requests", "message": "x"}}, R.RATE_LIMITED),
    (
        "DashScope: refused",
        400,
        {"error": {"code": "data_inspection_failed", "message": "x"}},
        R.CONTENT_POLICY_VIOLATION,
    ),
    (
        "DashScope: too long",
        400,
        {"error": {"code": "invalid_parameter_error", "message": "Range of input length should be [1, 30720]"}},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://platform.kimi.ai/docs/api/errors
    ("Moonshot: too long", 400, {"error": {"message": "Input token length too long"}}, R.CONTEXT_LENGTH_EXCEEDED),
    (
        "Moonshot: no money",
        429,
        {"error": {"type": "exceeded_current_quota_error", "message": "x"}},
        R.UPSTREAM_AUTHENTICATION,
    ),
    (
        "Moonshot: no such model",
        404,
        {"error": {"type": "resource_not_found_error", "message": "x"}},
        R.MODEL_NOT_FOUND,
    ),
    ("Moonshot: refused", 400, {"error": {"type": "content_filter", "message": "x"}}, R.CONTENT_POLICY_VIOLATION),
    # https://developers.cloudflare.com/workers-ai/platform/errors/
    (
        "Cloudflare: no such model",
        400,
        {"success": False, "errors": [{"code": 5007, "message": "x"}]},
        R.MODEL_NOT_FOUND,
    ),
    ("Cloudflare: capacity", 429, {"success": False, "errors": [{"code": 3040, "message": "x"}]}, R.OVERLOADED),
    ("Cloudflare: used up", 429, {"success": False, "errors": [{"code": 3036, "message": "x"}]}, R.RATE_LIMITED),
    ("Cloudflare: in a 200", 200, {"success": False, "errors": [{"code": 3040, "message": "x"}]}, R.OVERLOADED),
    # https://docs.siliconflow.cn/en/faqs/error-code
    ("SiliconFlow: no such model", 400, {"code": 20012, "message": "Model does not exist."}, R.MODEL_NOT_FOUND),
    ("SiliconFlow: no money", 403, {"code": 30001, "message": "x", "data": None}, R.UPSTREAM_AUTHENTICATION),
    # https://docs.databricks.com/aws/en/machine-learning/model-serving/model-serving-limits
    ("Databricks: a limit", 429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "x"}, R.RATE_LIMITED),
    (
        "Databricks: no such model",
        404,
        {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"},
        R.MODEL_NOT_FOUND,
    ),
    # https://huggingface.co/docs/inference-providers
    (
        "Hugging Face: no provider",
        400,
        {"error": {"message": "The requested model is not supported", "code": "model_not_supported"}},
        R.MODEL_NOT_FOUND,
    ),
    (
        "Hugging Face: credits",
        402,
        {"error": "You have exceeded your monthly included credits."},
        R.UPSTREAM_AUTHENTICATION,
    ),
    (
        "TGI",
        422,
        {"error": "`inputs` must have less than 4096 tokens. Given: 5000", "error_type": "validation"},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://openrouter.ai/docs/api/reference/errors-and-debugging
    (
        "OpenRouter: no such model",
        400,
        {"error": {"code": 400, "message": "x is not a valid model ID"}},
        R.MODEL_NOT_FOUND,
    ),
    (
        "OpenRouter: no tools",
        404,
        {"error": {"code": 404, "message": "No endpoints found that support tool use."}},
        R.UNSUPPORTED_FEATURE,
    ),
    # https://api-docs.deepseek.com/quick_start/error_codes
    (
        "DeepSeek: no such model",
        400,
        {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}},
        R.MODEL_NOT_FOUND,
    ),
    ("DeepSeek: no money", 402, {"error": {"message": "Insufficient Balance"}}, R.UPSTREAM_AUTHENTICATION),
    # https://docs.mistral.ai/api/
    (
        "Mistral: no such model",
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        R.MODEL_NOT_FOUND,
    ),
    # https://github.com/portkey-ai/gateway/tree/main/src/providers/fireworks-ai
    ("Fireworks: its proxy", 401, {"fault": {"faultstring": "x", "detail": {}}}, R.UPSTREAM_AUTHENTICATION),
    # https://www.scaleway.com/en/docs/generative-apis/api-cli/understanding-errors/
    ("Scaleway: no such model", 422, {"error": {"message": "Model Not Found", "code": 422}}, R.MODEL_NOT_FOUND),
    # https://console.groq.com/docs/deprecations
    ("Groq: gone", 400, {"error": {"message": "x", "code": "model_decommissioned"}}, R.MODEL_NOT_FOUND),
    (
        "Groq: tokens per minute",
        413,
        {"error": {"message": "Request too large for model", "type": "tokens", "code": "rate_limit_exceeded"}},
        R.RATE_LIMITED,
    ),
    # https://github.com/Alishahryar1/free-claude-code/issues/1354
    (
        "Groq: a limit that is too high",
        400,
        {
            "error": {
                "message": "`max_completion_tokens` must be less than or equal to `16384`, the maximum value for "
                "`max_completion_tokens` is less than the `context_window` for this model",
                "type": "invalid_request_error",
                "param": "max_completion_tokens",
            }
        },
        R.INVALID_REQUEST,
    ),
    (
        "Cerebras: too long",
        400,
        {"message": "Current length is 9000 while limit is 8192", "type": "invalid_request_error"},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    (
        "Perplexity: no such model",
        400,
        {"error": {"type": "invalid_model", "message": "x", "code": 400}},
        R.MODEL_NOT_FOUND,
    ),
    (
        "GitHub: no such model",
        400,
        {"error": {"code": "unknown_model", "message": "Unknown model: x"}},
        R.MODEL_NOT_FOUND,
    ),
    # https://platform.openai.com/docs/guides/error-codes
    (
        "OpenAI: no money",
        400,
        {"error": {"code": "billing_hard_limit_reached", "message": "x"}},
        R.UPSTREAM_AUTHENTICATION,
    ),
    (
        "OpenAI: a name that is too long",
        400,
        {
            "error": {
                "code": "string_above_max_length",
                "param": "user",
                "message": "Invalid 'user': string too long.",
            }
        },
        R.INVALID_REQUEST,
    ),
    (
        "OpenAI: a message that is too long",
        400,
        {
            "error": {
                "code": "string_above_max_length",
                "param": "messages[0].content",
                "message": "string too long.",
            }
        },
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
]


def read(status: int, body: dict[str, Any]) -> ProviderError:
    """The error of a response with this status; one inside a 200 is raised."""
    if status != 200:
        return errors.error(status, {}, json.dumps(body).encode())
    with pytest.raises(ProviderError) as caught:
        errors.raise_error(body)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "reason"), [row[1:] for row in ERRORS], ids=[f"{row[0]} ({row[1]})" for row in ERRORS]
)
def test_reasons(status: int, body: dict[str, Any], reason: Reason) -> None:
    error = read(status, body)
    assert error.reason is reason
    refused = (R.CONTENT_POLICY_VIOLATION, R.INVALID_REQUEST)
    assert error.fall_over is (reason not in refused)


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        # https://docs.api.nvidia.com/nim/reference/llm-apis
        (
            {"detail": [{"type": "missing", "loc": ["body", "messages", 0, "content"], "msg": "Field required"}]},
            "messages[0].content: Field required",
            "messages[0].content",
        ),
        (
            {
                "type": "urn:inference-service:problem-details:bad-request",
                "title": "Bad Request",
                "detail": "Bad top_p.",
            },
            "Bad top_p.",
            None,
        ),
        # https://github.com/Kilo-Org/kilocode/issues/9652
        (
            {"error": "body -> n\n  Extra inputs are not permitted (type=extra_forbidden)"},
            "body -> n\n  Extra inputs are not permitted (type=extra_forbidden)",
            None,
        ),
        # https://docs.mistral.ai/api/
        (
            {
                "object": "error",
                "message": {
                    "detail": [
                        {"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not permitted"},
                        {"type": "missing", "loc": ["body", "y"], "msg": "Field required"},
                    ]
                },
            },
            "x: Extra inputs are not permitted; y: Field required",
            "x",
        ),
        # https://novita.ai/docs/api-reference/model-apis-error
        ({"code": 400, "reason": "INVALID_REQUEST_BODY", "message": "bad body", "metadata": {}}, "bad body", None),
        # https://docs.sambanova.ai/docs/en/features/openai-compatibility
        (
            {"error": {"code": None, "message": "bad n", "param": "n", "type": "invalid_request_error"}},
            "bad n",
            "n",
        ),
        ({"error": "bad seed"}, "bad seed", None),
        # https://www.scaleway.com/en/docs/generative-apis/api-cli/understanding-errors/
        ({"error": "Bad Request", "status": 422, "message": "bad stop"}, "bad stop", None),
        ({"errors": ["bad role"]}, "bad role", None),
        ({"code": 500, "msg": "bad call", "success": False}, "bad call", None),
    ],
)
def test_messages(body: dict[str, Any], message: str, param: str | None) -> None:
    error = read(422, body)
    assert (error.reason, error.message, error.param) == (R.INVALID_REQUEST, message, param)


@pytest.mark.parametrize(
    "message",
    [
        # https://github.com/musistudio/claude-code-router/issues/708
        "Unsupported JSON schema fields: {'minItems', 'items'}",
        # https://github.com/vllm-project/vllm/issues/26421
        "The provided JSON schema contains features not supported by xgrammar.",
        # https://github.com/ggml-org/llama.cpp/blob/master/common/json-schema-to-grammar.cpp
        "JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
    ],
)
def test_a_schema_that_grammars_cannot_express_is_emulated(message: str) -> None:
    """The reason and the field by which `upstream/emulation/fallback.py` knows it."""
    error = read(400, {"error": {"message": message, "code": "wrong_api_format"}})
    assert (error.reason, error.param) == (R.UNSUPPORTED_FEATURE, "response_format")
