"""The providers that the embedded engine serves: valid and invalid configurations of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.load import load
from server.config.problems import ConfigError
from server.config.redaction import Redactor
from server.routing.catalog import Catalog

ENVIRON = {"LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1:9/v1"}


def catalog(tmp_path: Path, providers: str, model: str, id_: str = "m") -> Catalog:
    file = tmp_path / "c.yaml"
    file.write_text(
        f'providers:\n  local: {{type: local}}\n{providers}models:\n  "{id_}": {{endpoints: [{model}]}}\n'
    )
    return Catalog(load(file, ENVIRON), ENVIRON)


FILE = "  mine: {type: local, file: models/Qwen3-0.6B.Q4_K_M.gguf}\n"
SERVER = '  other: {type: local, base_url: "http://127.0.0.1:7/v1"}\n'


@pytest.mark.parametrize(
    ("providers", "model", "id_", "message"),
    [
        ("", "{provider: local, model: gpt-4}", "m", '"local" serves only "smollm2"; no model "gpt-4"'),
        ("", '{provider: local, model: "*"}', "local/*", '"local" serves only "smollm2"; no model "*"'),
        ("", '{provider: local, model: "a-*"}', "local/*", '"local" serves only "smollm2"; no model "a-*"'),
        (FILE, "{provider: local, model: smollm2}", "m", '"local" serves another model; a gateway embeds one'),
        (
            "  groq: {type: groq, api_key: k, file: a.gguf}\n",
            "{provider: local, model: smollm2}",
            "m",
            "providers.groq.file: only a provider of type local without base_url serves a file",
        ),
        (
            '  other: {type: local, base_url: "http://h/v1", file: a.gguf}\n',
            "{provider: local, model: smollm2}",
            "m",
            "providers.other.file: only a provider of type local without base_url serves a file",
        ),
    ],
)
def test_refused(providers: str, model: str, id_: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        catalog(tmp_path, providers, model, id_)
    assert message in str(refused.value)


def test_an_unknown_model_behind_an_alias_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "providers: {local: {type: local}}\n"
        "models: {m: {endpoints: [{provider: local, model: smollm2}]}}\naliases: {gpt: local/gpt-4}\n"
    )
    with pytest.raises(ConfigError, match='"local" serves only "smollm2"; no model "gpt-4"'):
        Catalog(load(file, ENVIRON), ENVIRON)


def test_a_server_at_a_base_url_may_have_any_model(tmp_path: Path) -> None:
    (endpoint,) = catalog(tmp_path, SERVER, "{provider: other, model: anything}").resolve("m").endpoints
    assert (endpoint.model, endpoint.base_url) == ("anything", "http://127.0.0.1:7/v1")


def test_a_file_is_served_under_its_name_with_tools(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "providers:\n" + FILE + "models: {m: {endpoints: [{provider: mine, model: Qwen3-0.6B.Q4_K_M}]}}\n"
    )
    (endpoint,) = Catalog(load(file, ENVIRON), ENVIRON).resolve("m").endpoints
    assert (endpoint.model, endpoint.base_url) == ("Qwen3-0.6B.Q4_K_M", "http://127.0.0.1:9/v1")
    assert endpoint.features is not None
    assert "tools" in endpoint.features
    assert "image" not in endpoint.features
    assert endpoint.vendor.defaults == {}  # the sampling that the file itself gives


@pytest.mark.parametrize(("unsupported", "features"), [("", True), ("tools", False), ("tools,n", False)])
def test_a_file_whose_template_takes_no_tools(unsupported: str, features: bool, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "providers:\n" + FILE + SERVER + "models:\n"
        "  m: {endpoints: [{provider: mine, model: Qwen3-0.6B.Q4_K_M}]}\n"
        "  other: {endpoints: [{provider: other, model: x}]}\n"
    )
    found = Catalog(load(file, ENVIRON), {**ENVIRON, "LMCHAT_LOCAL_MODEL_DROPS": unsupported})
    (endpoint,) = found.resolve("m").endpoints
    assert endpoint.features is not None
    assert ("tools" in endpoint.features) is features


def test_the_key_goes_to_the_embedded_model_alone(tmp_path: Path) -> None:
    environ = {**ENVIRON, "LMCHAT_LOCAL_MODEL_API_KEY": "sk-of-this-start"}
    file = tmp_path / "c.yaml"
    file.write_text(
        "providers:\n  local: {type: local}\n" + SERVER + "models:\n"
        "  m: {endpoints: [{provider: local, model: smollm2}, {provider: other, model: m}]}\n"
    )
    embedded, other = Catalog(load(file, environ), environ).resolve("m").endpoints
    assert embedded.provider.api_key is not None
    assert embedded.provider.api_key.reveal() == "sk-of-this-start"
    assert other.provider.api_key is None
    text = "connect to the model with sk-of-this-start"
    assert Redactor.of((), [embedded.provider])(text) == "connect to the model with ***"
    assert "sk-of-this-start" not in repr(embedded)


def test_the_embedded_model_has_no_tools(tmp_path: Path) -> None:
    (endpoint,) = catalog(tmp_path, "", "{provider: local, model: smollm2}").resolve("m").endpoints
    assert endpoint.features is not None
    assert "tools" not in endpoint.features
    assert endpoint.vendor.defaults["temperature"] == 0.0
