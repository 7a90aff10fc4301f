"""The dialects: one row each, with its translator and what the translator knows that no vendor's row can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from server.dialects.anthropic import models as anthropic_models
from server.dialects.anthropic import request as anthropic_request
from server.dialects.anthropic.dialect import AnthropicTranslator
from server.dialects.base import Translator
from server.dialects.bedrock import models as bedrock_models
from server.dialects.bedrock import request as bedrock_request
from server.dialects.bedrock.dialect import BedrockTranslator
from server.dialects.gemini import dialect as gemini
from server.dialects.gemini.dialect import GeminiTranslator
from server.dialects.openai.dialect import OpenAITranslator


def _nothing(model: str) -> frozenset[str]:
    return frozenset()


class Dialect(NamedTuple):
    """What of one dialect depends on the dialect or on the model, not on the vendor.

    `extra_body`: unknown top-level fields it honours (None: all). `drops`: what a model makes it leave out.
    `emulates`: what the gateway does for its endpoints whatever their vendor's row says, by vendor type; the empty
    type stands for all others. The rest follows from that row: see catalog.py.
    """

    translator: Translator
    extra_body: frozenset[str] | None = frozenset()
    drops: Callable[[str], frozenset[str]] = _nothing
    emulates: Mapping[str, frozenset[str]] = {}


_URLS = frozenset({"image_url", "file_url"})
#: Native for some models and some schemas; emulation.NATIVE_SCHEMAS decides by request.
_SCHEMA = frozenset({"json_schema"})

DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(OpenAITranslator(), extra_body=None, emulates={"ollama": frozenset({"image_url"})}),
    "anthropic": Dialect(
        AnthropicTranslator(),
        anthropic_request.EXTRA_BODY,
        anthropic_models.drops,
        emulates={"": _SCHEMA, "vertex": _SCHEMA | _URLS},
    ),
    "gemini": Dialect(GeminiTranslator(), gemini.EXTRA_BODY, emulates={"": frozenset({"image_url"})}),
    "bedrock": Dialect(
        BedrockTranslator(),
        bedrock_request.EXTRA_BODY,
        bedrock_models.drops,
        emulates={"": _SCHEMA | _URLS},
    ),
}
