"""Directories for unix sockets, whatever TMPDIR is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from server.launcher.envoy import endpoints
from server.launcher.preflight import MAX_TEMPORARY_PATH, runtime_directory


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
