"""What Bedrock says, in our words: its answers' shapes, and the pieces that unary answers and streams share.

Shapes hold what is read and no more; all else in an answer is passed over.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
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
from server.errors import InvalidRequest, ProviderError, Reason

_T = TypeVar("_T")

#: stopReason -> ours; one that is not here is read as `stop`.
_FINISH: Mapping[str, pb.FinishReason.ValueType] = {
    "end_turn": pb.FINISH_REASON_STOP,
    "stop_sequence": pb.FINISH_REASON_STOP,
    "tool_use": pb.FINISH_REASON_TOOL_CALLS,
    "max_tokens": pb.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": pb.FINISH_REASON_LENGTH,
    "guardrail_intervened": pb.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": pb.FINISH_REASON_CONTENT_FILTER,
}
#: The model wrote what Bedrock could not read: the answer is not one.
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
#: Fields that have no other place, e.g. a guardrail's trace.
_KEPT = {
    "additional_model_response_fields": "additionalModelResponseFields",
    "performance_config": "performanceConfig",
    "trace": "trace",
}


# Shapes


class _In(msgspec.Struct, rename="camel"):
    pass


class ToolUse(_In):
    """A call, by the model; `input` is JSON as Bedrock wrote it, `{}` in streams, where it follows."""

    tool_use_id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")
    #: `server_tool_use` where the model's own tool ran on Bedrock's side.
    type: str | None = None

    @property
    def is_callers(self) -> bool:
        """Whether the caller is to run the tool."""
        return self.type != "server_tool_use"


class ReasoningText(_In):
    """Visible reasoning; Claude signs it."""

    text: str = ""
    signature: str | None = None


class Reasoning(_In):
    """A block of reasoning; `redacted_content` is base64."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Text(_In):
    """A piece of cited text."""

    text: str = ""


class Citations(_In):
    """Text with what it rests on; Nova puts the citations after the text, on their own."""

    content: list[Text] | None = None
    citations: list[dict[str, Any]] | None = None


class Block(_In):
    """A content block: one of these, or of a kind that is not read."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None


class Message(_In):
    """The model's turn."""

    content: list[Block]


class Output(_In):
    """What holds the turn."""

    message: Message


class Usage(_In):
    """Tokens; `input_tokens` without those read from or written to the cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class Tier(_In):
    """The tier that served the call."""

    type: str


class Answer(_In):
    """The whole of a unary answer."""

    output: Output
    stop_reason: str
    usage: Usage | None = None
    service_tier: Tier | None = None
    additional_model_response_fields: Any = None
    trace: Any = None
    performance_config: Any = None


class Start(_In):
    """What a block starts with; nothing for text."""

    tool_use: ToolUse | None = None


class BlockStart(_In):
    """Announces a block, though not one of text."""

    start: Start
    content_block_index: int


class ToolInput(_In):
    """A piece of a call's input."""

    input: str = ""


class ReasoningDelta(_In):
    """A piece of reasoning, of its signature or of a blob."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(_In):
    """A piece of one block."""

    text: str | None = None
    tool_use: ToolInput | None = None
    reasoning_content: ReasoningDelta | None = None
    citation: dict[str, Any] | None = None


class BlockDelta(_In):
    """A piece of the block with this index."""

    delta: Delta
    content_block_index: int


class BlockStop(_In):
    """The end of the block with this index."""

    content_block_index: int


class MessageStop(_In):
    """The end of the turn."""

    stop_reason: str
    additional_model_response_fields: Any = None


class Metadata(_In):
    """What comes last."""

    usage: Usage | None = None
    service_tier: Tier | None = None
    trace: Any = None
    performance_config: Any = None


def details(text: str, signature: str, redacted: bytes) -> list[pb.ReasoningDetail]:
    """A complete block of reasoning, if it is one that must be sent back.

    Signed text is Claude's. So is a blob that holds Anthropic's `data` as text;
    OpenAI's and xAI's models give theirs in the same field, and neither takes
    the other's. https://github.com/maximhq/bifrost/pull/6834
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
    """The bytes of a blob. Pieces of one must be joined as bytes: base64 cannot be joined."""
    try:
        return base64.b64decode(data)
    except ValueError:
        raise failures.invalid_response("redactedContent is not base64") from None


def annotation(citation: dict[str, Any], start: int, end: int) -> pb.Annotation:
    """A citation of `content[start:end]`: of a web page, or of a document in Bedrock's own words."""
    location = citation.get("location")
    web = location.get("web") if isinstance(location, dict) else None
    if isinstance(web, dict) and isinstance(web.get("url"), str):
        title = citation.get("title") or web.get("domain") or ""
        page = pb.UrlCitation(url=web["url"], title=str(title), start_index=start, end_index=end)
        return pb.Annotation(url_citation=page)
    whole = {"type": "citation", "citation": {**citation, "start_index": start, "end_index": end}}
    return pb.Annotation(other_json=_text(whole))


def finish_reason(stop_reason: str, has_calls: bool) -> pb.FinishReason.ValueType:
    """Whether there are calls says more than the word does.

    Some models end a turn of calls with end_turn, or one without with tool_use.
    https://github.com/strands-agents/harness-sdk/pull/767
    """
    if stop_reason in _MALFORMED:
        raise failures.classify(502, message=f"stopReason {stop_reason}", reason=Reason.UPSTREAM_INVALID_RESPONSE)
    finish = _FINISH.get(stop_reason, pb.FINISH_REASON_STOP)
    if finish in (pb.FINISH_REASON_STOP, pb.FINISH_REASON_TOOL_CALLS):
        return pb.FINISH_REASON_TOOL_CALLS if has_calls else pb.FINISH_REASON_STOP
    return finish


def count(usage: pb.Usage, given: Usage) -> None:
    """Ours includes the cached tokens, theirs does not."""
    read, written = given.cache_read_input_tokens, given.cache_write_input_tokens
    usage.prompt_tokens = given.input_tokens + (read or 0) + (written or 0)
    usage.completion_tokens = given.output_tokens
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
    if read is not None:
        usage.prompt_tokens_details.cached_tokens = read
    if written is not None:
        usage.prompt_tokens_details.cache_write_tokens = written


def shaped(type_: type[_T]) -> Callable[[bytes], _T]:
    """A decoder for one shape. What it raises is safe to show in logs only."""
    decode_shape = msgspec.json.Decoder(type_).decode

    def read(data: bytes) -> _T:
        try:
            return decode_shape(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise failures.invalid_response(f"{error}: {data[:500]!r}") from None

    return read


def kept(source: Answer | MessageStop | Metadata) -> str:
    """`extra_json` for what has no other place."""
    values = {name: getattr(source, field, None) for field, name in _KEPT.items()}
    found = {name: value for name, value in values.items() if value is not None}
    return _text(found) if found else ""


def _text(value: Any) -> str:
    try:
        return encode_text(value)
    except InvalidRequest as error:  # none of the caller's
        raise failures.invalid_response(error.message) from None


# Errors

#: An exception's name in lower case -> the status it has as an answer, and its reason where the status does
#: not say it. https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
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
#: A ValidationException can be anything; these are the gateway's to know, in the words Bedrock uses.
_VALIDATION = (
    ("model identifier is invalid", Reason.MODEL_NOT_FOUND),
    ("with on-demand throughput isn", Reason.MODEL_NOT_FOUND),
    ("model version has reached the end of its life", Reason.MODEL_NOT_FOUND),
    ("not authorized to invoke", Reason.UPSTREAM_AUTHENTICATION),
    ("blocked by content filtering policy", Reason.CONTENT_POLICY_VIOLATION),
    ("model doesn't support", Reason.UNSUPPORTED_FEATURE),
    ("model does not support", Reason.UNSUPPORTED_FEATURE),
)
#: Where a message may stand.
_MESSAGES = ("message", "Message", "originalMessage")


def error_parts(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """The exception's name without its namespaces, and the message."""
    try:
        obj = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        obj = None
    if not isinstance(obj, dict):
        obj = {}
    if isinstance(obj.get("Output"), dict):  # what AWS says on an unknown path, in a 200
        obj = obj["Output"]
    code = headers.get("x-amzn-errortype", "") or failures.text(obj.get("__type"))
    message = next((text for name in _MESSAGES if (text := failures.text(obj.get(name)))), "")
    return code.partition(":")[0].rpartition("#")[2], message


def failure(status: int, code: str, message: str, *, retry_after: float | None = None) -> ProviderError:
    """The error for an exception; one inside a 200 gets the status it would have had outside."""
    usual, reason = _EXCEPTIONS.get(code.lower(), (500, None))
    if status < 400:
        status = usual
    if status == 400 and reason is None:
        text = message.lower()
        reason = next((found for phrase, found in _VALIDATION if phrase in text), None)
    return failures.classify(status, code=code, message=message, reason=reason, retry_after=retry_after)
