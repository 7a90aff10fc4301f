"""Requests in the OpenAI dialect: fields beyond OpenAI's by vendor, and tool call ids."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat import openai_json
from server.chat.request import ChatRequest, ProtoRequest, read
from server.dialects.openai.dialect import OpenAITranslator
from server.dialects.tool_ids import exact
from tests.support.dialects import endpoint_for

CACHE = {"type": "ephemeral"}
CALL = {"id": "call_abcdefghijklmnop", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "long", "cache_control": CACHE}]},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
            "reasoning_content": "Hm.",
            "reasoning": "Hm.",
        },
        {"role": "tool", "tool_call_id": CALL["id"], "content": "r", "cache_control": CACHE},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "x": 1}, "cache_control": CACHE}],
    "of_a_vendor": 1,
}
MARKERS = ["messages[0].content[0].cache_control", "messages[3].cache_control", "tools[0].cache_control"]


def both(body: dict[str, Any]) -> list[ChatRequest]:
    data = json.dumps(body).encode()
    return [read(data), ProtoRequest(openai_json.parse(data).request)]


def sent(vendor: str, body: dict[str, Any], model: str = "m") -> tuple[dict[str, Any], set[str]]:
    """The body for a vendor and the dropped fields; asserts that both representations of the request agree."""
    calls = [
        OpenAITranslator().request(request, endpoint_for(vendor, model), stream=False) for request in both(body)
    ]
    assert calls[0].body == calls[1].body
    assert set(calls[0].dropped) == set(calls[1].dropped)
    return json.loads(calls[0].body), set(calls[0].dropped)


@pytest.mark.parametrize(
    ("vendor", "dropped"),
    [
        ("groq", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content"}),
        ("cerebras", {*MARKERS, "tools[0].function.x"}),
        ("mistral", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("openai", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("azure", {*MARKERS, "tools[0].function.x", "messages[2].reasoning_content", "messages[2].reasoning"}),
        ("deepseek", {*MARKERS, "tools[0].function.x", "messages[2].reasoning"}),
        ("fireworks", {*MARKERS, "tools[0].function.x", "messages[2].reasoning"}),
        ("openrouter", set()),
        ("dashscope", set()),
        ("litellm", set()),
        ("moonshot", set()),
        ("vllm", set()),
        ("llamacpp", set()),
    ],
)
def test_fields_beyond_openais(vendor: str, dropped: set[str]) -> None:
    body, named = sent(vendor, BODY)
    assert named == dropped
    assert ("cache_control" in json.dumps(body)) is not bool(dropped)
    assert body["of_a_vendor"] == 1
    assert body["messages"][0]["content"][0]["text"] == "long"
    assistant = body["messages"][2]
    renamed = vendor == "cerebras"  # goes under `reasoning`
    assert ("reasoning_content" in assistant) is ("messages[2].reasoning_content" not in dropped and not renamed)
    assert ("reasoning" in assistant) is ("messages[2].reasoning" not in dropped)


@pytest.mark.parametrize("vendor", ["groq", "openai", "mistral"])
def test_objects_of_unknown_type_are_unchanged(vendor: str) -> None:
    video = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4", "fps": 1}}
    search = {"type": "web_search_preview", "search_context_size": "low"}
    messages = [{"role": "user", "content": [video]}]
    body, named = sent(vendor, {"model": "m", "messages": messages, "tools": [search]})
    assert (body["messages"], body["tools"], named) == (messages, [search], set())


@pytest.mark.parametrize(
    ("format_", "name"), [("anthropic", "anthropic"), ("gemini", "google"), ("bedrock", "bedrock")]
)
def test_signatures_of_other_dialects(format_: str, name: str) -> None:
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": format_}
    own = {"type": "reasoning.summary", "summary": "Hm."}
    call = {**CALL, "extra_content": {name: {"thought_signature": "s"}}}
    turn = {"role": "assistant", "content": "x", "tool_calls": [call], "reasoning_details": [detail, own]}
    body, named = sent("openrouter", {"model": "m", "messages": [{"role": "user", "content": "hi"}, turn]})
    assert body["messages"][1]["reasoning_details"] == [own]
    assert "extra_content" not in body["messages"][1]["tool_calls"][0]
    assert named == {"messages[1].reasoning_details[0]", "messages[1].tool_calls[0].extra_content"}


@pytest.mark.parametrize("format_", [[None], {}, {"a": 1}, 7, True, None])
def test_a_format_that_is_no_text_is_no_dialect(format_: Any) -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "format": format_}]
    turn = {"role": "assistant", "content": "x", "reasoning_details": details}
    body = {"model": "m", "messages": [BODY["messages"][1], turn]}
    for request in both(body):
        sent = OpenAITranslator().request(request, endpoint_for("openrouter", "m"), stream=False)
        [found] = json.loads(sent.body)["messages"][1]["reasoning_details"]
        assert found.get("format") == format_


def test_mistral_gets_ids_of_nine_letters_and_digits() -> None:
    body, named = sent("mistral", BODY)
    id_ = body["messages"][2]["tool_calls"][0]["id"]
    assert len(id_) == 9
    assert id_.isalnum()
    assert body["messages"][3]["tool_call_id"] == id_
    assert not any("id" in path.rpartition(".")[2].split("_") for path in named)


def test_ids_that_fit_stay() -> None:
    assert exact("D681PevKs", 9) == "D681PevKs"


@given(st.sets(st.text(max_size=40), max_size=20))
def test_ids_stay_distinct(ids: set[str]) -> None:
    fitted = {exact(id_, 9) for id_ in ids}
    assert len(fitted) == len(ids)
    assert all(len(id_) == 9 and id_.isascii() and id_.isalnum() for id_ in fitted)


@pytest.mark.parametrize(
    ("model", "native"),
    [
        ("llama-3.3-70b-versatile", False),
        ("openai/gpt-oss-120b", True),
        ("moonshotai/kimi-k2-instruct-0905", True),
    ],
)
def test_schemas_at_groq_by_model(model: str, native: bool) -> None:
    where = endpoint_for("groq", model)
    assert ("json_schema" not in where.emulates) is native


# Names, details, users, temperatures


@pytest.mark.parametrize("vendor", ["groq", "mistral"])
def test_names_of_participants_where_they_are_refused(vendor: str) -> None:
    """https://console.groq.com/docs/openai  https://github.com/Gage-Technologies/mistral-go/pull/2"""
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [
        {"role": "system", "name": "s", "content": "be brief"},
        {"role": "user", "name": "ann", "content": "hi"},
        {"role": "assistant", "name": "bot", "content": "yes?", "tool_calls": [CALL]},
        {"role": "tool", "name": "f", "tool_call_id": CALL["id"], "content": "r"},
        {"role": "user", "name": "bob", "content": [picture, {"type": "text", "text": "what is it?"}]},
        {"role": "user", "name": "cid", "content": [picture]},
    ]
    body, named = sent(vendor, {"model": "m", "messages": messages})
    turns = body["messages"]
    assert turns[1]["content"] == "ann: hi"
    assert turns[4]["content"][1]["text"] == "bob: what is it?"
    assert turns[5]["content"][1]["text"] == "(from cid)"
    assert [turn.get("name") for turn in turns] == [None, None, None, "f", None, None]
    assert named == {"messages[0].name", "messages[2].name"}


@pytest.mark.parametrize("vendor", ["openai", "azure", "openrouter", "vllm", "deepseek"])
def test_names_of_participants_where_they_are_taken(vendor: str) -> None:
    messages = [{"role": "user", "name": "ann", "content": "hi"}]
    body, named = sent(vendor, {"model": "m", "messages": messages})
    assert (body["messages"], named) == (messages, set())


@pytest.mark.parametrize(
    ("vendor", "detail", "goes"),
    [
        ("openai", "original", "original"),
        ("openrouter", "original", "original"),
        ("groq", "original", None),
        ("groq", "low", "low"),
        ("mistral", "original", None),
    ],
)
def test_image_detail(vendor: str, detail: str, goes: str | None) -> None:
    image = {"url": "https://example.com/a.png", "detail": detail}
    part = {"type": "image_url", "image_url": image}
    body, named = sent(vendor, {"model": "m", "messages": [{"role": "user", "content": [part]}]})
    assert body["messages"][0]["content"][0]["image_url"].get("detail") == goes
    assert named == (set() if goes else {"messages[0].content[0].image_url.detail"})


@pytest.mark.parametrize(
    ("vendor", "user", "hashed"),
    [
        ("openai", "ann@example.com", True),
        ("openai", "Ann <ann@example.com>", True),
        ("openai", "+49 170 1234567", True),
        ("openai", "(555) 123-4567", True),
        ("openai", "555-123-4567", True),
        ("openai", "u" * 65, True),
        ("openai", "u" * 64, False),
        ("openai", "user-1234567890", False),
        ("openai", "1234567890", False),
        ("openai", "7d444840-9dc0-11d1-b245-5ffdce74fad2", False),
        ("openai", "tenant/42", False),
        ("together", "ann@example.com", True),
        ("together", "u" * 65, False),
    ],
)
def test_users(vendor: str, user: str, hashed: bool) -> None:
    """https://platform.openai.com/docs/guides/safety-best-practices"""
    body, named = sent(vendor, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": user})
    assert body["user"] == (hashlib.sha256(user.encode()).hexdigest() if hashed else user)
    assert named == set()


@pytest.mark.parametrize(
    ("vendor", "temperature", "goes"),
    [
        ("openai", 1.8, 1.8),
        ("mistral", 1.8, 1.5),
        ("cerebras", 1.8, 1.5),
        ("zai", 1.8, 1.0),
        ("zai", 0.3, 0.3),
        ("minimax", 0, 0.01),
        ("cohere", 1.2, 1.0),
    ],
)
def test_temperatures(vendor: str, temperature: float, goes: float) -> None:
    body, _ = sent(
        vendor, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": temperature}
    )
    assert body["temperature"] == pytest.approx(goes)


# Tools

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("f", "g")
]
NAMED = {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    ("vendor", "model", "choice", "goes", "tools", "dropped"),
    [
        ("openai", "m", NAMED, NAMED, 2, False),
        ("groq", "m", "required", "required", 2, False),
        # https://github.com/vectorize-io/hindsight/issues/4246
        ("zai", "m", "auto", "auto", 2, False),
        ("zai", "m", "required", None, 2, True),
        ("zai", "m", NAMED, None, 2, True),
        ("zai", "m", "none", None, 0, False),
        # https://github.com/UKGovernmentBEIS/inspect_ai/pull/5152
        ("moonshot", "kimi-k2.6", "required", None, 2, True),
        ("moonshot", "kimi-k2.6", "none", "none", 2, False),
        ("moonshot", "kimi-k3", "required", "required", 2, False),
        ("moonshot", "kimi-k3", NAMED, "required", 1, False),
        ("dashscope", "m", NAMED, NAMED, 2, False),
        ("dashscope", "m", "required", None, 2, True),
        ("cohere", "m", NAMED, "required", 1, False),
    ],
)
def test_tool_choice(vendor: str, model: str, choice: Any, goes: Any, tools: int, dropped: bool) -> None:
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": TOOLS,
        "tool_choice": choice,
    }
    body, named = sent(vendor, request, model)
    assert body.get("tool_choice") == goes
    assert len(body.get("tools", [])) == tools
    assert named == ({"tool_choice"} if dropped else set())


@pytest.mark.parametrize(
    ("vendor", "strict", "goes", "dropped"),
    [
        ("openai", [True, None], [True, None], set()),
        # https://github.com/mpfaffenberger/code_puppy/pull/368
        ("cerebras", [True, True], [True, True], set()),
        ("cerebras", [True, None], [None, None], {"tools[0].function.strict"}),
        # https://github.com/OpenRouterTeam/openrouter-examples/issues/71
        ("cohere", [True, True], [None, None], {"tools[0].function.strict", "tools[1].function.strict"}),
        # https://github.com/tidyverse/ellmer/issues/548
        ("databricks", [None, True], [None, None], {"tools[1].function.strict"}),
    ],
)
def test_strict_tools(vendor: str, strict: list[Any], goes: list[Any], dropped: set[str]) -> None:
    tools = [
        {"type": "function", "function": tool["function"] | ({"strict": True} if wanted else {})}
        for tool, wanted in zip(TOOLS, strict, strict=True)
    ]
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    body, named = sent(vendor, request)
    assert [tool["function"].get("strict") for tool in body["tools"]] == goes
    assert named == dropped


# Vendors' extensions are passed on


@pytest.mark.parametrize(
    ("vendor", "fields"),
    [
        # https://openrouter.ai/docs/features/provider-routing
        ("openrouter", {"provider": {"order": ["a"]}, "reasoning": {"max_tokens": 9}, "models": ["b"]}),
        # https://help.aliyun.com/en/model-studio/deep-thinking
        ("dashscope", {"enable_thinking": True, "thinking_budget": 9, "top_k": 5}),
        # https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
        ("vllm", {"top_k": 5, "min_p": 0.1, "guided_json": {"type": "object"}, "repetition_penalty": 1.1}),
        # https://console.groq.com/docs/reasoning
        ("groq", {"reasoning_format": "parsed", "include_reasoning": False}),
        ("moonshot", {"thinking": {"type": "disabled"}, "prompt_cache_key": "k"}),
        ("minimax", {"reasoning_split": True}),
        ("perplexity", {"search_domain_filter": ["a.org"], "return_images": True}),
        ("mistral", {"random_seed": 7, "safe_prompt": True}),
        ("xai", {"search_parameters": {"mode": "auto"}}),
        ("vercel", {"providerOptions": {"gateway": {"order": ["a"]}}}),
    ],
)
def test_extensions_are_passed_on(vendor: str, fields: dict[str, Any]) -> None:
    body, named = sent(vendor, {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})
    assert {name: body.get(name) for name in fields} == fields
    assert named == set()


def test_databricks_and_accounts_in_addresses() -> None:
    """https://docs.databricks.com/aws/en/machine-learning/model-serving/score-foundation-models"""
    hosts = {
        "databricks": "https://x.cloud.databricks.com/serving-endpoints/chat/completions",
        "cloudflare": "https://api.cloudflare.com/client/v4/accounts/abc/ai/v1/chat/completions",
        "snowflake": "https://abc.snowflakecomputing.com/api/v2/cortex/v1/chat/completions",
    }
    for vendor, url in hosts.items():
        (request, *_) = both({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        assert OpenAITranslator().request(request, endpoint_for(vendor, "m"), stream=False).url == url
