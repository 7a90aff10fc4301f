"""The REST door: OpenAI's JSON and server-sent events over HttpBody, behind Envoy.

Nothing may escape the handler: before the first message an exception's text
would become the body of a 500, after it the stream would end as if complete.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing, suppress
from typing import Any

import grpc
import msgspec
from google.api.httpbody_pb2 import HttpBody
from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import rest_pb2_grpc

from server import errors, openai_json
from server.errors import LmchatError, Reason
from server.routing.router import RoutedStream, Router
from server.rpc.calls import Call, Calls

Context = grpc.aio.ServicerContext[Any, Any]

_encode = msgspec.json.Encoder().encode
_JSON = "application/json"
_SSE = "text/event-stream"
_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = HttpBody(content_type=_SSE, data=b": keep-alive\n\n")


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
            call.authenticate()
            _check_content_type(request.content_type)
            parsed = openai_json.parse(request.data)
            if parsed.stream:
                routed = await self._router.stream(parsed.request, call.timeout)
            else:
                completed = await self._router.complete(parsed.request, call.timeout)
        except Exception as error:
            await _send_error(call, call.explain(error))
            return
        if parsed.stream:
            await self._stream(call, parsed, routed)
            return
        answer = openai_json.dump_completion(completed.completion)
        if parsed.legacy_functions:
            openai_json.rewrite_legacy(answer)
        await context.send_initial_metadata(
            _headers(call, completed.completion.lmchat, completed.upstream_seconds)
        )
        await context.write(HttpBody(content_type=_JSON, data=_encode(answer)))

    async def _stream(self, call: Call, parsed: openai_json.Parsed, routed: RoutedStream) -> None:
        writer = _SseWriter(call.context, self._keep_alive)
        last = None
        try:
            async with aclosing(routed.batches()) as batches, writer:
                metadata = (*_headers(call, routed.report, routed.upstream_seconds), ("cache-control", "no-cache"))
                await call.context.send_initial_metadata(metadata)
                async for batch in batches:
                    last = batch[-1]
                    await writer.write(_events(batch, parsed))
                await writer.write(_DONE)
        except Exception as error:
            told = call.explain(error)
            await writer.write(_error_event(told, call.request_id, last))
            _set_code(call.context, told)


class _SseWriter:
    """Writes events, and comments into silences. Entered, it keeps a task for the latter."""

    def __init__(self, context: Context, keep_alive: float) -> None:
        self._context = context
        self._keep_alive = keep_alive
        self._lock = asyncio.Lock()
        self._now = asyncio.get_running_loop().time
        self._last = self._now()
        self._task: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Send `data`, one message."""
        async with self._lock:
            await self._context.write(HttpBody(content_type=_SSE, data=data))
            self._last = self._now()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._beat())

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _beat(self) -> None:
        while True:
            silence = self._now() - self._last
            if silence < self._keep_alive:
                await asyncio.sleep(self._keep_alive - silence)
                continue
            async with self._lock:
                await self._context.write(_KEEP_ALIVE)
                self._last = self._now()


def _check_content_type(content_type: str) -> None:
    if content_type.partition(";")[0].strip().lower() != _JSON:
        got = f"got {content_type[:100]!r}" if content_type else "none was given"
        raise LmchatError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Send the body with `content-type: application/json`; {got}."
        )


def _headers(call: Call, report: pb.RoutingReport, upstream_seconds: float) -> tuple[tuple[str, str], ...]:
    overhead = max(0.0, call.elapsed() - upstream_seconds) * 1000
    headers: tuple[tuple[str, str], ...] = (
        ("x-request-id", call.request_id),
        ("x-lmchat-provider", report.provider),
        ("x-lmchat-tries", str(report.tries)),
        ("x-lmchat-overhead-ms", f"{overhead:.1f}"),
    )
    if report.dropped_params:
        headers += (("x-lmchat-dropped-params", ",".join(report.dropped_params)),)
    return headers


def _events(batch: list[pb.ChatCompletionChunk], parsed: openai_json.Parsed) -> bytes:
    """All events of one batch, to be one message."""
    include_usage = parsed.request.stream_options.include_usage
    pieces = []
    for chunk in batch:
        obj = openai_json.dump_chunk(chunk, include_usage=include_usage)
        if parsed.legacy_functions:
            openai_json.rewrite_legacy(obj)
        pieces.append(b"data: %b\n\n" % _encode(obj))
    return b"".join(pieces)


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


async def _send_error(call: Call, error: LmchatError) -> None:
    """Status and body of an error before the answer; Envoy turns `x-http-status` into the status."""
    metadata = [("x-http-status", str(error.status.http)), ("x-request-id", call.request_id)]
    if error.retry_after is not None or error.status.http in (429, 503):
        metadata.append(("retry-after", str(max(1, math.ceil(error.retry_after or 0)))))
    await call.context.send_initial_metadata(metadata)
    await call.context.write(HttpBody(content_type=_JSON, data=_encode(errors.body(error, call.request_id))))
    _set_code(call.context, error)


def _set_code(context: Context, error: LmchatError) -> None:
    context.set_code(error.status.grpc)
    context.set_details(error.message)
