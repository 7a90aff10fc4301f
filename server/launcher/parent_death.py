"""Ends a process with its parent, whatever ends the parent.

`command(argv)` is a command that becomes `argv` after asking the kernel to kill it
when its parent dies; the request outlives exec. This happens in a process of its
own, not in subprocess's preexec_fn, which runs Python between fork and exec, where
a lock that another thread held stays locked for ever. A pipe to the parent would
need the child's help, and Envoy gives none. "Parent" means the thread that forked:
in the supervisor that of the event loop, the main one.

Elsewhere than on Linux the kernel has no such service: commands then outlive a
parent that is killed by SIGKILL, and `die_with_parent` polls the parent's id.

Run as a script, by its path; so it imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
#: Seconds between two looks at the parent's id, where the kernel does not tell.
_POLL_INTERVAL = 0.5


def command(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` until its parent, the process that calls this, ends."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *argv]


def die_with_parent(parent: int | None = None) -> None:
    """End this process, by SIGKILL, as soon as its parent has ended; at once if it is not `parent` any more."""
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl() was called
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_INTERVAL)
    os.kill(os.getpid(), signal.SIGKILL)


def _main() -> None:
    parent, *argv = sys.argv[1:]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
    if sys.platform == "linux":
        die_with_parent(int(parent))
    try:
        os.execvp(argv[0], argv)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    _main()
