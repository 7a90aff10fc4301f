"""What `lmchat up` prints once it serves: the address, the key, and three calls to paste."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def welcome(url: str, *, key: str | None, key_file: Path, local_model: bool) -> str:
    """The text, with `url` as the gateway's own.

    `key` is the generated one, which `key_file` keeps; None where keys are configured. `local_model`: whether the
    embedded model is there to be called.
    """
    if key:
        shown, python_key, imports = key, f'"{key}"', ""
        notes = f"API key: {key}\nIt is kept in {key_file}.\n"
    else:
        shown, python_key, imports = "$LMCHAT_API_KEY", 'os.environ["LMCHAT_API_KEY"]', "import os\n"
        notes = "Set LMCHAT_API_KEY to one of the configured keys to paste these calls.\n"
    model = "local/smollm2"
    if not local_model:
        model = "MODEL"
        notes += "Put one of `lmchat models` for MODEL.\n"
    program = Path(sys.executable).with_name("lmchat")
    lmchat = shlex.quote(str(program)) if program.exists() else "lmchat"
    called = reachable(url)
    return f"""\
lmchat ready on {url}

{notes}
With curl (add "stream": true and -N to see it come):

curl {called}/api/v1/chat/completions \\
  -H "Authorization: Bearer {shown}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

With the OpenAI SDK, in Python:

{imports}from openai import OpenAI
client = OpenAI(base_url="{called}/api/v1", api_key={python_key})
messages = [{{"role": "user", "content": "What is the capital of France?"}}]
print(client.chat.completions.create(model="{model}", messages=messages).choices[0].message.content)

Over gRPC:

LMCHAT_API_KEY="{shown}" {lmchat} chat --url {called} -m {model} "What is the capital of France?"
"""


def reachable(url: str) -> str:
    """The same URL for callers on this machine: a wildcard address is replaced by loopback's."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
