"""The dialects: one row each. ADDING.md says what it takes to add one."""

from __future__ import annotations

from collections.abc import Mapping

from server.dialects import anthropic, bedrock, gemini, openai
from server.dialects.base import Dialect

#: Every `dialect` an endpoint may have.
DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (openai.DIALECT, anthropic.DIALECT, gemini.DIALECT, bedrock.DIALECT)
}
