"""Codes of single vendors of the OpenAI dialect, where the HTTP status says less or something else.

Codes that several vendors share are in `dialects/errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.errors import Reason

_ACCOUNT = Reason.UPSTREAM_AUTHENTICATION  # the key, or the gateway's account: unpaid, blocked, without access
_LIMIT = Reason.RATE_LIMITED
_REFUSED = Reason.CONTENT_POLICY_VIOLATION
_TOO_LONG = Reason.CONTEXT_LENGTH_EXCEEDED
_MODEL = Reason.MODEL_NOT_FOUND
_INVALID = Reason.INVALID_REQUEST
_BUSY = Reason.OVERLOADED

#: Z.ai and Zhipu: four digits in `error.code`, under 400, 401, 429 or 500; `dialects/errors.py` has 1261 and 1301.
#: https://docs.z.ai/api-reference/api-code  https://docs.bigmodel.cn/cn/api/api-code
_ZAI: Mapping[str, Reason] = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), _ACCOUNT),  # the key
    **dict.fromkeys(("1110", "1111", "1112", "1113", "1120", "1121"), _ACCOUNT),  # inactive, locked, in arrears
    "1210": _INVALID,
    "1211": _MODEL,
    "1212": _INVALID,
    "1213": _INVALID,
    "1214": _INVALID,
    "1215": _INVALID,
    "1220": _ACCOUNT,
    "1221": _MODEL,  # an API that is gone, or never was
    "1222": _MODEL,
    "1230": Reason.UPSTREAM_ERROR,
    "1234": Reason.UPSTREAM_ERROR,
    "1300": _REFUSED,
    **dict.fromkeys(("1302", "1303", "1304", "1305", "1308", "1310", "1313"), _LIMIT),
    "1309": _ACCOUNT,  # the plan has ended, or has no such model
    "1311": _ACCOUNT,
    "1312": _BUSY,
}

#: MiniMax: `base_resp.status_code`, mostly inside a 200, or in parentheses at the end of a message.
#: https://github.com/MiniMax-AI/MiniMax-M2/issues/62  https://github.com/esengine/DeepSeek-Reasonix/issues/6818
#: https://platform.minimax.io/docs/api-reference/errorcode
_MINIMAX: Mapping[str, Reason] = {
    "base_resp_1000": Reason.UPSTREAM_ERROR,
    "base_resp_1001": Reason.TIMEOUT,
    "base_resp_1002": _LIMIT,
    "base_resp_1004": _ACCOUNT,
    "base_resp_1008": _ACCOUNT,
    "base_resp_1013": Reason.UPSTREAM_ERROR,
    "base_resp_1024": Reason.UPSTREAM_ERROR,
    "base_resp_1026": _REFUSED,
    "base_resp_1027": _REFUSED,
    "base_resp_1033": Reason.UPSTREAM_ERROR,
    "base_resp_1039": _LIMIT,
    "base_resp_1041": _LIMIT,
    "base_resp_1042": _INVALID,
    "base_resp_2013": _INVALID,
    "base_resp_2045": _LIMIT,
    "base_resp_2049": _ACCOUNT,
    "base_resp_2056": _LIMIT,
}

#: Cloudflare Workers AI: `errors[0].code`. https://developers.cloudflare.com/workers-ai/platform/errors/
_CLOUDFLARE: Mapping[str, Reason] = {
    "3003": _INVALID,
    "3006": Reason.REQUEST_TOO_LARGE,
    "3007": Reason.TIMEOUT,
    "3008": Reason.TIMEOUT,
    "3023": _ACCOUNT,
    "3036": _LIMIT,  # the day's free allocation
    "3040": _BUSY,
    "3041": _ACCOUNT,
    "3042": _MODEL,
    "5004": _INVALID,
    "5007": _MODEL,
    "5016": _ACCOUNT,
    "5018": _ACCOUNT,
}

#: DashScope: words, in Alibaba's spelling or in snake case. https://www.alibabacloud.com/help/en/model-studio/error-code
_DASHSCOPE: Mapping[str, Reason] = {
    "arrearage": _ACCOUNT,
    "accessdenied": _ACCOUNT,
    "accessdenied.unpurchased": _ACCOUNT,
    "access_denied": _ACCOUNT,
    "invalidapikey": _ACCOUNT,
    "modelnotfound": _MODEL,
    "throttling": _LIMIT,
    "throttling.ratequota": _LIMIT,
    "throttling.burstrate": _LIMIT,
    "throttling.allocationquota": _LIMIT,
    "limit_requests": _LIMIT,
    "limit_burst_rate": _LIMIT,
    "modelservingerror": _BUSY,
    "modelunavailable": _BUSY,
}

#: Words of others, as `code` or `type`.
_WORDS: Mapping[str, Reason] = {
    "tokens_limit_reached": _TOO_LONG,  # GitHub Models: https://github.com/eslint/tsc-meetings/pull/593
    "unknown_model": _MODEL,  # GitHub Models
    "20012": _MODEL,  # SiliconFlow: https://docs.siliconflow.cn/en/faqs/error-code
    "invalid_model": _MODEL,  # Perplexity, Mistral
    "model_decommissioned": _MODEL,  # Groq: https://console.groq.com/docs/deprecations
    "model_not_supported": _MODEL,  # Hugging Face: no provider that the account has enabled serves it
    "resource_not_found_error": _MODEL,  # Moonshot: https://platform.kimi.ai/docs/api/errors
    "exceeded_current_quota_error": _ACCOUNT,  # Moonshot: a balance that is too low, under 429
    "incorrect_api_key_error": _ACCOUNT,  # Moonshot
    "billing_hard_limit_reached": _ACCOUNT,  # OpenAI, under 400: https://platform.openai.com/docs/guides/error-codes
    "billing_not_active": _ACCOUNT,  # OpenAI, under 429
    "insufficient_balance_error": _ACCOUNT,  # MiniMax, under 429 and 500
    "invalid_authentication_error": _ACCOUNT,  # Moonshot
    "rate_limit_reached_error": _LIMIT,  # Moonshot
    "request_limit_exceeded": _LIMIT,  # Databricks
    "resource_does_not_exist": _MODEL,  # Databricks
    "temporarily_unavailable": _BUSY,  # Databricks
}

#: Code or type in lower case -> Reason.
REASONS: Mapping[str, Reason] = {**_ZAI, **_MINIMAX, **_CLOUDFLARE, **_DASHSCOPE, **_WORDS}
