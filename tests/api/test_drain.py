"""A drain that runs out: the calls in progress end with an error."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from server.api.drain import Drain
from server.errors import LmchatError, Reason
from server.worker.app import ERROR_GRACE
from tests.support import faults
from tests.support.faults import fault_server
from tests.support.gateway import ask, run_gateway


async def held(drain: Drain, entered: asyncio.Event) -> None:
    """A call that waits for ever."""
    with drain:
        entered.set()
        await asyncio.Event().wait()


async def begun(drain: Drain) -> asyncio.Task[None]:
    entered = asyncio.Event()
    task = asyncio.create_task(held(drain, entered))
    await entered.wait()
    return task


async def test_calls_in_progress_end_with_an_error() -> None:
    drain = Drain()
    tasks = [await begun(drain) for _ in range(3)]
    drain.expire()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, LmchatError)
        assert error.reason is Reason.OVERLOADED
    drain.expire()  # no call is left


async def test_later_calls_do_not_begin() -> None:
    drain = Drain()
    drain.expire()
    with pytest.raises(LmchatError), drain:
        pytest.fail("it began")


async def test_calls_that_have_ended_are_left_alone() -> None:
    drain = Drain()
    with drain:
        pass
    drain.expire()
    await asyncio.sleep(0)  # a cancelled task would raise here


@pytest.mark.parametrize("first", ["caller", "drain"])
async def test_a_caller_who_leaves_at_the_same_time(first: str) -> None:
    """The call is cancelled, as without a drain."""
    drain = Drain()
    task = await begun(drain)
    if first == "caller":
        task.cancel()
    drain.expire()
    if first == "drain":
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_of_a_call_stay_what_they_are() -> None:
    drain = Drain()

    async def call() -> None:
        with drain:
            try:
                await held(Drain(), entered)
            finally:
                raise ValueError("mine")

    entered = asyncio.Event()
    task = asyncio.create_task(call())
    await entered.wait()
    drain.expire()
    with pytest.raises(ValueError, match="mine"):
        await task
    assert not task.cancelling()


async def test_a_caller_who_does_not_read_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its stream has no room for the error; the worker stops all the same, and logs no fault."""
    stuck = asyncio.Event()

    async def endless(call: faults.Call) -> None:
        await call.head()
        word = "x" * 65536
        try:
            while True:
                await asyncio.wait_for(call.delta(content=word), 0.5)
        except TimeoutError:
            stuck.set()
        await call.wait()

    async with fault_server() as provider:
        provider.script("m", endless)
        configuration = f"""
providers: {{up: {{type: openai, base_url: "{provider.base_url}"}}}}
models: {{m: {{endpoints: [{{provider: up, model: m}}]}}}}
"""
        async with run_gateway(tmp_path, configuration) as gateway:
            call = gateway.open(ask(stream=True))
            await call.read()
            await asyncio.wait_for(stuck.wait(), 30)
            with caplog.at_level(logging.WARNING):
                await asyncio.wait_for(gateway.worker.drain(notice=0, grace=0), ERROR_GRACE + 5)
            assert caplog.text == ""
            call.cancel()
