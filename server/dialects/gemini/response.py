"""Gemini's answers and errors in the contract's terms. Pure.

A whole answer is read as a stream of one piece, so that the two cannot differ.
https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.dialects import errors as failures
from server.dialects import usage
from server.dialects.base import completion_id
from server.dialects.choices import MAX_CHOICES
from server.dialects.gemini.candidate import Candidate
from server.dialects.reading import read_json, reading
from server.errors import ProviderError, Reason

# Errors

#: Where a status or the reason in `ErrorInfo` says more than the HTTP status.
_REASONS = {
    "API_KEY_INVALID": Reason.UPSTREAM_AUTHENTICATION,  # a 400
    # "User location is not supported", a file that is not ready yet: a 400 that concerns this endpoint alone.
    "FAILED_PRECONDITION": Reason.UNSUPPORTED_FEATURE,
}


def find_error(obj: Any) -> dict[str, Any] | None:
    """The error in an answer, if it holds one."""
    for item in obj if obj.__class__ is list else [obj]:
        match item:
            case {"error": dict(error)}:
                return error
            case {"error": str(message)}:
                return {"message": message}
    return None


def classify(status: int, error: dict[str, Any], wait: float | None) -> ProviderError:
    """The error of a response; `wait` is its `retry-after` in seconds. https://cloud.google.com/apis/design/errors"""
    code = error.get("code")
    if status < 400 and code.__class__ is int and 400 <= code < 600:
        status = code
    words = [failures.text(error.get("status"))]
    details = error.get("details")
    for detail in details if details.__class__ is list else ():
        match detail:
            case {"reason": str(reason)}:  # ErrorInfo
                words.insert(0, reason)
            case {"retryDelay": str(delay)} if re.fullmatch(r"[0-9]{1,20}(\.[0-9]+)?s", delay):  # RetryInfo
                wait = max(wait or 0.0, failures.bounded_wait(float(delay[:-1])))
            case {"violations": list(violations)} if any("PerDay" in str(v) for v in violations):  # QuotaFailure
                words.insert(0, "insufficient_quota")  # the quota comes back tomorrow
    return failures.classify(
        status,
        code=words[0],
        message=failures.text(error.get("message")),
        reason=next((_REASONS[word] for word in words if word in _REASONS), None),
        retry_after=wait,
        details={"details": details} if details else None,
    )


# Answers

#: Fields of a response that are read; the others are passed on as they are, such as `promptFeedback`.
_ANSWER = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"})
#: Counts that are read; the others are passed on as they are.
_COUNTS = frozenset(
    {
        "promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount",
        "cachedContentTokenCount", "promptTokensDetails", "candidatesTokensDetails", "toolUsePromptTokensDetails",
    }
)  # fmt: skip


class Answer:
    """What has been read of one answer.

    `names` maps tool names that were changed for Gemini to the caller's.
    """

    def __init__(self, names: Mapping[str, str] = {}) -> None:
        self._names = names
        self.candidates: dict[int, Candidate] = {}
        self.id = ""
        #: Unix seconds; 0 where Google gives no time.
        self.created = 0
        self.model = ""
        self._counts: dict[str, Any] = {}
        self._further: dict[str, Any] = {}

    @property
    def native_finish_reason(self) -> str:
        """The first candidate's; empty until it has ended."""
        return next((candidate.native for candidate in self.candidates.values()), "")

    def read(self, data: bytes) -> pb.ChatCompletionChunk:
        """One GenerateContentResponse; the chunk has a choice for each candidate in it. Raises ProviderError."""
        obj = read_json(data)
        error = find_error(obj)
        if error is not None:
            raise classify(200, error, None)
        with reading(data):
            return self._read(obj)

    def _read(self, obj: dict[str, Any]) -> pb.ChatCompletionChunk:
        candidates = obj.get("candidates") or []
        _raise_blocked(obj.get("promptFeedback") or {}, candidates)
        self.id = self.id or failures.text(obj.get("responseId"))
        self.created = self.created or _seconds(obj.get("createTime"))
        self.model = self.model or failures.text(obj.get("modelVersion"))
        if not obj.keys() <= _ANSWER:
            self._further |= {name: value for name, value in obj.items() if name not in _ANSWER and value}
        self._counts |= obj.get("usageMetadata") or {}  # counts are running totals, and not all in every piece
        chunk = pb.ChatCompletionChunk()
        for place, piece in enumerate(candidates):
            index = place if piece.get("index") is None else piece["index"]
            candidate = self.candidates.get(index)
            if candidate is None:
                if len(self.candidates) >= MAX_CHOICES:
                    raise failures.invalid_response(f"more than {MAX_CHOICES} candidates")
                candidate = self.candidates[index] = Candidate(index, self.id, self._names)
            chunk.choices.append(candidate.read(piece))
        return chunk

    @property
    def extra_json(self) -> str:
        """The `extra_json` of the completion: the fields that the contract does not have."""
        return encode_text({"extra_content": {"google": self._further}}) if self._further else ""

    @property
    def service_tier(self) -> str:
        """In OpenAI's words; empty where Google gives none that has one."""
        word = usage.service_tier(str(self._counts.get("serviceTier") or self._counts.get("trafficType")).lower())
        return word if word in usage.TIERS else ""

    def fill_usage(self, out: pb.ChatCompletion | pb.ChatCompletionChunk) -> None:
        """Set the usage, where Google gave any."""
        if any(name.endswith("TokenCount") for name in self._counts):
            _fill_usage(out.usage, self._counts)
            rest = {name: value for name, value in self._counts.items() if name not in _COUNTS and value}
            if rest and self.service_tier:  # which says the same
                rest.pop("serviceTier" if rest.get("serviceTier") else "trafficType", None)
            out.usage.extra_json = encode_text(rest) if rest else ""


def completion(body: bytes, names: Mapping[str, str]) -> tuple[pb.ChatCompletion, str]:
    """The completion, and the first candidate's finishReason; for `names` see Answer. Raises ProviderError."""
    answer = Answer(names)
    chunk = answer.read(body)
    if not chunk.choices:
        raise failures.invalid_response(f"no candidates: {body[:500]!r}")
    out = pb.ChatCompletion(
        id=completion_id(answer.id), created=answer.created, model=answer.model, extra_json=answer.extra_json
    )
    for choice in chunk.choices:
        out.choices.add(
            index=choice.index,
            message=_message(choice.delta),
            finish_reason=answer.candidates[choice.index].finish_reason,
            logprobs=choice.logprobs if choice.HasField("logprobs") else None,
            extra_json=answer.candidates[choice.index].extra_json,
        )
    with reading(body):
        answer.fill_usage(out)
    if answer.service_tier:
        out.service_tier = answer.service_tier
    return out, answer.native_finish_reason


def _raise_blocked(feedback: dict[str, Any], candidates: list[Any]) -> None:
    """No candidates and a reason: the prompt is against the provider's policy."""
    reason = feedback.get("blockReason")
    if reason and not candidates and not str(reason).endswith("UNSPECIFIED"):
        detail = feedback.get("blockReasonMessage") or f"The provider blocked the prompt: {reason}."
        raise failures.classify(
            200,
            message=str(detail),
            reason=Reason.CONTENT_POLICY_VIOLATION,
            details={"promptFeedback": feedback},
        )


def _seconds(time: Any) -> int:
    """Unix seconds of a time that Vertex AI gives; 0 where there is none."""
    if time is None:
        return 0
    try:
        return int(datetime.fromisoformat(time).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0


def _fill_usage(out: pb.Usage, counts: dict[str, Any]) -> None:
    """Google counts thoughts, and what its own tools read, apart; the contract does not.

    https://ai.google.dev/api/generate-content#UsageMetadata
    """

    def count(name: str) -> int:
        return int(counts.get(name) or 0)

    out.prompt_tokens = count("promptTokenCount") + count("toolUsePromptTokenCount")
    out.completion_tokens = count("candidatesTokenCount") + count("thoughtsTokenCount")
    out.total_tokens = count("totalTokenCount")
    out.prompt_tokens_details.cached_tokens = count("cachedContentTokenCount")
    out.completion_tokens_details.reasoning_tokens = count("thoughtsTokenCount")
    usage.add_up(out)
    _fill_kinds(out.prompt_tokens_details, counts, ("promptTokensDetails", "toolUsePromptTokensDetails"))
    _fill_kinds(out.completion_tokens_details, counts, ("candidatesTokensDetails",))


def _fill_kinds(
    out: pb.PromptTokensDetails | pb.CompletionTokensDetails, counts: dict[str, Any], names: tuple[str, ...]
) -> None:
    """Set the tokens of each kind of content; kinds that the contract does not have go into `extra_json`.

    https://ai.google.dev/api/generate-content#Modality
    """
    kinds: dict[str, int] = {}
    for name in names:
        for item in counts.get(name) or ():
            kind = f"{item['modality'].lower()}_tokens"
            kinds[kind] = kinds.get(kind, 0) + int(item.get("tokenCount") or 0)
    known = out.DESCRIPTOR.fields_by_name
    other: dict[str, int] = {}
    for kind, tokens in kinds.items():
        if kind in known:
            setattr(out, kind, tokens)
        else:
            other[kind] = tokens
    out.extra_json = encode_text(other) if other else ""


def _message(delta: pb.Delta) -> pb.Message:
    """The delta of a whole answer as a message."""
    message = pb.Message(
        role=pb.ROLE_ASSISTANT,
        reasoning_details=delta.reasoning_details,
        annotations=delta.annotations,
        audio=delta.audio if delta.HasField("audio") else None,
        extra_json=delta.extra_json,
    )
    if delta.content:
        message.content.add(text=delta.content)
    if delta.reasoning_content:
        message.reasoning_content = delta.reasoning_content
    for call in delta.tool_calls:
        message.tool_calls.add(id=call.id, function=call.function, extra_json=call.extra_json)
    return message
