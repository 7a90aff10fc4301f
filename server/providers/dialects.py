"""The dialects: one row each, with its translator and what the translator knows that no vendor's row can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from server.providers import anthropic_request, bedrock_models, bedrock_request, gemini
from server.providers.anthropic import AnthropicTranslator
from server.providers.base import Translator
from server.providers.bedrock import BedrockTranslator
from server.providers.gemini import GeminiTranslator
from server.providers.openai import OpenAITranslator


def _nothing(model: str) -> frozenset[str]:
    return frozenset()


class Dialect(NamedTuple):
    """`extra_body`: unknown top-level fields it honours (None: all); `drops`: what a model makes it leave out."""

    translator: Translator
    extra_body: frozenset[str] | None = frozenset()
    drops: Callable[[str], frozenset[str]] = _nothing


DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(OpenAITranslator(), extra_body=None),
    "anthropic": Dialect(AnthropicTranslator(), anthropic_request.EXTRA_BODY),
    "gemini": Dialect(GeminiTranslator(), gemini.EXTRA_BODY),
    "bedrock": Dialect(BedrockTranslator(), bedrock_request.EXTRA_BODY, bedrock_models.drops),
}
