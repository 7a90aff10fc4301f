"""The files that Envoy reads: a copy of envoy.yaml for this machine, the workers, the filter with the keys.

Text in, text out; only `write` touches the disk. Starting and watching Envoy is
the supervisor's work. Envoy's behaviour is all in envoy.yaml; this module only
sets addresses and paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

CLUSTER = "workers"
"""The cluster of envoy.yaml whose members `endpoints` lists."""

_SOCKET_PATH_LIMIT = 107
"""Bytes of a unix socket's path; sockaddr_un holds 108 with the closing zero."""


REQUEST_FILTER = "lmchat.requests"
"""The HTTP filter of envoy.yaml that knows the API keys of callers."""

_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"

_KEYS = "local KEYS = nil\n"
"""The line of its script that `request_filter` replaces."""


def bootstrap(
    template: str,
    *,
    host: str,
    port: int,
    admin: Path,
    descriptor: Path,
    endpoints: Path,
    request_filter: Path | None = None,
) -> str:
    """The text of envoy.yaml with this machine's addresses and paths.

    `host` (an IP address, or `localhost`) and `port` are the listener's, `admin`
    is the admin interface's unix socket, `descriptor` the transcoder's
    descriptor set, `endpoints` the list of workers and `request_filter` the filter
    that knows the keys, None where it does not; Envoy watches the directories of these two. Paths must be
    absolute, since Envoy resolves relative ones against its own directory; the two
    watched files must exist when it starts.

    Raises ValueError when the template is not YAML, lacks one of these fields,
    or an address is not one Envoy takes.
    """
    try:
        config = yaml.safe_load(template)
    except yaml.YAMLError as error:
        raise ValueError(f"the Envoy template is not YAML: {error}") from error

    listener = _socket_address(config)
    listener["address"] = _ip(host)
    listener["port_value"] = port
    _at(config, "admin")["address"] = {"pipe": {"path": _socket_path(str(admin)), "mode": 0o600}}
    for transcoder in _holders(config, "proto_descriptor"):
        transcoder["proto_descriptor"] = str(descriptor)
    for discovery in _holders(config, "path_config_source"):
        discovery["path_config_source"] = _watched(endpoints)
    if request_filter is not None:
        requests = _request_filter(config)
        requests.pop("typed_config", None)
        requests["config_discovery"] = {
            "config_source": {"resource_api_version": "V3", "path_config_source": _watched(request_filter)},
            "type_urls": [_LUA],
        }
    return _dump(config)


def request_filter(template: str, keys: Iterable[str] | None) -> str:
    """The text of the filter that discards bodies of callers without one of `keys`, in Envoy's format.

    None: it passes on every body. The text has the keys in it. Raises ValueError as `bootstrap` does.
    """
    requests = _request_filter(yaml.safe_load(template))
    source = _at(requests, "typed_config", "default_source_code")
    script = source.get("inline_string")
    if not isinstance(script, str) or _KEYS not in script:
        raise ValueError(f"the script of {REQUEST_FILTER} in the Envoy template lacks {_KEYS.strip()!r}")
    if keys is not None:
        table = ", ".join(f"[{_lua_string(key)}] = true" for key in keys)
        source["inline_string"] = script.replace(_KEYS, f"local KEYS = {{{table}}}\n")
    resource = {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": REQUEST_FILTER,
        "typed_config": requests["typed_config"],
    }
    return _dump({"resources": [resource]})


def _lua_string(text: str) -> str:
    """A Lua literal of any text: every byte by its number."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"'


def _request_filter(config: Any) -> dict[str, Any]:
    found = [node for node in _mappings(config) if node.get("name") == REQUEST_FILTER]
    if not found:
        raise ValueError(f"the Envoy template lacks the filter {REQUEST_FILTER}")
    return found[0]


def _watched(path: Path) -> dict[str, Any]:
    return {"path": str(path), "watched_directory": {"path": str(path.parent)}}


def endpoints(workers: Sequence[str], standby: Sequence[str] = ()) -> str:
    """The text of the list of workers, in Envoy's format. Without workers every call is a 503.

    Envoy checks the health of those in `standby` too, but sends them no calls.

    Each worker is `unix:/path` or `host:port`, as gRPC writes addresses, where
    host is an IP address (`[::1]:50051` for IPv6) or `localhost`: Envoy looks up
    no names here. Raises ValueError naming the address that is neither.
    """
    members: list[dict[str, Any]] = [{"endpoint": {"address": _address(worker)}} for worker in workers]
    members += [{"endpoint": {"address": _address(worker)}, "health_status": "UNHEALTHY"} for worker in standby]
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": members}],
    }
    return _dump({"resources": [assignment]})


def write(path: Path, text: str) -> None:
    """Replace `path` atomically, so that Envoy reads either the old text or the new one.

    A rename is also the only change that Envoy's watch reports. Makes the
    directory where it is missing. Only the owner may read the file. One writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
        file.write(text)
    draft.replace(path)


def _socket_address(config: Any) -> dict[str, Any]:
    listeners = _at(config, "static_resources").get("listeners")
    if not isinstance(listeners, list) or not listeners:
        raise ValueError("the Envoy template lacks static_resources.listeners")
    return _at(listeners[0], "address", "socket_address", under="static_resources.listeners[0].")


def _at(tree: Any, *keys: str, under: str = "") -> dict[str, Any]:
    """The mapping at `keys`; `under` is where `tree` itself is, for the message."""
    for i, key in enumerate(keys):
        tree = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(tree, dict):
            raise ValueError(f"the Envoy template lacks {under}{'.'.join(keys[: i + 1])}")
    found: dict[str, Any] = tree
    return found


def _holders(tree: Any, key: str) -> Sequence[dict[str, Any]]:
    """Every mapping in `tree` that has `key`; at least one."""
    found = [node for node in _mappings(tree) if key in node]
    if not found:
        raise ValueError(f"the Envoy template lacks {key}")
    return found


def _mappings(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _mappings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _mappings(value)


def _address(worker: str) -> Mapping[str, Any]:
    if worker.startswith("unix:"):
        path = worker.removeprefix("unix:")
        # gRPC also writes absolute paths as unix:///path.
        return {"pipe": {"path": _socket_path("/" + path.lstrip("/") if path.startswith("//") else path)}}
    host, colon, port = worker.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"worker address {worker!r} is neither unix:/path nor host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return {"socket_address": {"address": _ip(host), "port_value": int(port)}}


def _ip(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError(f"Envoy needs an IP address here, not {host!r}") from None


def _socket_path(path: str) -> str:
    if not path:
        raise ValueError("a unix socket needs a path")
    # Envoy refuses a longer one as late as when it reads the file.
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise ValueError(f"unix socket path of more than {_SOCKET_PATH_LIMIT} bytes: {path}")
    return path


class _Dumper(yaml.SafeDumper):
    """Keeps the inline Lua readable, and writes no YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(tree: Any) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
