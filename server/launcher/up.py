"""`lmchat up`: Envoy, the workers and the embedded model as children of one process.

On SIGTERM or SIGINT the workers drain first, while Envoy still carries their answers; a second signal kills
everything. SIGHUP reads the configuration again and replaces all workers.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from server.launcher.gateway import Gateway
from server.launcher.options import UpOptions
from server.launcher.preflight import UpFailed, prepare, raise_open_files, runtime_directory
from server.launcher.supervisor import ChildFailed, Log


async def up(options: UpOptions, *, out: TextIO, err: TextIO) -> int:
    """Run until a signal ends it; the exit code.

    0 after a drain; 1 when it cannot start, with one line on `err` that says why; 128 plus the signal's
    number when a second signal cut the drain short. `out` gets `lmchat ready on URL` and how to call it
    once /readyz is 200, `err` what the children write, prefixed with their names.
    """
    log = Log(err)
    try:
        binary, key = prepare(
            host=options.host,
            port=options.port,
            state_dir=options.state_dir,
            make_key=not options.configuration.keys,
            local=options.local_model,
            file=options.configuration.local_file,
            path=options.environ.get("PATH"),
        )
        limit, streams = raise_open_files()
        log.line("lmchat", f"{limit} open files per process (ulimit -n) allow about {streams} streams at once")
        with runtime_directory() as runtime:
            gateway = Gateway(options, envoy_binary=binary, key=key, runtime=runtime, log=log)
            return await _run(gateway, log, out)
    except UpFailed as failed:
        log.line("lmchat", str(failed))
        return 1
    finally:
        log.close()


async def _run(gateway: Gateway, log: Log, out: TextIO) -> int:
    """From start to stop; the exit code."""
    with _signals() as (ends, hangups):
        serving = asyncio.create_task(_serve(gateway, hangups, out))
        ended = asyncio.create_task(ends.get())
        try:
            await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            (failure,) = await asyncio.gather(serving, return_exceptions=True)
            if isinstance(failure, ChildFailed):
                log.line("lmchat", str(failure))

            again = asyncio.create_task(ends.get()) if ended.done() else ended
            stopping = asyncio.create_task(gateway.stop())
            await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
            if again.done():
                gateway.kill()
                await stopping
                return 128 + again.result()
            again.cancel()
            stopping.result()
        finally:
            gateway.kill()
    if isinstance(failure, ChildFailed):
        return 1
    if isinstance(failure, Exception):
        raise failure
    return 0


async def _serve(gateway: Gateway, hangups: asyncio.Event, out: TextIO) -> None:
    """Start, print the welcome, and reload the configuration at each SIGHUP. Raises ChildFailed."""
    await gateway.start()
    out.write(gateway.welcome())
    out.flush()
    while True:
        await hangups.wait()
        hangups.clear()
        await gateway.reload()


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Queue[int], asyncio.Event]]:
    """The signals that end `up`, in order, and an event that SIGHUP sets for new workers."""
    loop = asyncio.get_running_loop()
    ends: asyncio.Queue[int] = asyncio.Queue()
    hangups = asyncio.Event()
    in_terminal = _in_terminal()

    def hangup() -> None:
        # Closing a terminal sends SIGHUP too, and means the end.
        if in_terminal and not _in_terminal():
            ends.put_nowait(signal.SIGHUP)
        else:
            hangups.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, hangup)
    try:
        yield ends, hangups
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _in_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
