"""Amazon Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
Bedrock gives an answer no id, and counts no reasoning tokens. Tools that run on
its side, as Nova's grounding does, are not the caller's: their calls are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest
from server.dialects import errors as failures
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.bedrock import response as given
from server.dialects.bedrock.messages import tool_names
from server.dialects.bedrock.replay import extra_content
from server.dialects.bedrock.request import http_request
from server.dialects.bedrock.stream import BedrockDecoder
from server.errors import ProviderError

_answer = given.shaped(given.Answer)


class BedrockTranslator:
    """Pure; see `base.Translator`."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """`POST /model/{id}/converse` or `/converse-stream`, unsigned."""
        return http_request(request.to_proto(), endpoint, stream=stream)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, and its stopReason."""
        try:
            answer = _answer(body)
        except ProviderError:
            code, message = given.error_parts({}, body)
            if code or message:  # an error in a 200
                raise given.failure(200, code, message) from None
            raise
        completion = pb.ChatCompletion()
        choice = completion.choices.add()
        choice.message.role = pb.ROLE_ASSISTANT
        _fill(choice.message, answer.output.message.content, tool_names(request.to_proto()))
        choice.finish_reason = given.finish_reason(answer.stop_reason, bool(choice.message.tool_calls))
        if answer.usage is not None:
            given.count(completion.usage, answer.usage)
        if answer.service_tier is not None:
            completion.service_tier = answer.service_tier.type
        completion.extra_json = given.kept(answer)
        return ProtoCompletion(completion, answer.stop_reason)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The exception's name is in `x-amzn-errortype` or `__type`, the body is `{"message": ...}`."""
        code, message = given.error_parts(headers, body)
        return given.failure(status, code, message, retry_after=failures.retry_after(headers))

    def decoder(self, request: ChatRequest) -> BedrockDecoder:
        """A fresh decoder."""
        return BedrockDecoder(tool_names(request.to_proto()))


def _fill(message: pb.Message, blocks: list[given.Block], names: Mapping[str, str]) -> None:
    """A turn's blocks as one message."""
    text = reasoning = ""
    for block in blocks:
        if block.text is not None:
            text += block.text
        elif block.citations_content is not None:
            start = len(text)
            text += "".join(piece.text for piece in block.citations_content.content or ())
            citations = block.citations_content.citations or ()
            message.annotations.extend(given.annotation(citation, start, len(text)) for citation in citations)
        elif block.reasoning_content is not None:
            inner = block.reasoning_content.reasoning_text or given.ReasoningText()
            reasoning += inner.text
            redacted = given.from_base64(block.reasoning_content.redacted_content or "")
            message.reasoning_details.extend(given.details(inner.text, inner.signature or "", redacted))
        elif block.tool_use is not None and block.tool_use.is_callers:
            use = block.tool_use
            call = message.tool_calls.add(id=use.tool_use_id or f"call_{len(message.tool_calls)}")
            call.function.name = names.get(use.name, use.name)
            call.function.arguments = bytes(use.input).decode()
            if len(message.tool_calls) == 1:
                call.extra_json = extra_content(message.reasoning_details)
    if text:
        message.content.add(text=text)
    if reasoning:
        message.reasoning_content = reasoning
