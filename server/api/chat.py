"""The gRPC servicer of `lmchat.v1.ChatCompletions`."""

from __future__ import annotations

from contextlib import aclosing

from lmchat.v1 import chat_pb2 as pb
from lmchat.v1 import chat_service_pb2_grpc as chat_grpc

from server.api.call import Call, Calls, Context
from server.api.registration import request_size
from server.api.validate import validate
from server.chat.large import in_thread
from server.chat.request import ChatRequest, ProtoRequest
from server.routing.router import Router


class ChatCompletions(chat_grpc.ChatCompletionsServicer):
    """Both methods propagate the caller's deadline and cancellation to the provider."""

    def __init__(self, calls: Calls, router: Router) -> None:
        self._calls = calls
        self._router = router

    async def CreateChatCompletion(self, request: pb.ChatCompletionRequest, context: Context) -> pb.ChatCompletion:
        """The completion as one message."""
        async with self._calls(context) as call:
            parsed = await _validated(request, call)
            with call.drain:
                routed = await self._router.complete(parsed, call.timeout)
            await call.begin()
            return routed.completion.to_proto()

    async def StreamChatCompletion(  # type: ignore[override]
        self, request: pb.ChatCompletionRequest, context: Context
    ) -> None:
        """The completion in chunks, one message each."""
        async with self._calls(context) as call:
            parsed = await _validated(request, call)
            with call.drain:
                routed = await self._router.stream(parsed, call.timeout)
            async with aclosing(routed.batches()) as batches:
                await call.begin()
                while batch := await call.drain.next(batches):
                    for chunk in batch:
                        await context.write(chunk)


async def _validated(request: pb.ChatCompletionRequest, call: Call) -> ChatRequest:
    """The request of a call, with the options of its headers. Raises InvalidRequest."""
    size = request_size.get()
    if size:
        return call.with_options(await in_thread(_validated_large, request, size))
    validate(request)
    return call.with_options(ProtoRequest(request))


def _validated_large(request: pb.ChatCompletionRequest, size: int) -> ChatRequest:
    """The request of `size` bytes, with the names in its JSON text, which are asked for again and again, read."""
    validate(request, large=True)
    validated = ProtoRequest(request, size=size)
    validated.unknown_parameters()
    return validated
