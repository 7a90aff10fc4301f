"""Halves of surrogate pairs in JSON text.

Text that was cut in the middle of a character has one; JavaScript writes it as an escape that is no character.
"""

from __future__ import annotations

import re

#: An escape in JSON text: group 1 is a lone half of a surrogate pair; a whole pair matches without group 1.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


def with_whole_pairs(text: str) -> str:
    """JSON `text` with U+FFFD for escaped halves of surrogate pairs, as the Unicode standard recommends.

    https://www.unicode.org/versions/latest/core-spec/chapter-3/
    """
    return _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
