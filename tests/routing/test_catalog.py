"""Configuration in, endpoints out: resolution, vendors' rows, wildcards, defaults and problems."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from msgspec.structs import replace

from server.config.load import load
from server.config.model import (
    Config,
    EndpointSettings,
    Key,
    ModelSettings,
    Price,
    ProviderSettings,
    Secret,
    Timeouts,
)
from server.config.problems import ConfigError
from server.dialects.base import Dialect, Endpoint, Vendor
from server.dialects.registry import DIALECTS
from server.errors import LmchatError, Reason
from server.routing import catalog as module
from server.routing.capabilities import FEATURES
from server.routing.catalog import Catalog
from server.vendors.ambient import default_config
from server.vendors.registry import VENDORS

KEY = Secret("k")
OPENAI = ProviderSettings(key="openai", type="openai", api_key=KEY)


def config(
    models: Mapping[str, list[EndpointSettings]],
    *providers: ProviderSettings,
    aliases: Mapping[str, str] | None = None,
) -> Config:
    """A configuration with the provider `openai` by default."""
    return Config(
        providers={provider.key: provider for provider in providers or (OPENAI,)},
        models={id_: ModelSettings(id=id_, endpoints=tuple(endpoints)) for id_, endpoints in models.items()},
        aliases=aliases or {},
    )


def settings(model: str, provider: str = "openai", dialect: str = "", name: str = "") -> EndpointSettings:
    return EndpointSettings(name=name or provider, provider=provider, model=model, dialect=dialect)


def only(
    provider: ProviderSettings, model: str = "m", dialect: str = "", environ: Mapping[str, str] | None = None
) -> Endpoint:
    """The endpoint of a catalogue that has no other."""
    configured = config({"id": [settings(model, provider.key, dialect)]}, provider)
    return Catalog(configured, environ or {}).resolve("id").endpoints[0]


def not_found(catalog: Catalog, model: str) -> str:
    with pytest.raises(LmchatError) as raised:
        catalog.resolve(model)
    assert raised.value.reason is Reason.MODEL_NOT_FOUND
    assert raised.value.param == "model"
    return raised.value.message


# Resolution

RESOLVING = Catalog(
    config(
        {
            "openai/mini": [settings("mini-1")],
            "openai/*": [settings("*")],
            "openai/ft/*": [settings("ft:*:org")],
            "one/*": [settings("fixed")],
        },
        aliases={"fast": "openai/mini", "new": "openai/ft/one", "newer": "openai/ft/one"},
    ),
    {},
)


@pytest.mark.parametrize(
    ("requested", "id_", "upstream"),
    [
        ("openai/mini", "openai/mini", "mini-1"),
        ("fast", "openai/mini", "mini-1"),
        ("openai/gpt-5", "openai/gpt-5", "gpt-5"),
        ("openai/a/b:free", "openai/a/b:free", "a/b:free"),
        ("openai/ft/x", "openai/ft/x", "ft:x:org"),
        ("openai/ft", "openai/ft", "ft"),
        ("openai/minim", "openai/minim", "minim"),
        ("new", "openai/ft/one", "ft:one:org"),
        ("one/whatever", "one/whatever", "fixed"),
    ],
)
def test_exact_ids_then_aliases_then_the_longest_prefix(requested: str, id_: str, upstream: str) -> None:
    model = RESOLVING.resolve(requested)
    (endpoint,) = model.endpoints
    assert (model.id, endpoint.public_model, endpoint.model) == (id_, id_, upstream)


def test_aliases_of_a_model() -> None:
    assert RESOLVING.resolve("openai/mini").aliases == ("fast",)
    assert RESOLVING.resolve("openai/ft/one").aliases == ("new", "newer")
    assert RESOLVING.resolve("openai/ft/two").aliases == ()


@pytest.mark.parametrize(
    "star", ["", "*", "../other", "a/../b", "a?b", "a#b", "a b", "a%2e", "é", "-a", "a\n", "a" * 600]
)
def test_what_a_star_does_not_match(star: str) -> None:
    not_found(RESOLVING, f"openai/{star}")


@pytest.mark.parametrize(
    "star",
    [
        "gpt-5",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/x",
        "claude@2025",
        "accounts/fireworks/models/x",
        "~anthropic/claude-latest",
        "ft:gpt-4o:org::id",
    ],
)
def test_what_a_star_matches(star: str) -> None:
    assert RESOLVING.resolve(f"openai/{star}").endpoints[0].model == star


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("openai/", 'There is no model "openai/". Did you mean openai/mini?'),
        ("opnai/mini", 'There is no model "opnai/mini". Did you mean openai/mini?'),
        ("fasst", 'There is no model "fasst". Did you mean fast?'),
        ("opnai/gpt-5", 'There is no model "opnai/gpt-5". Did you mean openai/gpt-5?'),
        ("gpt-5", 'There is no model "gpt-5". Did you mean one/gpt-5 or openai/gpt-5?'),
        ("z z z", 'There is no model "z z z". GET /api/v1/models lists those there are.'),
        ("", 'There is no model "". GET /api/v1/models lists those there are.'),
    ],
)
def test_an_unknown_model(requested: str, message: str) -> None:
    assert not_found(RESOLVING, requested).startswith(message[:-1])


def test_a_long_id_is_cut_in_the_message() -> None:
    message = not_found(RESOLVING, "x" * 10_000)
    assert len(message) < 200


def test_a_lone_star_matches_everything() -> None:
    catalog = Catalog(config({"*": [settings("*")], "a/*": [settings("special-*")]}), {})
    assert catalog.resolve("gpt-5").endpoints[0].model == "gpt-5"
    assert catalog.resolve("a/b").endpoints[0].model == "special-b"


def test_listing() -> None:
    assert [model.id for model in RESOLVING.models()] == ["openai/mini", "openai/*", "openai/ft/*", "one/*"]
    assert RESOLVING.models()[2].endpoints[0].model == "ft:*:org"
    assert RESOLVING.default_model == "openai/mini"
    assert Catalog(config({"openai/*": [settings("*")]}), {}).default_model == ""
    assert Catalog(Config(), {}).models() == ()


def test_endpoint_names() -> None:
    models = {"a": [settings("x", name="direct"), settings("y", name="second")], "b/*": [settings("*")]}
    assert Catalog(config(models), {}).endpoint_names() == {"direct", "second", "openai"}


def test_resolved_wildcards_are_cached_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_WILDCARDS", 4)
    catalog = Catalog(config({"openai/*": [settings("*")]}), {})
    first = catalog.resolve("openai/0")
    assert catalog.resolve("openai/0") is first
    for i in range(5):
        catalog.resolve(f"openai/{i}")
    again = catalog.resolve("openai/0")
    assert again is not first
    assert again == first
    assert catalog._cached.cache_info().currsize == 4


def test_ten_thousand_models() -> None:
    models = {f"vendor{i % 50}/model-{i}": [settings(f"m{i}")] for i in range(10_000)}
    models["w/*"] = [settings("*")]
    aliases = {f"alias-{i}": f"vendor{i % 50}/model-{i}" for i in range(10_000)}
    catalog = Catalog(config(models, aliases=aliases), {})
    assert catalog.resolve("vendor7/model-9957").endpoints[0].model == "m9957"
    assert catalog.resolve("alias-123").id == "vendor23/model-123"
    assert "Did you mean vendor7/model-9957" in not_found(catalog, "vendro7/model-9957")
    begun = time.perf_counter()
    for i in range(1_000):
        catalog.resolve(f"vendor{i % 50}/model-{i}")
        catalog.resolve(f"w/{i}")
    for _ in range(20):
        not_found(catalog, "vendro7/model-9957")
    assert time.perf_counter() - begun < 1  # it takes some 30 ms


# Endpoints


def test_endpoints_have_the_configured_settings() -> None:
    provider = ProviderSettings(key="p", type="groq", api_key=KEY)
    endpoint = EndpointSettings(
        name="e",
        provider="p",
        model="llama",
        timeouts=Timeouts(idle=7),
        weight=2,
        price=Price(input=1, output=2),
        drops=frozenset({"seed"}),
    )
    model = ModelSettings(id="id", endpoints=(endpoint,), context_length=1000, max_output_tokens=100)
    catalog = Catalog(Config(providers={"p": provider}, models={"id": model}), {})
    resolved = catalog.resolve("id")
    assert (resolved.context_length, resolved.max_output_tokens) == (1000, 100)
    (found,) = resolved.endpoints
    assert found == Endpoint(
        name="e",
        model="llama",
        public_model="id",
        vendor=VENDORS["groq"],
        provider=provider,
        dialect="openai",
        base_url="https://api.groq.com/openai/v1",
        timeouts=Timeouts(idle=7),
        weight=2,
        price=Price(input=1, output=2),
        drops=(VENDORS["groq"].drops - {"n"}) | {"seed"},
        features=found.features,
        emulates=frozenset({"n", "json_schema"}),
        extra_body=None,
        foreign_formats=frozenset({"anthropic", "bedrock", "gemini", "google"}),
        context_length=1000,
        max_output_tokens=100,
    )


@pytest.mark.parametrize(
    ("provider", "model", "dialect", "expected"),
    [
        ({"type": "openai"}, "gpt-5", "", ("openai", "https://api.openai.com/v1", "max_completion_tokens")),
        (
            {"type": "openai", "base_url": "https://eu.api.openai.com/v1"},
            "gpt-5",
            "",
            ("openai", "https://eu.api.openai.com/v1", "max_completion_tokens"),
        ),
        (
            {"type": "openai", "base_url": "http://10.0.0.7:8000/v1", "api_key": None},
            "x",
            "",
            ("openai", "http://10.0.0.7:8000/v1", ""),
        ),
        (
            {"type": "openai", "base_url": "https://api.openai.com.example/v1"},
            "x",
            "",
            ("openai", "https://api.openai.com.example/v1", ""),
        ),
        (
            {"type": "groq", "base_url": "http://proxy/groq", "api_key": None},
            "x",
            "",
            ("openai", "http://proxy/groq", "max_completion_tokens"),
        ),
        ({"type": "ollama", "api_key": None}, "x", "", ("openai", "http://localhost:11434/v1", "max_tokens")),
        (
            {"type": "azure", "base_url": "https://x.openai.azure.com"},
            "deployment",
            "",
            ("openai", "https://x.openai.azure.com", ""),
        ),
        (
            {"type": "vertex", "project": "p", "location": "us-east5"},
            "claude-sonnet-4-5@20250929",
            "",
            ("anthropic", "https://us-east5-aiplatform.googleapis.com", ""),
        ),
        (
            {"type": "vertex", "project": "p", "location": "us-east5"},
            "gemini-3-pro",
            "",
            ("gemini", "https://us-east5-aiplatform.googleapis.com", ""),
        ),
        (
            {"type": "vertex", "project": "p", "location": "global"},
            "gemini-3-pro",
            "",
            ("gemini", "https://aiplatform.googleapis.com", ""),
        ),
        (
            {"type": "vertex", "project": "p", "location": "eu"},
            "claude-x",
            "gemini",
            ("gemini", "https://aiplatform.eu.rep.googleapis.com", ""),
        ),
        (
            {"type": "bedrock", "region": "eu-west-1"},
            "amazon.nova",
            "",
            ("bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com", ""),
        ),
        (
            {"type": "llamacpp", "api_key": None},
            "x",
            "anthropic",
            ("anthropic", "http://localhost:8080/v1", ""),
        ),
    ],
)
def test_addresses_and_dialects(
    provider: dict[str, str], model: str, dialect: str, expected: tuple[str, str, str]
) -> None:
    fields = {"api_key": KEY, **provider}
    endpoint = only(ProviderSettings(key="p", **fields), model, dialect)  # type: ignore[arg-type]
    assert (endpoint.dialect, endpoint.base_url, endpoint.vendor.token_limit) == expected
    assert endpoint.vendor.dialect == endpoint.dialect
    assert endpoint.vendor.type == provider["type"]


def test_claude_on_vertex_is_anthropic_with_googles_credentials() -> None:
    provider = ProviderSettings(key="v", type="vertex", project="p", location="l", credentials={"adc": True})
    endpoint = only(provider, "claude-opus-4-5")
    assert (endpoint.vendor.type, endpoint.vendor.auth) == ("vertex", "x-goog-api-key")
    assert (endpoint.vendor.credentials, endpoint.prefills) == (VENDORS["vertex"].credentials, True)
    assert endpoint.emulates >= {"image_url", "file_url"}  # it fetches no URLs
    assert endpoint.drops >= VENDORS["anthropic"].drops - {"n"}
    assert endpoint.extra_body == DIALECTS["anthropic"].extra_body


def test_a_wildcards_dialect_follows_the_model() -> None:
    provider = ProviderSettings(key="vertex", type="vertex", project="p", location="global")
    catalog = Catalog(config({"vertex/*": [settings("*", "vertex")]}, provider), {})
    assert catalog.resolve("vertex/claude-haiku-4-5").endpoints[0].dialect == "anthropic"
    assert catalog.resolve("vertex/gemini-3-flash").endpoints[0].dialect == "gemini"


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (
            ProviderSettings(key="v", type="vertex", project="p", location="global"),
            "projects/other/locations/global/endpoints/7",
        ),
        (ProviderSettings(key="v", type="vertex", project="p", location="global"), "endpoints/7"),
        (ProviderSettings(key="v", type="azure", base_url="https://x.openai.azure.com"), "a/b"),
        (
            ProviderSettings(key="v", type="bedrock", region="us-east-1"),
            "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/x",
        ),
    ],
)
def test_callers_choose_no_resource_through_a_wildcard(provider: ProviderSettings, name: str) -> None:
    listed = {"v/*": [settings("*", "v")]}
    closed = config(listed, provider)
    with pytest.raises(LmchatError, match="address of a resource") as raised:
        Catalog(closed, {}).resolve(f"v/{name}")
    assert (raised.value.reason, raised.value.param) == (Reason.MODEL_NOT_FOUND, "model")
    model = replace(closed.models["v/*"], resource_names=True)
    opened = replace(closed, models={"v/*": model})
    assert Catalog(opened, {}).resolve(f"v/{name}").endpoints[0].model == name
    configured = config({"mine": [settings(name, "v")]}, provider)
    assert Catalog(configured, {}).resolve("mine").endpoints[0].model == name


@pytest.mark.parametrize("end", ["/chat/completions", "/chat/completions/", "/responses"])
def test_a_base_url_that_ends_in_the_path_of_a_call(end: str) -> None:
    provider = ProviderSettings(key="o", type="openai", base_url=f"https://x.example/v1{end}")
    with pytest.raises(ConfigError, match="ends in the path of a call"):
        Catalog(config({"m": [settings("m", "o")]}, provider), {})


# Features of endpoints


@pytest.mark.parametrize(
    ("type_", "has", "lacks"),
    [
        ("openai", FEATURES, set()),
        ("groq", {"tools", "json_schema", "image"}, {"n", "audio", "file"}),
        ("deepseek", {"tools", "json_object"}, {"n", "json_schema", "image", "other_parts", "audio_output"}),
        ("perplexity", {"json_schema", "n"}, {"tools", "other_tools", "json_object"}),
        ("anthropic", {"tools", "json_schema", "image", "file"}, {"n", "json_object", "audio"}),
        ("gemini", {"tools", "n", "json_object", "audio", "audio_output"}, set()),
    ],
)
def test_features(type_: str, has: set[str], lacks: set[str]) -> None:
    endpoint = only(ProviderSettings(key="p", type=type_, api_key=KEY))
    assert endpoint.features is not None
    assert endpoint.features <= FEATURES
    assert has <= endpoint.features
    assert not lacks & (endpoint.features - endpoint.emulates)
    assert endpoint.features >= {"n", "json_object", "json_schema"}  # natively or by emulation


@pytest.mark.parametrize("type_", sorted(VENDORS))
def test_needed_features_are_never_dropped(type_: str) -> None:
    provider = ProviderSettings(
        key="p", type=type_, api_key=KEY, base_url="https://h", region="r", project="p", location="l"
    )
    endpoint = only(provider)
    assert not endpoint.drops & {"tools", "n", "response_format"}


def test_drops_remove_features() -> None:
    endpoint = EndpointSettings(
        name="e", provider="openai", model="m", drops=frozenset({"tools", "response_format", "seed"})
    )
    (found,) = Catalog(config({"id": [endpoint]}), {}).resolve("id").endpoints
    assert found.drops == {"seed"}
    assert found.features == FEATURES - {"tools", "other_tools"}
    assert found.emulates == {"json_object", "json_schema"}  # what is left out is done by prompting


def test_dialects_add_what_their_translators_know() -> None:
    provider = ProviderSettings(key="b", type="bedrock", region="r")
    dialects = {
        "bedrock": Dialect(
            name="bedrock",
            translator=DIALECTS["bedrock"].translator,
            extra_body=frozenset({"top_k"}),
            drops=lambda model: frozenset({f"not-{model}"}),
        )
    }
    catalog = Catalog(config({"b/*": [settings("*", "b")]}, provider), {}, dialects)
    (endpoint,) = catalog.resolve("b/nova").endpoints
    assert endpoint.extra_body == frozenset({"top_k"})
    assert "not-nova" in endpoint.drops


# Settings from the environment


@pytest.mark.parametrize(
    ("type_", "base_url", "environ", "url"),
    [
        ("local", "", {"LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1"),
        ("local", "http://own/v1", {"LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1:9/v1"}, "http://own/v1"),
        ("azure", "", {"AZURE_OPENAI_ENDPOINT": "https://a.azure.com/"}, "https://a.azure.com/"),
        ("bedrock", "", {"AWS_DEFAULT_REGION": "r"}, "https://bedrock-runtime.r.amazonaws.com"),
        (
            "bedrock",
            "",
            {"AWS_REGION": "s", "AWS_DEFAULT_REGION": "r"},
            "https://bedrock-runtime.s.amazonaws.com",
        ),
    ],
)
def test_settings_from_the_environment(type_: str, base_url: str, environ: dict[str, str], url: str) -> None:
    provider = ProviderSettings(key="p", type=type_, base_url=base_url)
    model = "smollm2" if type_ == "local" else "m"  # the only one that the embedded engine serves
    assert only(provider, model, environ=environ).base_url == url


def test_the_settings_of_an_endpoint_are_complete() -> None:
    environ = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "l"}
    endpoint = only(ProviderSettings(key="v", type="vertex"), environ=environ)
    assert (endpoint.provider.project, endpoint.provider.location) == ("p", "l")


# Problems


def test_problems_have_file_line_and_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(
        dedent("""\
        providers:
          one: {type: grok, api_key: k}
          two:
            type: qqq
          three: {type: groq}
          four: {type: vertex, project: p}
          five: {type: openai, base_url: "api.example/v1"}
          six: {type: openai, base_url: "https://user:hush@host/v1"}
          seven: {type: azure}
          eight: {type: groq, headers: {authorization: hush}}
          local: {type: local}
        models:
          m:
            endpoints:
              - {provider: one, model: x}
              - {provider: three, model: x, dialect: antropic}
        """)
    )
    with pytest.raises(ConfigError) as raised:
        Catalog(load(Path("c.yaml"), {}), {})
    assert str(raised.value).splitlines() == [
        'c.yaml:2: providers.one.type: no type "grok"; did you mean "groq"?',
        'c.yaml:4: providers.two.type: no type "qqq"',
        "c.yaml:5: providers.three.api_key: missing; write ${GROQ_API_KEY}",
        "c.yaml:6: providers.four.location: missing; vertex needs it, here or as GOOGLE_CLOUD_LOCATION",
        "c.yaml:7: providers.five.base_url: expected a URL such as https://host/v1, without credentials",
        "c.yaml:8: providers.six.base_url: expected a URL such as https://host/v1, without credentials",
        "c.yaml:9: providers.seven.base_url: missing; azure needs it, here or as AZURE_OPENAI_ENDPOINT",
        "c.yaml:11: providers.local.base_url: missing; local needs it, here or as LMCHAT_LOCAL_MODEL_URL",
        'c.yaml:16: models.m.endpoints[1].dialect: no dialect "antropic"; did you mean "anthropic"?',
    ]


# Without a file


def test_the_default_configuration_of_an_empty_environment() -> None:
    assert default_config({}) == Config()
    assert Catalog(default_config({}), {}).models() == ()


def test_the_default_configuration_takes_what_the_environment_has() -> None:
    environ = {
        "LMCHAT_LOCAL_MODEL_URL": "http://127.0.0.1:9/v1",
        "LMCHAT_API_KEY": "caller-key",
        "GROQ_API_KEY": "g",
        "GOOGLE_API_KEY": "q",
        "OPENAI_API_KEY": "",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_REGION": "us-east-1",
        "GOOGLE_APPLICATION_CREDENTIALS": "/sa.json",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "global",
        "AZURE_OPENAI_API_KEY": "a",
    }
    configured = default_config(environ)
    assert configured.keys == (Key(name="env", key=Secret("caller-key")),)
    catalog = Catalog(configured, environ)
    assert {model.id for model in catalog.models()} == {
        "local/smollm2",
        "groq/*",
        "gemini/*",
        "bedrock/*",
        "vertex/*",
    }
    assert catalog.default_model == "local/smollm2"
    assert configured.providers["groq"].api_key == Secret("g")
    assert configured.providers["gemini"].api_key == Secret("q")
    for key, credentials in (("bedrock", {}), ("vertex", {"adc": True})):
        assert (configured.providers[key].api_key, configured.providers[key].credentials) == (None, credentials)
    (local,) = catalog.resolve("local/smollm2").endpoints
    assert (local.name, local.model, local.base_url) == ("local", "smollm2", "http://127.0.0.1:9/v1")
    (groq,) = catalog.resolve("groq/llama-3.3-70b-versatile").endpoints
    assert (groq.name, groq.model) == ("groq", "llama-3.3-70b-versatile")
    assert "caller-key" not in repr(configured)


@pytest.mark.parametrize(
    "vendor", [v for v in VENDORS.values() if v.env and not v.embedded], ids=lambda vendor: vendor.type
)
def test_each_vendor_is_in_the_default_catalogue_where_its_variables_are_set(vendor: Vendor) -> None:
    environ = {
        vendor.env[0]: "k",
        "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com",
        "AWS_REGION": "r",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "l",
        "DATABRICKS_HOST": "https://x.cloud.databricks.com",
        "CLOUDFLARE_ACCOUNT_ID": "a",
        "SNOWFLAKE_ACCOUNT": "a",
    }
    catalog = Catalog(default_config(environ), environ)
    assert [model.id for model in catalog.models()] == [f"{vendor.type}/*"]
