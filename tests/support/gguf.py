"""GGUF files with templates of the tests' own, and a conversation in which the embedded model calls a tool."""

from __future__ import annotations

import json
import struct
from typing import Any

#: A template that has tools, in the form that Hermes and Qwen use.
TOOL_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\nYou may call these functions:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nReturn each call as\\n<tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def with_template(gguf: bytes, template: str) -> bytes:
    """A GGUF file with another chat template, lengthened by a comment so that the tensors stay aligned.

    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    string, alignment, comment = 8, 32, "{##}"
    key = b"tokenizer.chat_template" + struct.pack("<I", string)
    at = gguf.index(key) + len(key)
    (length,) = struct.unpack_from("<Q", gguf, at)
    template += f"{{#{' ' * ((length - len(template + comment)) % alignment)}#}}"
    return gguf[:at] + struct.pack("<Q", len(template)) + template.encode() + gguf[at + 8 + length :]


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome", "London"]}},
            "required": ["city"],
        },
    },
}


def weather_conversation() -> list[dict[str, Any]]:
    """Two questions that were answered with a call, and a third: at temperature 0 the model does it again."""
    messages: list[dict[str, Any]] = []
    for id_, city, weather in (("c1", "Rome", "Sunny"), ("c2", "London", "Rain")):
        call = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        messages += [
            {"role": "user", "content": f"weather in {city}"},
            {"role": "assistant", "tool_calls": [{"id": id_, "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": id_, "content": weather},
            {"role": "assistant", "content": weather},
        ]
    return [*messages, {"role": "user", "content": "weather in Paris"}]
