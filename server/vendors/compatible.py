"""What the rows of the OpenAI dialect share: the plain form, and sets of fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from server.dialects.base import Vendor

TEXT = frozenset({"text"})
IMAGES = frozenset({"text", "image"})
DOCUMENTS = frozenset({"text", "image", "file"})

TEXT_ONLY = frozenset({"text"})
JSON_OBJECT = frozenset({"text", "json_object"})
JSON_SCHEMA = frozenset({"text", "json_schema"})
ALL_FORMATS = JSON_OBJECT | JSON_SCHEMA

LOGPROBS = frozenset({"logprobs", "top_logprobs"})
PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
#: Fields that only OpenAI's own service has.
PLATFORM = frozenset({"store", "prediction", "verbosity", "modalities", "audio", "web_search_options"})
#: Fields that label a request, and the one that selects its queue.
LABELS = frozenset({"user", "metadata", "service_tier"})

#: OpenAI's request fields that the contract passes on as unknown ones; vendors with a fixed schema refuse them.
NEWER = frozenset(
    {"moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier"}
)

#: Fields of OpenAI's assistant turns that vendors with a schema of their own do not have.
OF_ANSWERS = frozenset({"refusal", "annotations", "audio"})

#: For `Vendor.extensions` of vendors that refuse fields which OpenAI does not know.
NO_EXTENSIONS: frozenset[str] = frozenset()
#: The values of `image_url.detail` before OpenAI added `original`.
DETAILS = frozenset({"auto", "low", "high"})

NEWER_LIMIT = "max_completion_tokens"

#: OpenAI's words for `reasoning_effort`.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

#: `Vendor.checked` of the rows whose source was read on this day.
CHECKED = "2026-11-28"


def efforts(*words: str, **others: Mapping[str, Any] | str) -> Mapping[str, Mapping[str, Any]]:
    """`Vendor.efforts` of a vendor that takes the efforts `words` only.

    `others`: effort -> the vendor's equivalent, another effort or body fields. All further efforts are left out.
    """
    equivalents = {
        effort: {"reasoning_effort": sent} if isinstance(sent, str) else sent for effort, sent in others.items()
    }
    return {effort: equivalents.get(effort, {}) for effort in EFFORTS if effort not in words}


def compatible(type_: str, base_url: str = "", env: Iterable[str] = (), *, source: str, **quirks: Any) -> Vendor:
    """A server of the OpenAI dialect that is not OpenAI: the older names, which they all know."""
    plain = {"dialect": "openai", "token_limit": "max_tokens", "developer_role": False}
    return Vendor(type=type_, base_url=base_url, env=tuple(env), source=source, **{**plain, **quirks})
