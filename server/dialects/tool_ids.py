"""Tool names and call ids that a provider would refuse, rewritten for it."""

from __future__ import annotations

import hashlib
import re
import string
from typing import Any

#: The limit of Bedrock and of most others; Anthropic documents none for ids.
MAX_LENGTH = 64
_DIGEST_LENGTH = 8


def fit(text: str, forbidden: re.Pattern[str], max_length: int = MAX_LENGTH) -> str:
    """`text` where it is not empty, holds nothing `forbidden` and has at most `max_length` characters.

    Otherwise a similar text that ends in a digest of `text`: the same in every request, so that calls and results
    match and prompts can be cached, and different for different texts. `forbidden` matches single characters, `_`
    and hexadecimal digits not among them.
    """
    fitted = forbidden.sub("_", text)
    if fitted == text and 0 < len(text) <= max_length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{fitted[: max_length - _DIGEST_LENGTH - 1]}_{digest}"


#: What OpenAI, Anthropic and other vendors refuse in the names of tools.
#: https://platform.openai.com/docs/api-reference/chat/create  https://platform.claude.com/docs/en/api/messages
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


class FittedNames:
    """Names of tools, rewritten where the provider would refuse them; the same in every request.

    `originals`: rewritten name -> the caller's.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self.originals: dict[str, str] = {}
        self._max_length = max_length

    def fit(self, holder: Any) -> None:
        """Rewrite the `name` of an object of the request, in place; anything else is left as it is."""
        name = holder.get("name") if isinstance(holder, dict) else None
        if isinstance(name, str):
            fitted = fit(name, _NOT_IN_NAMES, self._max_length)
            if fitted != name:
                holder["name"] = fitted
                self.originals[fitted] = name


_ALPHANUMERIC = string.digits + string.ascii_letters


def exact(text: str, length: int) -> str:
    """`text` where it is exactly `length` ASCII letters and digits, else a digest of it that is."""
    if len(text) == length and text.isascii() and text.isalnum():
        return text
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHANUMERIC))
        digits.append(_ALPHANUMERIC[digit])
    return "".join(digits)
