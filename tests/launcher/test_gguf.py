"""Which chat templates of a GGUF file take tools."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.launcher import gguf

STRING, ARRAY, UINT32 = 8, 9, 4


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def header(**templates: str) -> bytes:
    """A GGUF file without tensors: other keys of each kind, and the templates."""
    values = [
        string("general.architecture") + struct.pack("<I", STRING) + string("llama"),
        string("llama.block_count") + struct.pack("<II", UINT32, 30),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, 2) + string("a") + string("tools"),
        string("tokenizer.ggml.scores") + struct.pack("<IIQff", ARRAY, 6, 2, 0.0, 1.0),
        *(string(key) + struct.pack("<I", STRING) + string(value) for key, value in templates.items()),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(values)


def write(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{%- if tools %}x{% endif %}", True),
        ("{% for tool in tools -%}{{ tool | tojson }}{% endfor %}", True),
        ("{{- tools | tojson }}", True),
        ("{% if not builtin_tools and tools is not none %}", True),
        ("{% if messages[0]['role'] == 'system' %}\n{% set x = 1 %}{%- if custom and tools %}{% endif %}", True),
        ("", False),
        ("tools {% for message in messages %}You have no tools.{{ message.content }}{% endfor %}", False),
        ("{% if message.tools %}{% endif %}{{ builtin_tools }}{{ tools_in_user_message }}", False),
        ("{{ 'tools' }}{% if role == \"tools\" %}{% endif %}", False),
        ("{% for call in message.tool_calls %}{{ call.name }}{% endfor %}", False),
    ],
)
def test_takes_tools(template: str, expected: bool, tmp_path: Path) -> None:
    file = write(tmp_path, header(**{"tokenizer.chat_template": template}))
    assert gguf.chat_templates(file) == {"tokenizer.chat_template": template}
    assert gguf.takes_tools(file) is expected


def test_a_template_for_tools_beside_the_default_one(tmp_path: Path) -> None:
    templates = {"tokenizer.chat_template": "{{ messages }}", "tokenizer.chat_template.tool_use": "{{ tools }}"}
    assert gguf.takes_tools(write(tmp_path, header(**templates)))


def test_a_file_without_a_template_takes_none(tmp_path: Path) -> None:
    assert not gguf.takes_tools(write(tmp_path, header()))


@given(st.data())
def test_broken_headers(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bytes are read, or refused with an error that says so."""
    whole = bytearray(header(**{"tokenizer.chat_template": "{{ tools }}"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(4, len(whole))) :]
    file = write(tmp_path_factory.mktemp("gguf"), bytes(whole))
    with suppress(gguf.GGUFError):
        gguf.takes_tools(file)
