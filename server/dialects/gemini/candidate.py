"""One candidate of a Gemini answer as a choice: its parts, its calls, its citations and why it ended."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.dialects import errors as failures
from server.dialects.choices import MAX_HELD
from server.dialects.gemini.arguments import PartialArguments
from server.dialects.gemini.replay import FORMAT

_FILTERED = pb.FINISH_REASON_CONTENT_FILTER
#: finishReason -> finish_reason. Any other word means that something stopped the model: SAFETY, RECITATION,
#: BLOCKLIST, PROHIBITED_CONTENT, SPII, LANGUAGE, MODEL_ARMOR, IMAGE_SAFETY, OTHER, ...
#: https://ai.google.dev/api/generate-content#FinishReason
_FINISH = {"STOP": pb.FINISH_REASON_STOP, "MAX_TOKENS": pb.FINISH_REASON_LENGTH}
#: A call of a tool that was not declared. Where the call is there, it is the caller's to answer.
_UNDECLARED = "UNEXPECTED_TOOL_CALL"
#: The model or the service failed: there is no answer, and a second try may give one.
_FAILED = frozenset(
    {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
)
#: Vertex AI's numbers, from proxies that write enums so.
_NUMBERS = (
    "", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "MALFORMED_FUNCTION_CALL", "MODEL_ARMOR",
)  # fmt: skip
#: Fields of a candidate that are read. The others are passed on as they are, such as `safetyRatings`, and
#: `groundingMetadata`, since Google's terms want searches shown. https://ai.google.dev/gemini-api/docs/google-search
_READ = frozenset({"content", "index", "finishReason", "logprobsResult", "citationMetadata"})
#: Fields of a citation that are read; its license and date are among the others.
_CITATION = frozenset({"uri", "title", "startIndex", "endIndex"})
#: Values that say nothing.
_NOTHING: tuple[Any, ...] = (None, "", [], {})
#: Lists in `groundingMetadata` of which a piece of a stream has the new items.
_NEW_ITEMS = ("groundingChunks", "groundingSupports")


class _OpenCall:
    """A call whose arguments are still coming."""

    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self, call: dict[str, Any], signature: str) -> None:
        self.id = call.get("id")
        self.name: str = call["name"]
        self.signature = signature
        self.arguments = PartialArguments()


class Candidate:
    """One candidate, read piece by piece. `answer_id` goes into the ids of calls that have none.

    `names` maps tool names that were changed for Gemini to the caller's.
    """

    def __init__(self, index: int, answer_id: str, names: Mapping[str, str]) -> None:
        self.index = index
        #: Google's last `finishReason`; empty until it has sent one.
        self.native = ""
        self._answer_id = answer_id
        self._names = names
        self._calls = 0
        self._speaks = False
        self._open: _OpenCall | None = None
        self._text: list[str] = []
        self._thought: list[str] = []  # since the last signature
        self._sources: list[dict[str, Any]] = []
        self._further: dict[str, Any] = {}
        self._held = 0

    @property
    def finish_reason(self) -> pb.FinishReason.ValueType:
        """Google says STOP after calls too, which may have come in an earlier piece."""
        if self._calls and self.native in ("", "STOP", _UNDECLARED):
            return pb.FINISH_REASON_TOOL_CALLS
        return _FINISH.get(self.native or "STOP", _FILTERED)

    @property
    def extra_json(self) -> str:
        """The `extra_json` of the choice: the fields of all pieces that the contract does not have."""
        return encode_text({"extra_content": {"google": self._further}}) if self._further else ""

    def read(self, candidate: dict[str, Any]) -> pb.ChunkChoice:
        """One piece; it has a finish_reason where Google gives one. Raises ProviderError or one of UNREADABLE.

        The fields that are passed on are beside the finish_reason, and beside what follows it.
        """
        choice = pb.ChunkChoice(index=self.index)
        choice.delta.SetInParent()
        self._read_parts((candidate.get("content") or {}).get("parts") or (), choice.delta)
        self._cite(candidate, choice.delta)
        changed = not candidate.keys() <= _READ and self._pass_on(candidate)
        _fill_logprobs(choice, candidate.get("logprobsResult") or {})
        native = candidate.get("finishReason")
        if native.__class__ is int and 0 <= native < len(_NUMBERS):
            native = _NUMBERS[native]
        native = failures.text(native)
        if native and native != "FINISH_REASON_UNSPECIFIED":
            self._close_call(choice.delta)
            if native in _FAILED or (native == _UNDECLARED and not self._calls):
                raise failures.classify(
                    502, message=f"finishReason {native}: {candidate.get('finishMessage', '')}"
                )
            changed = changed or not self.native
            self.native = native
            choice.finish_reason = self.finish_reason
        if changed and self.native:
            choice.extra_json = self.extra_json
        return choice

    def _pass_on(self, candidate: dict[str, Any]) -> bool:
        """Add the fields of a piece that are passed on; returns whether they say anything new."""
        new = {name: value for name, value in candidate.items() if name not in _READ and value not in _NOTHING}
        if all(self._further.get(name) == value for name, value in new.items()):
            return False
        self._hold(len(encode_text(new)))
        known = self._further.get("groundingMetadata")
        grounding = new.get("groundingMetadata")
        if known and grounding:
            joined = {name: known.get(name, []) + grounding.get(name, []) for name in _NEW_ITEMS}
            new["groundingMetadata"] = known | grounding | {name: items for name, items in joined.items() if items}
        self._further |= new
        return True

    def _read_parts(self, parts: Iterable[dict[str, Any]], delta: pb.Delta) -> None:
        text: list[str] = []
        thought: list[str] = []
        pictures: list[dict[str, Any]] = []
        speech: list[bytes] = []
        speech_type = ""
        for part in parts:
            signature = part.get("thoughtSignature") or ""
            match part:
                case {"functionCall": dict(call)}:
                    self._read_call(delta, call, signature)
                case {"text": ""}:
                    pass
                case {"text": str(piece), "thought": True}:
                    self._keep(self._thought, piece)
                    thought.append(piece)
                case {"text": str(piece)}:
                    self._keep(self._text, piece)
                    text.append(piece)
                case {"inlineData": dict(), "thought": True}:  # drafts of a picture
                    pass
                case {"inlineData": {"mimeType": str(type_), "data": str(data)}} if type_.startswith("audio/"):
                    speech.append(base64.b64decode(data))
                    speech_type = type_
                case {"inlineData": {"mimeType": str(type_), "data": str(data)}}:
                    picture = {"type": "image_url", "image_url": {"url": f"data:{type_};base64,{data}"}}
                    pictures.append(picture | _extra_content(signature))
                    continue
                case _ if part.keys() - {"thought", "thoughtSignature"}:
                    # Code executions and searches by Google: not shown, but sent back unchanged.
                    block = {"type": "gemini.part", "format": FORMAT, "part": part}
                    delta.reasoning_details.add(other_json=encode_text(block))
                    continue
            if signature and "functionCall" not in part:
                self._sign(delta, signature)
        if thought:
            delta.reasoning_content = "".join(thought)
        if text:
            delta.content = "".join(text)
        if speech:
            if not self._speaks:
                self._speaks = True
                delta.audio.extra_json = encode_text({"mime_type": speech_type})
            delta.audio.id = self._id("audio", self.index)
            delta.audio.data = base64.b64encode(b"".join(speech)).decode()
        if pictures:
            delta.extra_json = encode_text({"images": pictures})

    def _keep(self, pieces: list[str], piece: str) -> None:
        self._hold(len(piece))
        pieces.append(piece)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > MAX_HELD:
            raise failures.invalid_response(f"a candidate of more than {MAX_HELD} characters")

    # Calls

    def _read_call(self, delta: pb.Delta, call: dict[str, Any], signature: str) -> None:
        """A whole call, or with `willContinue` or `partialArgs` a piece of one; the last piece may be empty."""
        partial, continues = call.get("partialArgs"), call.get("willContinue")
        if self._open is None and not partial and not continues:
            self._add_call(delta, call.get("id"), call["name"], call.get("args") or {}, signature)
            return
        if self._open is None:
            self._open = _OpenCall(call, signature)
        for piece in partial or ():
            self._hold(self._open.arguments.add(piece))
        if not continues:
            self._close_call(delta)

    def _close_call(self, delta: pb.Delta) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            self._add_call(delta, opened.id, opened.name, opened.arguments.value(), opened.signature)

    def _add_call(self, delta: pb.Delta, id_: Any, name: str, arguments: Any, signature: str) -> None:
        """Add a whole call. One without an id, as on Vertex AI before Gemini 3, gets one."""
        index = self._calls
        self._calls += 1
        added = delta.tool_calls.add(index=index, id=id_ or self._id("call", index))
        added.function.name = self._names.get(name, name)
        added.function.arguments = encode_text(arguments)
        if signature:
            added.extra_json = encode_text(_extra_content(signature))
            # It closes the reasoning before it too, which may not be shown.
            self._sign(delta, signature)

    def _id(self, kind: str, number: int) -> str:
        return "_".join(filter(None, (kind, self._answer_id, str(number))))

    def _sign(self, delta: pb.Delta, signature: str) -> None:
        """A signature closes the reasoning before it, which may not be shown."""
        if self._thought:
            delta.reasoning_details.add(text="".join(self._thought), signature=signature, format=FORMAT)
            self._thought.clear()
        else:
            delta.reasoning_details.add(redacted=signature, format=FORMAT)

    # Citations

    def _cite(self, candidate: dict[str, Any], delta: pb.Delta) -> None:
        """Add the citations of a piece. A stream's `groundingChunks` are the new ones; indices count all."""
        cited = candidate.get("citationMetadata") or {}
        sources: list[dict[str, Any]] = cited.get("citationSources") or cited.get("citations") or []
        found = list(zip(sources, sources, strict=True))
        grounding = candidate.get("groundingMetadata") or {}
        new = grounding.get("groundingChunks") or []
        self._sources += new
        for support in grounding.get("groundingSupports") or ():
            for index in support.get("groundingChunkIndices") or ():
                source = self._sources[index] if index < len(self._sources) else {}
                page = source.get("web") or source.get("maps") or source.get("retrievedContext") or {}
                found.append((page, support.get("segment") or {}))
        if found:
            text = "".join(self._text).encode()
            for page, segment in found:
                _annotate(delta, page, segment, text)


def _annotate(delta: pb.Delta, page: dict[str, Any], segment: dict[str, Any], text: bytes) -> None:
    """Add a citation, such as that of a license without a page. Google counts bytes, the contract characters."""
    start = len(text[: segment.get("startIndex") or 0].decode(errors="ignore"))
    end = len(text[: segment.get("endIndex") or 0].decode(errors="ignore"))
    rest = {name: value for name, value in page.items() if name not in _CITATION and value not in _NOTHING}
    if page.get("uri"):
        citation = delta.annotations.add().url_citation
        citation.url = page["uri"]
        citation.title = page.get("title") or ""
        citation.start_index = start
        citation.end_index = end
        citation.extra_json = encode_text(rest) if rest else ""
    elif rest:
        whole = {"type": "citation", "citation": {**rest, "start_index": start, "end_index": end}}
        delta.annotations.add(other_json=encode_text(whole))


def _extra_content(signature: str) -> dict[str, Any]:
    """A signature, where Google's OpenAI-compatible API has it.

    https://ai.google.dev/gemini-api/docs/thought-signatures
    """
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
    if candidate.get("tokenId") is not None:
        token.extra_json = encode_text({"tokenId": candidate["tokenId"]})
