"""Other gateways in front of the same mock, each installed into a folder given on the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import yaml

from lmchat_dev.bench.processes import BenchFailed, Roles, environment, free_port
from lmchat_dev.bench.targets import KEY, Mock, Service, Target

NAMES = ("litellm", "portkey")
LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"


class LiteLLM(Service):
    """LiteLLM's proxy."""

    def __init__(self, directory: Path, mock: Mock, workers: int) -> None:
        super().__init__()
        self._home = directory / "litellm"
        self._mock = mock
        self._workers = workers

    def install(self) -> None:
        """Install it, if it is not there yet."""
        if (self._home / "bin" / "litellm").exists():
            return
        python = self._home / "bin" / "python"
        self._home.mkdir(parents=True, exist_ok=True)
        _run(self._home, "uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(self._home))
        _run(self._home, "uv", "pip", "install", "--quiet", "--python", str(python), LITELLM)

    def start(self) -> None:
        """Start it."""
        self.install()
        self.port = free_port()
        config = self.directory / "litellm.yaml"
        settings = {"model": "openai/*", "api_base": self._mock.base_url, "api_key": "none"}
        config.write_text(
            yaml.safe_dump(
                {
                    "model_list": [{"model_name": "*", "litellm_params": settings}],
                    "general_settings": {"master_key": KEY},
                    "litellm_settings": {"telemetry": False},
                }
            ),
            encoding="utf-8",
        )
        arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--num_workers", str(self._workers), "--telemetry", "False"]
        # Without the first it asks a site for prices when it starts.
        process = self.run(
            "litellm",
            [str(self._home / "bin" / "litellm"), *arguments],
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOG="ERROR",
        )
        self._process = self.behind(process, "/health/liveliness")

    def new_instance(self) -> Service:
        """A new instance, not started."""
        return LiteLLM(self._home.parent, self._mock, self._workers)

    def roles(self) -> Roles:
        """The processes, all with the role `gateway`."""
        return {"gateway": self._process.tree()}


class Portkey(Service):
    """Portkey's gateway, in one process; it has no option for more."""

    def __init__(self, directory: Path, mock: Mock) -> None:
        super().__init__()
        self._home = directory / "portkey"
        self._mock = mock

    def install(self) -> None:
        """Install it, if it is not there yet."""
        if self._script.exists():
            return
        self._home.mkdir(parents=True, exist_ok=True)
        _run(
            self._home,
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(self._home),
            PORTKEY,
        )

    def start(self) -> None:
        """Start it."""
        self.install()
        self.port = free_port()
        process = self.run(
            "portkey", ["node", str(self._script), f"--port={self.port}", "--headless"], NODE_ENV="production"
        )
        self._process = self.behind(process, "/")

    def new_instance(self) -> Service:
        """A new instance, not started."""
        return Portkey(self._home.parent, self._mock)

    def roles(self) -> Roles:
        """The processes, all with the role `gateway`."""
        return {"gateway": [psutil.Process(self._process.pid)]}

    @property
    def _script(self) -> Path:
        return self._home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def targets(
    directory: Path, names: Sequence[str], mock: Mock, workers: int, started: Callable[[Service], Service]
) -> list[Target]:
    """The selected ones, running. Raises BenchFailed where one cannot be installed."""
    directory = directory.resolve()
    path = "/v1/chat/completions"
    found = []
    if "litellm" in names:
        service = started(LiteLLM(directory, mock, workers))
        found.append(Target(name="litellm", service=service, path=path, peer=True))
    if "portkey" in names:
        headers = {
            "authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": mock.base_url,
        }
        service = started(Portkey(directory, mock))
        found.append(Target(name="portkey", service=service, path=path, headers=headers, peer=True))
    return found


def _run(directory: Path, *command: str) -> None:
    """Run an installer in `directory`, where uv does not apply this project's constraints. Raises BenchFailed."""
    if shutil.which(command[0]) is None:
        raise BenchFailed(f"{command[0]} is needed to install a peer")
    sys.stderr.write(f"bench: {' '.join(command)}\n")
    done = subprocess.run(command, cwd=directory, env=environment(), check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchFailed(f"{' '.join(command)} failed:\n{done.stderr[-1500:]}")
