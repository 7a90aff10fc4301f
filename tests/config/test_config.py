"""Configuration files in, typed settings or problems with file, line and field out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from msgspec.structs import replace

from server.config.files import missing_files
from server.config.load import load
from server.config.model import (
    Circuit,
    Config,
    EndpointSettings,
    Key,
    Price,
    ProviderSettings,
    Retry,
    Secret,
    Stream,
    Timeouts,
    environment_keys,
)
from server.config.problems import ConfigError, Problem

#: The example of the documentation.
EXAMPLE = """\
auth:
  keys:
    - {name: ci, key: "${LMCHAT_API_KEY}"}
timeouts: {connect: 5s, first_token: 60s, idle: 60s, total: 600s}     # also per provider and per endpoint
retry: {max_provider_tries: 3}
circuit: {window: 30s, min_requests: 5, failure_ratio: 0.5, cooldown: 10s}
stream: {keep_alive: 15s}
providers:
  anthropic: {type: anthropic, api_key: "${ANTHROPIC_API_KEY}"}
  openai:    {type: openai, api_key: "${OPENAI_API_KEY}"}
  gemini:    {type: gemini, api_key: "${GEMINI_API_KEY}"}
  azure:     {type: azure, base_url: "https://x.openai.azure.com", api_version: "2024-10-21", api_key: "${AZURE_OPENAI_API_KEY}"}
  vertex:    {type: vertex, project: p, location: us-east5, credentials: {adc: true}}
  bedrock:   {type: bedrock, region: us-east-1, credentials: {profile: default}}
  groq:      {type: groq, api_key: "${GROQ_API_KEY}"}
  rack7:     {type: openai, base_url: "http://10.0.0.7:8000/v1"}
models:
  anthropic/claude:
    endpoints:
      - {name: vertex,  provider: vertex,  model: claude-sonnet-4-5@20250929}
      - {name: bedrock, provider: bedrock, model: us.anthropic.claude-sonnet-4-5-20250929-v1:0}
      - {name: direct,  provider: anthropic, model: claude-sonnet-4-5, timeouts: {first_token: 20s}, weight: 1, price: {input: 3.0, output: 15.0}, drops: [seed]}
    context_length: 200000
    max_output_tokens: 64000
  "openai/*":                                  # a wildcard: what the star matched is the upstream model
    endpoints: [{name: direct, provider: openai, model: "*"}]
aliases: {fast: groq/llama-3.3-70b}
"""  # noqa: E501

EXAMPLE_ENVIRON = {
    name: f"secret-{name}"
    for name in (
        "LMCHAT_API_KEY",
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "GROQ_API_KEY",
    )
}

DURATION = "expected a duration above 0 such as 500ms, 30s, 5m or 1h"
DOLLAR = "a lone $: write ${NAME} for a variable, $$ for the sign itself"
NAME = "a name of at most 64 ASCII letters, digits, `.`, `_` and `-` that begins with a letter or digit"
MERGE = "a merge key takes another mapping, or a list of them"

#: A valid file, to which tests add.
BASE = """\
providers:
  one: {type: openai}
models:
  m: {endpoints: [{provider: one, model: x}]}
"""


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in `tmp_path`, so that file names in messages are short."""
    monkeypatch.chdir(tmp_path)


def read(text: str, environ: Mapping[str, str] | None = None) -> Config:
    path = Path("c.yaml")
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(dedent(text), environ)
    lines = str(raised.value).splitlines()
    assert lines == [str(problem) for problem in raised.value.problems]
    return lines


def with_endpoint(text: str) -> str:
    return f"providers: {{one: {{type: openai}}}}\nmodels:\n  m:\n    endpoints:\n      - {{{text}}}\n"


# Valid files


def test_the_documented_example() -> None:
    config = read(EXAMPLE, EXAMPLE_ENVIRON)
    assert config.keys == (Key(name="ci", key=Secret("secret-LMCHAT_API_KEY")),)
    assert config.retry == Retry()
    assert config.circuit == Circuit()
    assert config.stream == Stream()
    assert config.providers["azure"] == ProviderSettings(
        key="azure",
        type="azure",
        base_url="https://x.openai.azure.com",
        api_version="2024-10-21",
        api_key=Secret("secret-AZURE_OPENAI_API_KEY"),
    )
    assert config.providers["vertex"].credentials == {"adc": True}
    assert config.providers["bedrock"].credentials == {"profile": "default"}
    claude = config.models["anthropic/claude"]
    assert (claude.context_length, claude.max_output_tokens) == (200_000, 64_000)
    assert [endpoint.name for endpoint in claude.endpoints] == ["vertex", "bedrock", "direct"]
    assert claude.endpoints[2] == EndpointSettings(
        name="direct",
        provider="anthropic",
        model="claude-sonnet-4-5",
        timeouts=Timeouts(first_token=20),
        weight=1,
        price=Price(input=3, output=15),
        drops=frozenset({"seed"}),
    )
    assert config.models["openai/*"].endpoints[0].model == "*"
    assert config.aliases == {"fast": "groq/llama-3.3-70b"}
    assert config.models["groq/llama-3.3-70b"].endpoints == (
        EndpointSettings(name="groq", provider="groq", model="llama-3.3-70b"),
    )


def test_defaults() -> None:
    config = read(BASE)
    assert (config.keys, config.retry, config.circuit, config.stream) == ((), Retry(), Circuit(), Stream())
    (endpoint,) = config.models["m"].endpoints
    assert endpoint == EndpointSettings(name="one", provider="one", model="x")


def test_timeouts_go_over_one_another() -> None:
    config = read(
        dedent("""\
        timeouts: {connect: 1s, idle: 500ms}
        providers:
          one: {type: openai, timeouts: {connect: 2s, total: 1h}}
        models:
          m:
            endpoints:
              - {provider: one, model: x, timeouts: {total: 5m}}
              - {name: plain, provider: one, model: x}
        """)
    )
    first, second = config.models["m"].endpoints
    assert first.timeouts == Timeouts(connect=2, first_token=60, idle=0.5, total=300)
    assert second.timeouts == Timeouts(connect=2, first_token=60, idle=0.5, total=3600)


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("${NAME}", {"NAME": "v"}, "v"),
        ("a${NAME}b${NAME}", {"NAME": "v"}, "avbv"),
        ("${NAME:-d}", {}, "d"),
        ("${NAME:-d}", {"NAME": ""}, "d"),
        ("${NAME:-d}", {"NAME": "v"}, "v"),
        ("${NAME:-}", {}, ""),
        ("'${NAME:-a: b}'", {}, "a: b"),
        ("$$", {}, "$"),
        ("$${NAME}", {"NAME": "v"}, "${NAME}"),
        ("${NAME}", {"NAME": "${OTHER} $x"}, "${OTHER} $x"),
        ("on", {}, "on"),
        ("yes", {}, "yes"),
        ("012", {}, "012"),
        ("2024-10-21", {}, "2024-10-21"),
        ("1_000", {}, "1_000"),
        ("0x1F", {}, "0x1F"),
        ("1:30", {}, "1:30"),
        ("'null'", {}, "null"),
        ("~", {}, ""),
    ],
)
def test_text_is_what_is_written_with_variables_expanded(
    written: str, environ: dict[str, str], value: str
) -> None:
    config = read(BASE.replace("{type: openai}", f"\n    type: openai\n    api_version: {written}"), environ)
    assert config.providers["one"].api_version == value


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), ('"2s"', 2)],
)
def test_durations(written: str, seconds: float) -> None:
    assert read(f"{BASE}stream: {{keep_alive: {written}}}\n").stream.keep_alive == seconds


def test_numbers_may_come_from_the_environment() -> None:
    config = read(f"{BASE}retry: {{max_provider_tries: '${{TRIES}}'}}\n", {"TRIES": "7"})
    assert config.retry.max_provider_tries == 7


def test_anchors_and_merge_keys() -> None:
    config = read(
        dedent("""\
        x-shared:
          first: &first {type: groq, api_key: a, region: r1}
          second: &second {region: r2, location: l2}
        providers:
          one: {<<: *first}
          two: {region: mine, <<: [*second, *first]}
          three: *first
        models:
          m: &m {endpoints: [{provider: one, model: x}]}
          n: *m
        """)
    )
    first = ProviderSettings(key="one", type="groq", api_key=Secret("a"), region="r1")
    assert config.providers["one"] == first
    assert config.providers["two"] == replace(first, key="two", region="mine", location="l2")
    assert config.providers["three"].region == "r1"
    assert config.models["n"].endpoints == config.models["m"].endpoints


def test_headers_are_in_lower_case() -> None:
    config = read(BASE.replace("type: openai", "type: openai, headers: {X-Team: '${TEAM}'}"), {"TEAM": "t"})
    assert config.providers["one"].headers == {"x-team": "t"}


def test_credentials() -> None:
    config = read(
        dedent("""\
        providers:
          keys: {type: bedrock, credentials: {access_key_id: id, secret_access_key: s, session_token: t}}
          bearer: {type: bedrock, credentials: {bearer_token: b}}
          file: {type: vertex, credentials: {service_account_file: /run/sa.json}}
          token: {type: vertex, credentials: {access_token: a, adc: false}}
        models:
          m: {endpoints: [{provider: keys, model: x}]}
        """)
    )
    assert {key: provider.credentials for key, provider in config.providers.items()} == {
        "keys": {"access_key_id": "id", "secret_access_key": Secret("s"), "session_token": Secret("t")},
        "bearer": {"bearer_token": Secret("b")},
        "file": {"service_account_file": "/run/sa.json"},
        "token": {"access_token": Secret("a")},
    }


@pytest.mark.parametrize(
    ("auth", "environ", "keys"),
    [
        ("", {}, {}),
        ("", {"LMCHAT_API_KEY": ""}, {}),
        ("", {"LMCHAT_API_KEY": "k"}, {"env": "k"}),
        ("auth: {keys: [{name: ci, key: c}]}", {"LMCHAT_API_KEY": "k"}, {"ci": "c", "env": "k"}),
        ("auth: {keys: [{name: ci, key: k}]}", {"LMCHAT_API_KEY": "k"}, {"ci": "k"}),
    ],
)
def test_keys(auth: str, environ: dict[str, str], keys: dict[str, str]) -> None:
    config = read(f"{BASE}{auth}\n", environ)
    assert {key.name: key.key.reveal() for key in config.keys} == keys


def test_the_key_of_an_environment() -> None:
    assert environment_keys({"LMCHAT_API_KEY": "k"}) == (Key(name="env", key=Secret("k")),)
    assert environment_keys({"LMCHAT_API_KEY": ""}) == ()


# Invalid files


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # Not a configuration at all
        ("", ["1: expected a mapping at the top, found nothing"]),
        ("- a\n", ["1: expected a mapping at the top, found a list"]),
        ("a\n", ["1: expected a mapping at the top, found text"]),
        # Structure
        (f"{BASE}providers: {{}}\n", ["5: providers: duplicate key, first on line 1"]),
        (f"{BASE}[a]: b\n", ["5: a key must be plain text, found a list"]),
        (f"{BASE}retrry: {{}}\n", ['5: retrry: unknown key; did you mean "retry"?']),
        (f"{BASE}retry: 3\n", ["5: retry: expected a mapping, found text"]),
        (f"{BASE}auth: {{keys: ci}}\n", ["5: auth.keys: expected a list of mappings, found text"]),
        (f"{BASE}auth: {{keys: [ci]}}\n", ["5: auth.keys[0]: expected a mapping, found text"]),
        (
            f"{BASE}retry: !mine {{}}\n",
            ["5: retry: expected a mapping, found the tag !mine, and tags are not understood"],
        ),
        (f"{BASE}x-a: &a {{<<: *a}}\nretry: *a\n", [f"5: retry.<<: {MERGE}"]),
        (f"{BASE}retry: {{<<: 3}}\n", [f"5: retry.<<: {MERGE}"]),
        ("providers: {}\n", ["1: models: at least one model is needed"]),
        (BASE.replace(" {type: openai}", ""), ["2: providers.one: expected a mapping, found nothing"]),
        # Names
        *(
            (
                BASE.replace("provider: one", f'name: "{name}", provider: one'),
                [f'4: models.m.endpoints[0].name: expected {NAME}, found "{shown}"'],
            )
            for name, shown in (
                ("a/b", "a/b"),
                ("\\e[31m", r"\x1b[31m"),
                ("\u00e9", "\u00e9"),
                ("-a", "-a"),
                ("a b", "a b"),
            )
        ),
        *(
            (
                f"{BASE}".replace("one:", f'"{name}":').replace("provider: one", f'name: n, provider: "{name}"'),
                [f"2: providers.{shown}: expected {NAME}"],
            )
            for name, shown in (("a/b", "a/b"), ("\\x00", r"\x00"), ("\u0430", "\u0430"))
        ),
        # Timeouts, circuit, retry, stream
        (
            f"{BASE}timeouts:\n  idle: 30\n",
            [f'6: timeouts.idle: {DURATION}, found "30"'],
        ),
        (
            f"{BASE}timeouts: {{idle: 0s}}\n",
            [f'5: timeouts.idle: {DURATION}, found "0s"'],
        ),
        (
            f"{BASE}stream: {{keep_alive: 1m30s}}\n",
            [
                f'5: stream.keep_alive: {DURATION}, found "1m30s"',
            ],
        ),
        (f"{BASE}timeouts: {{idle: [1s]}}\n", ["5: timeouts.idle: expected a duration, found a list"]),
        (
            f"{BASE}timeouts: {{first_tokens: 1s}}\n",
            ['5: timeouts.first_tokens: unknown key; did you mean "first_token"?'],
        ),
        (
            f"{BASE}circuit: {{failure_ratio: 1.5}}\n",
            ['5: circuit.failure_ratio: expected a number from 0 to 1, found "1.5"'],
        ),
        (
            f"{BASE}circuit: {{failure_ratio: .nan}}\n",
            ['5: circuit.failure_ratio: expected a number from 0 to 1, found ".nan"'],
        ),
        (
            f"{BASE}circuit: {{min_requests: 0}}\n",
            ['5: circuit.min_requests: expected a whole number of at least 1, found "0"'],
        ),
        (
            f"{BASE}retry: {{max_provider_tries: 2.5}}\n",
            ['5: retry.max_provider_tries: expected a whole number of at least 1, found "2.5"'],
        ),
        # Keys
        (
            f"{BASE}auth:\n  keys:\n    - {{key: k}}\n    - {{name: a}}\n    - {{name: b, key: ''}}\n",
            [
                "7: auth.keys[0].name: missing",
                "8: auth.keys[1].key: missing",
                "9: auth.keys[2].key: must not be empty",
            ],
        ),
        (
            f"{BASE}auth:\n  keys:\n    - {{name: a, key: k}}\n    - {{name: a, key: l}}\n"
            "    - {name: b, key: k}\n",
            ['8: auth.keys[1].name: "a" is used twice', '9: auth.keys[2].key: the same key as that of "a"'],
        ),
        (
            f"{BASE}auth: {{keys: [{{name: env, key: k}}]}}\n",
            ['5: auth.keys[0].name: "env" is the name of LMCHAT_API_KEY\'s key'],
        ),
        # Providers
        (
            BASE.replace("type: openai", "tpye: openai"),
            ["2: providers.one.type: missing", '2: providers.one.tpye: unknown key; did you mean "type"?'],
        ),
        (
            BASE.replace("type: openai", "type: bedrock, credentials: {access_key_id: i}"),
            ["2: providers.one.credentials.secret_access_key: missing; access_key_id needs it"],
        ),
        (
            BASE.replace("type: openai", "type: vertex, credentials: {adc: yes}"),
            ['2: providers.one.credentials.adc: expected true or false, found "yes"'],
        ),
        (
            BASE.replace("type: openai", "type: vertex, credentials: {acces_token: a}"),
            ['2: providers.one.credentials.acces_token: unknown key; did you mean "access_token"?'],
        ),
        (
            BASE.replace("type: openai", "type: openai, api_key: [k]"),
            ["2: providers.one.api_key: expected text, found a list"],
        ),
        # Models and endpoints
        (
            "providers: {one: {type: openai}}\nmodels:\n  m: {endpoints: []}\n",
            ["3: models.m.endpoints: at least one endpoint is needed"],
        ),
        (
            "providers: {one: {type: openai}}\nmodels:\n  m: {}\n",
            ["3: models.m.endpoints: at least one endpoint is needed"],
        ),
        (with_endpoint("provider: one"), ["5: models.m.endpoints[0].model: missing"]),
        (with_endpoint("model: x"), ["5: models.m.endpoints[0].provider: missing"]),
        (
            with_endpoint("provider: oen, model: x"),
            ['5: models.m.endpoints[0].provider: no provider "oen"; did you mean "one"?'],
        ),
        (
            with_endpoint("provider: qqq, model: x"),
            ['5: models.m.endpoints[0].provider: no provider "qqq"; known: one'],
        ),
        (
            with_endpoint("provider: one, model: x, weight: 0"),
            ['5: models.m.endpoints[0].weight: expected a number above 0, found "0"'],
        ),
        (
            with_endpoint("provider: one, model: x, weight: heavy"),
            ['5: models.m.endpoints[0].weight: expected a number above 0, found "heavy"'],
        ),
        (
            with_endpoint("provider: one, model: x, price: {input: -1}"),
            [
                "5: models.m.endpoints[0].price.output: missing",
                '5: models.m.endpoints[0].price.input: expected a number of at least 0, found "-1"',
            ],
        ),
        (
            with_endpoint("provider: one, model: x, drops: seed"),
            ["5: models.m.endpoints[0].drops: expected a list of texts, found text"],
        ),
        (
            with_endpoint("provider: one, model: 'x*'"),
            ["5: models.m.endpoints[0].model: a star means something only under a model id that ends in one"],
        ),
        (
            with_endpoint("provider: one, model: x}\n      - {provider: one, model: y"),
            ['6: models.m.endpoints[1].name: this model has two endpoints named "one"'],
        ),
        (
            BASE.replace("  m:", '  "a*b":'),
            ["4: models.a*b: a wildcard has its star at the end, and only there"],
        ),
        (
            BASE.replace("m: {", "m: {context_length: 8k, "),
            ['4: models.m.context_length: expected a whole number of at least 1, found "8k"'],
        ),
        (
            BASE.replace("m: {", "m: {resource_names: true, "),
            ["4: models.m.resource_names: means something only under a model id that ends in a star"],
        ),
        (
            with_endpoint(f"name: {'e' * 65}, provider: one, model: x"),
            [f'5: models.m.endpoints[0].name: expected {NAME}, found "{"e" * 40}..."'],
        ),
        # Aliases
        (f"{BASE}aliases: 3\n", ["5: aliases: expected a mapping, found text"]),
        (f"{BASE}aliases: {{a: m, a: m}}\n", ["5: aliases.a: duplicate key, first on line 5"]),
        (f"{BASE}aliases: {{a: z}}\n", ['5: aliases.a: no model "z"; known: m']),
        (f"{BASE}aliases: {{m: m}}\n", ["5: aliases.m: a model has this id"]),
        (f"{BASE}aliases: {{'a*': m}}\n", ["5: aliases.a*: an alias has no wildcard"]),
        (f"{BASE}aliases: {{a: b, b: m}}\n", ['5: aliases.a: no model "b"; an alias cannot name another']),
        (f"{BASE}aliases: {{a: ''}}\n", ["5: aliases.a: must not be empty"]),
        # Variables
        (
            f"{BASE}stream:\n  keep_alive: ${{KEEP}}\n",
            ["6: stream.keep_alive: the environment variable KEEP is not set"],
        ),
        (
            BASE.replace("type: openai", "type: openai, api_key: $KEY"),
            [f"2: providers.one.api_key: {DOLLAR}"],
        ),
        (
            BASE.replace("type: openai", "type: openai, api_key: '${KEY'"),
            [f"2: providers.one.api_key: {DOLLAR}"],
        ),
    ],
)
def test_problems(text: str, found: list[str]) -> None:
    assert problems(text) == [f"c.yaml:{line}" for line in found]


def test_every_problem_is_reported_in_the_order_of_the_file() -> None:
    assert problems("""\
        timeouts: {connect: soon}
        providers:
          one: {type: openai, api_key: "${ONE}"}
          two: {api_key: "${TWO}", colour: red}
        models:
          m:
            endpoints:
              - {provider: one, model: x, weight: -1}
              - {provider: tow, model: y}
        streem: {}
        """) == [
        f'c.yaml:1: timeouts.connect: {DURATION}, found "soon"',
        "c.yaml:3: providers.one.api_key: the environment variable ONE is not set",
        "c.yaml:4: providers.two.type: missing",
        "c.yaml:4: providers.two.api_key: the environment variable TWO is not set",
        "c.yaml:4: providers.two.colour: unknown key; known: "
        "api_key, api_version, base_url, credentials, file, headers, location, project, region, timeouts, type",
        'c.yaml:8: models.m.endpoints[0].weight: expected a number above 0, found "-1"',
        'c.yaml:9: models.m.endpoints[1].provider: no provider "tow"; did you mean "two"?',
        'c.yaml:10: streem: unknown key; did you mean "stream"?',
    ]


@pytest.mark.parametrize("text", ["a: [1\n", "a: {b: c\n", "a: 'b\n", "a: *nobody\n", "a: b\n---\nc: d\n"])
def test_what_is_not_yaml_is_one_problem_with_its_line(text: str) -> None:
    (line,) = problems(text)
    assert line.startswith("c.yaml:")
    assert ": not YAML: " in line


def test_a_control_character_is_one_problem() -> None:
    (line,) = problems("a: \x01\n")
    assert line.startswith("c.yaml: not YAML: ")


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError) as raised:
        load(Path("none.yaml"), {})
    assert str(raised.value) == "none.yaml: cannot be read: No such file or directory"
    Path("latin.yaml").write_bytes(b"a: b\nc: \xe9\n")
    with pytest.raises(ConfigError) as raised:
        load(Path("latin.yaml"), {})
    assert raised.value.problems == (Problem("latin.yaml", 2, "", "is not UTF-8"),)


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read(f"\ufeff{BASE}").models.keys() == {"m"}


# Where later checks find lines


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("providers.one.type", 2),
        ("providers.one.base_url", 2),
        ("models.m.endpoints[0].dialect", 4),
        ("models", 3),
        ("nothing.of.the.kind", 0),
    ],
)
def test_problem_finds_the_line_of_a_field_or_of_what_holds_it(field: str, line: int) -> None:
    assert read(BASE).problem(field, "wrong") == Problem("c.yaml", line, field, "wrong")


def test_problems_without_a_file() -> None:
    assert str(Config().problem("a.b", "wrong")) == "default configuration: a.b: wrong"


# Secrets


def test_secrets_do_not_show() -> None:
    text = EXAMPLE.replace(
        "{profile: default}", "{access_key_id: id, secret_access_key: hush, session_token: hush}"
    )
    config = read(text, EXAMPLE_ENVIRON)
    for shown in (repr(config), str(config), f"{config.providers} {config.keys}"):
        assert "secret-" not in shown
        assert "hush" not in shown
    assert "Secret(***)" in repr(config)
    assert config.providers["openai"].api_key == Secret("secret-OPENAI_API_KEY")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_secrets_do_not_show_in_problems() -> None:
    environ = dict.fromkeys("ABCDE", "hush")
    found = problems(
        """\
        auth: {keys: [{name: a, key: "${A}"}, {name: b, key: "${A}"}]}
        providers:
          one: {type: openai, apikey: hush, api_key: {key: hush}}
          two: {type: bedrock, credentials: {secret_access_key: "${B}", adc: "${E}"}}
        models:
          m: {endpoints: [{provider: one, model: x, weight: "${C}", timeouts: {idle: "${D}"}}]}
        """,
        environ,
    )
    assert len(found) == 7
    assert "hush" not in "\n".join(found)


def test_missing_credential_files(tmp_path: Path) -> None:
    there = tmp_path / "sa.json"
    there.write_text("{}")
    config = read(
        dedent(f"""\
        providers:
          a: {{type: vertex, credentials: {{service_account_file: {there}}}}}
          b: {{type: vertex, credentials: {{service_account_file: gone.json}}}}
          c: {{type: vertex, credentials: {{adc: true}}}}
        models:
          m: {{endpoints: [{{provider: a, model: x}}]}}
        """)
    )
    assert [str(problem) for problem in missing_files(config, {"GOOGLE_APPLICATION_CREDENTIALS": "adc.json"})] == [
        "c.yaml:3: providers.b.credentials.service_account_file: the file gone.json is not there",
        "c.yaml:4: providers.c.credentials.adc: the file adc.json of GOOGLE_APPLICATION_CREDENTIALS is not there",
    ]
    assert len(missing_files(config, {})) == 1
