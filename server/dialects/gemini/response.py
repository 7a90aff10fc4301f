"""Gemini's answers and errors in the contract's terms. Pure.

A whole answer is read as a stream of one piece is, so that the two cannot differ.
https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import decode_json, encode_text
from server.dialects import errors as failures
from server.dialects.base import completion_id
from server.dialects.gemini.replay import FORMAT
from server.errors import ProviderError, Reason, StreamTruncated

# Errors

#: Where a status or the reason in `ErrorInfo` says more than the HTTP status.
_REASONS = {
    "API_KEY_INVALID": Reason.UPSTREAM_AUTHENTICATION,  # a 400
    # "User location is not supported", a file that is not ready yet: a 400 that concerns this endpoint alone.
    "FAILED_PRECONDITION": Reason.UNSUPPORTED_FEATURE,
}


def _decode(data: bytes) -> Any:
    try:
        return decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise failures.invalid_response(f"not JSON: {data[:500]!r}") from None


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
    """https://cloud.google.com/apis/design/errors"""
    code = error.get("code")
    if status < 400 and code.__class__ is int and 400 <= code < 600:
        status = code
    words = [failures.text(error.get("status"))]
    details = error.get("details")
    for detail in details if details.__class__ is list else ():
        match detail:
            case {"reason": str(reason)}:  # ErrorInfo
                words.insert(0, reason)
            case {"retryDelay": str(delay)} if re.fullmatch(r"[0-9.]+s", delay):  # RetryInfo
                wait = max(wait or 0.0, float(delay[:-1]))
            case {"violations": list(violations)} if any("PerDay" in str(v) for v in violations):  # QuotaFailure
                words.insert(0, "insufficient_quota")  # no use in waiting a minute
    return failures.classify(
        status,
        code=words[0],
        message=failures.text(error.get("message")),
        reason=next((_REASONS[word] for word in words if word in _REASONS), None),
        retry_after=wait,
    )


# Answers

_FILTERED = pb.FINISH_REASON_CONTENT_FILTER
#: Any other word means that something stopped the model: SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII,
#: LANGUAGE, MODEL_ARMOR, IMAGE_SAFETY, OTHER, ...
_FINISH = {"STOP": pb.FINISH_REASON_STOP, "MAX_TOKENS": pb.FINISH_REASON_LENGTH}
#: The model, or the service, got lost: there is no answer, and another try may give one.
_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    }
)
#: Vertex AI's numbers, where an answer went through something that writes enums so.
_NUMBERS = (
    "", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "MALFORMED_FUNCTION_CALL", "MODEL_ARMOR",
)  # fmt: skip
#: Sent on as they are: Google's terms want searches shown. https://ai.google.dev/gemini-api/docs/google-search
_KEPT = ("groundingMetadata", "urlContextMetadata")
_TIERS = {
    "standard": "default", "on_demand": "default",
    "flex": "flex", "on_demand_flex": "flex",
    "priority": "priority", "on_demand_priority": "priority",
}  # fmt: skip


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What is not of the shape that Google documents makes no sense."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as mistake:
        raise failures.invalid_response(f"{type(mistake).__name__}: {mistake}") from None


def _seconds(time: Any) -> int:
    """Unix seconds of a time that Vertex AI gives; 0 where there is none."""
    try:
        return int(datetime.fromisoformat(time).timestamp())
    except (TypeError, ValueError):
        return 0


class Answer:
    """What has been read of one answer."""

    def __init__(self) -> None:
        self.candidates: dict[int, _Candidate] = {}
        self._id: str | None = None
        self._created = 0
        self._usage: dict[str, Any] = {}

    @property
    def native_finish_reason(self) -> str:
        """The first candidate's; empty until it has ended."""
        return next((candidate.native for candidate in self.candidates.values()), "")

    def chunk(self) -> pb.ChatCompletionChunk:
        """An empty chunk with the answer's id and time."""
        return pb.ChatCompletionChunk(id=completion_id(self._id or ""), created=self._created)

    def read(self, data: bytes) -> pb.ChatCompletionChunk:
        """One GenerateContentResponse; the chunk has no choices where there is nothing to say."""
        obj = _decode(data)
        error = find_error(obj)
        if error is not None:
            raise classify(200, error, None)
        with _readable():
            return self._read(obj)

    def _read(self, obj: dict[str, Any]) -> pb.ChatCompletionChunk:
        candidates = obj.get("candidates") or []
        _raise_blocked(obj.get("promptFeedback") or {}, candidates)
        if self._id is None:
            self._id = failures.text(obj.get("responseId"))
            self._created = _seconds(obj.get("createTime"))
        self._usage |= obj.get("usageMetadata") or {}  # counts are running totals, and not all in every piece
        chunk = self.chunk()
        for place, candidate in enumerate(candidates):
            index = place if candidate.get("index") is None else candidate["index"]
            state = self.candidates.get(index)
            if state is None:
                state = self.candidates[index] = _Candidate(index, self._id)
            state.read(candidate, chunk)
        return chunk

    def account(self, out: pb.ChatCompletion | pb.ChatCompletionChunk) -> None:
        """Add usage and service tier, where Google gave them."""
        tier = str(self._usage.get("serviceTier") or self._usage.get("trafficType")).lower()
        if tier in _TIERS:
            out.service_tier = _TIERS[tier]
        if "promptTokenCount" in self._usage or "totalTokenCount" in self._usage:
            with _readable():
                _fill_usage(out.usage, self._usage)

    def end(self) -> list[pb.ChatCompletionChunk]:
        """The last chunks of a stream. Raises StreamTruncated if a candidate has not ended.

        Google sends no mark at the end: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
        """
        if not self.candidates or not all(candidate.native for candidate in self.candidates.values()):
            raise StreamTruncated
        chunks = []
        for candidate in self.candidates.values():
            if not candidate.finished:
                chunks.append(self.chunk())
                candidate.finish(chunks[-1].choices.add(index=candidate.index))
        last = self.chunk()
        self.account(last)
        return [*chunks, last] if last.HasField("usage") else chunks


def _raise_blocked(feedback: dict[str, Any], candidates: list[Any]) -> None:
    """No candidates and a reason: the prompt is against the provider's policy."""
    reason = feedback.get("blockReason")
    if reason and not candidates and not str(reason).endswith("UNSPECIFIED"):
        detail = feedback.get("blockReasonMessage") or f"The provider blocked the prompt: {reason}."
        raise failures.classify(200, message=str(detail), reason=Reason.CONTENT_POLICY_VIOLATION)


class _Candidate:
    """What has been read of one candidate. `answer_id` goes into the ids of calls that have none."""

    def __init__(self, index: int, answer_id: str) -> None:
        self.index = index
        self.native = ""
        self.finished = False
        self._answer_id = answer_id
        self._role = pb.ROLE_ASSISTANT  # until it was said
        self._begun = False
        self._calls = 0
        self._text: list[str] = []
        self._thought: list[str] = []  # since the last signature
        self._sources: list[dict[str, Any]] = []

    @property
    def finish_reason(self) -> pb.FinishReason.ValueType:
        """Google says STOP after calls too, which may have come in an earlier piece."""
        if self.native in ("", "STOP") and self._calls:
            return pb.FINISH_REASON_TOOL_CALLS
        return _FINISH.get(self.native or "STOP", _FILTERED)

    def finish(self, choice: pb.ChunkChoice) -> None:
        """Say on `choice` that the candidate ended."""
        self.finished = True
        choice.delta.SetInParent()
        choice.finish_reason = self.finish_reason

    def read(self, candidate: dict[str, Any], chunk: pb.ChatCompletionChunk) -> None:
        """Add to `chunk` what this piece of the candidate says, if it says anything."""
        choice = pb.ChunkChoice(index=self.index)
        self._read_parts((candidate.get("content") or {}).get("parts") or (), choice.delta)
        self._cite(candidate, choice)
        _fill_logprobs(choice, candidate.get("logprobsResult") or {})
        self._begun = self._begun or choice.delta.ByteSize() > 0
        native = candidate.get("finishReason")
        if native.__class__ is int and 0 <= native < len(_NUMBERS):
            native = _NUMBERS[native]
        native = failures.text(native)
        if native in _FAILED:
            raise failures.classify(502, message=f"finishReason {native}: {candidate.get('finishMessage', '')}")
        if native and native != "FINISH_REASON_UNSPECIFIED":
            self.native = native
            # Some proxies say STOP in pieces before the first word: that one is believed at the stream's end only.
            if not self.finished and (self._begun or native != "STOP"):
                self.finish(choice)
        if self._role:
            choice.delta.role, self._role = self._role, pb.ROLE_UNSPECIFIED
        if choice.HasField("delta") or choice.HasField("logprobs") or choice.extra_json:
            chunk.choices.append(choice)

    def _read_parts(self, parts: Iterable[dict[str, Any]], delta: pb.Delta) -> None:
        pictures: list[dict[str, Any]] = []
        speech = b""
        for part in parts:
            signature = part.get("thoughtSignature") or ""
            match part:
                case {"functionCall": dict(call)}:
                    self._add_call(delta, call, signature)
                case {"text": ""}:
                    pass
                case {"text": str(text), "thought": True}:
                    self._thought.append(text)
                    delta.reasoning_content += text
                case {"text": str(text)}:
                    self._text.append(text)
                    delta.content += text
                case {"inlineData": dict(), "thought": True}:  # sketches on the way to a picture
                    pass
                case {"inlineData": {"mimeType": str(type_), "data": str(data)}} if type_.startswith("audio/"):
                    speech += base64.b64decode(data)
                case {"inlineData": {"mimeType": str(type_), "data": str(data)}}:
                    picture = {"type": "image_url", "image_url": {"url": f"data:{type_};base64,{data}"}}
                    pictures.append(picture | _extra_content(signature))
                    continue
                case _ if part.keys() - {"thought", "thoughtSignature"}:
                    # Code that Google ran, searches it made: not the answer, but to be sent back as they are.
                    block = {"type": "gemini.part", "format": FORMAT, "part": part}
                    delta.reasoning_details.add(other_json=encode_text(block))
                    continue
            if signature:
                self._sign(delta, signature)
        if speech:
            delta.audio.id = self._id("audio", self.index)
            delta.audio.data = base64.b64encode(speech).decode()
        if pictures:
            delta.extra_json = encode_text({"images": pictures})

    def _add_call(self, delta: pb.Delta, call: dict[str, Any], signature: str) -> None:
        """A call comes whole. Without an id, as on Vertex AI before Gemini 3, it gets one."""
        index = self._calls
        self._calls += 1
        added = delta.tool_calls.add(index=index, id=call.get("id") or self._id("call", index))
        added.function.name = call["name"]
        added.function.arguments = encode_text(call.get("args") or {})
        if signature:
            added.extra_json = encode_text(_extra_content(signature))

    def _id(self, kind: str, number: int) -> str:
        return "_".join(filter(None, (kind, self._answer_id, str(number))))

    def _sign(self, delta: pb.Delta, signature: str) -> None:
        """A signature closes the reasoning before it, which may not be shown."""
        if self._thought:
            delta.reasoning_details.add(text="".join(self._thought), signature=signature, format=FORMAT)
            self._thought.clear()
        else:
            delta.reasoning_details.add(redacted=signature, format=FORMAT)

    def _cite(self, candidate: dict[str, Any], choice: pb.ChunkChoice) -> None:
        """Citations. Google counts bytes, the contract characters."""
        cited = candidate.get("citationMetadata") or {}
        for source in cited.get("citationSources") or cited.get("citations") or ():
            if source.get("uri"):
                self._annotate(choice.delta, source, source)
        grounding = candidate.get("groundingMetadata") or {}
        # In a stream these are the ones that are new; indices go on counting.
        self._sources += grounding.get("groundingChunks") or []
        for support in grounding.get("groundingSupports") or ():
            for index in support.get("groundingChunkIndices") or ():
                source = self._sources[index] if index < len(self._sources) else {}
                page = source.get("web") or source.get("maps") or source.get("retrievedContext") or {}
                if page.get("uri"):
                    self._annotate(choice.delta, page, support.get("segment") or {})
        kept = {name: candidate[name] for name in _KEPT if candidate.get(name)}
        if kept:
            choice.extra_json = encode_text({"extra_content": {"google": kept}})

    def _annotate(self, delta: pb.Delta, page: dict[str, Any], segment: dict[str, Any]) -> None:
        text = "".join(self._text).encode()
        citation = delta.annotations.add().url_citation
        citation.url = page["uri"]
        citation.title = page.get("title") or ""
        citation.start_index = len(text[: segment.get("startIndex") or 0].decode(errors="ignore"))
        citation.end_index = len(text[: segment.get("endIndex") or 0].decode(errors="ignore"))


def _extra_content(signature: str) -> dict[str, Any]:
    """Where Google's OpenAI-compatible API puts a signature. https://ai.google.dev/gemini-api/docs/thought-signatures"""
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def _fill_logprobs(choice: pb.ChunkChoice, result: dict[str, Any]) -> None:
    alternatives = result.get("topCandidates") or []
    for place, chosen in enumerate(result.get("chosenCandidates") or ()):
        token = choice.logprobs.content.add()
        _fill_token(token, chosen)
        if place < len(alternatives):
            for other in alternatives[place].get("candidates") or ():
                _fill_token(token.top_logprobs.add(), other)


def _fill_token(token: pb.TokenLogprob, candidate: dict[str, Any]) -> None:
    token.token = candidate.get("token") or ""
    token.logprob = candidate.get("logProbability") or 0.0
    token.bytes = token.token.encode()


def _fill_usage(usage: pb.Usage, counts: dict[str, Any]) -> None:
    """Google counts thoughts, and what its own tools read, apart; the contract does not."""

    def count(name: str) -> int:
        return int(counts.get(name) or 0)

    def audio(name: str) -> int:
        return sum(
            int(item.get("tokenCount") or 0) for item in counts.get(name) or () if item["modality"] == "AUDIO"
        )

    usage.prompt_tokens = count("promptTokenCount") + count("toolUsePromptTokenCount")
    usage.completion_tokens = count("candidatesTokenCount") + count("thoughtsTokenCount")
    usage.total_tokens = count("totalTokenCount") or usage.prompt_tokens + usage.completion_tokens
    usage.prompt_tokens_details.cached_tokens = count("cachedContentTokenCount")
    usage.completion_tokens_details.reasoning_tokens = count("thoughtsTokenCount")
    for details, name in (
        (usage.prompt_tokens_details, "promptTokensDetails"),
        (usage.completion_tokens_details, "candidatesTokensDetails"),
    ):
        if audio(name):
            details.audio_tokens = audio(name)


def message(delta: pb.Delta) -> pb.Message:
    """A delta that says everything, as a message."""
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
