"""A scripted provider of the OpenAI dialect on loopback, which reproduces the faults of providers.

Each model name has a queue of behaviours, one per call; the last one is repeated. Calls
are recorded with their time, their body, and when the gateway closed the socket.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[["Call"], Awaitable[None]]

#: Seconds within which the gateway, in the same loop, has read what was sent.
_READ = 0.03


@dataclass
class Call:
    """One call as the provider receives it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    begun: float
    writer: asyncio.StreamWriter
    connection: _Connection
    #: Set when the behaviour has ended.
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        """The status line and headers of a chunked answer."""
        lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def piece(self, data: bytes) -> None:
        """One chunk of the body."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, obj: Any) -> None:
        """One server-sent event."""
        await self.piece(b"data: " + (obj if isinstance(obj, bytes) else json.dumps(obj).encode()) + b"\n\n")

    async def delta(self, finish_reason: str | None = None, **delta: Any) -> None:
        """One chunk of choice 0."""
        await self.event(chunk([{"index": 0, "delta": delta, "finish_reason": finish_reason}]))

    async def end(self) -> None:
        """The end of the body."""
        await self.send(b"0\r\n\r\n")

    async def wait(self) -> None:
        """Wait until the gateway closes the socket; see `left_at`."""
        await self.connection.lost.wait()

    @property
    def left_at(self) -> float:
        """The loop's time at which the gateway closed the socket, 0 while it has not."""
        return self.connection.lost_at


def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
    """A chunk as OpenAI sends it."""
    return {
        "id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1700000000, "model": "up",
        "choices": choices, **more,
    }  # fmt: skip


def completion(content: str, **more: Any) -> dict[str, Any]:
    """A completion as OpenAI sends it."""
    return {
        "id": "chatcmpl-up", "object": "chat.completion", "created": 1700000000, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, **more,
    }  # fmt: skip


def answer(*words: str, done: bool = True) -> Behaviour:
    """A complete answer: unary, or streamed word by word."""

    async def behave(call: Call) -> None:
        if not call.body.get("stream"):
            await reply(200, completion("".join(words)))(call)
            return
        await call.head()
        await call.delta(role="assistant", content="")
        for word in words:
            await call.delta(content=word)
        await call.delta("stop")
        if (call.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
            await call.event(chunk([], usage=usage))
        if done:
            await call.event(b"[DONE]")
        await call.end()

    return behave


def reply(status: int, body: Any, content_type: str = "application/json", **headers: str) -> Behaviour:
    """A whole body, JSON unless it is bytes."""

    async def behave(call: Call) -> None:
        await call.head(status, content_type, **headers)
        await call.piece(body if isinstance(body, bytes) else json.dumps(body).encode())
        await call.end()

    return behave


def failure(status: int, message: str = "it failed", code: str | None = None, **headers: str) -> Behaviour:
    """An error of OpenAI's shape."""
    return reply(status, {"error": {"message": message, "type": "x", "code": code, "param": None}}, **headers)


async def reset(call: Call) -> None:
    """Close before any answer."""
    call.writer.transport.abort()


async def silence(call: Call) -> None:
    """Accept, and never answer."""
    await call.wait()


async def headers_only(call: Call) -> None:
    """Headers, of a stream the role too, then silence."""
    if not call.body.get("stream"):
        await call.head(200, "application/json")
    else:
        await call.head()
        await call.delta(role="assistant", content="")
    await call.wait()


def cut(*words: str) -> Behaviour:
    """Some words of a stream, or half of a whole answer, then a broken connection."""

    async def behave(call: Call) -> None:
        if not call.body.get("stream"):
            await call.head(200, "application/json")
            await call.piece(b'{"id": "x", "choi')
        else:
            await call.head()
            await call.delta(role="assistant", content="")
            for word in words:
                await call.delta(content=word)
            await asyncio.sleep(_READ)  # data overtaken by a reset is lost
        call.writer.transport.abort()

    return behave


def unframed(*words: str) -> Behaviour:
    """Some words of a stream, or half of a whole answer, then an invalid HTTP chunk, and a stall."""

    async def behave(call: Call) -> None:
        if not call.body.get("stream"):
            await call.head(200, "application/json")
            await call.piece(b'{"id": "x", "choi')
        else:
            await call.head()
            for word in words:
                await call.delta(content=word)
        await asyncio.sleep(_READ)
        await call.send(b"zz\r\n")
        await call.wait()

    return behave


def stall(*words: str) -> Behaviour:
    """Some words of a stream, or half of a whole answer, then silence."""

    async def behave(call: Call) -> None:
        if not call.body.get("stream"):
            await call.head(200, "application/json")
            await call.piece(b'{"id": "x", "choi')
        else:
            await call.head()
            await call.delta(role="assistant", content="")
            for word in words:
                await call.delta(content=word)
        await call.wait()

    return behave


def broken(*words: str, event: bytes = b'{"choices": [') -> Behaviour:
    """Some words of a stream, then an `event` that is not JSON; or a unary answer that is not JSON.

    An empty `event` is left out: the stream then ends early without an error.
    """

    async def behave(call: Call) -> None:
        if not call.body.get("stream"):
            await reply(200, event or b" ")(call)
            return
        await call.head()
        for word in words:
            await call.delta(content=word)
        await asyncio.sleep(_READ)
        if event:
            await call.event(event)
        await call.end()

    return behave


def late(seconds: float, then: Behaviour) -> Behaviour:
    """`then`, `seconds` after the call arrived."""

    async def behave(call: Call) -> None:
        await asyncio.sleep(seconds)
        await then(call)

    return behave


def held(release: asyncio.Event) -> Behaviour:
    """A complete stream that waits for `release` after its first word."""

    async def behave(call: Call) -> None:
        await call.head()
        await call.delta(content="one")
        await release.wait()
        await call.delta("stop")
        await call.event(b"[DONE]")
        await call.end()

    return behave


class _Connection(asyncio.StreamReaderProtocol):
    """A connection that records when the other side closes it."""

    def __init__(self, faults: FaultServer) -> None:
        super().__init__(asyncio.StreamReader(), faults.connected)
        self.lost = asyncio.Event()
        self.lost_at = 0.0

    def _leave(self) -> None:
        if not self.lost.is_set():
            self.lost_at = asyncio.get_running_loop().time()
            self.lost.set()

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)


class FaultServer:
    """See the module. `base_url` is for the configuration of a provider."""

    def __init__(self) -> None:
        self.base_url = ""
        self.calls: list[Call] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._scripts: dict[str, list[Behaviour]] = {}
        self._arrivals = asyncio.Condition()

    def script(self, model: str, *behaviours: Behaviour) -> None:
        """Set the behaviours for the calls of `model`, in turn; the last one is repeated."""
        self._scripts[model] = list(behaviours)

    def of(self, model: str) -> list[Call]:
        """The calls of `model`."""
        return [call for call in self.calls if call.body.get("model") == model]

    async def arrived(self, count: int = 1) -> Call:
        """Wait for the `count`-th call of all."""
        async with self._arrivals:
            await asyncio.wait_for(self._arrivals.wait_for(lambda: len(self.calls) >= count), 10)
        return self.calls[count - 1]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while not writer.transport.is_closing():
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway left, or the test is over
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Connection)
        call = Call(head[0].split()[1], headers, body, asyncio.get_running_loop().time(), writer, protocol)
        script = self._scripts.get(body.get("model", ""), [failure(404, "no script")])
        async with self._arrivals:
            self.calls.append(call)
            self._arrivals.notify_all()
        await (script.pop(0) if len(script) > 1 else script[0])(call)
        call.answered.set()


@asynccontextmanager
async def fault_server() -> AsyncIterator[FaultServer]:
    """A server on a free port of loopback."""
    faults = FaultServer()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(faults), "127.0.0.1", 0)
    faults.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield faults
    finally:
        server.close()
        tasks = list(faults.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
