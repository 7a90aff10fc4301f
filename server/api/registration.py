"""Registers servicers with the gRPC server, and answers the messages that cannot be decoded.

Of bytes that are no message of the method's type (or hold text that is not UTF-8), grpc.aio logs a traceback and
sends the caller Python's text, before any key is checked. Here such a call gets the gateway's error instead. Large
messages are parsed off the event loop, after their fields have been counted (field_count.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from server.api.call import Calls, Context
from server.api.field_count import Nested, check_fields, nested
from server.chat.large import LARGE_BYTES, by_size
from server.errors import InvalidRequest, detached

#: Bytes of the current call's request where it is large, else 0. (Protobuf would have to write a message to tell.)
request_size: ContextVar[int] = ContextVar("request_size", default=0)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def returns_bytes(method: _Method) -> _Method:
    """Mark a servicer's method that encodes its response itself: gRPC would do it in one step, however long."""
    method.returns_bytes = True  # type: ignore[attr-defined]
    return method


class _Unparsed:
    """A message that is large, or no message; `take` its bytes once, and `parse` them."""

    __slots__ = ("_data", "_parse", "_tags")

    def __init__(self, data: bytes, parse: Callable[[bytes], Any], tags: Nested) -> None:
        self._data = data
        self._parse = parse
        self._tags = tags

    def take(self) -> bytes:
        """The bytes; they are not kept, since gRPC keeps this object as long as the call."""
        data, self._data = self._data, b""
        return data

    def parse(self, data: bytes) -> Any:
        """The message. Raises InvalidRequest."""
        try:
            check_fields(data, self._tags)
            return self._parse(data)
        except (DecodeError, ValueError):
            raise InvalidRequest(
                "The request cannot be read: it is no protobuf message of this method, or its path or a text is"
                " not UTF-8."
            ) from None


class Registrar:
    """What `add_...Servicer_to_server` takes for `server`; `calls` answers those that cannot be read."""

    def __init__(self, server: grpc.aio.Server, calls: Calls) -> None:
        self._server = server
        self._calls = calls

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code registers the same methods by name right after this."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the methods of one service."""
        guarded = {name: self._guarded(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
        self._server.add_registered_method_handlers(service, guarded)

    def _guarded(self, handler: Any) -> Any:
        method: dict[str, Any]
        if handler.request_streaming:
            method = {"stream_stream": self._streaming(handler.stream_stream)}
        elif handler.response_streaming:
            method = {"unary_stream": self._unary(handler.unary_stream)}
        else:
            method = {"unary_unary": self._unary(handler.unary_unary)}
            if getattr(handler.unary_unary, "returns_bytes", False):
                method["response_serializer"] = bytes
        return handler._replace(request_deserializer=_reading(handler.request_deserializer), **method)

    def _unary(self, method: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                if request.__class__ is _Unparsed:
                    request = await self._parsed(request, context)
                return await method(request, context)
            except grpc.aio.AbortError as error:
                # The context keeps the error, whose frames would keep the context: a cycle.
                detached(error)
                del request, context
                raise

        return guarded

    async def _parsed(self, unparsed: _Unparsed, context: Context) -> Any:
        """The message; where there is none, the call ends with an AbortError."""
        data = unparsed.take()
        if len(data) > LARGE_BYTES:
            request_size.set(len(data))
        try:
            return await by_size(len(data), unparsed.parse, data)
        except InvalidRequest as error:
            async with self._calls(context):
                raise error from None

    def _streaming(
        self, method: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]
    ) -> Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]:
        async def guarded(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            try:
                async for response in method(_readable(requests), context):
                    yield response
            except InvalidRequest as error:
                await self._calls(context).abort(error)

        return guarded


class UnknownMethods(grpc.GenericRpcHandler):
    """Answers the methods that no servicer has: UNIMPLEMENTED, and without a key what any method answers."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of any method; grpc asks those before it first."""
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: Context) -> Any:
        try:
            async with self._calls(context):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "There is no such method.")
        except grpc.aio.AbortError as error:  # see Registrar
            detached(error)
            del request, context
            raise


def _reading(parse: Any) -> Callable[[bytes], Any]:
    """A deserializer; `parse` is the method FromString of a message's class."""
    tags = nested(parse.__self__.DESCRIPTOR)

    def deserialize(data: bytes) -> Any:
        if len(data) <= LARGE_BYTES:
            try:
                return parse(data)
            except (DecodeError, ValueError):
                pass
        return _Unparsed(data, parse, tags)

    return deserialize


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request.__class__ is _Unparsed:
            data = request.take()
            request = await by_size(len(data), request.parse, data)
        yield request
