"""The OpenAI dialect: chat completions. https://platform.openai.com/docs/api-reference/chat."""

from server.dialects.base import Dialect
from server.dialects.openai.dialect import OpenAITranslator
from server.dialects.openai.platform import DEFAULT_PLATFORM

DIALECT = Dialect(
    name="openai",
    translator=OpenAITranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=None,
    other_parts=True,
)
