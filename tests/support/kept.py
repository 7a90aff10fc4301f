"""Whether callers get every field of a provider's answer, read apart from the translators.

An answer is taken apart into leaves: texts, numbers and booleans with their paths, such as `content[].text`. A
leaf is expected at the same path of the completion. PLACES has the paths that stand elsewhere, LEFT_OUT those that
stand nowhere, each with the reason. A row is for its path and for those below it; the longest row decides.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects.registry import DIALECTS
from server.routing.chunks import StreamFinisher
from server.routing.report import Report
from tests.support.dialects import Fields, parse
from tests.support.fold import fold

Json = dict[str, Any]
Leaf = str | float
#: Keys, and `[]` for every index.
Path = str


class How(enum.Enum):
    """What of a leaf is expected at its place."""

    #: The value; a text may be a part of the text there.
    SAME = enum.auto()
    #: A number that is at least as large: what several counts add up to.
    COUNTED = enum.auto()
    #: Anything: the same in OpenAI's words or units.
    TRANSLATED = enum.auto()


class Place(NamedTuple):
    """Where a leaf stands in a completion."""

    path: Path
    how: How = How.SAME


def counted(path: Path) -> Place:
    return Place(path, How.COUNTED)


def translated(path: Path) -> Place:
    return Place(path, How.TRANSLATED)


_NATIVE_MODEL = Place("lmchat.native_model")
_NATIVE_REASON = Place("lmchat.native_finish_reason")
_PROMPT = counted("usage.prompt_tokens")
_COMPLETION = counted("usage.completion_tokens")
_TOTAL = counted("usage.total_tokens")
_CACHED = Place("usage.prompt_tokens_details.cached_tokens")
_WRITTEN = Place("usage.prompt_tokens_details.cache_write_tokens")
_REASONING = Place("usage.completion_tokens_details.reasoning_tokens")
_TIER = translated("service_tier")

_MESSAGE = "choices[].message"
_TEXT = Place(f"{_MESSAGE}.content")
_THOUGHT = Place(f"{_MESSAGE}.reasoning_content")
_ARGUMENTS = f"{_MESSAGE}.tool_calls[].function.arguments"
_CALL_ID = Place(f"{_MESSAGE}.tool_calls[].id")
_CALL_NAME = Place(f"{_MESSAGE}.tool_calls[].function.name")
_SIGNATURE = Place(f"{_MESSAGE}.reasoning_details[].signature")
_DATA = Place(f"{_MESSAGE}.reasoning_details[].data")
_NOTE = f"{_MESSAGE}.annotations[]"

#: The blocks of a turn in which tools ran at Anthropic.
_BLOCKS = f"{_MESSAGE}.extra_content.anthropic.content[]"
_GOOGLE = "choices[].extra_content.google"
_CONVERSE = "output.message.content[]"
_OTHER_BLOCKS = "choices[].extra_content.bedrock.content[]"
_WEB = f"{_CONVERSE}.citationsContent.citations[]"
_PART = f"{_MESSAGE}.reasoning_details[].part"

#: Dialect -> path in the provider's answer -> the places in the completion, any one of which may have it.
PLACES: Mapping[str, Mapping[Path, tuple[Place, ...]]] = {
    "openai": {
        "id": (Place("id"),),
        "created": (translated("created"),),
        "model": (_NATIVE_MODEL,),
        "service_tier": (_TIER,),
        "usage.prompt_tokens": (_PROMPT,),
        "usage.completion_tokens": (_COMPLETION,),
        "usage.total_tokens": (_TOTAL,),
        "choices[].index": (translated("choices[].index"),),
        "choices[].finish_reason": (_NATIVE_REASON, Place("choices[].finish_reason")),
        f"{_MESSAGE}.content[].text": (_TEXT,),
        f"{_MESSAGE}.content[].thinking[].text": (_THOUGHT,),
        f"{_MESSAGE}.content[].type": (translated(_TEXT.path), translated(_THOUGHT.path)),
        f"{_MESSAGE}.function_call": (Place(f"{_MESSAGE}.tool_calls[].function"),),
    },
    "anthropic": {
        "id": (Place("id"),),
        "model": (_NATIVE_MODEL,),
        "role": (Place(f"{_MESSAGE}.role"),),
        "stop_reason": (_NATIVE_REASON,),
        "stop_sequence": (Place("choices[].stop_sequence"),),
        "stop_details": (Place("choices[].extra_content.anthropic.stop_details"),),
        "context_management": (Place("choices[].extra_content.anthropic.context_management"),),
        "container": (Place(f"{_MESSAGE}.extra_content.anthropic.container"),),
        "content[]": (Place(_BLOCKS),),
        "content[].text": (_TEXT,),
        "content[].thinking": (_THOUGHT,),
        "content[].signature": (_SIGNATURE,),
        "content[].data": (_DATA,),
        "content[].id": (_CALL_ID, Place(f"{_BLOCKS}.id")),
        "content[].name": (_CALL_NAME, Place(f"{_BLOCKS}.name")),
        "content[].input": (Place(_ARGUMENTS), Place(f"{_BLOCKS}.input")),
        "content[].caller": (
            Place(f"{_MESSAGE}.tool_calls[].extra_content.anthropic.caller"), Place(f"{_BLOCKS}.caller"),
        ),
        "content[].toolset_name": (Place(f"{_MESSAGE}.tool_calls[].extra_content.anthropic.toolset_name"),),
        "content[].citations[]": (Place(f"{_NOTE}.url_citation"), Place(_NOTE)),
        "usage.input_tokens": (_PROMPT,),
        "usage.output_tokens": (_COMPLETION,),
        "usage.output_tokens_details": (Place("usage.completion_tokens_details"),),
        "usage.output_tokens_details.thinking_tokens": (_REASONING,),
        "usage.cache_read_input_tokens": (_CACHED,),
        "usage.cache_creation_input_tokens": (_WRITTEN,),
        "usage.service_tier": (_TIER,),
    },
    "gemini": {
        "responseId": (Place("id"),),
        "createTime": (translated("created"),),
        "modelVersion": (_NATIVE_MODEL,),
        "promptFeedback": (Place("extra_content.google.promptFeedback"),),
        "modelStatus": (Place("extra_content.google.modelStatus"),),
        "candidates[]": (Place(_GOOGLE),),
        "candidates[].index": (Place("choices[].index"),),
        "candidates[].finishReason": (_NATIVE_REASON, translated("choices[].finish_reason")),
        "candidates[].content.parts[]": (Place(_PART),),
        "candidates[].content.parts[].text": (_TEXT, _THOUGHT),
        "candidates[].content.parts[].thoughtSignature": (_SIGNATURE, _DATA, Place(f"{_PART}.thoughtSignature")),
        "candidates[].content.parts[].functionCall.id": (_CALL_ID,),
        "candidates[].content.parts[].functionCall.name": (_CALL_NAME,),
        "candidates[].content.parts[].functionCall.args": (Place(_ARGUMENTS),),
        "candidates[].content.parts[].inlineData.data": (
            Place(f"{_MESSAGE}.audio.data"), Place(f"{_MESSAGE}.images[].image_url.url"),
        ),
        "candidates[].content.parts[].inlineData.mimeType": (
            Place(f"{_MESSAGE}.audio.mime_type"), Place(f"{_MESSAGE}.images[].image_url.url"),
        ),
        "candidates[].logprobsResult.chosenCandidates[].token": (Place("choices[].logprobs.content[].token"),),
        "candidates[].logprobsResult.chosenCandidates[].logProbability": (
            Place("choices[].logprobs.content[].logprob"),
        ),
        "candidates[].logprobsResult.chosenCandidates[].tokenId": (Place("choices[].logprobs.content[].tokenId"),),
        "candidates[].logprobsResult.topCandidates[].candidates[].tokenId": (
            Place("choices[].logprobs.content[].top_logprobs[].tokenId"),
        ),
        "candidates[].logprobsResult.topCandidates[].candidates[].token": (
            Place("choices[].logprobs.content[].top_logprobs[].token"),
        ),
        "candidates[].logprobsResult.topCandidates[].candidates[].logProbability": (
            Place("choices[].logprobs.content[].top_logprobs[].logprob"),
        ),
        **{
            f"candidates[].citationMetadata.{name}[]{field}": places
            for name in ("citationSources", "citations")
            for field, places in {
                "": (Place(f"{_NOTE}.url_citation"), Place(f"{_NOTE}.citation")),
                ".uri": (Place(f"{_NOTE}.url_citation.url"),),
                ".startIndex": (translated(f"{_NOTE}.url_citation.start_index"),),
                ".endIndex": (translated(f"{_NOTE}.url_citation.end_index"),),
            }.items()
        },
        "usageMetadata": (Place("usage"),),
        "usageMetadata.promptTokenCount": (_PROMPT,),
        "usageMetadata.candidatesTokenCount": (_COMPLETION,),
        "usageMetadata.totalTokenCount": (_TOTAL,),
        "usageMetadata.thoughtsTokenCount": (_REASONING,),
        "usageMetadata.cachedContentTokenCount": (_CACHED,),
        "usageMetadata.serviceTier": (_TIER,),
        "usageMetadata.trafficType": (_TIER, Place("usage.trafficType")),
        **{
            f"usageMetadata.{name}[].{field}": tuple(
                place(f"usage.{details}.{kind}_tokens") for kind in ("text", "image", "audio", "video", "document")
            )
            for name, details in {
                "promptTokensDetails": "prompt_tokens_details",
                "toolUsePromptTokensDetails": "prompt_tokens_details",
                "candidatesTokensDetails": "completion_tokens_details",
            }.items()
            for field, place in {"modality": translated, "tokenCount": counted}.items()
        },
    },
    "bedrock": {
        "stopReason": (_NATIVE_REASON,),
        "serviceTier.type": (_TIER,),
        "output.message.role": (Place(f"{_MESSAGE}.role"),),
        _CONVERSE: (Place(_OTHER_BLOCKS),),
        f"{_CONVERSE}.text": (_TEXT,),
        f"{_CONVERSE}.reasoningContent.reasoningText.text": (_THOUGHT,),
        f"{_CONVERSE}.reasoningContent.reasoningText.signature": (_SIGNATURE,),
        f"{_CONVERSE}.reasoningContent.redactedContent": (translated(_DATA.path),),
        f"{_CONVERSE}.toolUse.toolUseId": (_CALL_ID, Place(f"{_OTHER_BLOCKS}.toolUse.toolUseId")),
        f"{_CONVERSE}.toolUse.name": (Place(f"{_OTHER_BLOCKS}.toolUse.name"), translated(_CALL_NAME.path)),
        f"{_CONVERSE}.toolUse.input": (Place(_ARGUMENTS), Place(f"{_OTHER_BLOCKS}.toolUse.input")),
        f"{_CONVERSE}.toolUse.type": (Place(f"{_OTHER_BLOCKS}.toolUse.type"), translated(_CALL_ID.path)),
        f"{_CONVERSE}.citationsContent.content[].text": (_TEXT,),
        _WEB: (Place(f"{_NOTE}.citation"), Place(f"{_NOTE}.url_citation")),
        f"{_WEB}.location.web.url": (Place(f"{_NOTE}.url_citation.url"),),
        "usage.inputTokens": (_PROMPT,),
        "usage.outputTokens": (_COMPLETION,),
        "usage.totalTokens": (_TOTAL,),
        "usage.cacheReadInputTokens": (_CACHED,),
        "usage.cacheWriteInputTokens": (_WRITTEN,),
    },
}  # fmt: skip

#: Dialect -> path in the provider's answer -> why callers do not get it.
LEFT_OUT: Mapping[str, Mapping[Path, str]] = {
    "openai": {
        "object": "`chat.completion` or `chat.completion.chunk`, whatever the vendor writes",
        "lmchat": "the report of another gateway like this; the caller gets this one's",
        f"{_MESSAGE}.content[].closed": "Mistral says that a block of reasoning ended; the whole one has",
        f"{_MESSAGE}.content[].thinking[].type": "text within reasoning: `reasoning_content` is text",
    },
    "anthropic": {
        "type": "always `message`",
        "content[].type": "where no tool ran at Anthropic, text, reasoning and calls have fields of their own",
        "content[].caller.type": "`direct`, the default: the model called the tool itself",
        "content[].citations[].type": "`web_search_result_location`, which is `url_citation`",
    },
    "gemini": {
        "candidates[].content.role": "always `model`, which is `assistant`",
        "candidates[].content.parts[].thought": "text with it is `reasoning_content`",
        "candidates[].logprobsResult.logProbabilitySum": "the sum of the tokens' log probabilities",
    },
    "bedrock": {
        "p": "padding against the guessing of lengths, without meaning",
        "usage.cacheReadInputTokenCount": "an older name of `cacheReadInputTokens`, which is beside it",
        "usage.cacheWriteInputTokenCount": "an older name of `cacheWriteInputTokens`, which is beside it",
    },
}


# What callers get


def completion(dialect: str, body: bytes, fields: Fields = None) -> list[Json]:
    """A unary answer as REST callers get it, and as gRPC callers do, in the same JSON."""
    served = DIALECTS[dialect].translator.completion(body, _request(fields))
    report = Report("up", 1, [], served.native_finish_reason)
    served.stamp(new_id=lambda: "id", created=1, model="public", report=report)
    return [
        json.loads(openai_json.encode_text(served.to_openai())),
        openai_json.dump_completion(served.to_proto()),
    ]


def streamed(dialect: str, body: bytes, fields: Fields = None) -> list[Json]:
    """The chunks of a stream, and first of all what they add up to."""
    decoder = DIALECTS[dialect].translator.decoder(_request(fields))
    finisher = StreamFinisher(id="id", created=1, model="public", include_usage=True)
    out = finisher.feed(decoder.feed(body)) + finisher.feed(decoder.close())
    native, model = decoder.native_finish_reason, finisher.native_model
    out += finisher.end(pb.RoutingReport(native_finish_reason=native, native_model=model))
    chunks = [openai_json.dump_chunk(chunk, include_usage=False) for chunk in out]
    return [fold(chunks), *(_as_completion(chunk) for chunk in chunks)]


def _request(fields: Fields) -> Any:
    return parse({"model": "public", "messages": [{"role": "user", "content": "Hi"}], **(fields or {})})


def _as_completion(chunk: Json) -> Json:
    choices = [{**choice, "message": choice["delta"]} for choice in chunk["choices"]]
    return {**chunk, "choices": choices}


# The comparison


def leaves(value: Any, path: Path = "") -> Iterator[tuple[Path, Leaf]]:
    """The texts, numbers and booleans in `value`; null and what is empty say nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{path}[]")
    elif value is not None and value != "":
        yield path, value


class Lost(NamedTuple):
    """A leaf that callers do not get."""

    path: Path
    value: Leaf


class Kept:
    """What callers get: the leaves of completions and chunks. `rows`: those of the tables that were used."""

    def __init__(self, dialect: str, served: Iterable[Json]) -> None:
        self._places = PLACES[dialect]
        self._left_out = LEFT_OUT[dialect]
        self._found: dict[Path, dict[Leaf, None]] = {}
        self.rows: set[Path] = set()
        for obj in served:
            for path, value in leaves(obj):
                self._add(path, value)
                if path.endswith(".arguments"):
                    self._add_arguments(path, str(value))

    def _add(self, path: Path, value: Leaf) -> None:
        self._found.setdefault(path, {})[value] = None

    def _add_arguments(self, path: Path, text: str) -> None:
        try:
            arguments = json.loads(text)
        except ValueError:  # a piece
            return
        for inner, value in leaves(arguments, path):
            self._add(inner, value)

    def lost(self, answer: Json) -> list[Lost]:
        """The leaves of the provider's `answer` that are neither here nor in LEFT_OUT."""
        return [Lost(path, value) for path, value in leaves(answer) if not self._accounts_for(path, value)]

    def _accounts_for(self, path: Path, value: Leaf) -> bool:
        row, left_out = _row(self._places, path), _row(self._left_out, path)
        places = self._places[row] if row is not None else (Place(path),)
        below = path[len(row) :] if row is not None else ""
        if any(
            self._has(place.path + below if place.how is How.SAME else place.path, value, place.how)
            for place in places
        ):
            self.rows.add(row or "")
            return True
        self.rows.add(left_out or "")
        return left_out is not None

    def _has(self, path: Path, value: Leaf, how: How) -> bool:
        found = self._found.get(path, {})
        match how:
            case How.TRANSLATED:
                return bool(found)
            case How.COUNTED:
                return any(isinstance(other, int) and other >= int(value) for other in found)
        if value in found:
            return True
        return isinstance(value, str) and any(isinstance(other, str) and value in other for other in found)


def _row(rows: Mapping[Path, Any], path: Path) -> Path | None:
    """The longest row for `path`."""
    found = [row for row in rows if path == row or path.startswith((f"{row}.", f"{row}["))]
    return max(found, key=len, default=None)
