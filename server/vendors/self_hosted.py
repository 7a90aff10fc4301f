"""Rows of servers that operators run themselves, at the port they listen on by default.

None but the embedded model is part of the default catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.dialects.base import EmbeddedModel, Vendor
from server.dialects.openai.platform import OpenAIPlatform
from server.vendors.compatible import CHECKED, IMAGES, JSON_SCHEMA, TEXT, compatible

_LLAMA_SERVER = "https://github.com/ggml-org/llama.cpp/tree/master/tools/server"

#: llama.cpp continues a last assistant turn by itself, but a model that thinks would begin with thinking: a 400.
_LLAMA_PREFILL: Mapping[str, Any] = {
    "prefill": True,
    "prefill_body": {"chat_template_kwargs": {"enable_thinking": False}},
}

#: The variables in which `up` passes the embedded model's address and key to the workers.
_LOCAL_URL: Mapping[str, tuple[str, ...]] = {"base_url": ("LMCHAT_LOCAL_MODEL_URL",)}
_LOCAL_KEY = ("LMCHAT_LOCAL_MODEL_API_KEY",)


def _server(*names: Any, **quirks: Any) -> Vendor:
    """A server whose model sees the names of tools as they are."""
    return compatible(*names, any_tool_name=True, **quirks)


ROWS: tuple[Vendor, ...] = (
    # The embedded model, a small one: right more often at temperature 0, and not trained to call tools. The model
    # of a file has its own template and sampling.
    _server(
        "local",
        env=_LOCAL_KEY,
        source=_LLAMA_SERVER,
        checked=CHECKED,
        required=_LOCAL_URL,
        # As many tokens as launcher/local_model.py gives each request.
        embedded=EmbeddedModel(id="local/smollm2", model="smollm2", context_length=4096),
        modalities=TEXT,
        drops=frozenset({"tools"}),
        defaults={"temperature": 0.0},
        with_file=_server(
            "local",
            env=_LOCAL_KEY,
            source=_LLAMA_SERVER,
            required=_LOCAL_URL,
            modalities=TEXT,
            drops_variable="LMCHAT_LOCAL_MODEL_DROPS",
            **_LLAMA_PREFILL,
        ),
        **_LLAMA_PREFILL,
    ),
    # It knows images as data only, not by URL, and reasoning of earlier turns as `reasoning`.
    # https://github.com/ollama/ollama/blob/main/openai/openai.go
    _server(
        "ollama",
        "http://localhost:11434/v1",
        source="https://docs.ollama.com/api/openai-compatibility",
        checked=CHECKED,
        reasoning_name="reasoning",
        platforms={"openai": OpenAIPlatform(bytes_only=frozenset({"image_url"}))},
        drops=frozenset({"tool_choice", "logit_bias", "user", "n"}),
        modalities=IMAGES,
    ),
    # It ignores `user` and the detail of images.
    _server(
        "vllm",
        "http://localhost:8000/v1",
        source="https://docs.vllm.ai/en/stable/serving/openai_compatible_server/",
        checked=CHECKED,
        drops=frozenset({"user"}),
        image_details=frozenset[str](),
        prefill=True,
        prefill_body={"continue_final_message": True, "add_generation_prompt": False},
    ),
    _server("llamacpp", "http://localhost:8080/v1", source=_LLAMA_SERVER, checked=CHECKED, **_LLAMA_PREFILL),
    # A 400 for json_object. https://github.com/willmiao/ComfyUI-Lora-Manager/issues/1033
    _server(
        "lmstudio",
        "http://localhost:1234/v1",
        source="https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
        checked=CHECKED,
        response_formats=JSON_SCHEMA,
    ),
    _server(
        "sglang",
        "http://localhost:30000/v1",
        source="https://docs.sglang.ai/basic_usage/openai_api_completions.html",
    ),
    # Takes and ignores `n` and `logit_bias`.
    _server(
        "tgi",
        "http://localhost:8080/v1",
        source="https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        checked=CHECKED,
        drops=frozenset({"n", "logit_bias"}),
        modalities=IMAGES,
    ),
    # The token limit goes under the caller's name: either may be what the model behind it knows.
    _server(
        "litellm",
        "http://localhost:4000/v1",
        source="https://docs.litellm.ai/docs/proxy/user_keys",
        token_limit="",
    ),
)
