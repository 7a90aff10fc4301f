"""The Gemini dialect: generateContent. https://ai.google.dev/api/generate-content."""

from server.dialects.base import Dialect
from server.dialects.gemini.contents import FORMAT, native_uri
from server.dialects.gemini.dialect import GeminiTranslator
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.dialects.gemini.request import EXTRA_BODY

DIALECT = Dialect(
    name="gemini",
    translator=GeminiTranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=EXTRA_BODY,
    emulates=frozenset({"image_url"}),
    native_url=native_uri,
    # In `extra_content` its signatures stand under `google`, as in Google's OpenAI-compatible API.
    signature_formats=frozenset({FORMAT, "google"}),
    other_parts=True,
)
