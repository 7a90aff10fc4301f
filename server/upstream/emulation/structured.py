"""JSON mode for endpoints that lack it: requested in the prompt, unwrapped, validated, and repaired once.

A stream is validated before its first chunk is sent: it is a complete answer, split into chunks. Tool calls,
refusals and truncated answers are passed on unchanged, as OpenAI does. Usage includes the repair call, which is
billed too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest, copy
from server.chat.usage import add_usage
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, LmchatError, ProviderError, Reason
from server.upstream.emulation.extract_json import unwrap
from server.upstream.emulation.json_schema import Schema, schema
from server.upstream.joined import as_chunks
from server.upstream.ports import Caller, Chunks, gather

#: Answers whose characters times their schema's weight are up to this are checked on the event loop, others in a
#: thread; so are schemas of up to so many characters.
_MAX_ON_LOOP = 500_000
_MAX_SCHEMA_ON_LOOP = 500

_ONLY = "and nothing else: no text before or after it, no explanation, no Markdown code fence."
_OBJECT = f"Answer with exactly one JSON object {_ONLY}"
_SCHEMA = f"Answer with exactly one JSON value that is valid against the JSON Schema below, {_ONLY}"
_TOOLS = "You may call tools first; this is about the answer that you give in the end."
_AGAIN = "Your answer cannot be used:\n{problems}\nGive the whole corrected answer: the JSON {only}"

_SYSTEM = (pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER)


class Structured:
    """A Caller that emulates `response_format`, which it does not send."""

    def __init__(self, inner: Caller) -> None:
        self._inner = inner

    async def complete(self, endpoint: Endpoint, request: ChatRequest, limit: float) -> Completion:
        """A completion with valid JSON. Raises ProviderError (STRUCTURED_OUTPUT_INVALID) if the repair fails."""
        message = request.to_proto()
        form = await _Form.of(message)
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        prompted, shift = _prompted(message, form.instructions(bool(message.tools)))
        try:
            first = await self._inner.complete(endpoint, request.with_message(prompted), limit)
        except LmchatError as error:
            _restore_param(error, shift, len(message.messages))
            raise
        completion = first.to_proto()
        invalid = [(choice, problems) for choice in completion.choices if (problems := await form.check(choice))]
        if not invalid:
            return _completion(completion, first.native_finish_reason, first.dropped)
        repairs = await gather(
            self._repair(endpoint, request, prompted, form, choice, problems, deadline - now())
            for choice, problems in invalid
        )
        for (choice, _), repair in zip(invalid, repairs, strict=True):
            index, repaired = choice.index, repair.to_proto()
            choice.CopyFrom(repaired.choices[0])
            choice.index = index
            add_usage(completion.usage, repaired.usage)
        return _completion(completion, repairs[0].native_finish_reason, first.dropped)

    def stream(self, endpoint: Endpoint, request: ChatRequest) -> _Stream:
        """The same completion in chunks."""
        return _Stream(self, endpoint, request)

    async def _repair(
        self,
        endpoint: Endpoint,
        request: ChatRequest,
        prompted: pb.ChatCompletionRequest,
        form: _Form,
        choice: pb.Choice,
        problems: list[str],
        limit: float,
    ) -> Completion:
        """Another call for one choice, with the problems in the prompt."""
        again = copy(prompted)
        again.ClearField("n")
        answer = _text(choice.message)
        if answer.strip():
            again.messages.add(role=pb.ROLE_ASSISTANT).content.add(text=answer)
        listed = "\n".join(f"- {problem}" for problem in problems)
        again.messages.add(role=pb.ROLE_USER).content.add(text=_AGAIN.format(problems=listed, only=_ONLY))
        repair = await self._inner.complete(endpoint, request.with_message(again), limit)
        choices = repair.to_proto().choices
        problems = await form.check(choices[0]) if choices else ["There is no answer."]
        if problems:
            raise ProviderError(
                Reason.STRUCTURED_OUTPUT_INVALID,
                f"The model's answer does not follow `response_format`, nor did its first one. {problems[0]}",
                http_status=200,
                fall_over=False,
                param="response_format",
                raw="; ".join(problems),
            )
        return repair


class _Stream:
    """A validated completion as a stream; it is complete when it opens."""

    def __init__(self, structured: Structured, endpoint: Endpoint, request: ChatRequest) -> None:
        self._structured = structured
        self._endpoint = endpoint
        self._request = request
        self.native_finish_reason = ""
        self.dropped: tuple[str, ...] = ()

    async def open(self, limit: float) -> Chunks:
        """The whole answer."""
        completion = await self._structured.complete(self._endpoint, self._request, limit)
        self.native_finish_reason = completion.native_finish_reason
        self.dropped = completion.dropped
        return as_chunks(completion.to_proto())

    async def batches(self, deadline: float) -> AsyncGenerator[Chunks, None]:
        """Nothing more."""
        for nothing in list[Chunks]():
            yield nothing

    async def aclose(self) -> None:
        """Nothing is open."""


class _Form(NamedTuple):
    """The required format. `schema` is None for any JSON object."""

    schema: Schema | None
    format: pb.ResponseFormat

    @classmethod
    async def of(cls, request: pb.ChatCompletionRequest) -> _Form:
        """The form of `response_format`. Raises InvalidRequest."""
        format_ = request.response_format
        if format_.HasField("other_json"):
            raise InvalidRequest(
                "This endpoint knows only the formats text, json_object and json_schema.",
                "response_format.type",
                reason=Reason.UNSUPPORTED_FEATURE,
            )
        text = format_.json_schema.schema_json
        if not text:
            return cls(None, format_)
        parsed = schema(text) if len(text) <= _MAX_SCHEMA_ON_LOOP else await asyncio.to_thread(schema, text)
        return cls(parsed, format_)

    def instructions(self, tools: bool) -> str:
        """The instructions for the model."""
        json_schema = self.format.json_schema
        paragraphs = [_OBJECT if self.schema is None else _SCHEMA]
        if tools:
            paragraphs.append(_TOOLS)
        name = " ".join(filter(None, ("JSON Schema", json_schema.name)))
        if self.schema is not None:
            paragraphs.append(f"{name}: {json_schema.description}" if json_schema.description else f"{name}:")
            paragraphs.append(json_schema.schema_json)
        elif json_schema.description:
            paragraphs.append(json_schema.description)
        return "\n\n".join(paragraphs)

    async def check(self, choice: pb.Choice) -> list[str]:
        """The problems of an answer, as text; a valid answer is replaced by the extracted JSON."""
        message = choice.message
        if message.tool_calls or message.refusal or any(part.HasField("refusal") for part in message.content):
            return []
        if choice.finish_reason in (pb.FINISH_REASON_TOOL_CALLS, pb.FINISH_REASON_CONTENT_FILTER):
            return []
        text = _text(message)
        if len(text) * (self.schema.weight if self.schema else 1) <= _MAX_ON_LOOP:
            found, problems = self._examine(text)
        else:
            found, problems = await asyncio.to_thread(self._examine, text)
        if problems:
            return [] if choice.finish_reason == pb.FINISH_REASON_LENGTH else problems
        if found != text:
            kept = [part for part in message.content if not part.HasField("text")]
            del message.content[:]
            message.content.add(text=found)
            message.content.extend(kept)
        return []

    def _examine(self, text: str) -> tuple[str, list[str]]:
        """The JSON in `text`, and its problems."""
        found = unwrap(text, self.schema.opener if self.schema else "{")
        if found is None:
            return "", ["It is empty." if not text.strip() else "It is not one JSON value: it cannot be parsed."]
        if self.schema is not None:
            return found.text, self.schema.problems(found.value)
        return found.text, [] if isinstance(found.value, dict) else ["It is JSON, but not a JSON object."]


def _prompted(request: pb.ChatCompletionRequest, text: str) -> tuple[pb.ChatCompletionRequest, int]:
    """`request` with instructions instead of `response_format`, and the shift of its message indices.

    The instructions are appended to the caller's system message, since many models support only one, at the start.
    """
    sent = copy(request)
    sent.ClearField("response_format")
    leading = 0
    while leading < len(sent.messages) and sent.messages[leading].role in _SYSTEM:
        leading += 1
    if not leading:
        message = pb.Message(role=pb.ROLE_SYSTEM, content=[pb.ContentPart(text=text)])
        sent.messages.insert(0, message)
        return sent, 1
    content = sent.messages[leading - 1].content
    if len(content) == 1 and content[0].HasField("text") and not content[0].extra_json:
        content[0].text += f"\n\n{text}"
    else:
        content.add(text=text)
    return sent, 0


def _restore_param(error: LmchatError, shift: int, messages: int) -> None:
    """Convert the path in `param` to that in the caller's request."""
    head, bracket, rest = (error.param or "").partition("[")
    if not shift or head != "messages" or not bracket:
        return
    index, _, rest = rest.partition("]")
    original = int(index) - shift if index.isdecimal() else -1
    error.param = f"messages[{original}]{rest}" if 0 <= original < messages else "messages"


def _completion(message: pb.ChatCompletion, native_finish_reason: str, dropped: tuple[str, ...]) -> Completion:
    completion = ProtoCompletion(message, native_finish_reason)
    completion.dropped = dropped
    return completion


def _text(message: pb.Message) -> str:
    return "".join(part.text for part in message.content)
