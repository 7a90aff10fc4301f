"""The Gemini dialect against recorded traffic and Google's own description of the API."""

from __future__ import annotations

import collections
import json
import random
from pathlib import Path
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from tests.dialects.gemini_help import ROOT, SHARED, TRANSLATOR, cut, endpoint, sse, stream, whole
from tests.recordings.readings import gemini, gemini_responses
from tests.support import specs
from tests.support.fold import fold_messages

RECORDINGS = SHARED / "recordings"
SPEC = SHARED / "specs" / "gemini-discovery.json"
needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no recordings beside the repository")
needs_spec = pytest.mark.skipif(not SPEC.is_file(), reason="no API descriptions beside the repository")
MODELS = (
    ("gemini-3-flash-preview", "gemini"),
    ("gemini-2.5-flash", "gemini"),
    ("gemini-3.1-pro-preview", "vertex"),
    ("gemini-2.0-flash", "vertex"),
)


def recordings(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in RECORDINGS.glob(pattern))


def shown(completion: pb.ChatCompletion, native: str) -> dict[str, Any]:
    """The same fields of the translator's completion."""
    answer = openai_json.dump_completion(completion)
    (choice,) = answer["choices"]
    message, usage = choice["message"], answer["usage"]
    calls = message.get("tool_calls", [])
    signatures = [block.get("signature") or block.get("data") for block in message.get("reasoning_details", [])]
    opaque = [block["part"] for block in message.get("reasoning_details", []) if block["type"] == "gemini.part"]
    return {
        "text": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls],
        "signed": len(list(filter(None, signatures))) + sum("thoughtSignature" in part for part in opaque),
        "audio": message.get("audio", {}).get("data", ""),
        "native": native,
        "finish": choice["finish_reason"],
        "usage": (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]),
        "cached": usage["prompt_tokens_details"]["cached_tokens"],
        "thoughts": usage["completion_tokens_details"]["reasoning_tokens"],
    }


@needs_recordings
def test_recorded_answers() -> None:
    """Every recording, whole or streamed with its bytes split at random."""
    torn = random.Random(7)
    counts: collections.Counter[str] = collections.Counter()
    for path in recordings("gemini/generateContent/*.json", "vertex/generateContent/*.json"):
        recorded = json.loads(path.read_text())
        status, text = recorded["response"]["status"], recorded["response"]["body"]
        if ":batchGenerateContent" in recorded["request"]["url"]:
            counts["batches, another API"] += 1
            continue
        if status != 200:
            error = TRANSLATOR.error(status, {}, text.encode())
            assert error.reason is not Reason.UPSTREAM_ERROR, path.name
            counts["errors"] += 1
            continue
        pieces = gemini_responses(text)
        expected = gemini(pieces)
        if text.startswith("{"):
            completion, native = TRANSLATOR.completion(text.encode(), pb.ChatCompletionRequest())
            assert shown(completion, native) == expected, path.name
            counts["whole"] += 1
        # Some were recorded without `alt=sse`, which the gateway always sends: a list of the same responses.
        data = text.encode() if text.startswith("data:") else sse(pieces)
        for size in (1, 20, 400):
            chunks = stream(cut(data, (torn.randrange(len(data)) for _ in range(len(data) // size + 1))))
            answer = fold_messages(chunks)
            assert shown(answer, expected["native"]) == expected, path.name
        if len(pieces) == 1:
            assert answer == whole(pieces[0]), path.name
        else:
            with pytest.raises(StreamTruncated):  # every recorded stream is complete with its last event only
                stream([sse(pieces[:-1])])
        counts["streams" if ":streamGenerateContent" in recorded["request"]["url"] else "as streams"] += 1
    print(dict(counts))
    assert counts == {"whole": 128, "streams": 38, "as streams": 128, "errors": 3, "batches, another API": 1}


def without_thoughts(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A recorded turn as it must be sent back: in order, text joined, every signature in its place."""
    out: list[dict[str, Any]] = []
    for part in json.loads(json.dumps(parts)):
        part.get("functionCall", {}).pop("id", None)
        if part.get("thought") or part == {"text": ""}:
            continue
        if "text" in part and out and "text" in out[-1]:
            out[-1] |= part | {"text": out[-1]["text"] + part["text"]}
        else:
            out.append(part)
    return out


@needs_recordings
def test_recorded_turns_come_back() -> None:
    """Every recorded turn, kept by a client in OpenAI's shape and sent to Gemini again."""
    turns = 0
    for path in recordings("gemini/generateContent/*.json", "vertex/generateContent/*.json"):
        recorded = json.loads(path.read_text())
        if recorded["response"]["status"] != 200 or ":batchGenerateContent" in recorded["request"]["url"]:
            continue
        pieces = gemini_responses(recorded["response"]["body"])
        parts = [part for piece in pieces for part in piece["candidates"][0]["content"]["parts"]]
        if any("inlineData" in part for part in parts):  # speech, which Gemini does not take back
            continue
        message = openai_json.dump_completion(fold_messages(stream([sse(pieces)])))["choices"][0]["message"]
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}, message]}
        request = openai_json.parse(json.dumps(body).encode()).request
        sent = TRANSLATOR.request(request, endpoint("gemini-2.5-flash", "vertex"), stream=False)
        assert json.loads(sent.body)["contents"][1]["parts"] == without_thoughts(parts), path.name
        turns += 1
    print(turns, "turns")
    assert turns == 165


ERRORS = {
    "API key not valid": (Reason.UPSTREAM_AUTHENTICATION, None),
    "Please retry in 48.9": (Reason.RATE_LIMITED, 48.0),
    "The input token count": (Reason.CONTEXT_LENGTH_EXCEEDED, None),
    "The model is overloaded": (Reason.OVERLOADED, None),
    "high demand": (Reason.OVERLOADED, None),
    "Internal error encountered": (Reason.UPSTREAM_ERROR, None),
    "reported as leaked": (Reason.UPSTREAM_AUTHENTICATION, None),
    "free_tier_input_token_count": (Reason.RATE_LIMITED, 26.0),
    "The caller does not have permission": (Reason.UPSTREAM_AUTHENTICATION, None),
    "error-code-429": (Reason.RATE_LIMITED, None),
    "aiplatform.endpoints.predict": (Reason.UPSTREAM_AUTHENTICATION, None),
}


@needs_recordings
def test_recorded_errors() -> None:
    seen = set()
    for case in json.loads((RECORDINGS / "errors.json").read_text()):
        if case["provider"] not in ("gemini", "vertex"):
            continue
        (phrase,) = (phrase for phrase in ERRORS if phrase in case["body"])
        status = int(str(case["status"])[:3])
        error = TRANSLATOR.error(status, {}, case["body"].encode())
        reason, wait = ERRORS[phrase]
        assert (error.reason, error.retry_after) == (reason, wait), phrase
        with pytest.raises(ProviderError) as streamed:  # the same in the middle of a stream
            stream([case["body"].encode()])
        assert (streamed.value.reason, streamed.value.retry_after) == (error.reason, error.retry_after), phrase
        seen.add(phrase)
    print(len(seen), "errors")
    assert seen == set(ERRORS)


@needs_spec
@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "golden" / "gemini").glob("request_*.json")))
def test_goldens_fit_the_description(path: Path) -> None:
    assert specs.gemini(json.loads(path.read_text())["gemini"]) == []


#: Recorded requests that this dialect cannot express: the field at fault -> how many, for each of MODELS.
REFUSED = {
    "max_tokens": 1,  # 0, invalid anywhere
    "messages": 1,  # none, invalid anywhere
    "messages[0].content[1].image_url.url": 2,  # without a file type; the gateway fetches it first
    "messages[0].content[1].file_url": 1,  # bare base64
    "audio.format": 1,  # wav
    "tools[0]": 1,  # OpenRouter's web search
}


@needs_recordings
@needs_spec
@pytest.mark.parametrize(("model", "vendor"), MODELS)
def test_recorded_requests_of_other_dialects(model: str, vendor: str) -> None:
    """Recorded requests of OpenAI's form, translated to Gemini's, conform to Google's description."""
    counts: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    for path in recordings("*/chat.completions/*.json"):
        recorded = json.loads(path.read_text())["request"]
        try:
            request = openai_json.parse(json.dumps(recorded["body"]).encode()).request
            sent = TRANSLATOR.request(request, endpoint(model, vendor), stream=False)
        except InvalidRequest as error:
            refused[str(error.param)] += 1
            continue
        body = json.loads(sent.body)
        assert specs.gemini(body) == []
        counts[path.parts[-3]] += 1
    print(model, dict(counts), dict(refused))
    assert refused == REFUSED
    assert sum(counts.values()) == 410
