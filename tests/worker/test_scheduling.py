"""When the policy is changed, with a manual clock and CPU time; and that it reaches the kernel."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from server.worker import scheduling
from server.worker.scheduling import BatchPolicy, batch_when_busy

row = pytest.param


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        row([], [], id="no sample"),
        row([0.0, 0.1, 0.3, 0.0], [], id="not busy"),
        row([0.9], [True], id="busy"),
        row([0.9, 0.9, 2.0], [True], id="busy for long: applied once"),
        row([0.9, 0.3, 0.3], [True], id="between the limits: still busy"),
        row([0.9, 0.3, 0.1], [True, False], id="no longer busy"),
        row([0.9, 0.1, 0.3], [True, False], id="between the limits: not busy yet"),
        row([0.9, 0.1, 0.9], [True, False, True], id="busy again"),
    ],
)
def test_by_load(loads: list[float], expected: list[bool]) -> None:
    """`loads` are CPU seconds per second between two samples."""
    now = used = 0.0
    applied: list[bool] = []
    batching = BatchPolicy(applied.append, lambda: now, lambda: used)
    for load in loads:
        now += 0.5
        used += load * 0.5
        batching.update()
    assert applied == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
def test_the_policy_is_set_for_every_thread() -> None:
    if sys.platform == "linux":
        end = threading.Event()
        other = threading.Thread(target=end.wait)
        other.start()
        try:
            assert other.native_id is not None
            for batch, policy in ((True, os.SCHED_BATCH), (False, os.SCHED_OTHER)):
                scheduling.apply(batch)
                assert {os.sched_getscheduler(thread) for thread in (0, other.native_id)} == {policy}
        finally:
            scheduling.apply(False)
            end.set()
            other.join()


async def test_a_busy_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: asyncio.Queue[bool] = asyncio.Queue()
    used = iter(range(1000))
    monkeypatch.setattr(scheduling, "SAMPLE_INTERVAL", 0.0)
    monkeypatch.setattr(scheduling, "apply", applied.put_nowait)
    monkeypatch.setattr("time.process_time", lambda: float(next(used)))
    watching = asyncio.create_task(batch_when_busy())
    if sys.platform == "linux":
        assert await asyncio.wait_for(applied.get(), 5.0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    else:
        await watching


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
async def test_an_operators_own_policy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_RR)
        await asyncio.wait_for(batch_when_busy(), 5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
@pytest.mark.parametrize("call", ["sched_getscheduler", "sched_setscheduler", "listdir"])
async def test_a_forbidden_policy_is_ignored(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError

    used = iter(range(1000))
    monkeypatch.setattr(scheduling, "SAMPLE_INTERVAL", 0.0)
    monkeypatch.setattr("time.process_time", lambda: float(next(used)))
    monkeypatch.setattr(os, call, forbid)
    await asyncio.wait_for(batch_when_busy(), 5.0)
