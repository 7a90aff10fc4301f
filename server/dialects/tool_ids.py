"""Tool names and call ids that a provider would refuse, rewritten for it."""

from __future__ import annotations

import hashlib
import re
import string

#: The limit of Bedrock and of most others; Anthropic documents none for ids.
MAX_LENGTH = 64
_DIGEST_LENGTH = 8


def fit(text: str, forbidden: re.Pattern[str]) -> str:
    """`text` where it is not empty, holds nothing `forbidden` and has at most MAX_LENGTH characters.

    Otherwise a similar text that ends in a digest of `text`: the same in every request, so that calls and results
    match and prompts can be cached, and different for different texts. `forbidden` matches single characters, `_`
    and hexadecimal digits not among them.
    """
    fitted = forbidden.sub("_", text)
    if fitted == text and 0 < len(text) <= MAX_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{fitted[: MAX_LENGTH - _DIGEST_LENGTH - 1]}_{digest}"


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
