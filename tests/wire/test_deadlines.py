"""Limits do what asyncio.timeout does; far ones get their timer in time."""

from __future__ import annotations

import asyncio

import pytest

from server.wire import deadlines as module
from server.wire.deadlines import Limits


@pytest.fixture(params=["near", "far"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Limits:
    """With limits that have a timer from the beginning, and with some that get it at a tick."""
    if request.param == "far":
        monkeypatch.setattr(module, "_TICK", 0.001)
        monkeypatch.setattr(module, "_NEAR", 0.003)
    return Limits()


async def test_what_ends_in_time_ends(limits: Limits) -> None:
    with limits.after(60.0):
        await asyncio.sleep(0)


async def test_what_does_not_is_cancelled(limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError), limits.after(0.02):
        await asyncio.Event().wait()
    assert loop.time() - begun >= 0.019
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)  # nothing of it is left to cancel this


@pytest.mark.parametrize("when", [0.0, -1.0])
async def test_time_that_is_up_already(limits: Limits, when: float) -> None:
    with pytest.raises(TimeoutError), limits.after(when):
        await asyncio.Event().wait()


async def test_a_limit_does_not_cut_what_never_waits(limits: Limits) -> None:
    with limits.after(-1.0):
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_cancelling_from_outside_is_no_timeout(limits: Limits) -> None:
    async def wait() -> None:
        with limits.after(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_from_outside_at_the_same_time_wins(limits: Limits) -> None:
    async def wait() -> None:
        with limits.after(0.01):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:  # the limit's
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_went_wrong_meanwhile_is_raised(limits: Limits) -> None:
    with pytest.raises(ZeroDivisionError), limits.after(60.0):
        raise ZeroDivisionError


async def test_the_inner_of_two_is_told_from_the_outer(limits: Limits) -> None:
    with limits.after(60.0):
        with pytest.raises(TimeoutError), limits.after(0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), limits.after(0.01), limits.after(60.0):
        await asyncio.Event().wait()


async def test_many_at_once_keep_their_own_times(limits: Limits) -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            with limits.after(number / 100):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(number)

    await asyncio.gather(*map(wait, (4, 1, 3, 2)))
    assert ended == [1, 2, 3, 4]


async def test_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK", 0.001)
    limits = Limits()
    for _ in range(3):
        with limits.after(60.0):
            pass
    assert not limits.far
    assert limits._ticks
    await asyncio.sleep(0.01)  # timers fire in order
    assert not limits._ticks


async def test_it_needs_a_task(limits: Limits) -> None:
    failure = asyncio.get_running_loop().create_future()

    def enter() -> None:
        try:
            with limits.after(1.0):
                pass
        except RuntimeError as error:
            failure.set_result(str(error))

    asyncio.get_running_loop().call_soon(enter)
    assert await failure == "a limit needs a task"
