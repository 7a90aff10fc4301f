"""Stream resume: when a stream breaks in the middle of its text, a fallback continues it.

The fallback gets the conversation with the text so far as an assistant message: as a prefill where the endpoint
supports it, else followed by a user message that asks to continue. `Splice` joins the two streams. Only text is
resumed: never tool calls, several choices, structured output or reasoning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.chat.request import ChatRequest, copy
from server.chat.usage import add_usage
from server.dialects.base import Endpoint
from server.errors import LmchatError, ProviderError
from server.routing.attempts import Attempts, Success
from server.routing.plan import Candidate, Plan
from server.upstream.ports import Chunks, Stream

#: A stream and the chunks up to its first content.
Opened = tuple[Stream, Chunks]
#: Opens a stream: candidate, request, limit in seconds.
Open = Callable[[Candidate, ChatRequest, float], Awaitable[Opened]]

INSTRUCTION = (
    "Your last answer was cut off by a broken connection. Continue exactly where it stopped, with the very next "
    "character (a space first if a new word begins). Do not repeat any of it, do not comment, do not apologise."
)

#: Features whose output cannot be continued as plain text.
_NOT_RESUMED = frozenset({"n", "json_object", "json_schema", "audio_output"})

#: The fewest characters of text for which a fallback is checked for repeating the text from its beginning.
_MIN_ECHO = 16


def may_resume(request: ChatRequest) -> bool:
    """Whether a stream for `request` may be resumed if it breaks in the middle of its text."""
    return (
        request.options is not None
        and request.options.routing.resume_streams
        and not request.needs & _NOT_RESUMED
        and request.to_proto().messages[-1].role != pb.ROLE_ASSISTANT  # the caller's prefill
    )


def continuation(request: ChatRequest, endpoint: Endpoint, text: str, tokens: int) -> ChatRequest:
    """The request that continues `request` after `text`; its token limits are reduced by `tokens`.

    Trailing white space of `text` is removed: some providers reject it, and models continue worse after it.
    """
    out = copy(request.to_proto())
    out.messages.add(role=pb.ROLE_ASSISTANT).content.add(text=text.rstrip())
    if not endpoint.prefills:
        out.messages.add(role=pb.ROLE_USER).content.add(text=INSTRUCTION)
    elif endpoint.vendor.prefill_body:
        body: dict[str, Any] = openai_json.decode_json(out.extra_body_json or "{}")
        for name, value in endpoint.vendor.prefill_body.items():
            current = body.get(name)
            body[name] = {**current, **value} if isinstance(current, dict) and isinstance(value, dict) else value
        out.extra_body_json = openai_json.encode_text(body)
    if out.HasField("max_tokens"):
        out.max_tokens = max(1, out.max_tokens - tokens)
    if out.HasField("max_completion_tokens"):
        out.max_completion_tokens = max(1, out.max_completion_tokens - tokens)
    return request.with_message(out)


class Splice:
    """Records the text sent to the caller and joins a fallback's chunks to its end. Sans-I/O; choice 0 only."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        #: Text deltas so far: a lower bound of the tokens.
        self.pieces = 0
        #: The usage that broken streams reported, which is added to that of the last one.
        self.carried = pb.Usage()
        self._usage = pb.Usage()
        self._text_only = True
        self._echo = self._space = ""
        self._repeated = 0  # characters of the echo that the fallback has repeated so far
        self._resumed = False

    @property
    def text(self) -> str:
        """The text so far."""
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    @property
    def resumable(self) -> bool:
        """Whether the stream has text, nothing but text, and no finish reason."""
        return self._text_only and bool(self.text.strip())

    def resume(self) -> None:
        """From now on `feed` gets chunks of a fallback, which continue the text."""
        text = self.text
        stripped = text.rstrip()
        self._resumed = True
        self._echo = stripped if len(stripped) >= _MIN_ECHO else ""
        self._space = text[len(stripped) :]
        self._repeated = 0
        self.carried.CopyFrom(self._usage)

    def feed(self, chunks: Chunks) -> Chunks:
        """The chunks for the caller."""
        out = [chunk for chunk in chunks if not self._resumed or self._fit(chunk)]
        for chunk in out:
            if chunk.HasField("usage"):
                self._usage.CopyFrom(chunk.usage)
            for choice in chunk.choices:
                delta = choice.delta
                self._texts.append(delta.content)
                self.pieces += bool(delta.content)
                if delta.tool_calls or delta.refusal or delta.HasField("audio") or choice.finish_reason:
                    self._text_only = False
        return out

    def _fit(self, chunk: pb.ChatCompletionChunk) -> bool:
        """Remove from a fallback's chunk what the caller already has; False if nothing is left."""
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
        """`text` without a repetition of the text from its beginning, and without white space already sent."""
        if self._echo:
            left = len(self._echo) - self._repeated
            if not self._echo.startswith(text[:left], self._repeated) or (last and len(text) < left):
                text = self._echo[: self._repeated] + text  # no repetition, or an incomplete one
            elif len(text) < left:
                self._repeated += len(text)
                return ""
            else:
                text = text[left:]
            self._echo = ""
        common = min(len(text), len(self._space))
        if text[:common] != self._space[:common]:
            common = next(place for place in range(common) if text[place] != self._space[place])
        text, self._space = text[common:], self._space[common:]
        if text:
            self._space = ""
        return text


class Resumption:
    """Resumes one request's stream. `deadline` is in seconds of the clock of `attempts`."""

    def __init__(
        self, request: ChatRequest, attempts: Attempts, open_: Open, deadline: float, max_tries: int
    ) -> None:
        self._request = request
        self._attempts = attempts
        self._open = open_
        self._deadline = deadline
        self._max_tries = max_tries
        self.splice = Splice()

    async def run(self, broken: Success[Opened], error: ProviderError) -> Success[Opened]:
        """The stream that continues `broken`, which ended with `error`; its attempts include all earlier ones.

        Raises `error` where there is none, with every attempt added to `error.attempts`.
        """
        tries = self._max_tries - len(error.attempts)
        if not (self.splice.resumable and error.fall_over and broken.others and tries > 0):
            raise error
        text, pieces = self.splice.text, self.splice.pieces

        async def call(candidate: Candidate, limit: float) -> Opened:
            return await self._open(
                candidate, continuation(self._request, candidate.endpoint, text, pieces), limit
            )

        plan = Plan(broken.others, [], tries)
        try:
            success = await self._attempts.run(plan, self._deadline, call)
        except LmchatError as failed:  # e.g. a rejected prefill; the caller gets the original error
            error.attempts += failed.attempts
            raise error from None
        self.splice.resume()
        return msgspec.structs.replace(success, attempts=[*error.attempts, *success.attempts])
