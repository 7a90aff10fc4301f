"""The benchmark as a command: short slices of the real things, and answers that are all right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import needs


def test_a_short_run(tmp_path: Path) -> None:
    targets = "direct,envoy,echo,lmchat-rest,lmchat-grpc"
    done = subprocess.run(
        [Path(sys.executable).with_name("bench"), "unary", "--quick", "--only", targets, "--out", tmp_path],
        cwd=needs.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for target in targets.split(","):
        assert f"\n  {target} " in done.stdout
    assert json.loads((tmp_path / "results.json").read_text())["rows"]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
