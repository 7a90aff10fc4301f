"""Directories for unix sockets, whatever TMPDIR is."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from server.launcher import preflight
from server.launcher.envoy import endpoints
from server.launcher.gateway import without_secrets
from server.launcher.preflight import MAX_TEMPORARY_PATH, UpFailed, raise_open_files, runtime_directory


@pytest.mark.parametrize("length", [0, 200])
def test_a_runtime_directory_has_room_for_sockets(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / ("x" * length)
    parent.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with runtime_directory() as directory:
        endpoints([f"unix:{directory}/100-1000.sock"])  # raises where it is too long
        assert directory.stat().st_mode & 0o777 == 0o700
        is_short = len(os.fsencode(parent)) <= MAX_TEMPORARY_PATH
        assert (directory.parent == parent) is is_short
    assert not directory.exists()


def _symlink(path: Path) -> None:
    path.with_name("planted").write_text("sk-planted")
    path.symlink_to(path.with_name("planted"))


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _mode(mode: int) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.write_text("sk-planted")
        path.chmod(mode)

    return plant


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        pytest.param(_symlink, "is a symbolic link; remove it", id="symlink"),
        pytest.param(lambda path: path.symlink_to("/nowhere"), "is a symbolic link; remove it", id="to nothing"),
        pytest.param(_fifo, "is not a regular file", id="fifo"),
        pytest.param(_mode(0o660), "may be written by other users; `chmod 600` it", id="group"),
        pytest.param(_mode(0o602), "may be written by other users", id="world"),
    ],
)
def test_a_key_that_others_may_have_written_is_refused(
    plant: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    plant(tmp_path / "api-key")
    with pytest.raises(UpFailed, match=f"^{tmp_path}/api-key {message}"):
        preflight._state(tmp_path, make_key=True)


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight._state(tmp_path, make_key=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UpFailed, match="belongs to another user"):
        preflight._state(tmp_path, make_key=True)


def test_a_full_disk_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(UpFailed, match="No space left on device"):
            preflight._state(tmp_path, make_key=True)
    assert list(tmp_path.iterdir()) == []
    generated = preflight._state(tmp_path, make_key=True)
    assert generated is not None
    assert generated.is_new
    assert generated.key.startswith("sk-lmchat-")
    assert generated.key not in repr(generated)
    assert [path.name for path in tmp_path.iterdir()] == ["api-key"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((1024, 4096), (4096, 3968)),
        ((4096, 4096), (4096, 3968)),
        ((1024, resource.RLIM_INFINITY), (1 << 20, 20_000)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (1 << 20, 20_000)),
        ((64, 64), (64, 0)),
    ],
)
def test_the_limit_of_open_files_is_raised(
    limits: tuple[int, int], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, changed: now.append(changed))
    assert raise_open_files() == expected
    assert len(now) == 1 or now[-1] == (expected[0], limits[1])


def test_keys_in_the_environment_are_for_workers_alone() -> None:
    environ = {"PATH": "/bin", "LC_ALL": "C", "OPENAI_API_KEY": "sk", "LMCHAT_API_KEY": "sk", "AWS_PROFILE": "x"}
    assert without_secrets(environ) == {"PATH": "/bin", "LC_ALL": "C"}
