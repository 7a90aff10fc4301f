"""Deadlines behave like asyncio.timeout; distant ones get their timer in time."""

from __future__ import annotations

import asyncio

import pytest

from server.wire import deadlines as module
from server.wire.deadlines import Deadlines


@pytest.fixture(params=["near", "distant"])
def deadlines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Deadlines:
    """Deadlines with a timer from the start, and deadlines that get one at a sweep."""
    if request.param == "distant":
        monkeypatch.setattr(module, "_SWEEP_INTERVAL", 0.001)
        monkeypatch.setattr(module, "_TIMER_RANGE", 0.003)
    return Deadlines()


async def test_a_body_that_ends_in_time(deadlines: Deadlines) -> None:
    with deadlines.after(60.0):
        await asyncio.sleep(0)


async def test_a_body_past_its_deadline_is_cancelled(deadlines: Deadlines) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError), deadlines.after(0.02):
        await asyncio.Event().wait()
    assert loop.time() - begun >= 0.019
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)  # nothing of it is left to cancel this


@pytest.mark.parametrize("when", [0.0, -1.0])
async def test_a_deadline_in_the_past(deadlines: Deadlines, when: float) -> None:
    with pytest.raises(TimeoutError), deadlines.after(when):
        await asyncio.Event().wait()


async def test_a_body_that_never_waits_is_not_cancelled(deadlines: Deadlines) -> None:
    with deadlines.after(-1.0):
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_cancelling_from_outside_is_no_timeout(deadlines: Deadlines) -> None:
    async def wait() -> None:
        with deadlines.after(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_from_outside_at_the_same_time_wins(deadlines: Deadlines) -> None:
    async def wait() -> None:
        with deadlines.after(0.01):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:  # the deadline's
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_of_the_body_are_raised(deadlines: Deadlines) -> None:
    with pytest.raises(ZeroDivisionError), deadlines.after(60.0):
        raise ZeroDivisionError


async def test_nested_deadlines_are_distinguished(deadlines: Deadlines) -> None:
    with deadlines.after(60.0):
        with pytest.raises(TimeoutError), deadlines.after(0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadlines.after(0.01), deadlines.after(60.0):
        await asyncio.Event().wait()


async def test_many_at_once_keep_their_own_times(deadlines: Deadlines) -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            with deadlines.after(number / 100):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(number)

    await asyncio.gather(*map(wait, (4, 1, 3, 2)))
    assert ended == [1, 2, 3, 4]


async def test_finished_deadlines_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_INTERVAL", 0.001)
    deadlines = Deadlines()
    for _ in range(3):
        with deadlines.after(60.0):
            pass
    assert not deadlines.distant
    assert deadlines._sweeping
    await asyncio.sleep(0.01)  # timers fire in order
    assert not deadlines._sweeping


async def test_it_needs_a_task(deadlines: Deadlines) -> None:
    failure = asyncio.get_running_loop().create_future()

    def enter() -> None:
        try:
            with deadlines.after(1.0):
                pass
        except RuntimeError as error:
            failure.set_result(str(error))

    asyncio.get_running_loop().call_soon(enter)
    assert await failure == "a deadline needs a task"
