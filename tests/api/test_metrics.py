"""/metrics: every configured endpoint, and a bounded number of others."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from server.api.metrics import MAX_OTHERS, EndpointCollector
from server.config.model import Circuit
from server.errors import ProviderError, Reason
from server.routing.shared_stats import SharedStats
from server.routing.stats import EndpointStats

FAILED = ProviderError(Reason.UPSTREAM_ERROR, "It failed.", http_status=500)


def test_invented_names_are_counted_together() -> None:
    settings = Circuit(min_requests=1, cooldown=1e6)
    stats = EndpointStats(settings, SharedStats.private(lambda: 1.0), configured=["p/real/m"])
    stats.failed(stats.begin("p/real/m"), FAILED)
    for number in range(1000):
        stats.failed(stats.begin(f"p/wild/{number}"), FAILED)
    stats.answered(stats.begin("p/wild/999"))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EndpointCollector(stats.copy()))
    lines = generate_latest(registry).decode().splitlines()
    failures = [line for line in lines if line.startswith("lmchat_endpoint_failures_total{")]
    assert len(failures) == 1 + MAX_OTHERS + 1
    assert any('endpoint="real"' in line for line in failures)
    assert any('model="999"' in line for line in failures)
    [rest] = [line for line in failures if 'endpoint="wild",model="*"' in line]
    assert rest.endswith(f" {1000 - MAX_OTHERS}.0")
    assert next(line for line in lines if 'endpoint="real"' in line and 'state="open"' in line).endswith(" 1.0")
