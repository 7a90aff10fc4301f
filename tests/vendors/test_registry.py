"""The vendors' rows: well formed, and consistent with recorded traffic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.config.model import ProviderSettings
from server.dialects.base import Vendor
from server.vendors import table
from server.vendors.registry import PLAIN, VENDORS

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"

FIELDS = frozenset(pb.ChatCompletionRequest.DESCRIPTOR.fields_by_name)
#: OpenAI's name of a content part -> that of a row.
PARTS = {"text": "text", "image_url": "image", "input_audio": "audio", "file": "file"}

ROWS = [pytest.param(vendor, id=vendor.type) for vendor in VENDORS.values()]


def test_types() -> None:
    assert all(type_ == vendor.type for type_, vendor in VENDORS.items())
    assert set(PLAIN) == {vendor.dialect for vendor in VENDORS.values()}
    assert all(dialect == vendor.dialect for dialect, vendor in PLAIN.items())


@pytest.mark.parametrize("vendor", ROWS)
def test_a_row_is_well_formed(vendor: Vendor) -> None:
    assert re.fullmatch(r"[a-z0-9]+", vendor.type)
    assert vendor.dialect in {"openai", "anthropic", "gemini", "bedrock"}
    assert vendor.auth == vendor.auth.lower()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in vendor.env)
    assert vendor.drops <= FIELDS
    assert not vendor.drops & {"model", "messages", "stream_options", "lmchat", "extra_body_json"}
    assert vendor.token_limit in {"", "max_tokens", "max_completion_tokens"}
    assert vendor.token_limit not in vendor.drops
    assert "text" in vendor.response_formats <= {"text", "json_object", "json_schema"}
    assert "text" in vendor.modalities <= set(PARTS.values())
    assert vendor.max_stop >= 1
    assert set(vendor.defaults) <= FIELDS - vendor.drops
    assert urlsplit(vendor.source).scheme == "https"
    assert not vendor.checked or date.fromisoformat(vendor.checked)
    assert vendor.tool_choices <= {"none", "auto", "required", "function"}
    assert "auto" in vendor.tool_choices
    low, high = vendor.temperatures
    assert 0 <= low < high <= 2
    for pattern, fields in vendor.by_model.items():
        re.compile(pattern)
        assert set(fields) <= set(Vendor.__struct_fields__)


def test_the_page_lists_the_rows() -> None:
    """`python -m server.vendors.table` writes it."""
    assert table.PATH.read_text(encoding="utf-8") == table.table()


@pytest.mark.parametrize(
    ("type_", "model", "drops", "takes"),
    [
        ("openai", "gpt-5-mini", {"temperature", "logprobs"}, {"seed"}),
        ("openai", "o3", {"temperature", "presence_penalty"}, set()),
        ("openai", "gpt-5.1", set(), {"temperature", "top_p"}),
        ("openai", "gpt-4o", set(), {"temperature", "logit_bias"}),
        ("xai", "grok-4", {"stop", "presence_penalty"}, {"temperature"}),
        ("xai", "grok-4-fast-non-reasoning", {"logit_bias"}, {"stop", "presence_penalty"}),
        ("moonshot", "kimi-k2.6", {"temperature", "top_p", "presence_penalty"}, {"seed"}),
        ("moonshot", "moonshot-v1-8k", set(), {"temperature", "presence_penalty", "n"}),
    ],
)
def test_what_a_vendor_takes_by_model(type_: str, model: str, drops: set[str], takes: set[str]) -> None:
    row = VENDORS[type_].for_model(model)
    assert drops <= row.drops
    assert not takes & row.drops


@pytest.mark.parametrize("vendor", ROWS)
def test_a_base_url_is_set_or_required(vendor: Vendor) -> None:
    if not vendor.base_url:
        assert "base_url" in vendor.required
        return
    url = urlsplit(vendor.base_url)
    assert (url.scheme, url.hostname) == ("http", "localhost") or url.scheme == "https"
    assert not vendor.base_url.endswith("/")
    for setting in re.findall(r"{(\w+)}", vendor.base_url):
        assert setting in vendor.required
    if vendor.dialect != "openai":
        assert not url.path


@pytest.mark.parametrize("vendor", ROWS)
def test_self_hosted_servers_are_not_in_the_default_catalogue(vendor: Vendor) -> None:
    """A vendor without a base URL has one per account."""
    account = vendor.type in {"azure", "databricks"}
    embedded = vendor.embedded is not None  # with a key that `up` generates
    assert bool(vendor.env) == (vendor.base_url.startswith("https:") or account or embedded)


def test_what_is_required_is_a_setting_with_variables() -> None:
    assert any(vendor.required for vendor in VENDORS.values())
    for vendor in VENDORS.values():
        for name, variables in vendor.required.items():
            assert name in ProviderSettings.__struct_fields__
            assert variables


@pytest.mark.parametrize(
    ("type_", "base_url", "auth", "env"),
    [
        ("openai", "https://api.openai.com/v1", "bearer", "OPENAI_API_KEY"),
        ("azure", "", "api-key", "AZURE_OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com", "x-api-key", "ANTHROPIC_API_KEY"),
        ("gemini", "https://generativelanguage.googleapis.com", "x-goog-api-key", "GEMINI_API_KEY"),
        ("groq", "https://api.groq.com/openai/v1", "bearer", "GROQ_API_KEY"),
        ("mistral", "https://api.mistral.ai/v1", "bearer", "MISTRAL_API_KEY"),
        ("deepseek", "https://api.deepseek.com", "bearer", "DEEPSEEK_API_KEY"),
        ("openrouter", "https://openrouter.ai/api/v1", "bearer", "OPENROUTER_API_KEY"),
        ("perplexity", "https://api.perplexity.ai", "bearer", "PERPLEXITY_API_KEY"),
    ],
)
def test_common_vendors(type_: str, base_url: str, auth: str, env: str) -> None:
    vendor = VENDORS[type_]
    assert (vendor.base_url, vendor.auth, vendor.env[0]) == (base_url, auth, env)


def test_the_embedded_model() -> None:
    local = VENDORS["local"]
    assert local.base_url == ""
    assert local.defaults == {"temperature": 0.0}
    assert local.required == {"base_url": ("LMCHAT_LOCAL_MODEL_URL",)}


def test_vertex_origins() -> None:
    assert all(urlsplit(url).scheme == "https" for url in VENDORS["vertex"].location_urls.values())


# Recorded traffic


def accepted(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """URL and body of the recorded requests that were answered with 200."""
    for path in sorted(RECORDINGS.glob(f"{folder}/*/*.json")):
        recording = json.loads(path.read_text(encoding="utf-8"))
        body = recording["request"].get("body")
        if recording["response"]["status"] == 200 and isinstance(body, dict):
            yield recording["request"]["url"], body


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="../shared/recordings is not there")
@pytest.mark.parametrize(
    "folder", ["openai", "anthropic", "gemini", "deepseek", "mistral", "openrouter", "perplexity"]
)
def test_recordings_went_to_the_base_url(folder: str) -> None:
    urls = [url for url, _ in accepted(folder)]
    assert urls
    assert all(url.startswith(f"{VENDORS[folder].base_url}/") for url in urls)


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="../shared/recordings is not there")
@pytest.mark.parametrize(
    "folder", ["openai", "azure", "deepseek", "mistral", "openrouter", "perplexity", "ollama"]
)
def test_recordings_do_not_contradict_drops(folder: str) -> None:
    vendor = VENDORS[folder]
    for _, body in accepted(folder):
        assert not vendor.drops & body.keys() - {"tool_choice"}  # Ollama takes and ignores it
        kind = body.get("response_format", {}).get("type", "text")
        assert kind in vendor.response_formats
        assert "stream_options" not in body or vendor.stream_usage
        for message in body["messages"]:
            assert message["role"] != "developer" or vendor.developer_role
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                assert PARTS.get(part["type"], "text") in vendor.modalities
