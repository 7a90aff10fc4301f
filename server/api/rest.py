"""The REST servicer: OpenAI's JSON and server-sent events over HttpBody, behind Envoy.

Handlers must not raise: before the first message the exception's text would become the body of a 500, after it the
stream would end as if complete.
"""

from __future__ import annotations

import math
import re
from contextlib import aclosing

import msgspec
from google.api.httpbody_pb2 import HttpBody
from lmchat.internal.v1 import rest_service_pb2_grpc

from server.api.call import Call, Calls, Context
from server.api.public_error import PublicError
from server.api.sse import DONE, SseWriter, error_event
from server.api.status_text import Headers, status_text
from server.chat import openai_json
from server.chat.completion import Completion
from server.chat.large import LARGE_BYTES, in_thread
from server.chat.openai_json import EventWriter
from server.chat.request import ChatRequest, read
from server.errors import InvalidRequest, LmchatError, Reason
from server.routing.report import Report
from server.routing.router import Router
from server.routing.stream import RoutedStream

_encode = msgspec.json.Encoder().encode
_JSON = "application/json"
_UNPRINTABLE = re.compile(r"[^ -~]").sub


class _Response(msgspec.Struct, frozen=True):
    """The response of a unary call, also for an `error`; `headers` are HTTP headers."""

    body: HttpBody
    headers: Headers
    error: PublicError | None = None


class Rest(rest_service_pb2_grpc.RestServicer):
    """`keep_alive`: seconds without an event after which a stream sends a comment line."""

    def __init__(self, calls: Calls, router: Router, keep_alive: float) -> None:
        self._calls = calls
        self._router = router
        self._keep_alive = keep_alive

    async def CreateChatCompletion(self, request: HttpBody, context: Context) -> None:  # type: ignore[override]
        """One JSON object, or with `"stream": true` server-sent events."""
        call = self._calls(context)
        try:
            parsed = await _parse(call, request)
            if parsed.stream:
                with call.drain:
                    routed = await self._router.stream(parsed, call.timeout)
            else:
                response = await self._complete(call, parsed)
        except Exception as error:
            response = _failure(call, call.explain(error))
        else:
            if parsed.stream:
                events = EventWriter(include_usage=parsed.include_usage, legacy=parsed.legacy_functions)
                del parsed  # requests may be large, and streams are long
                await self._stream(call, events, routed)
                return
        await context.send_initial_metadata(response.headers)
        await context.write(response.body)
        if response.error is not None:
            _set_code(context, response.error)

    async def CreateUnaryChatCompletion(self, request: HttpBody, context: Context) -> HttpBody:
        """One JSON object, also for errors; the headers are in the status text (see status_text.py)."""
        call = self._calls(context)
        try:
            parsed = await _parse(call, request)
            if parsed.stream:  # Envoy sends no such request here
                raise InvalidRequest("This call answers at once; CreateChatCompletion streams.", "stream")
            response = await self._complete(call, parsed)
        except Exception as error:
            response = _failure(call, call.explain(error))
        context.set_details(status_text(response.headers, None if response.error is None else response.error.grpc))
        return response.body

    async def _complete(self, call: Call, request: ChatRequest) -> _Response:
        with call.drain:
            routed = await self._router.complete(request, call.timeout)
        completion = routed.completion
        if completion.size <= LARGE_BYTES:
            body = _body(completion, legacy=request.legacy_functions)
        else:
            body = await in_thread(_body, completion, legacy=request.legacy_functions)
        return _Response(body, _headers(call, routed.report, routed.upstream_seconds))

    async def _stream(self, call: Call, events: EventWriter, routed: RoutedStream) -> None:
        writer = SseWriter(call.context, self._keep_alive)
        last = None
        try:
            async with aclosing(routed.batches()) as batches, writer:
                metadata = (*_headers(call, routed.report, routed.upstream_seconds), ("cache-control", "no-cache"))
                await call.context.send_initial_metadata(metadata)
                while batch := await call.drain.next(batches):
                    last = batch[-1]
                    await writer.write(events.events(batch))
                await writer.write(DONE)
        except Exception as error:
            failure = call.explain(error)
            await writer.write(error_event(failure, last))
            _set_code(call.context, failure)


def _body(completion: Completion, *, legacy: bool) -> HttpBody:
    """The body of a completion; `legacy`: see legacy.py."""
    if legacy:
        out = completion.to_openai()
        openai_json.rewrite_legacy(out)
        data = _encode(out)
    else:
        data = completion.to_json()
    return HttpBody(content_type=_JSON, data=data)


async def _parse(call: Call, request: HttpBody) -> ChatRequest:
    """Authenticate the call and parse its body. Raises LmchatError."""
    call.authenticate()
    _check_content_type(request.content_type)
    body = request.data
    return call.with_options(read(body) if len(body) <= LARGE_BYTES else await in_thread(read, body))


def _check_content_type(content_type: str) -> None:
    if content_type != _JSON and content_type.partition(";")[0].strip().lower() != _JSON:
        got = f"got {content_type[:100]!r}" if content_type else "none was given"
        raise LmchatError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Send the body with `content-type: application/json`; {got}."
        )


def _headers(call: Call, report: Report, upstream_seconds: float) -> Headers:
    overhead = max(0.0, call.elapsed() - upstream_seconds) * 1000
    headers: Headers = (
        ("x-request-id", call.request_id),
        ("x-lmchat-provider", report.provider),
        ("x-lmchat-tries", str(report.tries)),
        ("x-lmchat-overhead-ms", f"{overhead:.1f}"),
    )
    if report.dropped_params:
        # Callers choose these names, but a header value must be one line of ASCII of bounded length.
        headers += (("x-lmchat-dropped-params", _UNPRINTABLE("?", ",".join(report.dropped_params))[:1000]),)
    return headers


def _failure(call: Call, error: PublicError) -> _Response:
    """The response for an error before any content; Envoy makes `x-http-status` the HTTP status."""
    headers = [("x-http-status", str(error.http)), ("x-request-id", call.request_id)]
    if error.attempts:
        headers.append(("x-lmchat-tries", str(len(error.attempts))))
    if error.retry_after is not None or error.http in (429, 503):
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after or 0)))))
    return _Response(HttpBody(content_type=_JSON, data=_encode(error.body())), tuple(headers), error)


def _set_code(context: Context, error: PublicError) -> None:
    context.set_code(error.grpc)
    context.set_details(error.status_message())
