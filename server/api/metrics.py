"""The servicer of `lmchat.internal.v1.Operations`, over REST `GET /metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import get_args

from google.api.httpbody_pb2 import HttpBody
from lmchat.internal.v1 import operations_service_pb2 as pb
from lmchat.internal.v1 import operations_service_pb2_grpc as operations_grpc
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.api.call import Calls, Context
from server.routing.stats import EndpointStats, Snapshot, State

#: Endpoints of models named through wildcards that have samples of their own.
MAX_OTHERS = 100
_LABELS = ("provider", "endpoint", "model")


class Operations(operations_grpc.OperationsServicer):
    """Metrics are computed when they are scraped, from a copy of EndpointStats, in which calls count."""

    def __init__(self, calls: Calls, stats: EndpointStats) -> None:
        self._calls = calls
        self._stats = stats

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> HttpBody:
        """Prometheus's text format."""
        async with self._calls(context) as call:
            # Thousands of endpoints would hold the event loop; statistics are written on it only.
            registry = CollectorRegistry(auto_describe=False)
            registry.register(EndpointCollector(self._stats.copy()))
            text = await asyncio.to_thread(generate_latest, registry)
            await call.begin()
            return HttpBody(content_type=CONTENT_TYPE_LATEST, data=text)


class EndpointCollector(Collector):
    """Every configured endpoint that was called, by any worker of this machine, and MAX_OTHERS others.

    Others are those of models that callers name through wildcards: the busiest have samples of their own, the rest
    are counted together, with the model `*`.
    """

    def __init__(self, stats: EndpointStats) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """The families, without samples; else registering would collect them."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families with a sample for each endpoint."""
        families = circuit, openings, answers, failures, latency, first_token, throughput = self._families()
        for labels, snapshot in self._rows():
            for state in get_args(State):
                circuit.add_metric((*labels, state), state == snapshot.state)
            openings.add_metric(labels, snapshot.openings)
            answers.add_metric(labels, snapshot.answers)
            failures.add_metric(labels, snapshot.failures)
            if snapshot.latency is not None:
                latency.add_metric(labels, snapshot.latency)
            if snapshot.first_token is not None:
                first_token.add_metric(labels, snapshot.first_token)
            if snapshot.throughput is not None:
                throughput.add_metric(labels, snapshot.throughput)
        return families

    def _rows(self) -> Iterable[tuple[tuple[str, ...], Snapshot]]:
        """The labels and the figures of each line."""
        others: list[tuple[tuple[str, ...], Snapshot]] = []
        for endpoint_id, snapshot in self._stats.snapshots():
            labels = (*endpoint_id.split("/", 2), "", "")[:3]  # a very long id was cut, perhaps before its slashes
            if snapshot.configured:
                yield labels, snapshot
            else:
                others.append((labels, snapshot))
        others.sort(key=lambda row: row[1].answers + row[1].failures, reverse=True)
        yield from others[:MAX_OTHERS]
        sums: dict[tuple[str, ...], Snapshot] = {}
        for (provider, endpoint, _), snapshot in others[MAX_OTHERS:]:
            labels = (provider, endpoint, "*")
            total = sums.get(labels, Snapshot())
            sums[labels] = Snapshot(
                answers=total.answers + snapshot.answers,
                failures=total.failures + snapshot.failures,
                openings=total.openings + snapshot.openings,
            )
        yield from islice(sums.items(), MAX_OTHERS)

    @staticmethod
    def _families() -> tuple[
        GaugeMetricFamily,
        CounterMetricFamily,
        CounterMetricFamily,
        CounterMetricFamily,
        GaugeMetricFamily,
        GaugeMetricFamily,
        GaugeMetricFamily,
    ]:
        return (
            GaugeMetricFamily("lmchat_endpoint_circuit", "1 for the circuit's state.", labels=(*_LABELS, "state")),
            CounterMetricFamily("lmchat_endpoint_circuit_openings", "Times it opened.", labels=_LABELS),
            CounterMetricFamily("lmchat_endpoint_answers", "Complete answers.", labels=_LABELS),
            CounterMetricFamily("lmchat_endpoint_failures", "Calls the endpoint failed.", labels=_LABELS),
            GaugeMetricFamily(
                "lmchat_endpoint_latency_seconds",
                "Moving average of the time to whole answers that were not streamed.",
                labels=_LABELS,
            ),
            GaugeMetricFamily(
                "lmchat_endpoint_first_token_seconds",
                "Moving average of the time to the first content of streams.",
                labels=_LABELS,
            ),
            GaugeMetricFamily(
                "lmchat_endpoint_tokens_per_second", "Moving average of output tokens.", labels=_LABELS
            ),
        )
