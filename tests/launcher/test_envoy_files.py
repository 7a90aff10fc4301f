"""The copies of Envoy's files that launcher.envoy makes; that Envoy takes them is tested in e2e/test_envoy.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from server.launcher import envoy

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "envoy.yaml").read_text(encoding="utf-8")
PLACES: dict[str, Any] = {
    "host": "0.0.0.0",
    "port": 9000,
    "admin": Path("/state/admin.sock"),
    "descriptor": Path("/share/lmchat.binpb"),
    "endpoints": Path("/state/envoy/workers.yaml"),
}


def test_bootstrap_sets_every_place_and_nothing_else() -> None:
    before = yaml.safe_load(TEMPLATE)
    after = yaml.safe_load(envoy.bootstrap(TEMPLATE, **PLACES))

    address = after["static_resources"]["listeners"][0]["address"]["socket_address"]
    assert address == {"address": "0.0.0.0", "port_value": 9000}
    assert after["admin"]["address"] == {"pipe": {"path": "/state/admin.sock", "mode": 0o600}}
    assert _transcoder(after)["proto_descriptor"] == "/share/lmchat.binpb"
    source = after["static_resources"]["clusters"][0]["eds_cluster_config"]["eds_config"]["path_config_source"]
    assert source == {"path": "/state/envoy/workers.yaml", "watched_directory": {"path": "/state/envoy"}}

    for config in (before, after):
        config["static_resources"]["listeners"][0].pop("address")
        config["static_resources"]["clusters"][0].pop("eds_cluster_config")
        config.pop("admin")
        _transcoder(config).pop("proto_descriptor")
    assert after == before


def test_bootstrap_of_a_bootstrap_is_the_same() -> None:
    once = envoy.bootstrap(TEMPLATE, **PLACES)
    assert envoy.bootstrap(once, **PLACES) == once


def test_the_filter_with_the_keys_is_a_file_of_its_own() -> None:
    path = Path("/state/filters/requests.yaml")
    text = envoy.bootstrap(TEMPLATE, **PLACES, request_filter=path)
    assert envoy.bootstrap(text, **PLACES, request_filter=path) == text
    (found,) = [f for f in _filters(yaml.safe_load(text)) if f["name"] == envoy.REQUEST_FILTER]
    (inline,) = [f for f in _filters(yaml.safe_load(TEMPLATE)) if f["name"] == envoy.REQUEST_FILTER]
    assert found["config_discovery"]["config_source"]["path_config_source"] == {
        "path": str(path), "watched_directory": {"path": "/state/filters"},
    }  # fmt: skip
    (resource,) = yaml.safe_load(envoy.request_filter(TEMPLATE, None))["resources"]
    assert (resource["name"], resource["typed_config"]) == (inline["name"], inline["typed_config"])


@pytest.mark.parametrize(("keys", "table"), [([], "{}"), (["a1", '"'], r'{["\097\049"] = true, ["\034"] = true}')])
def test_the_keys_in_the_filter(keys: list[str], table: str) -> None:
    (resource,) = yaml.safe_load(envoy.request_filter(TEMPLATE, keys))["resources"]
    script = resource["typed_config"]["default_source_code"]["inline_string"]
    assert f"local KEYS = {table}\n" in script
    assert "KEYS = nil" not in script


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    envoy.write(tmp_path / "new" / "file", "secret")
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("host", "written"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "::"), ("0:0::1", "::1")]
)
def test_bootstrap_writes_hosts_as_addresses(host: str, written: str) -> None:
    after = yaml.safe_load(envoy.bootstrap(TEMPLATE, **PLACES | {"host": host}))
    assert after["static_resources"]["listeners"][0]["address"]["socket_address"]["address"] == written


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("admin", "lacks admin"),
        ("static_resources", "lacks static_resources"),
        ("listeners", "lacks static_resources.listeners"),
        ("socket_address", "lacks static_resources.listeners[0].address.socket_address"),
        ("proto_descriptor", "lacks proto_descriptor"),
        ("path_config_source", "lacks path_config_source"),
    ],
)
def test_bootstrap_names_what_the_template_lacks(lacking: str, message: str) -> None:
    template = yaml.safe_dump(_without(yaml.safe_load(TEMPLATE), lacking))
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace(".", r"\.")):
        envoy.bootstrap(template, **PLACES)


@pytest.mark.parametrize("template", ["", "[]", "listeners", "null"])
def test_bootstrap_of_another_document_is_an_error(template: str) -> None:
    with pytest.raises(ValueError, match="the Envoy template lacks static_resources"):
        envoy.bootstrap(template, **PLACES)


def test_bootstrap_of_broken_yaml_is_an_error() -> None:
    with pytest.raises(ValueError, match="not YAML"):
        envoy.bootstrap("a: [", **PLACES)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("host", "gateway.example", "needs an IP address here, not 'gateway.example'"),
        ("admin", Path("/state") / ("x" * 120), "more than 107 bytes"),
    ],
)
def test_bootstrap_refuses_what_envoy_would(place: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envoy.bootstrap(TEMPLATE, **PLACES | {place: value})


@pytest.mark.parametrize(
    ("worker", "address"),
    [
        ("unix:/run/w0.sock", {"pipe": {"path": "/run/w0.sock"}}),
        ("unix:///run/w0.sock", {"pipe": {"path": "/run/w0.sock"}}),
        ("unix:run/w0.sock", {"pipe": {"path": "run/w0.sock"}}),
        ("127.0.0.1:50051", {"socket_address": {"address": "127.0.0.1", "port_value": 50051}}),
        ("localhost:50051", {"socket_address": {"address": "127.0.0.1", "port_value": 50051}}),
        ("[::1]:50051", {"socket_address": {"address": "::1", "port_value": 50051}}),
    ],
)
def test_endpoints_takes_addresses_as_grpc_writes_them(worker: str, address: object) -> None:
    assert _members(envoy.endpoints([worker])) == [{"endpoint": {"address": address}}]


def test_endpoints_keeps_every_worker_in_order() -> None:
    paths = [f"/run/w{i}.sock" for i in range(3)]
    members = _members(envoy.endpoints([f"unix:{path}" for path in paths]))
    assert [member["endpoint"]["address"]["pipe"]["path"] for member in members] == paths


def test_endpoints_of_no_workers_is_an_empty_cluster() -> None:
    assert _members(envoy.endpoints([])) == []


@pytest.mark.parametrize(
    "worker", ["", "unix:", "50051", "host:", "worker.example:50051", "127.0.0.1:0", "1.2.3.4:x"]
)
def test_endpoints_refuses_what_is_no_address(worker: str) -> None:
    with pytest.raises(ValueError, match=r"address|path"):
        envoy.endpoints([worker])


def test_write_replaces_the_file_atomically(tmp_path: Path) -> None:
    path = tmp_path / "made" / "workers.yaml"
    envoy.write(path, "one")
    first = path.stat().st_ino
    envoy.write(path, "zwei: \u00e4")
    assert path.read_text(encoding="utf-8") == "zwei: \u00e4"
    assert path.stat().st_ino != first  # A new file under the old name: readers of the old one are not disturbed.
    assert [entry.name for entry in path.parent.iterdir()] == ["workers.yaml"]


def _members(text: str) -> list[Any]:
    (resource,) = yaml.safe_load(text)["resources"]
    assert resource["@type"] == "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    assert (
        resource["cluster_name"]
        == envoy.CLUSTER
        == yaml.safe_load(TEMPLATE)["static_resources"]["clusters"][0]["name"]
    )
    (locality,) = resource["endpoints"]
    members: list[Any] = locality["lb_endpoints"]
    return members


def _transcoder(config: Any) -> dict[str, Any]:
    (found,) = [f for f in _filters(config) if f["name"] == "envoy.filters.http.grpc_json_transcoder"]
    transcoder: dict[str, Any] = found["typed_config"]
    return transcoder


def _filters(config: Any) -> list[dict[str, Any]]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    filters: list[dict[str, Any]] = manager["http_filters"]
    return filters


def _without(tree: Any, key: str) -> Any:
    if isinstance(tree, dict):
        return {name: _without(value, key) for name, value in tree.items() if name != key}
    if isinstance(tree, list):
        return [_without(value, key) for value in tree]
    return tree
