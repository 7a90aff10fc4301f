"""The children of `lmchat up`: Envoy, the workers and the embedded model, and how they find each other.

The workers listen on unix sockets in a private directory, a new one for each process; Envoy learns of them from a
file that is rewritten as they come and go.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from server.config.problems import ConfigError
from server.launcher import envoy, local_model, resources
from server.launcher.options import Configuration, UpOptions
from server.launcher.preflight import GeneratedKey, UpFailed, bracketed
from server.launcher.readiness import grpc_serving, grpc_unresponsive, http_ok
from server.launcher.supervisor import Child, ChildFailed, Launch, Log, Plan, replace
from server.launcher.welcome import reachable, welcome

WORKER_GRACE = 40.0
"""Seconds a worker has to drain. It takes up to 35 by itself: see server/worker/app.py."""

GRACE = 5.0
"""Seconds Envoy and the embedded model have to end."""

READY_TIMEOUT = 60.0
"""Seconds from the last child being ready to /readyz saying so."""


class Gateway:
    """The children, and what they need to find each other. Raises UpFailed where Envoy cannot be set up."""

    def __init__(
        self, options: UpOptions, *, envoy_binary: str, key: GeneratedKey | None, runtime: Path, log: Log
    ) -> None:
        self.url = f"http://{bracketed(options.host)}:{options.port}"
        self._options = options
        self._envoy_binary = envoy_binary
        self._key = key
        self._runtime = runtime
        self._log = log
        self._admin = runtime / "envoy.sock"
        self._endpoints = runtime / "endpoints.yaml"
        self._request_filter = runtime / "request_filter.yaml"
        # Children's print() comes out at once.
        self._environ = {**options.environ, "PYTHONUNBUFFERED": "1"}
        if key is not None:
            self._environ["LMCHAT_API_KEY"] = key.key
        self._configuration = options.configuration
        self._template = _template()
        self._generation = 0
        self._models: list[Child] = []
        if options.local_model:
            port = _free_port()
            self._environ["LMCHAT_LOCAL_MODEL_URL"] = f"http://127.0.0.1:{port}/v1"
            if file := options.configuration.local_file:
                self._environ["LMCHAT_LOCAL_MODEL_DROPS"] = local_model.unsupported_fields(file)
            self._environ[local_model.KEY_VARIABLE] = secrets.token_urlsafe(32)
            self._models = [Child("local-model", partial(self._launch_model, port), log, grace=GRACE)]
        self._workers = [
            Child(f"worker-{i}", plan, log, grace=WORKER_GRACE, changed=self._announce)
            for i, plan in enumerate(self._worker_plans(options.configuration), 1)
        ]
        self._envoy = Child("envoy", self._launch_envoy, log, grace=GRACE)
        self._announce()
        self._write_bootstrap()
        self._write_request_filter(options.configuration)

    async def start(self) -> None:
        """Start every child; returns when callers are served. Raises ChildFailed."""
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children():
                    group.create_task(child.start())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await http_ok(f"{reachable(self.url)}/readyz")
        except TimeoutError:
            raise ChildFailed(f"{self.url}/readyz did not become 200 in {READY_TIMEOUT:g} s") from None

    async def reload(self) -> None:
        """Replace all workers at once by others with the configuration as it is now.

        After a mistake in it, or when one of the new workers fails, the old ones keep running.
        """
        before = self._configuration
        try:
            after = self._options.reload()
            self._write_request_filter(before, after)
            await replace(dict(zip(self._workers, self._worker_plans(after), strict=True)), self._seen)
            self._configuration = after
        except (ChildFailed, ConfigError, OSError) as failed:
            for line in str(failed).splitlines():
                self._log.line("lmchat", line)
            self._log.line("lmchat", "reload given up; the old workers and their configuration stay")
            return
        finally:
            self._write_request_filter(self._configuration)
        self._log.line("lmchat", "reload done, all workers were replaced")

    async def stop(self) -> None:
        """Drain the workers, then end Envoy, then the model: nothing ends before what depends on it."""
        for children in (self._workers, [self._envoy], self._models):
            await asyncio.gather(*(child.stop() for child in children))

    def kill(self) -> None:
        """End every child now."""
        for child in self._children():
            child.kill()

    def welcome(self) -> str:
        """The text to print when callers are served."""
        key = self._key
        return welcome(
            self.url,
            model=self._options.configuration.model,
            key=key.key if key and key.is_new else None,
            key_file=key.file if key else None,
        )

    def _children(self) -> list[Child]:
        return [*self._models, *self._workers, self._envoy]

    def _launch_model(self, port: int, _: int) -> Launch:
        local_file = self._options.configuration.local_file
        file = () if local_file is None else ("--file", str(local_file))
        return Launch(
            argv=(*_PYTHON, "server.launcher.local_model", "--port", str(port), *file),
            env=without_secrets(self._environ)
            | {local_model.KEY_VARIABLE: self._environ[local_model.KEY_VARIABLE]},
            ready=partial(http_ok, f"http://127.0.0.1:{port}/health"),
        )

    def _worker_plans(self, configuration: Configuration) -> list[Plan]:
        """How to start each worker with `configuration`, of which a private copy is written. Raises OSError."""
        config: tuple[str, ...] = ()
        if configuration.text is not None:
            self._generation += 1
            path = self._runtime / f"config-{self._generation}.yaml"
            envoy.write(path, configuration.text)
            config = ("--config", str(path))
        return [partial(self._launch_worker, i, config) for i in range(1, self._options.workers + 1)]

    def _launch_worker(self, number: int, config: Sequence[str], launch: int) -> Launch:
        address = f"unix:{self._runtime}/{number}-{launch}.sock"
        return Launch(
            argv=(
                *(*_PYTHON, "server", "serve", "--listen", address),
                *("--shared-stats", str(self._runtime / "shared-stats"), *config),
            ),
            env=self._environ,
            ready=partial(grpc_serving, address),
            address=address,
            unresponsive=partial(grpc_unresponsive, address),
        )

    def _launch_envoy(self, _: int) -> Launch:
        # A worker costs two to three times the CPU that Envoy does for the same calls.
        threads = max(1, self._options.workers // 2)
        return Launch(
            # Without hot restart several can run on a machine. The access log comes every second, not every ten.
            argv=(
                *(self._envoy_binary, "-c", str(self._runtime / "envoy.yaml"), "--concurrency", str(threads)),
                *("--disable-hot-restart", "--log-level", "warn", "--file-flush-interval-msec", "1000"),
            ),
            env=without_secrets(self._environ),
            ready=partial(http_ok, "http://admin/ready", socket_path=self._admin),
        )

    async def _seen(self, worker: Launch) -> None:
        """Returns once Envoy has found this worker healthy, but for being in standby."""
        healthy = f"::{worker.address.removeprefix('unix:')}::health_flags::/failed_eds_health\n"
        await http_ok("http://admin/clusters", socket_path=self._admin, containing=healthy)

    def _announce(self) -> None:
        """Write the list of workers that Envoy watches."""
        serving = [launch.address for worker in self._workers for launch in worker.serving]
        standby = [launch.address for worker in self._workers for launch in worker.standby]
        try:
            envoy.write(self._endpoints, envoy.endpoints(serving, standby))
        except OSError as error:
            self._log.line("lmchat", f"cannot tell Envoy about the workers: {error}")

    def _write_bootstrap(self) -> None:
        options = self._options
        try:
            text = envoy.bootstrap(
                self._template,
                host=options.host,
                port=options.port,
                admin=self._admin,
                descriptor=resources.descriptor(),
                endpoints=self._endpoints,
                request_filter=self._request_filter,
            )
        except (OSError, ValueError) as error:
            raise UpFailed(str(error)) from None
        envoy.write(self._runtime / "envoy.yaml", text)

    def _write_request_filter(self, *configurations: Configuration) -> None:
        """Tell Envoy the keys of these configurations. Raises OSError."""
        keys = {key.key.reveal() for configuration in configurations for key in configuration.keys}
        if self._key is not None:
            keys.add(self._key.key)
        envoy.write(self._request_filter, envoy.request_filter(self._template, sorted(keys)))


def _template() -> str:
    try:
        return resources.envoy_template().read_text(encoding="utf-8")
    except OSError as error:
        raise UpFailed(str(error)) from None


_HARMLESS = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "TMPDIR",
    }
    | {"TZ", "VIRTUAL_ENV"}
)
_HARMLESS_PREFIXES = ("LC_", "OMP_", "GGML_")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that Envoy and the embedded model may need. What is not on the list may be a key."""
    return {k: v for k, v in environ.items() if k in _HARMLESS or k.startswith(_HARMLESS_PREFIXES)}


# -P: a folder named `server` in the working directory must not be imported.
_PYTHON = (sys.executable, "-P", "-m")


def _free_port() -> int:
    """A port of 127.0.0.1 that is free at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
