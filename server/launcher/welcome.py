"""What `lmchat up` prints once it serves: the address, where the key is, and three calls to paste."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

_WILDCARD_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
"""An address that means all of a machine's, and the loopback address that a caller on it connects to."""


def welcome(url: str, *, model: str, key: str | None, key_file: Path | None) -> str:
    """The text. The calls name `model`, in which MODEL stands for any model of a vendor.

    `key_file` keeps the generated key; None where keys are configured. `key` is that key where it was made just
    now: only then is it printed, and the calls always read the file.
    """
    called = reachable(url)
    everywhere = "" if called == url else " (and on this machine's other addresses)"
    if key_file is None:
        shell_key, python_key, imports = "$LMCHAT_API_KEY", 'os.environ["LMCHAT_API_KEY"]', "import os\n"
        notes = "Set LMCHAT_API_KEY to one of the configured keys to paste these calls.\n"
    else:
        shell_key = f"$(cat {shlex.quote(str(key_file))})"
        python_key, imports = f"Path({str(key_file)!r}).read_text().strip()", "from pathlib import Path\n"
        notes = f"API key: {key}\nIt is kept in {key_file}.\n" if key else f"The API key is in {key_file}.\n"
    if "MODEL" in model:
        notes += f"Put the name of a model for MODEL in {model}; `lmchat models` lists what is served.\n"
    program = Path(sys.executable).with_name("lmchat")
    lmchat = shlex.quote(str(program)) if program.exists() else "lmchat"
    return f"""\
lmchat ready on {called}{everywhere}

{notes}
With curl (add "stream": true and -N to see it come):

curl {called}/api/v1/chat/completions \\
  -H "Authorization: Bearer {shell_key}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

With the OpenAI SDK, in Python:

{imports}from openai import OpenAI
client = OpenAI(base_url="{called}/api/v1", api_key={python_key})
messages = [{{"role": "user", "content": "What is the capital of France?"}}]
print(client.chat.completions.create(model="{model}", messages=messages).choices[0].message.content)

Over gRPC:

LMCHAT_API_KEY="{shell_key}" {lmchat} chat --url {called} -m {model} "What is the capital of France?"
"""


def reachable(url: str) -> str:
    """The same URL for callers on this machine: a wildcard address is replaced by loopback's."""
    parts = urlsplit(url)
    loopback = _WILDCARD_ADDRESSES.get(parts.hostname or "")
    return f"{parts.scheme}://{loopback}:{parts.port}" if loopback else url
