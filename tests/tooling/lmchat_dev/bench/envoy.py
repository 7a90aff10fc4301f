"""Envoy for the targets that bring their own: how it is run, and the configuration that only passes things on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lmchat_dev.bench.processes import BenchFailed


def command(config: Path, workers: int) -> list[str]:
    """Envoy as `lmchat up` runs it for so many workers."""
    beside = Path(sys.executable).with_name("envoy")
    binary = str(beside) if beside.exists() else shutil.which("envoy")
    if binary is None:
        raise BenchFailed("there is no envoy beside python or on PATH")
    return [
        *(binary, "-c", str(config), "--concurrency", str(max(1, workers // 2))),
        *("--disable-hot-restart", "--log-level", "warn", "--file-flush-interval-msec", "1000"),
    ]


_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def proxy(port: int, upstream: int) -> dict[str, object]:
    """The least configuration of Envoy that passes everything on."""
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}],
                }
            ]
        },
    }
    many = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": _address(port),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "mock",
                    "connect_timeout": "2s",
                    "circuit_breakers": {"thresholds": [many]},
                    "load_assignment": {
                        "cluster_name": "mock",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
                    },
                }
            ],
        }
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
