"""The services that are measured, and the targets: their APIs.

A service is started as processes; a target is one API of it, and one row of the tables.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
import yaml

from lmchat_dev.bench import envoy
from lmchat_dev.bench.jobs import Api
from lmchat_dev.bench.mock import Stats
from lmchat_dev.bench.processes import (
    BenchFailed,
    Process,
    Roles,
    environment,
    free_port,
    get,
    python,
    wait_for,
)
from server.launcher import envoy as edge
from server.launcher import resources

KEY = "sk-bench"
MODELS = 10_000
"""Entries of the large catalogue."""


class Service(ABC):
    """The processes of a gateway, an Envoy or the mock. Call `stop` in any case."""

    def __init__(self) -> None:
        self.port = 0
        self._front: Process | None = None
        self._probe = ""
        self._started: list[Process] = []
        self._directory = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        # Short: a unix socket's path has room for about 100 bytes.
        self.directory = Path(self._directory.name)

    @abstractmethod
    def start(self) -> None:
        """Start it; `ready` says when it answers. Raises BenchFailed."""

    def ready(self) -> None:
        """Wait until it answers. Raises BenchFailed."""
        if self._front is not None:
            wait_for(self._front, self.port, self._probe)

    def behind(self, front: Process, probe: str) -> Process:
        """Set the process that callers connect to; it answers GET `probe` with a 200 when it is ready."""
        self._front, self._probe = front, probe
        return front

    @abstractmethod
    def new_instance(self) -> Service:
        """A new instance with the same settings, not started."""

    @abstractmethod
    def roles(self) -> Roles:
        """The processes of the gateway by role; without the mock."""

    def run(self, name: str, argv: list[str], *, pipe: bool = False, **environ: str) -> Process:
        """Start one process of the service."""
        log = self.directory / f"{name}.log"
        process = Process(name, argv, log, environ=environment(**environ), pipe=pipe)
        self._started.append(process)
        return process

    def terminate(self) -> None:
        """Send SIGTERM to all processes, the last started first."""
        for process in reversed(self._started):
            process.terminate()

    def restart(self) -> None:
        """End it, and start it again, on another port. Raises BenchFailed."""
        self._end()
        self.start()
        self.ready()

    def stop(self) -> None:
        """End it."""
        self._end()
        self._directory.cleanup()

    def _end(self) -> None:
        for process in reversed(self._started):
            process.stop()
        self._started.clear()


class Mock(Service):
    """The provider."""

    def start(self) -> None:
        """Start it."""
        self.process = self.run("mock", python("lmchat_dev.bench.mock"), pipe=True)
        self.port = int(self.process.line())

    def new_instance(self) -> Mock:
        """A new instance, not started."""
        return Mock()

    def roles(self) -> Roles:
        """Empty: it is not a gateway."""
        return {}

    def stats(self) -> Stats:
        """The mock's counters."""
        body = get(self.port, "/stats")
        if body is None:
            raise BenchFailed("the mock does not answer")
        return msgspec.json.decode(body, type=Stats)

    @property
    def base_url(self) -> str:
        """The base URL of its API."""
        return f"http://127.0.0.1:{self.port}/v1"


class PlainEnvoy(Service):
    """Envoy as an HTTP proxy in front of the mock, with as many threads as lmchat's has."""

    def __init__(self, mock: Mock, workers: int) -> None:
        super().__init__()
        self._mock = mock
        self._workers = workers

    def start(self) -> None:
        """Start it."""
        self.port = free_port()
        config = self.directory / "envoy.yaml"
        config.write_text(yaml.safe_dump(envoy.proxy(self.port, self._mock.port)), encoding="utf-8")
        self._process = self.behind(self.run("envoy", envoy.command(config, self._workers)), "/stats")

    def new_instance(self) -> Service:
        """A new instance, not started."""
        return PlainEnvoy(self._mock, self._workers)

    def roles(self) -> Roles:
        """Envoy."""
        return {"envoy": [psutil.Process(self._process.pid)]}


class Echo(Service):
    """Bare grpc.aio workers behind lmchat's Envoy."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._count = workers

    def start(self) -> None:
        """Start it."""
        self.port = free_port()
        addresses = [f"unix:{self.directory / f'{number}.sock'}" for number in range(self._count)]
        self._workers = [
            self.run(f"echo-{number}", python("lmchat_dev.bench.echo", address))
            for number, address in enumerate(addresses)
        ]
        endpoints, config = self.directory / "endpoints.yaml", self.directory / "envoy.yaml"
        edge.write(endpoints, edge.endpoints(addresses))
        text = edge.bootstrap(
            resources.envoy_template().read_text(encoding="utf-8"),
            host="127.0.0.1",
            port=self.port,
            admin=self.directory / "admin.sock",
            descriptor=resources.descriptor(),
            endpoints=endpoints,
        )
        edge.write(config, text)
        self._envoy = self.behind(self.run("envoy", envoy.command(config, self._count)), "/readyz")

    def new_instance(self) -> Service:
        """A new instance, not started."""
        return Echo(self._count)

    def roles(self) -> Roles:
        """Workers and Envoy."""
        return {
            "worker": [psutil.Process(worker.pid) for worker in self._workers],
            "envoy": [psutil.Process(self._envoy.pid)],
        }


class Lmchat(Service):
    """A real `lmchat up` in front of the mock. Its catalogue is `star` and so many `models` more."""

    def __init__(self, mock: Mock, workers: int, *, models: int = 0, star: str = "*") -> None:
        super().__init__()
        self._mock = mock
        self._workers = workers
        self._models = models
        self._star = star

    def start(self) -> None:
        """Start it."""
        self.port = free_port()
        config = self.directory / "lmchat.yaml"
        config.write_text(self._config(), encoding="utf-8")
        arguments = ["--config", str(config), "--port", str(self.port), "--workers", str(self._workers)]
        arguments += ["--state-dir", str(self.directory / "state"), "--no-local-model"]
        process = self.run("lmchat", python("server", "up", *arguments), LMCHAT_API_KEY=KEY)
        self.process = self.behind(process, "/readyz")

    def new_instance(self) -> Service:
        """A new instance, not started."""
        return Lmchat(self._mock, self._workers, models=self._models, star=self._star)

    def roles(self) -> Roles:
        """Workers, Envoy, and the supervisor that started them."""
        found: dict[str, list[psutil.Process]] = {"worker": [], "envoy": [], "supervisor": []}
        for process in self.process.tree():
            command = process.cmdline()
            role = "worker" if "serve" in command else "envoy" if "--concurrency" in command else "supervisor"
            found[role].append(process)
        return found

    def _config(self) -> str:
        star = f'  "{self._star}": {{endpoints: [{{provider: mock, model: "*"}}]}}'
        rows = [
            f"  vendor-{n % 50}/model-{n}: {{endpoints: [{{provider: mock, model: unary}}]}}"
            for n in range(self._models)
        ]
        return "\n".join(
            [
                f'providers: {{mock: {{type: openai, base_url: "{self._mock.base_url}"}}}}',
                "models:",
                star,
                *rows,
                "",
            ]
        )


@contextmanager
def running_gateway(workers: int) -> Iterator[tuple[Mock, Lmchat]]:
    """A mock and lmchat in front of it, whose models are `mock/*`. Raises BenchFailed."""
    mock = Mock()
    gateway = Lmchat(mock, workers, star="mock/*")
    try:
        mock.start()
        gateway.start()
        gateway.ready()
        yield mock, gateway
    finally:
        gateway.stop()
        mock.stop()


@dataclass(frozen=True, kw_only=True)
class Target:
    """One API of a service. `fast` is its name of the model that streams fast."""

    name: str
    service: Service
    api: Api = "rest"
    path: str = "/api/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {KEY}"})
    fast: str = "fast"
    kinds: frozenset[str] = frozenset({"unary", "stream"})
    peer: bool = False
    """Another gateway: its errors are reported and do not fail the run."""
