"""Work on large bodies: done in a thread, so that it does not hold the event loop.

Python's lock is passed on between the steps of the work, every few milliseconds; one step, such as decoding one
string of JSON, holds it for some 40 ms at the limits of limits.py. Ordinary bodies are worked on where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes of a body that is large. Of messages that are as short as can be, translating so many takes some 35 ms.
LARGE_BYTES = 128 * 1024

#: One thread: large bodies wait for each other, and the loop competes with one at a time.
_THREAD = ThreadPoolExecutor(1, "large-bodies")


async def by_size(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, or raises; it is done in the thread if `size`, in bytes, is that of a large body.

    Where every call passes, its user compares the size, which takes less time than a coroutine.
    """
    return work(*args, **kwargs) if size <= LARGE_BYTES else await in_thread(work, *args, **kwargs)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, or raises; it is done in the thread."""
    call: Callable[[], Any] = partial(work, *args, **kwargs)
    result: T = await asyncio.get_running_loop().run_in_executor(_THREAD, call)
    return result
