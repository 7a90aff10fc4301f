"""What vendors of the OpenAI dialect take differently: a request, and what of it goes to the vendor."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import openai_json
from server.chat.request import ProtoRequest
from server.dialects.openai.dialect import OpenAITranslator
from server.vendors.registry import VENDORS
from tests.dialects.openai_help import endpoint

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "r"},
]
OPEN_TURN: list[dict[str, Any]] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "{"}]
TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
TWO_TURNS = [
    {"role": "user", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": TEXTS},
    {"role": "user", "content": "e"},
]
SOUND = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]


def sent(
    vendor: str, model: str, *, stream: bool = False, **fields: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for the model of a vendor, and the paths that are named as dropped."""
    row = VENDORS[vendor].for_model(model)
    body = {"messages": [{"role": "user", "content": "q"}], **fields, "model": "m"}
    request = ProtoRequest(openai_json.parse(json.dumps(body).encode()).request)
    known = request.without(row.drops) if row.drops else request
    call = OpenAITranslator().request(known, endpoint(row, model=model), stream=stream)
    return json.loads(call.body), call.dropped


#: Vendor, model, `reasoning_effort`, the fields that say it, whether it is named as dropped.
EFFORTS: list[tuple[str, str, str, dict[str, Any], bool]] = [
    # https://learn.microsoft.com/en-us/javascript/api/@azure/ai-projects/reasoningeffort
    ("openai", "o3", "minimal", {"reasoning_effort": "low"}, False),
    ("openai", "o3", "none", {}, True),
    ("openai", "gpt-5-mini", "minimal", {"reasoning_effort": "minimal"}, False),
    ("openai", "gpt-5", "none", {"reasoning_effort": "minimal"}, False),
    ("openai", "gpt-5-2025-08-07", "xhigh", {"reasoning_effort": "high"}, False),
    # https://github.com/openai/openai-agents-python/issues/2089
    ("openai", "gpt-5.1", "none", {"reasoning_effort": "none"}, False),
    ("openai", "gpt-5.1", "minimal", {"reasoning_effort": "low"}, False),
    ("openai", "gpt-5.2", "xhigh", {"reasoning_effort": "xhigh"}, False),
    ("openai", "gpt-5.4", "high", {"reasoning_effort": "high"}, False),
    # https://github.com/egoist/chatwise-releases/issues/1257
    ("openai", "gpt-5.2-chat-latest", "high", {}, True),
    ("openai", "gpt-5.2-chat-latest", "medium", {"reasoning_effort": "medium"}, False),
    # https://github.com/groq/groq-python/blob/main/src/groq/types/chat/completion_create_params.py
    ("groq", "openai/gpt-oss-120b", "low", {"reasoning_effort": "low"}, False),
    ("groq", "openai/gpt-oss-120b", "xhigh", {"reasoning_effort": "high"}, False),
    ("groq", "openai/gpt-oss-120b", "none", {}, True),
    ("groq", "qwen/qwen3-32b", "none", {"reasoning_effort": "none"}, False),
    ("groq", "qwen/qwen3-32b", "low", {}, True),
    # https://inference-docs.cerebras.ai/capabilities/reasoning
    ("cerebras", "gpt-oss-120b", "medium", {"reasoning_effort": "medium"}, False),
    ("cerebras", "gpt-oss-120b", "none", {}, True),
    ("cerebras", "zai-glm-4.7", "none", {"reasoning_effort": "none"}, False),
    # https://docs.cohere.com/docs/compatibility-api
    ("cohere", "command-a-reasoning-08-2025", "high", {"reasoning_effort": "high"}, False),
    ("cohere", "command-a-reasoning-08-2025", "medium", {}, True),
    # https://api-docs.deepseek.com/guides/thinking_mode
    ("deepseek", "deepseek-v4-pro", "none", {"thinking": {"type": "disabled"}}, False),
    ("deepseek", "deepseek-v4-pro", "xhigh", {"reasoning_effort": "xhigh"}, False),
    # https://docs.x.ai/developers/model-capabilities/text/reasoning
    ("xai", "grok-3-mini", "medium", {"reasoning_effort": "high"}, False),
    ("xai", "grok-4.3", "none", {"reasoning_effort": "none"}, False),
    ("xai", "grok-4.5", "none", {}, True),
    ("xai", "grok-4.6", "xhigh", {"reasoning_effort": "xhigh"}, False),
    # https://docs.z.ai/guides/capabilities/thinking-mode
    ("zai", "glm-4.6", "none", {"thinking": {"type": "disabled"}}, False),
    ("zai", "glm-4.6", "low", {"thinking": {"type": "enabled"}}, False),
    ("zai", "glm-5.2", "low", {"reasoning_effort": "low"}, False),
    ("zai", "glm-5.3", "xhigh", {"reasoning_effort": "max"}, False),
    ("zai", "glm-5.3", "none", {}, True),
    # https://www.alibabacloud.com/help/model-studio/error-code
    ("dashscope", "qwen-plus", "none", {"enable_thinking": False}, False),
    ("dashscope", "qwen-plus", "high", {"enable_thinking": True}, False),
    # https://platform.kimi.ai/docs/api/chat
    ("moonshot", "kimi-k2.6", "none", {"thinking": {"type": "disabled"}}, False),
    ("moonshot", "kimi-k3", "none", {}, True),
    # https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion
    ("novita", "zai-org/glm-4.6", "none", {"enable_thinking": False}, False),
    # https://docs.siliconflow.com/en/api-reference
    ("siliconflow", "Qwen/Qwen3-32B", "none", {"enable_thinking": False}, False),
    # https://github.com/togethercomputer/openapi/blob/main/openapi.yaml
    ("together", "zai-org/GLM-5", "none", {"reasoning": {"enabled": False}}, False),
    ("together", "zai-org/GLM-5", "minimal", {"reasoning_effort": "low"}, False),
]
_EFFORT_FIELDS = ("reasoning_effort", "thinking", "enable_thinking", "reasoning")


@pytest.mark.parametrize(("vendor", "model", "effort", "fields", "dropped"), EFFORTS)
def test_effort(vendor: str, model: str, effort: str, fields: dict[str, Any], dropped: bool) -> None:
    body, paths = sent(vendor, model, stream=True, reasoning_effort=effort)
    assert {name: body[name] for name in _EFFORT_FIELDS if name in body} == fields
    assert ("reasoning_effort" in paths) is dropped


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        # https://platform.openai.com/docs/guides/reasoning
        ("openai", "gpt-4o"),
        ("openai", "gpt-4.1-mini"),
        # https://github.com/iamsrikanthnani/pluely/issues/242
        ("groq", "llama-3.1-8b-instant"),
        ("groq", "meta-llama/llama-4-scout-17b-16e-instruct"),
        # https://github.com/NousResearch/hermes-agent/pull/23435
        ("xai", "grok-3"),
        ("xai", "grok-4-0709"),
        ("xai", "grok-4-1-fast-non-reasoning"),
        ("xai", "grok-4.20-0309-reasoning"),
        ("xai", "grok-code-fast-1"),
    ],
)
def test_models_without_an_effort(vendor: str, model: str) -> None:
    assert "reasoning_effort" in VENDORS[vendor].for_model(model).drops


def test_an_effort_that_the_callers_own_field_contradicts() -> None:
    body, paths = sent("deepseek", "deepseek-v4-pro", reasoning_effort="none", thinking={"type": "enabled"})
    assert body["thinking"] == {"type": "enabled"}
    assert paths == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("vendor", "tier", "goes", "dropped"),
    [
        # https://console.groq.com/docs/service-tiers
        ("groq", "default", "on_demand", False),
        ("groq", "priority", "performance", False),
        ("groq", "flex", "flex", False),
        ("groq", "scale", None, True),
        ("groq", "on_demand", "on_demand", False),
        # https://docs.fireworks.ai/guides/serverless-quotas
        ("fireworks", "default", None, False),
        ("fireworks", "priority", "priority", False),
        ("fireworks", "flex", None, True),
        ("openai", "flex", "flex", False),
    ],
)
def test_service_tier(vendor: str, tier: str, goes: str | None, dropped: bool) -> None:
    body, paths = sent(vendor, "m", service_tier=tier)
    assert body.get("service_tier") == goes
    assert ("service_tier" in paths) is dropped


#: Vendor, model, the request, and what of the body the vendor gets; None is absence. With the source.
REQUESTS: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    # https://github.com/mistralai/client-python/blob/main/docs/models/chatcompletionrequest.md
    ("the seed's other name", "mistral", "mistral-small", {"seed": 7}, {"random_seed": 7, "seed": None}),
    (
        "a function without parameters",
        "mistral",
        "mistral-small",
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
            ]
        },
    ),
    (
        "an open turn",
        "mistral",
        "mistral-small",
        {"messages": OPEN_TURN},
        {"messages": [OPEN_TURN[0], {**OPEN_TURN[1], "prefix": True}]},
    ),
    # https://platform.kimi.ai/docs/guide/use-partial-mode-feature-of-kimi-api
    (
        "an open turn",
        "moonshot",
        "moonshot-v1-8k",
        {"messages": OPEN_TURN},
        {"messages": [OPEN_TURN[0], {**OPEN_TURN[1], "partial": True}]},
    ),
    # https://github.com/Lapis0x0/obsidian-yolo/pull/243
    (
        "calls without reasoning",
        "moonshot",
        "kimi-k2.5",
        {"messages": HISTORY},
        {"messages": [HISTORY[0], {**HISTORY[1], "reasoning_content": ""}, HISTORY[2]]},
    ),
    (
        "calls of a model that does not think",
        "moonshot",
        "moonshot-v1-8k",
        {"messages": HISTORY},
        {"messages": HISTORY},
    ),
    # https://api-docs.deepseek.com/guides/thinking_mode
    (
        "calls without reasoning",
        "deepseek",
        "deepseek-v4-flash",
        {"messages": HISTORY},
        {"messages": [HISTORY[0], {**HISTORY[1], "reasoning_content": ""}, HISTORY[2]]},
    ),
    # https://inference-docs.cerebras.ai/capabilities/reasoning
    (
        "reasoning under its name",
        "cerebras",
        "gpt-oss-120b",
        {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "r"}]},
        {"messages": [{"role": "assistant", "content": "a", "reasoning": "r"}]},
    ),
    # https://github.com/BerriAI/litellm/issues/2226
    (
        "turns that alternate",
        "perplexity",
        "sonar",
        {"messages": TWO_TURNS},
        {
            "messages": [
                {"role": "user", "content": "a\n\nb"},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": [*TEXTS, {"type": "text", "text": "e"}]},
            ]
        },
    ),
    # https://github.com/zai-org/z-ai-sdk-python/blob/main/src/zai/api_resource/chat/completions.py
    ("the user's other name", "zai", "glm-4.6", {"user": "user-12345"}, {"user_id": "user-12345", "user": None}),
    # https://github.com/BerriAI/litellm/blob/main/litellm/llms/sambanova/chat.py
    (
        "content as one text",
        "sambanova",
        "Meta-Llama-3.3-70B-Instruct",
        {"messages": [{"role": "user", "content": TEXTS}]},
        {"messages": [{"role": "user", "content": "a\nb"}]},
    ),
    # https://help.aliyun.com/en/model-studio/qwen-omni
    (
        "sound as a data URL",
        "dashscope",
        "qwen3-omni-flash",
        {"messages": SOUND},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "data:;base64,AAAA", "format": "wav"}}
                    ],
                }
            ]
        },
    ),
]


@pytest.mark.parametrize(
    ("vendor", "model", "fields", "expected"),
    [row[1:] for row in REQUESTS],
    ids=[f"{row[1]}-{row[0]}" for row in REQUESTS],
)
def test_requests(vendor: str, model: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body, paths = sent(vendor, model, **fields)
    assert {name: body.get(name) for name in expected} == expected
    assert paths == ()


@pytest.mark.parametrize(
    ("model", "stream", "fields", "thinking", "streamed"),
    [
        # https://github.com/QuantumNous/new-api/pull/1109
        ("qwen3-32b", False, {}, False, False),
        ("qwen3-235b-a22b", False, {}, False, False),
        ("qwen3-32b", True, {}, None, False),
        ("qwen3-32b", False, {"enable_thinking": True}, True, True),
        ("qwen3-32b", False, {"reasoning_effort": "high"}, True, True),
        ("qwen3-235b-a22b-instruct-2507", False, {}, None, False),
        # https://github.com/langgenius/dify-official-plugins/pull/2626
        ("qwen3-235b-a22b-thinking-2507", False, {}, None, True),
        ("qwq-plus", False, {}, None, True),
        ("qwen-plus", False, {}, None, False),
        ("qwen3.5-plus", False, {}, None, False),
        ("qwen3-max", False, {}, None, False),
    ],
)
def test_thinking_at_dashscope(
    model: str, stream: bool, fields: dict[str, Any], thinking: bool | None, streamed: bool
) -> None:
    row = VENDORS["dashscope"].for_model(model)
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], **fields}
    request = ProtoRequest(openai_json.parse(json.dumps(body).encode()).request)
    call = OpenAITranslator().request(request, endpoint(row, model=model), stream=stream)
    out = json.loads(call.body)
    assert out.get("enable_thinking") is thinking
    assert call.streamed is streamed
    assert out.get("stream", False) is (stream or streamed)
    assert ("stream_options" in out) is streamed


@pytest.mark.parametrize("user", ["a", "abcde"])
def test_a_user_that_is_too_short(user: str) -> None:
    body, _ = sent("zai", "glm-4.6", user=user)
    assert len(body["user_id"]) == 64


@pytest.mark.parametrize(
    ("model", "formats", "tools"),
    [
        # https://github.com/pydantic/pydantic-ai/blob/main/pydantic_ai_slim/pydantic_ai/providers/snowflake.py
        ("claude-4-sonnet", {"text", "json_schema"}, True),
        ("openai-gpt-4.1", {"text", "json_object", "json_schema"}, True),
        ("llama3.1-70b", {"text"}, False),
    ],
)
def test_snowflake_by_model(model: str, formats: set[str], tools: bool) -> None:
    row = VENDORS["snowflake"].for_model(model)
    assert row.response_formats == formats
    assert ("tools" not in row.drops) is tools


@pytest.mark.parametrize(
    ("vendor", "image", "goes", "dropped"),
    [
        # https://github.com/togethercomputer/openapi/blob/main/openapi.yaml
        ("together", {"url": "https://x.example/a.png"}, {"url": "https://x.example/a.png"}, False),
        (
            "together",
            {"url": "https://x.example/a.png", "detail": "auto"},
            {"url": "https://x.example/a.png"},
            False,
        ),
        (
            "together",
            {"url": "https://x.example/a.png", "detail": "low"},
            {"url": "https://x.example/a.png"},
            True,
        ),
        # https://docs.vllm.ai/en/stable/serving/openai_compatible_server/
        ("vllm", {"url": "https://x.example/a.png", "detail": "high"}, {"url": "https://x.example/a.png"}, True),
    ],
)
def test_images_without_detail(vendor: str, image: dict[str, Any], goes: dict[str, Any], dropped: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]
    body, paths = sent(vendor, "m", messages=messages)
    assert body["messages"][0]["content"][0]["image_url"] == goes
    assert bool(paths) is dropped


@pytest.mark.parametrize(
    ("vendor", "field", "goes"),
    [
        # https://github.com/sipeed/picoclaw/issues/1019
        ("nvidia", "prompt_cache_key", False),
        ("groq", "safety_identifier", False),
        ("cohere", "prompt_cache_key", False),
        # https://github.com/mistralai/client-python/blob/main/docs/models/chatcompletionrequest.md
        ("mistral", "prompt_cache_key", True),
        ("mistral", "safety_identifier", False),
        ("openai", "prompt_cache_key", True),
        ("openrouter", "prompt_cache_key", True),
        ("groq", "of_a_vendor", True),
    ],
)
def test_fields_of_requests(vendor: str, field: str, goes: bool) -> None:
    fields: dict[str, Any] = {field: "x"}
    body, paths = sent(vendor, "m", **fields)
    assert (field in body) is goes
    assert (field in paths) is not goes


@pytest.mark.parametrize(
    ("model", "dropped"),
    [
        # https://github.com/leonardovida/duckdb-ai/issues/85
        ("databricks-claude-opus-5", True),
        ("databricks-claude-opus-4-7", True),
        ("databricks-claude-sonnet-4-5", False),
        ("databricks-claude-3-7-sonnet", False),
        ("databricks-meta-llama-3-3-70b-instruct", False),
    ],
)
def test_sampling_at_databricks(model: str, dropped: bool) -> None:
    assert ("temperature" in VENDORS["databricks"].for_model(model).drops) is dropped


@pytest.mark.parametrize(
    ("model", "effort", "goes"),
    [
        # https://github.com/pipecat-ai/pipecat/issues/4043
        ("gpt-5.4", "low", None),
        ("gpt-5.4", "none", "none"),
        ("gpt-5.2", "low", "low"),
        ("gpt-5", "low", "low"),
    ],
)
def test_an_effort_beside_tools(model: str, effort: str, goes: str | None) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body, paths = sent("openai", model, tools=tools, reasoning_effort=effort)
    assert body.get("reasoning_effort") == goes
    assert ("reasoning_effort" in paths) is (goes is None)
