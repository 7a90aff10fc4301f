"""Amazon Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from server.dialects.base import Dialect
from server.dialects.bedrock import models
from server.dialects.bedrock.dialect import BedrockTranslator
from server.dialects.bedrock.platform import DEFAULT_PLATFORM
from server.dialects.bedrock.request import EXTRA_BODY

DIALECT = Dialect(
    name="bedrock",
    translator=BedrockTranslator(),
    platform=DEFAULT_PLATFORM,
    extra_body=EXTRA_BODY,
    drops=models.drops,
    emulates=frozenset({"json_schema", "image_url", "file_url"}),
    native_format=models.native_format,
    # Claude's reasoning has the format it has at Anthropic's.
    signature_formats=frozenset({"bedrock", "anthropic"}),
)
