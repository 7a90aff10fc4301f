"""Stream resume: when a stream dies in the middle of its text, a fallback goes on from where it stopped.

The fallback gets the conversation with what was said so far as the assistant's
turn: as a prefill where the endpoint takes one, else followed by a user turn
that asks to go on. `Splice` then makes one stream of the two. Only text is
resumed: never tool calls, several choices, structured output or reasoning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.request import ChatRequest, ProtoRequest, copy
from server.chat.usage import add_usage
from server.dialects.base import Endpoint
from server.errors import LmchatError, ProviderError
from server.routing.attempts import Attempts, Success
from server.routing.plan import Candidate, Plan
from server.upstream.ports import Chunks, Stream

#: A streamed call that has given its first content.
Opened = tuple[Stream, Chunks]
#: Opens a stream for a candidate with this request, within so many seconds.
Open = Callable[[Candidate, ChatRequest, float], Awaitable[Opened]]

INSTRUCTION = (
    "Your last answer was cut off by a broken connection. Continue exactly where it stopped, with the very next "
    "character (a space first if a new word begins). Do not repeat any of it, do not comment, do not apologise."
)

#: What makes an answer more than text that can be continued.
_NOT_RESUMED = frozenset({"n", "json_object", "json_schema", "audio_output"})

#: Characters that a fallback must repeat from the answer's beginning to be taken for repeating it.
_ECHO = 16


def wanted(request: ChatRequest) -> bool:
    """Whether a stream for `request` may be resumed if it breaks in the middle of its text."""
    return (
        request.options is not None
        and request.options.routing.resume_streams
        and not request.needs & _NOT_RESUMED
        and request.to_proto().messages[-1].role != pb.ROLE_ASSISTANT  # a prefill of the caller's own
    )


def continued(request: ChatRequest, endpoint: Endpoint, said: str, tokens: int) -> ChatRequest:
    """`request` for going on after `said`, which were at least so many `tokens` of what it allows.

    White space at the end of `said` is left out: some providers refuse it, and models go on worse after it.
    """
    out = copy(request.to_proto())
    out.messages.add(role=pb.ROLE_ASSISTANT).content.add(text=said.rstrip())
    if not endpoint.prefills:
        out.messages.add(role=pb.ROLE_USER).content.add(text=INSTRUCTION)
    elif endpoint.vendor.prefill_body:
        body: dict[str, Any] = openai_json.decode_json(out.extra_body_json or "{}")
        for name, value in endpoint.vendor.prefill_body.items():
            theirs = body.get(name)
            body[name] = {**theirs, **value} if isinstance(theirs, dict) and isinstance(value, dict) else value
        out.extra_body_json = openai_json.encode_text(body)
    if out.HasField("max_tokens"):
        out.max_tokens = max(1, out.max_tokens - tokens)
    if out.HasField("max_completion_tokens"):
        out.max_completion_tokens = max(1, out.max_completion_tokens - tokens)
    resumed = ProtoRequest(out)
    resumed.fetched = request.fetched
    return resumed


class Splice:
    """Notes what the caller has been told, and fits what a fallback says to its end. Sans-I/O; choice 0 only."""

    def __init__(self) -> None:
        self.said = ""
        #: Pieces of text so far: at least so many tokens.
        self.pieces = 0
        #: The usage that streams which died had reported; what the last one reports comes on top.
        self.carried = pb.Usage()
        self._usage = pb.Usage()
        self._text_only = True
        self._echo = self._held = self._space = ""
        self._going_on = False

    @property
    def resumable(self) -> bool:
        """Whether it was text that was being said, and not yet finished."""
        return self._text_only and bool(self.said.strip())

    def go_on(self) -> None:
        """What `feed` gets from now on continues what was said."""
        stripped = self.said.rstrip()
        self._going_on = True
        self._echo = stripped if len(stripped) >= _ECHO else ""
        self._space = self.said[len(stripped) :]
        self._held = ""
        self.carried.CopyFrom(self._usage)

    def feed(self, chunks: Chunks) -> Chunks:
        """`chunks` as the caller is to see them."""
        out = [chunk for chunk in chunks if not self._going_on or self._fit(chunk)]
        for chunk in out:
            if chunk.HasField("usage"):
                self._usage.CopyFrom(chunk.usage)
            for choice in chunk.choices:
                delta = choice.delta
                self.said += delta.content
                self.pieces += bool(delta.content)
                if delta.tool_calls or delta.refusal or delta.HasField("audio") or choice.finish_reason:
                    self._text_only = False
        return out

    def _fit(self, chunk: pb.ChatCompletionChunk) -> bool:
        """Take from a fallback's chunk what the caller has; False if nothing is left of it."""
        if chunk.HasField("usage"):
            add_usage(chunk.usage, self.carried)
        left = chunk.HasField("usage")
        for choice in chunk.choices:
            delta = choice.delta
            for name in ("role", "reasoning_content", "reasoning_details"):
                delta.ClearField(name)
            text = self._new(delta.content, last=bool(choice.finish_reason or delta.tool_calls))
            if text != delta.content:
                choice.ClearField("logprobs")
                delta.content = text
            left |= bool(text or choice.finish_reason or delta.tool_calls or delta.refusal or delta.extra_json)
        return left

    def _new(self, text: str, *, last: bool) -> str:
        """What of `text` is new: neither the answer from its beginning, nor white space the caller has."""
        if self._echo:
            text = self._held + text
            self._held = ""
            if text.startswith(self._echo):
                text = text[len(self._echo) :]
            elif self._echo.startswith(text) and not last:  # it may be going to
                self._held = text
                return ""
            self._echo = ""
        while text and self._space and text[0] == self._space[0]:
            text, self._space = text[1:], self._space[1:]
        if text:
            self._space = ""
        return text


class Resumption:
    """What it takes to go on with one request's stream. `deadline` is of the clock of `attempts`."""

    def __init__(
        self, request: ChatRequest, attempts: Attempts, open_: Open, deadline: float, max_tries: int
    ) -> None:
        self._request = request
        self._attempts = attempts
        self._open = open_
        self._deadline = deadline
        self._max_tries = max_tries
        self.splice = Splice()

    async def run(self, died: Success[Opened], error: ProviderError) -> Success[Opened]:
        """The stream that goes on where `died` broke with `error`, all attempts on its account.

        Where none does, for whatever reason, `error` is what the caller gets, with
        every attempt. Its `attempts` are those so far.
        """
        tries = self._max_tries - len(error.attempts)
        if not (self.splice.resumable and error.fall_over and died.others and tries > 0):
            raise error
        said, pieces = self.splice.said, self.splice.pieces

        async def call(candidate: Candidate, limit: float) -> Opened:
            return await self._open(candidate, continued(self._request, candidate.endpoint, said, pieces), limit)

        plan = Plan(died.others, [], tries)
        try:
            success = await self._attempts.run(plan, self._deadline, call)
        except LmchatError as failed:  # a refused prefill, say: none of it is the caller's doing
            error.attempts += failed.attempts
            raise error from None
        self.splice.go_on()
        return msgspec.structs.replace(success, attempts=[*error.attempts, *success.attempts])
