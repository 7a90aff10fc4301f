"""Helpers of the tests of routing: endpoints, requests, a manual clock, an event loop that never waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from lmchat.v1 import chat_pb2 as pb

from server.config.model import Price, ProviderSettings, Timeouts
from server.dialects.base import Endpoint
from server.routing.catalog import Model
from server.vendors.registry import PLAIN

T = TypeVar("T")


class Clock:
    """A manual clock in seconds; `sleep` advances it and is recorded in `slept`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.slept.append(seconds)
        self.now += seconds


def endpoint(
    name: str = "a",
    *,
    model: str = "up",
    public_model: str = "m",
    drops: Sequence[str] = (),
    features: Sequence[str] | None = None,
    weight: float | None = None,
    price: tuple[float, float] | None = None,
    first_token: float = 60.0,
) -> Endpoint:
    """An endpoint; its provider has its name."""
    return Endpoint(
        name=name,
        model=model,
        public_model=public_model,
        vendor=PLAIN["openai"],
        provider=ProviderSettings(key=name, type="openai"),
        dialect="openai",
        base_url=f"https://{name}.test/v1",
        timeouts=Timeouts(first_token=first_token),
        weight=weight,
        price=Price(input=price[0], output=price[1]) if price else None,
        drops=frozenset(drops),
        features=None if features is None else frozenset(features),
    )


def model(*endpoints: Endpoint, id_: str = "m") -> Model:
    """A model of these endpoints."""
    return Model(id=id_, endpoints=endpoints)


def request(routing: dict[str, Any] | None = None, **fields: Any) -> pb.ChatCompletionRequest:
    """A small request for `m`, with these fields besides or instead."""
    hello = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="hello")])
    options = pb.RequestOptions(routing=pb.Routing(**(routing or {})), debug=fields.pop("debug", ()))
    return pb.ChatCompletionRequest(**{"model": "m", "messages": [hello], "lmchat": options, **fields})


class _Jump(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves `now` to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("the test waits for what can never happen")
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real event loop with simulated time, which does work for a thread at once."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, on a loop whose timers fire at once, in their order; no task may outlive it."""

    async def checked() -> T:
        result = await main
        for _ in range(3):  # the loop closes dropped iterators in new tasks
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left running: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(checked())
