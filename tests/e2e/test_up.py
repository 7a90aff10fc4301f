"""The gateway as operators know it: starts, faults, restarts, stops."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.e2e.conftest import READY, UpProcess, environment, finished, free_port, start, stop
from tests.support import faults
from tests.support.faults import FaultServer, answer, fault_server
from tests.support.gateway import ask

CONFIGURATION = """
auth: {{keys: [{{name: test, key: sk-test}}]}}
circuit: {{cooldown: 3s}}
providers: {{up: {{type: openai, base_url: "{base_url}"}}}}
models: {{"*": {{endpoints: [{{provider: up, model: "*"}}]}}}}
"""


@pytest.fixture(name="provider")
async def provider_fixture() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        yield server


@pytest.fixture(name="remote")
async def remote_fixture(provider: FaultServer, tmp_path: Path) -> AsyncIterator[UpProcess]:
    """Two workers in front of the scripted provider, without the embedded model."""
    file = tmp_path / "lmchat.yaml"
    file.write_text(CONFIGURATION.format(base_url=provider.base_url))
    gateway = start(tmp_path / "state", "--config", str(file), "--workers", "2")
    await asyncio.to_thread(gateway.ready.wait, READY)
    assert gateway.process.poll() is None, "".join(gateway.output)
    yield gateway
    assert await asyncio.to_thread(stop, gateway) == 0, "".join(gateway.output)


def client() -> aiohttp.ClientSession:
    """A caller with a key and any number of connections."""
    return aiohttp.ClientSession(
        headers={"authorization": "Bearer sk-test"}, connector=aiohttp.TCPConnector(limit=0)
    )


async def post(session: aiohttp.ClientSession, gateway: UpProcess, body: Any) -> tuple[int, str]:
    """One call; its status and its text."""
    async with session.post(f"{gateway.url}/api/v1/chat/completions", json=body) as reply:
        return reply.status, await reply.text()


@dataclass
class Load:
    """Calls in a loop until stopped, and their outcomes."""

    gateway: UpProcess
    done: int = 0
    failed: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, callers: int) -> None:
        """`callers` callers at once, each of which makes one call after the other."""
        async with client() as session:
            await asyncio.gather(*(self._caller(session, number) for number in range(callers)))

    async def _caller(self, session: aiohttp.ClientSession, number: int) -> None:
        stream = bool(number % 2)
        while not self.over.is_set():
            try:
                status, text = await post(session, self.gateway, ask(stream=stream))
            except aiohttp.ClientError as error:
                self.failed.append(repr(error))
                continue
            whole = text.endswith("data: [DONE]\n\n") if stream else '"finish_reason":"stop"' in text
            async with self.progress:
                if status == 200 and whole:
                    self.done += 1
                else:
                    self.failed.append(f"{status} {text[-300:]}")
                self.progress.notify_all()

    async def until(self, count: int) -> None:
        """Wait until `count` more calls are done."""
        target = self.done + count
        async with self.progress:
            await asyncio.wait_for(self.progress.wait_for(lambda: self.done >= target), 120)

    async def until_envoy_knows_the_last_worker(self) -> None:
        """Wait, a call at a time, until Envoy has found the worker healthy that was started last."""
        *_, started = (line for line in self.gateway.output if "serving on unix:" in line)
        socket_path = started.rpartition("unix:")[2].strip()
        while socket_path not in await asyncio.to_thread(self.gateway.healthy):
            await self.until(1)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        """Wait, a call at a time, until `condition` holds."""
        while not condition():
            await self.until(1)


async def test_a_killed_worker_loses_only_its_own_calls(provider: FaultServer, remote: UpProcess) -> None:
    provider.script("m", answer("Hi", " there"))
    load = Load(remote)
    running = asyncio.create_task(load.run(8))
    await load.until(50)
    victim, *others = remote.workers()
    os.kill(victim, signal.SIGKILL)
    await load.until(200)
    await load.until_true(lambda: len(remote.workers()) == 2)
    await load.until(50)
    load.over.set()
    await running
    assert set(others) < set(remote.workers())
    assert len(load.failed) <= 8, load.failed


async def test_a_rolling_restart_loses_no_call(provider: FaultServer, remote: UpProcess) -> None:
    provider.script("m", answer("Hi", " there"))
    load = Load(remote)
    running = asyncio.create_task(load.run(8))
    await load.until(50)
    before = set(remote.workers())
    remote.process.send_signal(signal.SIGHUP)
    await load.until_true(lambda: any("reload done" in line for line in remote.output))
    await load.until(50)
    load.over.set()
    await running
    assert before.isdisjoint(remote.workers())
    assert load.failed == []


async def keys_accepted(gateway: UpProcess, *keys: str) -> list[int]:
    """The statuses of 16 calls with these keys in turn, enough to reach each worker."""
    async with aiohttp.ClientSession() as session:
        statuses = []
        for number in range(16):
            headers = {"authorization": f"Bearer {keys[number % len(keys)]}"}
            async with session.get(f"{gateway.url}/api/v1/models", headers=headers) as reply:
                statuses.append(reply.status)
        return statuses


async def test_a_changed_file_applies_from_the_reload_on(
    provider: FaultServer, remote: UpProcess, tmp_path: Path
) -> None:
    """A restarted worker has the configuration of the others, even if the file has changed."""
    provider.script("m", answer("Hi"))
    file = tmp_path / "lmchat.yaml"
    text = file.read_text()
    load = Load(remote)
    running = asyncio.create_task(load.run(4))
    for restarts, broken in enumerate((text.replace("sk-test", "sk-new"), "no: [configuration"), 1):
        file.write_text(broken)
        os.kill(remote.workers()[0], signal.SIGKILL)
        while sum("serving on" in line for line in remote.output) < 2 + restarts:
            await load.until(1)
        await load.until_envoy_knows_the_last_worker()
        assert await keys_accepted(remote, "sk-test") == [200] * 16
    before = remote.workers()
    remote.process.send_signal(signal.SIGHUP)
    await load.until_true(lambda: any("reload given up" in line for line in remote.output))
    assert any(f"{file}:2: not YAML" in line for line in remote.output)
    assert remote.workers() == before
    load.over.set()
    await running
    assert len(load.failed) <= 8, load.failed  # one of each caller and worker that was killed
    assert set(remote.failures()) <= {"UC"}  # these had begun when their connections were cut

    file.write_text(text.replace("sk-test", "sk-new"))
    remote.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(READY):
        while not any("reload done" in line for line in remote.output):
            # Never some workers with the old key and some with the new one.
            statuses = await keys_accepted(remote, "sk-test", "sk-new")
            changes = sum(a != b for a, b in zip(statuses[::2], statuses[2::2], strict=False))
            assert changes <= 1, statuses
    assert await keys_accepted(remote, "sk-test", "sk-new") == [401, 200] * 8


async def test_workers_share_circuits(provider: FaultServer, remote: UpProcess) -> None:
    """A circuit opened by one worker is open in all, and one probe closes it for all."""
    provider.script("m", faults.failure(500))
    async with client() as session:
        for _ in range(10):
            assert (await post(session, remote, ask()))[0] == 502
        # A rolling restart keeps the statistics.
        remote.process.send_signal(signal.SIGHUP)
        while not any("reload done" in line for line in remote.output):
            assert (await session.get(f"{remote.url}/api/v1/models/m")).status == 200
        provider.script("m", answer("Hi"))
        failures = len(provider.calls)
        for _ in range(20):  # some of them at either worker
            async with session.get(f"{remote.url}/api/v1/models/m") as reply:
                [endpoint] = (await reply.json())["lmchat"]["endpoints"]
            assert endpoint["health"]["state"] in ("open", "half_open")
            async with session.get(f"{remote.url}/metrics") as reply:
                text = await reply.text()
            assert reply.status == 200
            assert (
                f'lmchat_endpoint_failures_total{{endpoint="up",model="m",provider="up"}} {failures:.1f}' in text
            )
        states: set[str] = set()
        while "closed" not in states:
            assert (await post(session, remote, ask()))[0] == 200
            async with session.get(f"{remote.url}/api/v1/models/m") as reply:
                [endpoint] = (await reply.json())["lmchat"]["endpoints"]
            states.add(endpoint["health"]["state"])
        assert endpoint["health"]["latency_ms"] > 0


async def test_envoy_comes_back(provider: FaultServer, remote: UpProcess) -> None:
    provider.script("m", answer("Hi"))
    [envoy] = [pid for pid, command in remote.children().items() if "envoy.yaml" in command]
    os.kill(envoy, signal.SIGKILL)
    load = Load(remote)
    running = asyncio.create_task(load.run(1))
    await load.until(5)
    load.over.set()
    await running


async def test_many_calls_at_once_leak_nothing(provider: FaultServer, remote: UpProcess) -> None:
    """200 open streams, then 2,000 calls, half of them streams: no error, and no worker restarted."""
    release = asyncio.Event()

    provider.script("held", faults.held(release))
    provider.script("m", answer("Hi"))
    workers = set(remote.workers())
    async with client() as session:

        async def hold() -> str:
            return (await post(session, remote, ask("held", stream=True)))[1][-14:]

        streams = [asyncio.create_task(hold()) for _ in range(200)]
        await asyncio.wait_for(provider.arrived(200), 30)
        release.set()
        assert set(await asyncio.gather(*streams)) == {"data: [DONE]\n\n"}
    load = Load(remote)
    running = asyncio.create_task(load.run(16))
    await asyncio.wait_for(load.until(2000), 120)
    load.over.set()
    await running
    assert load.failed == []
    assert set(remote.workers()) == workers


def test_port_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = start(tmp_path, port=taken.getsockname()[1])
        assert finished(gateway) == 1
    assert len(gateway.output) == 1
    assert "cannot listen on 127.0.0.1" in gateway.output[0]


def test_bad_configuration(tmp_path: Path) -> None:
    file = tmp_path / "lmchat.yaml"
    file.write_text("providers:\n  up: {type: openia}\nmodels:\n  m: {endpoints: [{provider: up, model: m}]}\n")
    gateway = start(tmp_path / "state", "--config", str(file))
    assert finished(gateway) == 1
    assert gateway.output[0].startswith(f"{file}:2: providers.up.type: ")
    assert "openai" in gateway.output[0]
    assert "Traceback" not in "".join(gateway.output)
    check = subprocess.run(
        [sys.executable, "-m", "server", "check", "--config", str(file)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert check.returncode == 1
    assert check.stderr == gateway.output[0]


def test_missing_envoy(tmp_path: Path) -> None:
    """Another Python without envoy beside it, and no PATH."""
    script = tmp_path / "elsewhere.py"
    script.write_text(
        "import sys\nsys.executable = '/nowhere/python'\n"
        "from server.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "up", "--port", str(free_port()), "--state-dir", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        env=environment(PATH="/nowhere"),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "envoy" in done.stderr


async def test_stopping_drains_and_leaks_nothing(provider: FaultServer, tmp_path: Path) -> None:
    release = asyncio.Event()

    provider.script("held", faults.held(release))
    file = tmp_path / "lmchat.yaml"
    file.write_text(CONFIGURATION.format(base_url=provider.base_url))
    gateway = start(tmp_path / "state", "--config", str(file), "--workers", "1")
    await asyncio.to_thread(gateway.ready.wait, READY)
    children = gateway.children()
    async with client() as session:
        url = f"{gateway.url}/api/v1/chat/completions"
        async with session.post(url, json=ask("held", stream=True)) as reply:
            assert b"one" in await reply.content.readline()
            gateway.process.send_signal(signal.SIGTERM)
            release.set()
            rest = await reply.text()
    assert rest.endswith("data: [DONE]\n\n")
    assert await asyncio.to_thread(finished, gateway) == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def check_that_the_model_needs_a_key(gateway: UpProcess) -> None:
    """Another process of the machine gets a 401, and finds the key in no command line and no log."""
    [(pid, arguments)] = [
        (pid, shlex.split(command))
        for pid, command in gateway.children().items()
        if "server.launcher.local_model" in command
    ]
    url = f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=ask()) as reply:
        assert reply.status == 401
    key = psutil.Process(pid).environ()["LMCHAT_LOCAL_MODEL_API_KEY"]
    assert not [text for text in (*gateway.children().values(), *gateway.output) if key in text]


async def test_the_embedded_model_is_the_last_resort(tmp_path: Path) -> None:
    """With two failing providers before it: a real answer, with the attempts in the report."""
    file = tmp_path / "lmchat.yaml"
    file.write_text(f"""
auth: {{keys: [{{name: test, key: sk-test}}]}}
providers:
  one: {{type: openai, base_url: "http://127.0.0.1:{free_port()}/v1"}}
  two: {{type: openai, base_url: "http://127.0.0.1:{free_port()}/v1"}}
  local: {{type: local}}
models:
  m:
    endpoints:
      - {{provider: one, model: m}}
      - {{provider: two, model: m}}
      - {{provider: local, model: smollm2}}
""")
    gateway = start(tmp_path / "state", "--config", str(file), "--workers", "1")
    await asyncio.to_thread(gateway.ready.wait, READY)
    body = ask(max_tokens=40, temperature=0)
    body["messages"][0]["content"] = "What is the capital of France?"
    async with client() as session:
        status, text = await post(session, gateway, body)
    answer = json.loads(text)
    assert status == 200, text
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert [a["provider"] for a in answer["lmchat"]["attempts"]] == ["one", "two", "local"]
    assert (answer["lmchat"]["provider"], answer["lmchat"]["tries"]) == ("local", 3)
    await check_that_the_model_needs_a_key(gateway)
    assert await asyncio.to_thread(stop, gateway) == 0
