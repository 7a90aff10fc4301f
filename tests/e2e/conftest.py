"""One complete gateway for the session: `lmchat up` with its defaults, on a free port."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from server.launcher import local_model
from tests.e2e.envoy_fixture import edge_fixture, envoy_process_fixture

__all__ = ["edge_fixture", "envoy_process_fixture"]

READY = 120  # seconds; the first start loads a model


def free_port() -> int:
    """A port of 127.0.0.1 that is free at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """The test's environment without API keys of vendors, which would add them to the catalogue."""
    return {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_TOKEN"))} | more


@dataclass
class UpProcess:
    """A running `lmchat up`. `output` has the lines printed so far."""

    process: subprocess.Popen[str]
    port: int
    state: Path
    output: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """The generated API key."""
        return (self.state / "api-key").read_text().strip()

    def children(self) -> dict[int, str]:
        """pid -> command line of its child processes, and theirs."""
        commands: dict[int, str] = {}
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    commands[child.pid] = shlex.join(child.cmdline())
        return commands

    def workers(self) -> list[int]:
        """The pids of its workers."""
        return [pid for pid, command in self.children().items() if " serve " in command and "server" in command]

    def healthy(self) -> list[str]:
        """The unix sockets of the workers that Envoy has found healthy."""
        [command] = [command for command in self.children().values() if "envoy.yaml" in command]
        arguments = shlex.split(command)
        admin = Path(arguments[arguments.index("-c") + 1]).with_name("envoy.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
            text = client.get("http://admin/clusters").text
        return re.findall(r"^workers::(/[^:]*)::health_flags::healthy$", text, re.M)

    def failures(self) -> list[str]:
        """Envoy's flags of the calls that failed with a 5xx, as far as the access log is written."""
        entries = [json.loads(line.removeprefix("envoy: ")) for line in self.output if line.startswith("envoy: {")]
        return [entry["flags"] for entry in entries if entry["status"] >= 500]


def start(state: Path, *arguments: str, port: int | None = None, **environ: str) -> UpProcess:
    """Start `lmchat up` and read what it prints."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "up", "--port", str(port), "--state-dir", str(state), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**environ),
    )
    gateway = UpProcess(process, port, state)

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                gateway.output.append(line)
                if line.startswith("lmchat ready on"):
                    gateway.ready.set()
        gateway.ready.set()

    gateway.reader = threading.Thread(target=read)
    gateway.reader.start()
    return gateway


def stop(gateway: UpProcess) -> int:
    """SIGTERM, and the exit code."""
    gateway.process.send_signal(signal.SIGTERM)
    return finished(gateway)


def finished(gateway: UpProcess) -> int:
    """Wait until it has ended and `output` is complete; the exit code."""
    code = gateway.process.wait(60)
    if gateway.reader is not None:
        gateway.reader.join(10)
    return code


@pytest.fixture(scope="session", name="gateway")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """The default gateway, with the embedded model."""
    reason = local_model.available()
    if reason:
        pytest.skip(f"needs the embedded model: {reason}")
    gateway = start(tmp_path_factory.mktemp("state"))
    assert gateway.ready.wait(READY), "".join(gateway.output)
    assert gateway.process.poll() is None, "".join(gateway.output)
    yield gateway
    assert stop(gateway) == 0, "".join(gateway.output)
