"""Bedrock's Converse responses and exceptions as completions and ProviderErrors, and the parts streams share.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.chat.openai_json.fields import decode
from server.dialects import errors as failures
from server.dialects import usage
from server.dialects.bedrock import shapes
from server.dialects.bedrock.replay import extra_content
from server.dialects.reading import read_error_body, reading, with_whole_characters
from server.errors import InvalidRequest, ProviderError, Reason

_T = TypeVar("_T")

#: stopReason -> finish_reason; any other word is read as `stop`.
_FINISH: Mapping[str, pb.FinishReason.ValueType] = {
    "end_turn": pb.FINISH_REASON_STOP,
    "stop_sequence": pb.FINISH_REASON_STOP,
    "tool_use": pb.FINISH_REASON_TOOL_CALLS,
    "max_tokens": pb.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": pb.FINISH_REASON_LENGTH,
    "guardrail_intervened": pb.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": pb.FINISH_REASON_CONTENT_FILTER,
}
#: The model wrote output that Bedrock could not parse: a failure, not an answer.
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
#: Fields passed on in `extra_json`, such as a guardrail's trace: attribute -> Bedrock's name.
_EXTRA_FIELDS = {
    "additional_model_response_fields": "additionalModelResponseFields",
    "metrics": "metrics",
    "performance_config": "performanceConfig",
    "trace": "trace",
}


def completion(body: bytes, names: Mapping[str, str]) -> tuple[pb.ChatCompletion, str]:
    """The completion, and Bedrock's stopReason. Raises ProviderError for an error in a 200 or an unreadable body.

    `names` maps tool names that were changed for Bedrock to the caller's.
    """
    try:
        response = _decode_response(body)
    except ProviderError:
        code, message = error_parts({}, body)
        if code or message:
            raise failure(200, code, message) from None
        raise
    with reading(body):
        out = _completion(response, names)
        blocks = response.output.message.content
        if not all(block.is_readable for block in blocks):
            whole = zip(decode(body)["output"]["message"]["content"], blocks, strict=True)
            out.choices[0].extra_json = other_blocks([block for block, read in whole if not read.is_readable])
        return out, response.stop_reason


def _completion(response: shapes.Response, names: Mapping[str, str]) -> pb.ChatCompletion:
    out = pb.ChatCompletion(model=invoked_model(response.trace), extra_json=extra_fields(response))
    choice = out.choices.add()
    choice.message.role = pb.ROLE_ASSISTANT
    _fill_message(choice.message, response.output.message.content, names)
    fill_stop_sequence(choice, response.additional_model_response_fields)
    choice.finish_reason = finish_reason(response.stop_reason, bool(choice.message.tool_calls))
    if response.usage is not None:
        fill_usage(out.usage, response.usage)
    if response.service_tier is not None:
        out.service_tier = usage.service_tier(response.service_tier.type)
    return out


def invoked_model(trace: Any) -> str:
    """The model to which a prompt router sent the request; an answer names no other.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PromptRouterTrace.html
    """
    match trace:
        case {"promptRouter": {"invokedModelId": str(model)}}:
            return model
    return ""


def fill_stop_sequence(choice: pb.Choice | pb.ChunkChoice, fields: Any) -> None:
    """Set the stop sequence that came, if a request's `additionalModelResponseFieldPaths` asks Claude for it."""
    match fields:
        case {"stop_sequence": str(sequence)}:
            choice.stop_sequence = sequence


def other_blocks(blocks: list[dict[str, Any]]) -> str:
    """The `extra_json` of a choice: blocks that the contract does not have, such as results of Bedrock's tools."""
    blocks = [block for block in blocks if block]
    return _text({"extra_content": {"bedrock": {"content": blocks}}}) if blocks else ""


def _fill_message(message: pb.Message, blocks: list[shapes.Block], names: Mapping[str, str]) -> None:
    """All blocks as one message."""
    text: list[str] = []
    reasoning: list[str] = []
    length = 0  # of the text, in characters
    for block in blocks:
        if block.text is not None:
            text.append(block.text)
            length += len(block.text)
        elif block.citations_content is not None:
            cited = "".join(piece.text for piece in block.citations_content.content or ())
            text.append(cited)
            start, length = length, length + len(cited)
            citations = block.citations_content.citations or ()
            message.annotations.extend(annotation(citation, start, length) for citation in citations)
        elif block.reasoning_content is not None:
            inner = block.reasoning_content.reasoning_text or shapes.ReasoningText()
            reasoning.append(inner.text)
            redacted = from_base64(block.reasoning_content.redacted_content or "")
            message.reasoning_details.extend(details(inner.text, inner.signature or "", redacted))
        elif block.tool_use is not None and block.tool_use.is_client_side:
            use = block.tool_use
            call = message.tool_calls.add(id=use.tool_use_id or f"call_{len(message.tool_calls)}")
            call.function.name = names.get(use.name, use.name)
            call.function.arguments = bytes(use.input).decode()
            if len(message.tool_calls) == 1:
                call.extra_json = extra_content(message.reasoning_details)
    if length:
        message.content.add(text="".join(text))
    if any(reasoning):
        message.reasoning_content = "".join(reasoning)


def details(text: str, signature: str, redacted: bytes) -> list[pb.ReasoningDetail]:
    """The `reasoning_details` of a complete block of reasoning; empty unless the block must be sent back.

    Signed text is Claude's, and so is a blob that holds Anthropic's `data` as text. OpenAI's and xAI's models
    use the same field for blobs of theirs, and each refuses the other's.
    https://github.com/maximhq/bifrost/pull/6834
    """
    if signature:
        return [pb.ReasoningDetail(text=text, signature=signature, format="anthropic")]
    if not redacted:
        return []
    # Base64 of a record that starts with its field 2, as in all of Claude's signatures.
    if redacted.startswith(b"E") and redacted.isascii():
        return [pb.ReasoningDetail(redacted=redacted.decode(), format="anthropic")]
    return [pb.ReasoningDetail(redacted=base64.b64encode(redacted).decode(), format="bedrock")]


def from_base64(data: str) -> bytes:
    """The bytes of a base64 blob. A streamed blob must be joined as bytes: its base64 pieces may be padded."""
    try:
        return base64.b64decode(data)
    except ValueError:
        raise failures.invalid_response("redactedContent is not base64") from None


def annotation(citation: dict[str, Any], start: int, end: int) -> pb.Annotation:
    """A citation of `content[start:end]`: of a web page as `url_citation`, of a document as Bedrock's object."""
    location = citation.get("location")
    web = location.get("web") if isinstance(location, dict) else None
    if isinstance(web, dict) and isinstance(web.get("url"), str):
        title = citation.get("title") or web.get("domain") or ""
        page = pb.UrlCitation(url=web["url"], title=str(title), start_index=start, end_index=end)
        rest = {name: value for name, value in citation.items() if name not in ("title", "location") and value}
        other = {name: value for name, value in web.items() if name != "url"}
        if other:
            rest["location"] = {"web": other}
        page.extra_json = _text(rest) if rest else ""
        return pb.Annotation(url_citation=page)
    whole = {"type": "citation", "citation": {**citation, "start_index": start, "end_index": end}}
    return pb.Annotation(other_json=_text(whole))


def finish_reason(stop_reason: str, has_calls: bool) -> pb.FinishReason.ValueType:
    """The finish_reason for a stopReason. Raises ProviderError for output that Bedrock could not parse.

    The presence of tool calls decides between `stop` and `tool_calls`: some models end a turn of calls with
    end_turn, or one without calls with tool_use. https://github.com/strands-agents/harness-sdk/pull/767
    """
    if stop_reason in _MALFORMED:
        raise failures.classify(502, message=f"stopReason {stop_reason}", reason=Reason.UPSTREAM_INVALID_RESPONSE)
    finish = _FINISH.get(stop_reason, pb.FINISH_REASON_STOP)
    if finish in (pb.FINISH_REASON_STOP, pb.FINISH_REASON_TOOL_CALLS):
        return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP
    return finish


def fill_usage(out: pb.Usage, counts: shapes.Usage) -> None:
    """Set the token counts. Bedrock's `inputTokens` exclude the cache; `prompt_tokens` include it."""
    read, written = counts.cache_read_input_tokens, counts.cache_write_input_tokens
    out.prompt_tokens = counts.input_tokens + (read or 0) + (written or 0)
    out.completion_tokens = counts.output_tokens
    out.total_tokens = out.prompt_tokens + out.completion_tokens
    if read is not None:
        out.prompt_tokens_details.cached_tokens = read
    if written is not None:
        out.prompt_tokens_details.cache_write_tokens = written
    if counts.cache_details:
        out.extra_json = _text({"cacheDetails": counts.cache_details})


def decoder(shape: type[_T]) -> Callable[[bytes], _T]:
    """A function that decodes JSON of one shape. It raises ProviderError."""
    decode_shape = msgspec.json.Decoder(shape).decode

    def read(data: bytes) -> _T:
        try:
            return decode_shape(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            with reading(data):
                return decode_shape(with_whole_characters(data))

    return read


_decode_response = decoder(shapes.Response)


def extra_fields(source: shapes.Response | shapes.MessageStop | shapes.Metadata) -> str:
    """The `extra_json` of a response, messageStop or metadata; empty if there is nothing to pass on."""
    values = {name: getattr(source, field, None) for field, name in _EXTRA_FIELDS.items()}
    found = {name: value for name, value in values.items() if value is not None}
    return _text(found) if found else ""


def _text(value: Any) -> str:
    try:
        return encode_text(value)
    except InvalidRequest as error:  # nested too deeply by the provider, not by the caller
        raise failures.invalid_response(error.message) from None


# Errors

#: An exception's name in lower case -> the HTTP status it has outside a stream, and its reason; None leaves
#: the reason to `_VALIDATION` and `errors.classify`. https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
_EXCEPTIONS: Mapping[str, tuple[int, Reason | None]] = {
    "accessdeniedexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "expiredtokenexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "incompletesignatureexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "invalidsignatureexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "missingauthenticationtokenexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "unrecognizedclientexception": (403, Reason.UPSTREAM_AUTHENTICATION),
    "internalserverexception": (500, Reason.UPSTREAM_ERROR),
    "modelerrorexception": (424, Reason.UPSTREAM_ERROR),
    "modelnotreadyexception": (429, Reason.OVERLOADED),
    "modelstreamerrorexception": (424, Reason.UPSTREAM_ERROR),
    "modeltimeoutexception": (408, Reason.TIMEOUT),
    "resourcenotfoundexception": (404, Reason.MODEL_NOT_FOUND),
    "servicequotaexceededexception": (429, Reason.RATE_LIMITED),
    "serviceunavailableexception": (503, Reason.OVERLOADED),
    "throttlingexception": (429, Reason.RATE_LIMITED),
    "validationexception": (400, None),
}
#: Phrases of ValidationExceptions, a class that covers everything, with their reasons.
_VALIDATION = (
    ("model identifier is invalid", Reason.MODEL_NOT_FOUND),
    ("with on-demand throughput isn", Reason.MODEL_NOT_FOUND),
    ("model version has reached the end of its life", Reason.MODEL_NOT_FOUND),
    ("not authorized to invoke", Reason.UPSTREAM_AUTHENTICATION),
    ("blocked by content filtering policy", Reason.CONTENT_POLICY_VIOLATION),
    ("model doesn't support", Reason.UNSUPPORTED_FEATURE),
    ("model does not support", Reason.UNSUPPORTED_FEATURE),
)
#: The keys a message is found under.
_MESSAGE_KEYS = ("message", "Message", "originalMessage")


def error_parts(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """The exception's name without its namespaces, and the message."""
    obj = read_error_body(body)
    if not isinstance(obj, dict):
        obj = {}
    if isinstance(obj.get("Output"), dict):  # AWS's error for an unknown path, in a 200
        obj = obj["Output"]
    code = headers.get("x-amzn-errortype", "") or failures.text(obj.get("__type"))
    message = next((text for name in _MESSAGE_KEYS if (text := failures.text(obj.get(name)))), "")
    return code.partition(":")[0].rpartition("#")[2], message


def failure(status: int, code: str, message: str, *, retry_after: float | None = None) -> ProviderError:
    """The error for an exception. One inside a 200 or a stream gets the status it has as a response."""
    exception_status, reason = _EXCEPTIONS.get(code.lower(), (500, None))
    if status < 400:
        status = exception_status
    if status == 400 and reason is None:
        text = message.lower()
        reason = next((found for phrase, found in _VALIDATION if phrase in text), None)
    return failures.classify(status, code=code, message=message, reason=reason, retry_after=retry_after)
