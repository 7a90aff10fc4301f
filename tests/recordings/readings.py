"""Decodes recordings without any of the code under test."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from botocore.eventstream import EventStreamBuffer

# The OpenAI dialect


def content_of(message: dict[str, Any]) -> tuple[str | None, str]:
    """Text and reasoning of a message, from any of their places."""
    content = message.get("content")
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(content, list):
        return content, thoughts
    texts = [part["text"] for part in content if part["type"] == "text"]
    thoughts = "".join(t["text"] for part in content if part["type"] == "thinking" for t in part["thinking"])
    return "".join(texts) if texts else None, thoughts


def contract_usage(sent: dict[str, Any]) -> dict[str, Any]:
    """A vendor's counts where prompt tokens include cache and audio, and the total is the sum.

    Azure's Grok counts the cache, and Mistral audio, beside `prompt_tokens`.
    """
    details = sent.get("prompt_tokens_details") or {}
    cached, audio = details.get("cached_tokens") or 0, details.get("audio_tokens") or 0
    prompt, completion = sent["prompt_tokens"], sent["completion_tokens"]
    prompt += cached if cached > prompt else 0
    prompt += audio if sent["total_tokens"] == prompt + completion + audio else 0
    return sent | {"prompt_tokens": prompt, "total_tokens": prompt + completion}


def openai_events(body: str) -> list[dict[str, Any]]:
    """The JSON of every event."""
    payloads = re.findall(r"^data: ?(.*?)$", body.replace("\r\n", "\n"), re.MULTILINE)
    return [json.loads(payload) for payload in payloads if payload != "[DONE]"]


class StreamReading:
    """A recorded stream of one choice, joined without any of the code under test."""

    def __init__(self, body: str) -> None:
        self.content = ""
        self.thoughts = ""
        self.calls: dict[int, dict[str, Any]] = {}
        self.details: list[Any] = []
        self.finish = self.native = ""
        self.usage: dict[str, Any] | None = None
        self.ids: list[str] = []
        self.other: dict[str, Any] = {}
        for event in openai_events(body):
            self.ids += [event["id"]] if event["id"] else []
            self.usage = event.get("usage") or self.usage
            known = ("id", "object", "created", "model", "choices", "usage")
            self.other |= {key: value for key, value in event.items() if key not in known and value is not None}
            for choice in event["choices"]:
                assert choice["index"] == 0
                self.finish = self.finish or choice.get("finish_reason") or ""
                self.native = (
                    self.native or choice.get("native_finish_reason") or choice.get("finish_reason") or ""
                )
                self._delta(choice["delta"])

    def _delta(self, delta: dict[str, Any]) -> None:
        text, thoughts = content_of(delta)
        self.content += text or ""
        self.thoughts += thoughts
        self.details += delta.get("reasoning_details") or []
        for call in delta.get("tool_calls") or []:
            known = self.calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
            function = call.get("function") or {}
            known["id"] = known["id"] or call.get("id")
            known["name"] = known["name"] or function.get("name")
            known["arguments"] += function.get("arguments") or ""


# Anthropic


def anthropic_stream(stream: str) -> dict[str, Any]:
    """The message of a recorded stream, decoded independently of the dialect."""
    blocks: dict[int, dict[str, Any]] = {}
    message: dict[str, Any] = {}
    for line in stream.splitlines():
        if not line.startswith("data:"):
            continue
        event: dict[str, Any] = json.loads(line.removeprefix("data:"))
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            blocks[event["index"]] = {"json": "", **event["content_block"]}
        elif event["type"] == "content_block_delta":
            for field, piece in event["delta"].items():
                block = blocks[event["index"]]
                if field == "partial_json":
                    block["json"] += piece
                elif field == "citation":
                    block["citations"] = [*(block.get("citations") or []), piece]
                elif field != "type":
                    block[field] = block.get(field, "") + piece
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= {k: v for k, v in event["usage"].items() if v is not None}
    for block in blocks.values():
        if text := block.pop("json"):
            block["input"] = json.loads(text)
    message["content"] = [block for _, block in sorted(blocks.items())]
    return message


# Gemini


def gemini_responses(text: str) -> list[dict[str, Any]]:
    """The responses in a recorded body: one, a list, or server-sent events."""
    if text.lstrip().startswith("data:"):
        lines = text.replace("\r\n", "\n").split("\n")
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    obj = json.loads(text)
    return obj if isinstance(obj, list) else [obj]


def gemini(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of a recording, decoded without the translator."""
    out: dict[str, Any] = {"text": "", "reasoning": "", "calls": [], "signed": 0, "audio": ""}
    usage: dict[str, int] = {}
    for piece in pieces:
        usage |= piece.get("usageMetadata", {})
        for answer in piece["candidates"]:
            assert answer.get("index", 0) == 0
            for part in answer["content"]["parts"]:
                if "text" in part:
                    out["reasoning" if part.get("thought") else "text"] += part["text"]
                if "functionCall" in part:
                    out["calls"].append((part["functionCall"]["name"], part["functionCall"].get("args", {})))
                if "inlineData" in part:
                    out["audio"] += part["inlineData"]["data"]
                out["signed"] += "thoughtSignature" in part
            out["native"] = answer.get("finishReason")
    out["finish"] = {"STOP": "tool_calls" if out["calls"] else "stop"}[out["native"]]
    prompt = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
    out["usage"] = (prompt, usage["totalTokenCount"] - prompt, usage["totalTokenCount"])
    out["cached"] = usage.get("cachedContentTokenCount", 0)
    out["thoughts"] = usage.get("thoughtsTokenCount", 0)
    return out


# Bedrock


def converse(message: Any, stop_reason: str, usage: Any) -> dict[str, Any]:
    """The content of a recorded turn, decoded without the code under test."""
    blocks = message["content"]
    text = "".join(
        block.get("text", "") + "".join(p["text"] for p in block.get("citationsContent", {}).get("content", ()))
        for block in blocks
    )
    thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
    uses = [block["toolUse"] for block in blocks if "toolUse" in block]
    mine = [use for use in uses if use.get("type") != "server_tool_use"]
    citations = [c for block in blocks for c in block.get("citationsContent", {}).get("citations", ())]
    finish = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}[stop_reason]
    cached = usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)
    return {
        "text": text,
        "reasoning": "".join(thought["text"] for thought in thoughts),
        "signatures": [thought["signature"] for thought in thoughts if thought.get("signature")],
        "calls": [(use["toolUseId"], use["name"], use["input"]) for use in mine],
        "citations": len(citations),
        "finish": finish,
        "native": stop_reason,
        "usage": (usage["inputTokens"] + sum(cached), usage["outputTokens"], usage["totalTokens"], *cached),
    }


def converse_stream(data: bytes) -> dict[str, Any]:
    """The unary answer of a recorded stream."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for message in buffer:
        headers: Any = message.headers
        payload = json.loads(message.payload)
        block = blocks.setdefault(payload.get("contentBlockIndex", -1), {})
        if headers[":event-type"] == "contentBlockStart":
            start = payload["start"]
            for kind in start:
                block[kind] = {**start[kind], "input": ""} if kind == "toolUse" else start[kind]
        elif headers[":event-type"] == "contentBlockDelta":
            delta = payload["delta"]
            if "text" in delta:
                block["text"] = block.get("text", "") + delta["text"]
            elif "toolUse" in delta:
                block["toolUse"]["input"] += delta["toolUse"]["input"]
            elif "reasoningContent" in delta:
                reasoning = block.setdefault("reasoningContent", {})
                for key, piece in delta["reasoningContent"].items():
                    hidden = key == "redactedContent"
                    thought = reasoning if hidden else reasoning.setdefault("reasoningText", {"text": ""})
                    thought[key] = thought.get(key, "") + piece
            elif "toolResult" in delta:
                block["toolResult"].setdefault("content", []).extend(delta["toolResult"])
            elif "citation" in delta:
                block.setdefault("citationsContent", {}).setdefault("citations", []).append(delta["citation"])
        elif headers[":event-type"] in ("messageStop", "metadata"):
            answer |= payload
    content = []
    for _, block in sorted((index, block) for index, block in blocks.items() if index >= 0):
        if "citationsContent" in block and "text" in block:
            block["citationsContent"]["content"] = [{"text": block.pop("text")}]
        if "toolUse" in block:
            block["toolUse"]["input"] = arguments(block["toolUse"]["input"])
        content.append(block)
    return {**answer, "output": {"message": {"role": "assistant", "content": content}}}


def answers_in_stream(dialect: str, body: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """The answers in a recorded stream, in the form of unary ones, and the stream as it is sent."""
    if dialect == "bedrock":
        return [converse_stream(body)], body
    if dialect == "anthropic":
        return [anthropic_stream(body.decode())], body
    if dialect == "gemini":  # some are recorded as a list, without `alt=sse`
        pieces = gemini_responses(body.decode())
        return pieces, b"".join(b"data: %b\r\n\r\n" % json.dumps(piece).encode() for piece in pieces)
    return _openai_pieces(body), body


def _openai_pieces(body: bytes) -> list[dict[str, Any]]:
    """The events, each as a completion; of the usage, which is a running total, the last."""
    events = openai_events(body.decode())
    counted = [event for event in events if event.get("usage")]
    for event in counted[:-1]:
        del event["usage"]
    for event in events:
        for choice in event["choices"]:
            choice["message"] = choice.pop("delta")
    return events


# Common form


class Choice(NamedTuple):
    """One of an answer's choices; calls are names and arguments."""

    text: str
    reasoning: str
    calls: list[tuple[str, Any]]
    finish: str


class Usage(NamedTuple):
    """Tokens, in OpenAI's words."""

    prompt: int
    completion: int
    total: int
    cached: int = 0
    reasoning: int = 0


class Answer(NamedTuple):
    """An answer, in whichever dialect it came."""

    choices: list[Choice]
    usage: Usage | None


def arguments(written: str) -> Any:
    """A call's arguments, decoded; some vendors send an empty string for none."""
    return json.loads(written or "{}")


def openai_usage(usage: dict[str, Any] | None) -> Usage | None:
    """Usage in OpenAI's own form."""
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thoughts = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], cached, thoughts)


def openai_answer(body: str, *, stream: bool) -> Answer:
    """A recorded answer of the OpenAI dialect."""
    if stream:
        streamed = StreamReading(body)
        calls = [
            (streamed.calls[i]["name"], arguments(streamed.calls[i]["arguments"])) for i in sorted(streamed.calls)
        ]
        finish = streamed.finish or ("tool_calls" if calls else "stop")  # one ends with [DONE] alone
        return Answer(
            [Choice(streamed.content, streamed.thoughts, calls, finish)],
            openai_usage(streamed.usage and contract_usage(streamed.usage)),
        )
    answer = json.loads(body)
    choices = []
    for index, choice in enumerate(answer["choices"]):
        assert choice["index"] == index
        text, thoughts = content_of(choice["message"])
        functions = [call["function"] for call in choice["message"].get("tool_calls") or []]
        calls = [(function["name"], arguments(function["arguments"])) for function in functions]
        choices.append(Choice(text or "", thoughts, calls, choice["finish_reason"]))
    usage = answer.get("usage")
    return Answer(choices, openai_usage(usage and contract_usage(usage)))


def anthropic_answer(body: str, *, stream: bool) -> Answer:
    """A recorded answer of the Messages API."""
    message = anthropic_stream(body) if stream else json.loads(body)
    blocks, usage = message["content"], message["usage"]
    cached = usage["cache_read_input_tokens"]
    prompt = usage["input_tokens"] + usage["cache_creation_input_tokens"] + cached
    thoughts = (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    choice = Choice(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls"}[message["stop_reason"]],
    )
    return Answer(
        [choice], Usage(prompt, usage["output_tokens"], prompt + usage["output_tokens"], cached, thoughts)
    )


def gemini_answer(body: str) -> Answer:
    """A recorded answer of generateContent, whole or streamed."""
    read = gemini(gemini_responses(body))
    choice = Choice(read["text"], read["reasoning"], read["calls"], read["finish"])
    prompt, completion, total = read["usage"]
    return Answer([choice], Usage(prompt, completion, total, read["cached"], read["thoughts"]))


def converse_answer(body: bytes, *, stream: bool) -> Answer:
    """A recorded answer of Converse, which counts no reasoning tokens."""
    answer = converse_stream(body) if stream else json.loads(body)
    read = converse(answer["output"]["message"], answer["stopReason"], answer["usage"])
    prompt, completion, total, cached, _ = read["usage"]
    calls = [(name, input_) for _, name, input_ in read["calls"]]
    return Answer(
        [Choice(read["text"], read["reasoning"], calls, read["finish"])], Usage(prompt, completion, total, cached)
    )
