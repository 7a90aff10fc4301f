"""The Anthropic dialect: the Messages API. https://platform.claude.com/docs/en/api/messages."""

from server.dialects.anthropic import models
from server.dialects.anthropic.dialect import AnthropicTranslator, native_format
from server.dialects.anthropic.platform import DEFAULT_PLATFORM
from server.dialects.anthropic.replay import FORMAT
from server.dialects.anthropic.request import EXTRA_BODY
from server.dialects.base import Dialect

DIALECT = Dialect(
    name="anthropic",
    translator=AnthropicTranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=EXTRA_BODY,
    drops=models.drops,
    emulates=frozenset({"json_schema"}),
    native_format=native_format,
    prefills=lambda model: models.of(model).prefill,
    signature_formats=frozenset({FORMAT}),
    paused=frozenset({"pause_turn"}),
)
