"""The REST door: OpenAI's JSON and server-sent events over HttpBody, behind Envoy.

Nothing may escape the handler: before the first message an exception's text
would become the body of a 500, after it the stream would end as if complete.
"""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from google.api.httpbody_pb2 import HttpBody
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import rest_pb2_grpc

from server import errors
from server.api.call import Call, Calls, Context
from server.chat import openai_json
from server.errors import InvalidRequest, LmchatError, Reason
from server.routing.report import Report
from server.routing.router import Routed, RoutedPlain, Router
from server.routing.stream import RoutedStream

_encode = msgspec.json.Encoder().encode
_JSON = "application/json"
_SSE = "text/event-stream"
_DONE = b"data: [DONE]\n\n"
_UNPRINTABLE = re.compile(r"[^ -~]").sub
_KEEP_ALIVE = b": keep-alive\n\n"


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """See `openai_json.Parsed`; what needs no translation is as it came."""

    request: openai_json.ChatRequest
    stream: bool
    legacy_functions: bool


class _Reply(msgspec.Struct, frozen=True):
    """A whole answer, or `error` and its body; `headers` are for REST."""

    body: HttpBody
    headers: tuple[tuple[str, str], ...]
    error: LmchatError | None = None


class Rest(rest_pb2_grpc.RestServicer):
    """`keep_alive`: seconds of silence after which a stream gets a comment line."""

    def __init__(self, calls: Calls, router: Router, keep_alive: float) -> None:
        self._calls = calls
        self._router = router
        self._keep_alive = keep_alive

    async def CreateChatCompletion(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        """One JSON object, or with `"stream": true` server-sent events."""
        call = self._calls(context)
        try:
            asked = _parse(call, request)
            if asked.stream:
                routed = await self._router.stream(asked.request, call.timeout)
            else:
                reply = await self._complete(call, asked)
        except Exception as error:
            reply = _failure(call, call.explain(error))
        else:
            if asked.stream:
                events = openai_json.EventWriter(
                    include_usage=openai_json.include_usage(asked.request), legacy=asked.legacy_functions
                )
                del asked  # long conversations are not kept as long as streams
                await self._stream(call, events, routed)
                return
        await context.send_initial_metadata(reply.headers)
        await context.write(reply.body)
        if reply.error is not None:
            _set_code(context, reply.error)

    async def CreateUnaryChatCompletion(self, request: HttpBody, context: Context) -> HttpBody:
        """One JSON object, an error too; `_details` are the headers."""
        call = self._calls(context)
        try:
            asked = _parse(call, request)
            if asked.stream:  # Envoy sends no such request here
                raise InvalidRequest("This call answers at once; CreateChatCompletion streams.", "stream")
            reply = await self._complete(call, asked)
        except Exception as error:
            reply = _failure(call, call.explain(error))
        context.set_details(_details(reply))
        return reply.body

    async def _complete(self, call: Call, asked: _Asked) -> _Reply:
        legacy = asked.legacy_functions
        routed: Routed | RoutedPlain
        if legacy:
            routed = await self._router.complete(openai_json.typed(asked.request), call.timeout)
        else:
            routed = await self._router.complete_plain(asked.request, call.timeout)
        answer: Any = routed.completion
        if not isinstance(answer, openai_json.PlainCompletion):
            answer = openai_json.dump_completion(answer)
            if legacy:
                openai_json.rewrite_legacy(answer)
        headers = _headers(call, routed.report, routed.upstream_seconds)
        return _Reply(HttpBody(content_type=_JSON, data=_encode(answer)), headers)

    async def _stream(self, call: Call, events: openai_json.EventWriter, routed: RoutedStream) -> None:
        writer = _SseWriter(call.context, self._keep_alive)
        last = None
        try:
            async with aclosing(routed.batches()) as batches, writer:
                metadata = (*_headers(call, routed.report, routed.upstream_seconds), ("cache-control", "no-cache"))
                await call.context.send_initial_metadata(metadata)
                async for batch in batches:
                    last = batch[-1]
                    await writer.write(events.events(batch))
                await writer.write(_DONE)
        except Exception as error:
            told = call.explain(error)
            await writer.write(_error_event(told, call.request_id, last))
            _set_code(call.context, told)


class _SseWriter:
    """Writes events, and comments into silences. Entered, it has a timer for the latter."""

    def __init__(self, context: Context, keep_alive: float) -> None:
        self._context = context
        self._keep_alive = keep_alive
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Send `data`, one message."""
        async with self._lock:
            await self._context.write(HttpBody(content_type=_SSE, data=data))
            self._last = self._loop.time()

    async def __aenter__(self) -> None:
        self._tick()

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()
            with suppress(asyncio.CancelledError):
                await self._comment

    def _tick(self) -> None:
        """Break a silence that is too long, and look again. A timer: tasks would take memory for every stream."""
        due = self._last + self._keep_alive
        if self._loop.time() >= due:
            if self._comment is None or self._comment.done():
                self._comment = self._loop.create_task(self.write(_KEEP_ALIVE))
            due = self._loop.time() + self._keep_alive
        self._timer = self._loop.call_at(due, self._tick)


def _parse(call: Call, request: HttpBody) -> _Asked:
    """The request of a caller with a key. Raises LmchatError."""
    call.authenticate()
    _check_content_type(request.content_type)
    plain = None if call.debug else openai_json.read_plain_request(request.data)
    if plain is not None:
        return _Asked(plain, plain.stream, legacy_functions=False)
    parsed = openai_json.parse(request.data)
    call.add_options(parsed.request)
    return _Asked(*parsed)


def _check_content_type(content_type: str) -> None:
    if content_type != _JSON and content_type.partition(";")[0].strip().lower() != _JSON:
        got = f"got {content_type[:100]!r}" if content_type else "none was given"
        raise LmchatError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Send the body with `content-type: application/json`; {got}."
        )


def _headers(call: Call, report: Report, upstream_seconds: float) -> tuple[tuple[str, str], ...]:
    overhead = max(0.0, call.elapsed() - upstream_seconds) * 1000
    headers: tuple[tuple[str, str], ...] = (
        ("x-request-id", call.request_id),
        ("x-lmchat-provider", report.provider),
        ("x-lmchat-tries", str(report.tries)),
        ("x-lmchat-overhead-ms", f"{overhead:.1f}"),
    )
    if report.dropped_params:
        # Callers name these fields: whatever they wrote, it must be one line of ASCII, and not a long one.
        headers += (("x-lmchat-dropped-params", _UNPRINTABLE("?", ",".join(report.dropped_params))[:1000]),)
    return headers


def _error_event(error: LmchatError, request_id: str, last: pb.ChatCompletionChunk | None) -> bytes:
    """The failure of a stream that has begun; no [DONE] follows it."""
    event = {
        "id": last.id if last is not None else "",
        "object": "chat.completion.chunk",
        "created": last.created if last is not None else 0,
        "model": last.model if last is not None else "",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
        **errors.body(error, request_id),
    }
    return b"data: %b\n\n" % _encode(event)


def _failure(call: Call, error: LmchatError) -> _Reply:
    """Status and body of an error before the answer; Envoy turns `x-http-status` into the status."""
    headers = [("x-http-status", str(error.status.http)), ("x-request-id", call.request_id)]
    if error.attempts:
        headers.append(("x-lmchat-tries", str(len(error.attempts))))
    if error.retry_after is not None or error.status.http in (429, 503):
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after or 0)))))
    data = _encode(errors.body(error, call.request_id))
    return _Reply(HttpBody(content_type=_JSON, data=data), tuple(headers), error)


def _details(reply: _Reply) -> str:
    """The headers of a unary reply, a line each, as the text of its status.

    Envoy makes the reply's headers of it. gRPC would send metadata as a message of its own, which costs a
    tenth of the whole call, and a status other than OK without the body; hence `grpc-status` among the lines.
    """
    lines = "\n".join(map(": ".join, reply.headers))
    return lines if reply.error is None else f"{lines}\ngrpc-status: {reply.error.status.grpc.value[0]}"


def _set_code(context: Context, error: LmchatError) -> None:
    context.set_code(error.status.grpc)
    context.set_details(error.message)
