"""Child processes of the benchmark, and their CPU and memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec
import psutil

from server.launcher import parent_death

STOP_TIMEOUT = 45.0
"""Seconds that a process has to end; a worker of lmchat drains for up to 40."""

Roles = Mapping[str, Sequence[psutil.Process]]
"""Processes by role: `worker`, `envoy`, `supervisor`, `gateway` (all in one)."""


class BenchFailed(Exception):
    """The benchmark cannot continue; the message is one line."""


class Process:
    """A running command. `log` gets its output; with `pipe` its stdin and stdout are the caller's."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        pipe: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                parent_death.command(argv),
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else out,
                stderr=out,
                env=environ,
                start_new_session=True,  # Ctrl-C reaches the benchmark alone, which stops its children in order
            )
        self.pid = self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """What the process reads; only with `pipe`."""
        assert self._process.stdin is not None
        return self._process.stdin

    def line(self) -> bytes:
        """The next line it writes; only with `pipe`. Raises BenchFailed when it ends instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self.failed("ended")
        return line.rstrip()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def failed(self, what: str) -> BenchFailed:
        """The error with the end of the process's log."""
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
        return BenchFailed(f"{self.name} {what}; the end of its log:\n{tail}")

    def tree(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def terminate(self) -> None:
        """Ask it to end."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it and its descendants: SIGTERM, then SIGKILL after STOP_TIMEOUT."""
        try:
            rest = self.tree()[1:] if self.running else []
        except psutil.NoSuchProcess:
            rest = []
        self.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in rest:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without API keys of vendors, which would add them to a gateway's catalogue."""
    return {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_TOKEN"))} | more


def free_port() -> int:
    """A port of 127.0.0.1 that is free at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(process: Process, port: int, path: str, seconds: float = 120.0) -> None:
    """Until GET `path` is a 200 at that port. Raises BenchFailed when the process ends, or time is up."""
    end = time.monotonic() + seconds
    while get(port, path) is None:
        if not process.running:
            raise process.failed("ended before it was ready")
        if time.monotonic() > end:
            raise process.failed(f"was not ready after {seconds:g} s")
        time.sleep(0.05)


def get(port: int, path: str) -> bytes | None:
    """The body of GET `path` at 127.0.0.1; None where it is no 200. For short ones, which come in one read."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if head[9:12] == b"200" else None


def cpu(roles: Roles) -> dict[str, float]:
    """CPU seconds that each role has used since its processes began, in user and kernel mode."""
    return {role: sum(_spent(process) for process in processes) for role, processes in roles.items()}


def _spent(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        raise BenchFailed(f"process {process.pid} of a target ended in the middle of the run") from None
    return times.user + times.system


class Memory(msgspec.Struct):
    """Bytes: resident; private; private and a proportional share of shared pages (0 where unknown)."""

    rss: int = 0
    uss: int = 0
    pss: int = 0


def memory(processes: Sequence[psutil.Process]) -> Memory:
    """The sums over these processes."""
    total = Memory()
    for process in processes:
        info = process.memory_full_info()
        total.rss += info.rss
        total.uss += info.uss
        total.pss += getattr(info, "pss", 0)
    return total
