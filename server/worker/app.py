"""The composition root of a worker: constructs all its parts; starts, drains and stops the server."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from lmchat.internal.v1 import (
    operations_service_pb2,
    operations_service_pb2_grpc,
    rest_service_pb2,
    rest_service_pb2_grpc,
)
from lmchat.v1 import chat_service_pb2, chat_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

from server.api.call import Call, KeyRing
from server.api.chat import ChatCompletions
from server.api.drain import Drain
from server.api.metrics import Operations
from server.api.models import Models
from server.api.reflection import add_reflection
from server.api.registration import Registrar, UnknownMethods
from server.api.rest import Rest
from server.config.model import Config
from server.config.redaction import Redactor
from server.dialects.base import Dialect
from server.dialects.registry import DIALECTS
from server.media.fetcher import Fetcher
from server.routing.catalog import Catalog
from server.routing.router import Ids, Router
from server.routing.shared_stats import SharedStats
from server.routing.stats import EndpointStats
from server.telemetry import logs
from server.upstream.client import Upstream
from server.upstream.emulation.emulation import Emulation
from server.vendors.credentials.select import authenticator
from server.wire.transport import Transport
from server.worker.scheduling import batch_when_busy

log = logging.getLogger("lmchat.app")

#: Bytes of one request; Envoy rejects larger bodies with a 413.
MAX_REQUEST = 64 * 1024 * 1024
#: Bytes of a call's metadata, as gRPC counts them: 32 more for each entry. Envoy refuses 16 KB with a 431 before.
MAX_METADATA = 32 * 1024
#: Seconds between NOT_SERVING and the end of accepting calls: longer than Envoy's
#: health interval times its threshold, or calls fail in a rolling restart.
DRAIN_NOTICE = 3.0
#: Seconds for which successes are collected before they are written to the shared statistics.
STATS_FLUSH_DELAY = 0.05
#: Seconds that active calls may take when a worker drains.
DRAIN_GRACE = 30.0
#: Seconds that calls without that time have to send their error, before they are cut.
ERROR_GRACE = 2.0

#: The services of gRPC callers, which reflection lists.
PUBLIC_SERVICES = (
    chat_service_pb2.DESCRIPTOR.services_by_name["ChatCompletions"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["Models"].full_name,
)
SERVICES = (
    *PUBLIC_SERVICES,
    rest_service_pb2.DESCRIPTOR.services_by_name["Rest"].full_name,
    operations_service_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
)


class Worker:
    """One gRPC server with all its services. `start` it, then `drain` or `stop` it.

    `transport` connects to providers. `shared_stats` is shared with the other workers of the machine; by
    default the worker has private statistics. `dialects` must be those that `catalog` was built with.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        transport: Transport,
        *,
        shared_stats: SharedStats | None = None,
        dialects: Mapping[str, Dialect] = DIALECTS,
    ) -> None:
        self._transport = transport
        self._drain = Drain()
        vendors = {e.provider.key: (e.provider, e.vendor) for m in catalog.models() for e in m.endpoints}
        redactor = Redactor.of(config.keys, (provider for provider, _ in vendors.values()))
        logs.redact(redactor)
        upstream = Upstream(
            transport,
            {name: dialect.translator for name, dialect in dialects.items()},
            {key: authenticator(provider, vendor, transport) for key, (provider, vendor) in vendors.items()},
            redactor,
        )
        ids = Ids(lambda: f"chatcmpl-{uuid.uuid4().hex}", time.time, time.monotonic, random.random)
        self._fetcher = Fetcher(config.fetch)
        caller = Emulation(upstream, self._fetcher, dialects)
        self._stats = EndpointStats(
            config.circuit,
            shared_stats or SharedStats.private(time.monotonic),
            _schedule_flush,
            configured=[endpoint.id for model in catalog.models() for endpoint in model.endpoints],
        )
        router = Router(catalog, caller, self._stats, ids, config.retry)
        calls = partial(Call, KeyRing(config.keys), redactor, self._drain, time.monotonic)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_REQUEST),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", MAX_METADATA),
                ("grpc.absolute_max_metadata_size", MAX_METADATA),
                ("grpc.so_reuseport", 0),
            )
        )
        registrar: Any = Registrar(self._server, calls)
        chat_service_pb2_grpc.add_ChatCompletionsServicer_to_server(ChatCompletions(calls, router), registrar)
        models = Models(calls, catalog, int(time.time()), self._stats)
        model_service_pb2_grpc.add_ModelsServicer_to_server(models, registrar)
        rest_service_pb2_grpc.add_RestServicer_to_server(Rest(calls, router, config.stream.keep_alive), registrar)
        operations = Operations(calls, self._stats)
        operations_service_pb2_grpc.add_OperationsServicer_to_server(operations, registrar)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registrar)
        add_reflection((*PUBLIC_SERVICES, health.SERVICE_NAME), registrar)
        self._server.add_generic_rpc_handlers((UnknownMethods(calls),))

    async def start(self, address: str) -> str:
        """Serve on `host:port` or `unix:path`; returns the address with the bound port. Raises OSError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def drain(self, notice: float = DRAIN_NOTICE, grace: float = DRAIN_GRACE) -> None:
        """Report NOT_SERVING, wait `notice` seconds for Envoy, then `stop`."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(notice)
        await self.stop(grace)

    async def stop(self, grace: float = 0.0) -> None:
        """Stop when all calls have ended; closes provider connections.

        Those that have not after `grace` seconds end with an error, or are cut when their callers do not read it.
        """
        expiry = asyncio.get_running_loop().call_later(grace, self._drain.expire)
        try:
            await self._server.stop(grace + ERROR_GRACE)
        finally:
            expiry.cancel()
        self._stats.flush()
        await self._transport.aclose()


def _schedule_flush(flush: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(STATS_FLUSH_DELAY, flush)


async def serve(
    config: Config, catalog: Catalog, address: str, proxies: Mapping[str, str], shared_stats: Path | None
) -> None:
    """Run a worker until SIGTERM or SIGINT; a second signal stops it at once. Raises OSError if it cannot listen.

    `shared_stats` is the file of the statistics that it shares with other workers.
    """
    stats = SharedStats.open(shared_stats, time.monotonic) if shared_stats else None
    worker = Worker(config, catalog, Transport(proxies), shared_stats=stats)
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    bound = await worker.start(address)
    # These objects live as long as the process; a full collection of them would pause every stream for 16 ms.
    gc.collect()
    gc.freeze()
    log.info("serving on %s", bound)
    batching = asyncio.create_task(batch_when_busy())
    await signals.get()
    draining = asyncio.create_task(worker.drain())
    again = asyncio.create_task(signals.get())
    await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    batching.cancel()
    if not draining.done():
        draining.cancel()
        await worker.stop()
