"""Errors of single vendors of the OpenAI dialect, with their sources."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.openai.dialect import OpenAITranslator
from server.dialects.openai.errors import raise_error
from server.errors import ProviderError, Reason

R = Reason


#: Status, body, reason.
ERRORS: list[tuple[str, int, Any, R]] = [
    # https://github.com/eslint/tsc-meetings/pull/593
    (
        "GitHub Models",
        413,
        {
            "error": {
                "code": "tokens_limit_reached",
                "message": "Request body too large for gpt-4o model. Max size: 8000 tokens.",
            }
        },
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts
    (
        "GitHub Copilot",
        400,
        {"error": {"message": "prompt token count of 200000 exceeds the limit of 128000"}},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    (
        "MiniMax",
        400,
        {"error": {"message": "invalid params, context window exceeds limit"}},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://github.com/OpenHands/OpenHands/pull/9252
    (
        "SambaNova",
        400,
        {
            "error": {
                "message": "The maximum context length of DeepSeek-V3-0324 is 32768. However, it will take more."
            }
        },
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://github.com/cohere-ai/cohere-developer-experience/pull/189
    ("Cohere, unsafe", 498, {"message": "blocked"}, R.CONTENT_POLICY_VIOLATION),
    # https://github.com/cloudflare/cloudflare-docs/issues/15116
    (
        "Cloudflare",
        400,
        {"result": None, "success": False, "errors": [{"code": 5021, "message": "context window exceeded"}]},
        R.CONTEXT_LENGTH_EXCEEDED,
    ),
    # https://github.com/anomalyco/opencode/issues/4698
    (
        "Databricks",
        400,
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "INVALID_PARAMETER_VALUE: Missing 'messages'"},
        R.INVALID_REQUEST,
    ),
    # https://github.com/mindcraft-bots/mindcraft/issues/163
    ("NVIDIA", 403, {"status": 403, "title": "Forbidden", "detail": "denied"}, R.UPSTREAM_AUTHENTICATION),
]


@pytest.mark.parametrize(("status", "body", "reason"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors_of_vendors(status: int, body: Any, reason: R) -> None:
    error = OpenAITranslator().error(status, {}, json.dumps(body).encode())
    assert error.reason is reason


def test_databricks_code_reaches_the_caller() -> None:
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}
    error = OpenAITranslator().error(400, {}, json.dumps(body).encode())
    assert (error.code, error.message) == ("INVALID_PARAMETER_VALUE", "no")


@pytest.mark.parametrize(
    ("code", "reason", "falls_over"),
    [
        (1002, R.RATE_LIMITED, True),
        (1008, R.UPSTREAM_AUTHENTICATION, True),
        (1027, R.CONTENT_POLICY_VIOLATION, False),
        (2013, R.INVALID_REQUEST, False),
        (1000, R.UPSTREAM_ERROR, True),
    ],
)
def test_minimax_fails_inside_a_200(code: int, reason: R, falls_over: bool) -> None:
    """https://platform.minimax.io/docs/api-reference/errorcode"""
    with pytest.raises(ProviderError) as raised:
        raise_error({"choices": None, "base_resp": {"status_code": code, "status_msg": "x"}})
    assert (raised.value.reason, raised.value.fall_over) == (reason, falls_over)


def test_minimax_success_is_none() -> None:
    raise_error({"choices": [{}], "base_resp": {"status_code": 0, "status_msg": ""}})
