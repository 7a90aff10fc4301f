"""The Gemini dialect: generateContent. https://ai.google.dev/api/generate-content."""

from server.dialects.base import Dialect
from server.dialects.gemini.dialect import GeminiTranslator
from server.dialects.gemini.media import native_uri
from server.dialects.gemini.platform import DEFAULT_PLATFORM
from server.dialects.gemini.replay import FORMAT
from server.dialects.gemini.request import EXTRA_BODY, native_format

DIALECT = Dialect(
    name="gemini",
    translator=GeminiTranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=EXTRA_BODY,
    emulates=frozenset({"json_object", "json_schema", "image_url"}),
    native_format=native_format,
    native_url=native_uri,
    # In `extra_content` its signatures stand under `google`, as in Google's OpenAI-compatible API.
    signature_formats=frozenset({FORMAT, "google"}),
    other_parts=True,
)
