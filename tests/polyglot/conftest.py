"""One gateway behind Envoy, one scripted provider, and one process for each language's client, for the session."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from lmchat_dev import polyglot

from tests.e2e.conftest import READY, UpProcess, start, stop
from tests.polyglot.rows import Json
from tests.polyglot.scenarios import SCENARIOS
from tests.support.faults import Behaviour, Call, FaultServer, fault_server
from tests.support.needs import missing

KEY = "sk-polyglot"
#: Seconds until a client that prints nothing has failed.
TIMEOUT = 20.0

#: Retries are the client's here; a failure must not open the circuit for the next language.
CONFIGURATION = """\
auth: {keys: [{name: polyglot, key: KEY}]}
retry: {max_provider_tries: 1}
circuit: {min_requests: 1000}
providers: {scripted: {type: openai, base_url: "URL"}}
models:
"""


class Provider:
    """The scripted provider, in a thread: the tests wait for clients."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._context = fault_server()
        self.faults: FaultServer = self._run(self._context.__aenter__())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    def script(self, model: str, behaviours: Sequence[Behaviour]) -> None:
        """Set the answers for a model, and forget the calls so far."""

        async def reset() -> None:
            self.faults.calls.clear()
            self.faults.script(model, *behaviours)

        self._run(reset())

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the provider's loop."""
        self._loop.call_soon_threadsafe(function)

    def closed(self, call: Call) -> None:
        """Wait until the gateway closes the connection of a call."""
        self._run(asyncio.wait_for(call.wait(), TIMEOUT))

    def stop(self) -> None:
        """Stop the server and the thread."""
        self._run(self._context.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Client:
    """The process of one language's client."""

    def __init__(self, language: str, address: str) -> None:
        command = polyglot.command(language)
        if command is None:
            missing(f"the {language} client: `uv run polyglot` with {polyglot.BUILT[language].tool}")
        self._process = subprocess.Popen(
            [*(command or ()), address],
            cwd=polyglot.folder(language),
            # Python's gRPC would look for the gateway behind a proxy that the environment names.
            env=os.environ | {"LMCHAT_API_KEY": KEY, "no_proxy": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def run(self, scenario: str) -> Iterator[Json]:
        """What the client prints for a scenario, line by line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{scenario}\n")
        self._process.stdin.flush()
        while True:
            text = self._lines.get(timeout=TIMEOUT)
            assert text, f"the client ended with {self._process.wait()}"
            line: Json = json.loads(text)
            yield line
            if "token" not in line:
                return

    def stop(self) -> int:
        """End the input; the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(TIMEOUT)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process, whatever it does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._reader.join()


@pytest.fixture(scope="session", name="provider")
def provider_fixture() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture(scope="session", name="gateway")
def gateway_fixture(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    directory = tmp_path_factory.mktemp("polyglot")
    text = CONFIGURATION.replace("KEY", KEY).replace("URL", provider.faults.base_url)
    for scenario in SCENARIOS:
        if scenario.name != "unknown_model":
            endpoints = [
                {"name": name, "provider": "scripted", "model": scenario.name} for name in ("first", "second")
            ]
            entry = {"endpoints": endpoints, "context_length": 8192}
            text += f"  {scenario.name}: {json.dumps(entry)}\n"
    (directory / "lmchat.yaml").write_text(text)
    arguments = ("--config", str(directory / "lmchat.yaml"), "--no-local-model", "--workers", "1")
    gateway = start(directory / "state", *arguments)
    assert gateway.ready.wait(READY), "".join(gateway.output)
    assert gateway.process.poll() is None, "".join(gateway.output)
    yield gateway
    assert stop(gateway) == 0, "".join(gateway.output)


class Clients:
    """The clients of all languages, each started when it is first used."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._running: dict[str, Client] = {}

    def run(self, language: str, scenario: str) -> Iterator[Json]:
        """As Client.run; a client that fails is ended, and started again for the next scenario."""
        if language not in self._running:
            self._running[language] = Client(language, self._address)
        try:
            yield from self._running[language].run(scenario)
        except BaseException:
            self._running.pop(language).kill()
            raise

    def stop(self) -> dict[str, int]:
        """End the clients: language -> exit code."""
        return {language: client.stop() for language, client in self._running.items()}


@pytest.fixture(scope="session", name="clients")
def clients_fixture(gateway: UpProcess) -> Iterator[Clients]:
    clients = Clients(f"127.0.0.1:{gateway.port}")
    yield clients
    codes = clients.stop()
    assert not any(codes.values()), f"exit codes: {codes}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix: a row for each scenario, a column for each language."""
    marks = {"passed": "ok", "failed": "FAILED", "error": "FAILED", "skipped": "-"}
    found = {
        tuple(report.nodeid.split("[")[1].rstrip("]").split("-", 1)): mark
        for outcome, mark in marks.items()
        for report in terminalreporter.stats.get(outcome, ())
        if "test_matrix.py::test_scenario[" in report.nodeid
    }
    if not found:
        return
    terminalreporter.section("clients")
    terminalreporter.write_line(f"{'':22}" + "".join(f"{language:>12}" for language in polyglot.LANGUAGES))
    for scenario in SCENARIOS:
        row = (found.get((language, scenario.name), "") for language in polyglot.LANGUAGES)
        terminalreporter.write_line(f"{scenario.name:22}" + "".join(f"{mark:>12}" for mark in row))
