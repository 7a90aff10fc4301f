"""The shapes of Bedrock's answers and stream events: the fields that are read, and no others.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from __future__ import annotations

from typing import Any

import msgspec


class _Shape(msgspec.Struct, rename="camel"):
    """An object of Bedrock's JSON; fields that are not declared are skipped."""


class ToolUse(_Shape):
    """A tool call. `input` is JSON text as Bedrock wrote it; in a stream it is `{}`, and `ToolInput` has it."""

    tool_use_id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")
    #: `server_tool_use` where the tool ran on Bedrock's side.
    type: str | None = None

    @property
    def is_client_side(self) -> bool:
        """True where the caller runs the tool, False where Bedrock did."""
        return self.type != "server_tool_use"


class ReasoningText(_Shape):
    """Visible reasoning; Claude signs it."""

    text: str = ""
    signature: str | None = None


class Reasoning(_Shape):
    """A block of reasoning; `redacted_content` is base64."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Text(_Shape):
    """A piece of cited text."""

    text: str = ""


class Citations(_Shape):
    """Cited text and its citations; Nova sends the citations in a block without text, after the text."""

    content: list[Text] | None = None
    citations: list[dict[str, Any]] | None = None


class Block(_Shape):
    """A content block: one field is set, none for a kind that the contract does not have."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None

    @property
    def is_readable(self) -> bool:
        """False for a kind that the contract does not have, or a call of a tool that ran on Bedrock's side."""
        if self.tool_use is not None:
            return self.tool_use.is_client_side
        return not (self.text is None and self.reasoning_content is None and self.citations_content is None)


class Message(_Shape):
    """The assistant's message."""

    content: list[Block]


class Output(_Shape):
    """The wrapper of the message."""

    message: Message


class Usage(_Shape):
    """Token counts; `input_tokens` excludes tokens read from or written to the cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: Any = None


class Tier(_Shape):
    """The service tier that served the call."""

    type: str


class Response(_Shape):
    """The body of a Converse response."""

    output: Output
    stop_reason: str
    usage: Usage | None = None
    service_tier: Tier | None = None
    additional_model_response_fields: Any = None
    trace: Any = None
    performance_config: Any = None
    metrics: Any = None


class Start(_Shape):
    """The head of a block; empty for text. `tool_result` and `image` are passed on, see other_block.py."""

    tool_use: ToolUse | None = None
    tool_result: dict[str, Any] | None = None
    image: dict[str, Any] | None = None


class BlockStart(_Shape):
    """contentBlockStart; may be missing for a text block."""

    start: Start
    content_block_index: int


class ToolInput(_Shape):
    """A piece of a tool call's input, as JSON text."""

    input: str = ""


class ReasoningDelta(_Shape):
    """A piece of reasoning text, of its signature, or of a redacted blob (base64)."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(_Shape):
    """The content of a contentBlockDelta; one field is set."""

    text: str | None = None
    tool_use: ToolInput | None = None
    reasoning_content: ReasoningDelta | None = None
    citation: dict[str, Any] | None = None
    tool_result: list[dict[str, Any]] | None = None
    image: dict[str, Any] | None = None


class BlockDelta(_Shape):
    """contentBlockDelta."""

    delta: Delta
    content_block_index: int


class BlockStop(_Shape):
    """contentBlockStop."""

    content_block_index: int


class MessageStop(_Shape):
    """messageStop."""

    stop_reason: str
    additional_model_response_fields: Any = None


class Metadata(_Shape):
    """metadata: usage, usually the last event."""

    usage: Usage | None = None
    service_tier: Tier | None = None
    trace: Any = None
    performance_config: Any = None
    metrics: Any = None
