"""Child processes kept alive: started, watched, started again, replaced, stopped.

Independent of what its children do: `launcher.gateway` says what to run and when a child is ready.

Rules
- A child runs while its parent does, whatever ends the parent: see parent_death.py.
- A child leads a session of its own, so that Ctrl-C in a terminal reaches the parent alone,
  which then stops its children in order.
- What a child writes is passed on line by line; a reader that stops reading stalls neither parent nor child.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TextIO

from server.launcher import parent_death

MAX_LINE_BYTES = 64 * 1024
"""Bytes after which a line without an end is passed on as it is."""


class ChildFailed(Exception):
    """A child ended, or took too long, before it was ready. One line, with the child's name."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a child.

    `argv` is the command, `env` its whole environment. `ready()` returns once the child does its
    work, and may try for as long as it likes: it is cancelled when the child ends or time is up.
    `address` is where the child can be reached; the supervisor does not use it. `unresponsive()`, if
    there is one, returns once the child has stopped answering, with how that was seen; the child is then killed.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[None]]
    address: str = ""
    unresponsive: Callable[[], Awaitable[str]] | None = None


Plan = Callable[[int], Launch]
"""How to start a child for the nth time, from 1."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before a child is started again.

    `initial` after a run of at least `steady`, then twice as long each time, up to `maximum`.
    """

    initial: float = 0.1
    maximum: float = 10.0
    steady: float = 10.0

    def after(self, previous: float, ran: float) -> float:
        """The wait after a run of `ran` seconds that followed a wait of `previous` (0: none)."""
        return self.initial if ran >= self.steady or not previous else min(self.maximum, previous * 2)


class Log:
    """Lines from children, written to `stream` by a thread of its own.

    A paused terminal, or a pipe without a reader, blocks that thread alone; past `capacity`
    waiting lines, further ones are dropped and counted. Lines for a closed stream are lost.
    """

    def __init__(self, stream: TextIO, capacity: int = 10_000) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, daemon=True, name="log")
        self._thread.start()

    def line(self, name: str, text: str) -> None:
        """Add one line of the child `name`."""
        try:
            if self._dropped:
                self._lines.put_nowait(f"lmchat: {self._dropped} lines dropped\n")
                self._dropped = 0
            self._lines.put_nowait(f"{name}: {text}\n")
        except queue.Full:
            self._dropped += 1

    def close(self, timeout: float = 1.0) -> None:
        """Write the waiting lines, for at most about `timeout` seconds."""
        try:
            self._lines.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue


class Process:
    """One running process of a child."""

    def __init__(self, name: str, launch: Launch, process: asyncio.subprocess.Process, log: Log) -> None:
        self.launch = launch
        self._name = name
        self._log = log
        self._process = process
        self._relay = asyncio.create_task(_relay(name, process.stdout, log))
        self._probe: asyncio.Task[None] | None = None
        self.unresponsive = False
        """Whether it was killed because it had stopped answering."""
        self.unresponsive = False
        """Whether it was killed because it had stopped answering."""

    @classmethod
    async def spawn(cls, name: str, launch: Launch, log: Log) -> Process:
        """Start it; its stdout and stderr go to `log`."""
        process = await asyncio.create_subprocess_exec(
            *parent_death.command(launch.argv),
            env=launch.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(name, launch, process, log)

    def probe(self) -> None:
        """From now on, until it is stopped or ends, kill it when it has stopped answering."""
        if self.launch.unresponsive is not None:
            self._probe = asyncio.create_task(self._kill_unresponsive(self.launch.unresponsive()))

    async def _kill_unresponsive(self, unresponsive: Awaitable[str]) -> None:
        self._log.line("lmchat", f"{self._name} {await unresponsive}; it is killed and started again")
        self.unresponsive = True
        self.kill()

    async def wait(self) -> str:
        """How it ended, once it has and what it wrote is passed on."""
        code = await self._process.wait()
        self._stop_probe()
        # A process it left behind may hold its stdout open.
        await asyncio.wait({self._relay}, timeout=1.0)
        self._relay.cancel()
        return f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    def kill(self) -> None:
        """End it now. No effect on one that has ended."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace: float) -> bool:
        """SIGTERM, then SIGKILL after `grace` seconds; returns when it has ended, with whether by itself."""
        self._stop_probe()  # a child that drains may refuse new calls, the probe's too
        self._signal(signal.SIGTERM)
        ended = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({ended}, timeout=grace)
            in_time = ended.done()
            if not in_time:
                self.kill()
            await ended
            return in_time
        finally:
            ended.cancel()

    def _stop_probe(self) -> None:
        if self._probe is not None:
            self._probe.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


class Child:
    """A command that is kept running, under one name, through any number of processes.

    `plan(n)` says how to start the nth process, from 1. It gets `start_timeout` seconds to be
    ready and `grace` seconds to end after SIGTERM. `changed()` is called whenever `serving` or
    `standby` has changed. `clock` and `sleep` are those of the backoff.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        log: Log,
        *,
        grace: float,
        start_timeout: float = 60.0,
        changed: Callable[[], None] = lambda: None,
        backoff: Backoff = Backoff(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.serving: list[Launch] = []
        """The process that is ready for work; none after a death."""
        self.standby: list[Launch] = []
        """The process that is ready to take the place of the one in `serving`, during `replace`."""
        self._plan = plan
        self._log = log
        self._grace = grace
        self._start_timeout = start_timeout
        self._changed = changed
        self._backoff = backoff
        self._clock = clock
        self._sleep = sleep
        self._launches = 0
        self._delay = 0.0
        self._current: Process | None = None
        self._processes: set[Process] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start it for the first time; returns once it is ready, and from then on it is kept running.

        Raises ChildFailed when it ends or is not ready in time; then there is nothing to stop.
        """
        async with self._starting:
            self._serve(await self._launch(self._plan))

    async def stop(self) -> None:
        """Stop every process of it, and start none again. Not to be called while `start` or `replace` runs."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await asyncio.gather(*(self._stop(process) for process in self._processes))

    def kill(self) -> None:
        """End every process of it now."""
        for process in self._processes:
            process.kill()

    async def _launch(self, plan: Plan) -> Process:
        """A new process, ready. Raises ChildFailed, with the process gone."""
        self._launches += 1
        launch = plan(self._launches)
        try:
            process = await Process.spawn(self.name, launch, self._log)
        except OSError as error:  # too many processes, no memory
            raise ChildFailed(f"{self.name} cannot be started: {error}") from error
        self._processes.add(process)
        try:
            await self._while_alive(process, launch.ready(), "ready")
        except BaseException:
            process.kill()
            await process.wait()
            self._processes.discard(process)
            raise
        return process

    async def _while_alive(self, process: Process, work: Awaitable[None], state: str) -> None:
        """Do `work`, which makes the process `state`. Raises ChildFailed when it ends first, or time is up."""
        done, ended = asyncio.ensure_future(work), asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((done, ended), timeout=self._start_timeout, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ChildFailed(f"{self.name} {ended.result()} before it was {state}")
            if not done.done():
                raise ChildFailed(f"{self.name} was not {state} after {self._start_timeout:g} s")
            done.result()
        finally:
            done.cancel()
            ended.cancel()

    def _serve(self, process: Process) -> None:
        self._switch(process)
        self._changed()

    async def _prepare(self, plan: Plan, seen: Callable[[Launch], Awaitable[None]]) -> Process:
        """Another process, in `standby` and seen. Raises ChildFailed, with the process gone."""
        process = await self._launch(plan)
        try:
            self.standby = [process.launch]
            self._changed()
            await self._while_alive(process, seen(process.launch), "seen")
        except BaseException:
            await self._discard(process)
            raise
        return process

    async def _discard(self, process: Process) -> None:
        """End a process that has not served."""
        self.standby = []
        self._changed()
        process.kill()
        await process.wait()
        self._processes.discard(process)

    def _switch(self, process: Process) -> None:
        """From now on `process` serves."""
        self.serving, self.standby, self._current = [process.launch], [], process
        process.probe()
        watcher = asyncio.create_task(self._watch(process, self._clock()))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, process: Process, started: float) -> None:
        """Until `process` ends; then start another, unless another has replaced it."""
        end = await process.wait()
        ran = self._clock() - started
        # No backoff after failed health checks, which its callers have waited for.
        wait = not process.unresponsive
        wait = not process.unresponsive
        self._processes.discard(process)
        if process.launch in self.serving:
            self.serving = []
            self._changed()
        async with self._starting:
            while self._current is process:
                if wait:
                    self._delay = self._backoff.after(self._delay, ran)
                    self._log.line("lmchat", f"{self.name} {end}; starting it again in {self._delay:g} s")
                    await self._sleep(self._delay)
                try:
                    self._serve(await self._launch(self._plan))
                except ChildFailed as failed:
                    end, ran, wait = str(failed).removeprefix(f"{self.name} "), 0.0, True

    async def _stop(self, process: Process) -> None:
        if not await process.stop(self._grace):
            self._log.line("lmchat", f"{self.name} did not end within {self._grace:g} s and was killed")


async def replace(plans: Mapping[Child, Plan], seen: Callable[[Launch], Awaitable[None]]) -> None:
    """Replace the processes of these children by those of new plans, all of them at once or none.

    Starts the new ones, which are in `standby` until `seen(launch)` has returned for each: callers know of it.
    Then all serve, in place of those before, which are stopped. Raises ChildFailed when a new one fails, or is not
    seen within its child's `start_timeout`; those before then keep running. Waits for restarts under way.
    """
    async with AsyncExitStack() as locks:
        for child in plans:
            await locks.enter_async_context(child._starting)
        tasks: dict[Child, asyncio.Task[Process]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for child, plan in plans.items():
                    tasks[child] = group.create_task(child._prepare(plan, seen))
        except BaseException as error:
            ready = [
                (c, task.result()) for c, task in tasks.items() if not task.cancelled() and not task.exception()
            ]
            await asyncio.gather(*(child._discard(process) for child, process in ready))
            raise error.exceptions[0] if isinstance(error, ExceptionGroup) else error from None
        before = [(child, child._current) for child in plans]
        for child, plan in plans.items():
            child._plan = plan
            child._switch(tasks[child].result())
        for child in plans:
            child._changed()
    await asyncio.gather(*(child._stop(process) for child, process in before if process is not None))


async def _relay(name: str, source: asyncio.StreamReader | None, log: Log) -> None:
    """Pass on the lines of `source`."""
    rest = b""
    while source is not None and (data := await source.read(MAX_LINE_BYTES)):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            log.line(name, line.decode(errors="replace").rstrip("\r"))
    if rest:
        log.line(name, rest.decode(errors="replace"))
