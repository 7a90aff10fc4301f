"""What `lmchat up` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.config.model import Key


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration without mistakes.

    `text` is that of its file, None where there is none; `keys` are the API keys of callers. Workers get the text
    in a file of the runtime directory, so that one that is started again has what the others have, whatever the
    operator's file says by then. `model` is the one that the printed calls name, empty where there is none;
    `local_file` the GGUF file of the model in the embedded one's place.
    """

    text: str | None
    keys: tuple[Key, ...]
    model: str
    uses_local_model: bool
    local_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What to run. `environ` is the children's environment; `state_dir` keeps the generated key.

    `reload` reads the configuration again; it raises ConfigError.
    """

    configuration: Configuration
    reload: Callable[[], Configuration]
    host: str
    port: int
    workers: int
    local_model: bool
    state_dir: Path
    environ: Mapping[str, str]
