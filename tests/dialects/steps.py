"""Counts the steps of a computation, so that tests can check its growth without a clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def steps(call: Callable[[], object]) -> int:
    """The lines of Python that `call` executes, those of comprehensions for each iteration."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def assert_linear(build: Callable[[int], T], run: Callable[[T], object], size: int = 100) -> None:
    """Assert that `run` takes at most four times the steps for what `build` builds of four times the size."""
    first, second = build(size), build(4 * size)
    small, large = steps(lambda: run(first)), steps(lambda: run(second))
    assert large <= 4.4 * small, f"{small} steps for {size}, {large} for {4 * size}"
