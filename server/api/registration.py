"""Registers servicers with the gRPC server, and answers the messages that cannot be decoded.

Of bytes that are no message of the method's type (or hold text that is not UTF-8), grpc.aio logs a traceback and
sends the caller Python's text, before any key is checked. Here such a call gets the gateway's error instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.api.call import Calls, Context
from server.errors import InvalidRequest, detached

#: What deserializers return for bytes that are no message.
_UNREADABLE = object()


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
        return handler._replace(request_deserializer=_reading(handler.request_deserializer), **method)

    def _unary(self, method: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                if request is not _UNREADABLE:
                    return await method(request, context)
                async with self._calls(context):
                    raise _unreadable()
            except grpc.aio.AbortError as error:
                # The context keeps the error, whose frames would keep the context: a cycle.
                detached(error)
                del request, context
                raise

        return guarded

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


def _reading(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return parse(data)
        except (DecodeError, ValueError):
            return _UNREADABLE

    return deserialize


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _UNREADABLE:
            raise _unreadable()
        yield request


def _unreadable() -> InvalidRequest:
    return InvalidRequest(
        "The request cannot be read: it is no protobuf message of this method, or its path or a text is not UTF-8."
    )
