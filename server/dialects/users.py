"""`user` for providers: an opaque id, never what identifies a person elsewhere."""

from __future__ import annotations

import hashlib
import re

_EMAIL = re.compile(r"[^\s@]@[^\s@]")
#: A telephone number: a plus sign, or digits in groups, 8 to 15 of them (https://www.itu.int/rec/T-REC-E.164).
_PHONE = re.compile(r"\+[\d ().-]+|\(\d[\d ().-]+|\d{2,5}([ .-]\d{2,5}){2,}", re.ASCII)
_DIGIT = re.compile(r"\d", re.ASCII)


def opaque_user(user: str, max_length: int, min_length: int = 0) -> str:
    """`user`, or its SHA-256 where it is an e-mail address, a telephone number, too short or too long.

    A `max_length` of 0 is no limit.

    OpenAI and Anthropic require ids that identify no person: names and e-mail addresses are to be hashed.
    https://platform.openai.com/docs/guides/safety-best-practices  https://docs.claude.com/en/api/messages
    """
    if len(user) < min_length or (max_length and len(user) > max_length) or _EMAIL.search(user) or _is_phone(user):
        return hashlib.sha256(user.encode()).hexdigest()
    return user


def _is_phone(user: str) -> bool:
    return _PHONE.fullmatch(user) is not None and 8 <= len(_DIGIT.findall(user)) <= 15
