"""What `up` prints: every call in it can be pasted."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from server.launcher.preflight import GeneratedKey, prepare
from server.launcher.welcome import reachable, welcome

URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        (URL, URL),
        ("http://0.0.0.0:8080", URL),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("http://192.0.2.7:8080", "http://192.0.2.7:8080"),
        ("http://gateway.example:8080", "http://gateway.example:8080"),
        ("http://[2001:db8::]:8080", "http://[2001:db8::]:8080"),
    ],
)
def test_every_printed_address_can_be_opened(url: str, opened: str) -> None:
    assert reachable(url) == opened
    text = welcome(url, model="m", key=None, key_file=None)
    first = text.splitlines()[0]
    assert first.split()[:4] == ["lmchat", "ready", "on", opened]
    assert ("other addresses" in first) is (url != opened)
    assert "0.0.0.0" not in text
    assert "[::]" not in text
    assert text.count(opened) == 4


@pytest.mark.parametrize(("key", "shown"), [("sk-lmchat-new", 1), (None, 0)])
def test_a_key_is_printed_once_when_it_is_new(key: str | None, shown: int, tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "api-key"
    text = welcome(URL, model="m", key=key, key_file=file)
    assert text.count("sk-lmchat-new") == shown
    assert str(file) in text.splitlines()[2 + shown]


def test_pasted_calls_read_the_key_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "api-key"
    file.parent.mkdir()
    file.write_text("sk-lmchat-kept\n")
    lines = welcome(URL, model="m", key=None, key_file=file).splitlines()
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    curl = bin_dir / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    curl.chmod(0o755)
    begin = next(i for i, line in enumerate(lines) if line.startswith("curl "))
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines[begin : begin + 3])],
        env={"PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Authorization: Bearer sk-lmchat-kept" in done.stdout.splitlines()
    (client,) = (line for line in lines if line.startswith("client = "))
    expression = client.partition("api_key=")[2].removesuffix(")")
    assert eval(expression, {"Path": Path}) == "sk-lmchat-kept"


def test_configured_keys_are_read_from_the_environment() -> None:
    text = welcome(URL, model="m", key=None, key_file=None)
    assert 'Bearer $LMCHAT_API_KEY"' in text
    assert 'api_key=os.environ["LMCHAT_API_KEY"]' in text
    assert "api-key" not in text


@pytest.mark.parametrize(("model", "explained"), [("local/smollm2", False), ("groq/MODEL", True)])
def test_every_call_names_the_model(model: str, explained: bool) -> None:
    text = welcome(URL, model=model, key=None, key_file=None)
    assert text.count(f'"{model}"') == 2
    assert f"-m {model} " in text
    assert ("for MODEL" in text) is explained


def test_a_key_is_new_once(tmp_path: Path) -> None:
    def key() -> GeneratedKey | None:
        _, key = prepare(
            host="127.0.0.1",
            port=0,
            state_dir=tmp_path,
            make_key=True,
            local=False,
            file=None,
            path=os.environ["PATH"],
        )
        return key

    first, second = key(), key()
    assert first is not None
    assert second == replace(first, is_new=False)
    assert first.is_new
    assert first.file == tmp_path / "api-key"
    assert first.file.read_text().strip() == first.key
