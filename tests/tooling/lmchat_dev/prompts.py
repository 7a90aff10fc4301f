"""`uv run prompts`: what the embedded model answers to 30 fixed prompts, and which completions are sensible.

Asks the embedded model with its defaults, as a first caller would. `--save FILE` keeps the completions as JSON,
`--against FILE` prints such earlier ones beside the new, to judge a change of sampling, template or system prompt.
Exit code 1 where fewer completions are sensible than in the earlier ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import yaml

from server.launcher.local_model import KEY_VARIABLE

PROMPTS = Path(__file__).resolve().parents[2] / "launcher" / "prompts.yaml"
START_TIMEOUT = 60.0  # seconds until the model is loaded
TIMEOUT = 300.0  # seconds of one completion
MAX_TOKENS = 120  # of a completion; one that has more is none that a caller waits for
SHOWN = 60  # characters of a completion in the table


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt, the pattern that a sensible completion matches, and the most words that it has."""

    prompt: str
    expect: str
    words: int = 40

    def accepts(self, completion: str) -> bool:
        """Whether the completion is sensible."""
        return re.search(self.expect, completion, re.IGNORECASE) is not None and (
            len(completion.split()) <= self.words
        )


def read(path: Path = PROMPTS) -> list[Prompt]:
    """The prompts of a file. Raises msgspec.ValidationError where it is malformed."""
    return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), list[Prompt])


def complete(prompt: str, client: httpx.Client, seed: int = 1) -> str:
    """The embedded model's completion with its defaults but for the seed; empty where it did not end by itself."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "seed": seed}
    response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    (choice,) = response.json()["choices"]
    return str(choice["message"]["content"]).strip() if choice["finish_reason"] == "stop" else ""


def table(prompts: list[Prompt], after: Mapping[str, str], before: Mapping[str, str] | None) -> str:
    """A Markdown table of the completions, with how many are sensible in its last line."""
    columns = [("completion", after)] if before is None else [("before", before), ("after", after)]
    heads = ["prompt", *(name for name, _ in columns)]
    lines = [heads, ["---"] * len(heads)]
    lines += [[p.prompt, *(_cell(p, column.get(p.prompt, "")) for _, column in columns)] for p in prompts]
    lines.append(["sensible", *(f"{sensible(prompts, column)} of {len(prompts)}" for _, column in columns)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def sensible(prompts: list[Prompt], completions: Mapping[str, str]) -> int:
    """How many of the prompts have a sensible completion."""
    return sum(prompt.accepts(completions.get(prompt.prompt, "")) for prompt in prompts)


def _cell(prompt: Prompt, completion: str) -> str:
    text = " ".join(completion.split()).replace("|", "\\|") or "(no end)"
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"{'+' if prompt.accepts(completion) else '-'} {shown}"


@contextmanager
def model() -> Iterator[httpx.Client]:
    """The embedded model, started for as long as the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "server.launcher.local_model", "--port", str(port)]
    key = secrets.token_urlsafe()
    with subprocess.Popen(command, env={**os.environ, KEY_VARIABLE: key}) as process:
        try:
            # The server closes connections that it promised to keep.
            headers = {"connection": "close", "authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False) as client:
                _wait_until_ready(client, process)
                yield client
        finally:
            process.terminate()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < START_TIMEOUT:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit("the embedded model did not start")


def main() -> None:
    """Run the prompts and print the table."""
    parser = argparse.ArgumentParser(
        prog="prompts", description="the embedded model's answers to 30 fixed prompts"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the completions as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="earlier completions to print beside the new")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args()
    prompts = read()
    before = json.loads(options.against.read_text(encoding="utf-8")) if options.against else None
    with model() as client:
        after = {prompt.prompt: complete(prompt.prompt, client, options.seed) for prompt in prompts}
    if options.save:
        options.save.write_text(json.dumps(after, indent=1, ensure_ascii=False), encoding="utf-8")
    sys.stdout.write(table(prompts, after, before))
    raise SystemExit(before is not None and sensible(prompts, after) < sensible(prompts, before))
