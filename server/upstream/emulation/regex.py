"""Regular expressions from callers' schemas, matched in time linear in the text. Pure.

Python's own matcher backtracks: `(a+)+$` on thirty characters would block every
call of a worker for minutes. RE2 (https://github.com/google/re2/wiki/Syntax) does
not, and therefore has no look-around and no back-references, like the providers'
own structured outputs. A pattern of JSON Schema has the meaning of ECMA-262
(https://tc39.es/ecma262/#sec-patterns); it is translated to RE2's syntax where the two differ:

    ECMA-262                          RE2
    .                                 excludes \\r, U+2028 and U+2029 too
    \\s \\S                             Unicode's spaces too
    [] [^]                            nothing, anything
    [ within a class                  escaped: RE2 knows [[:alpha:]]
    \\b within a class                 \\x08
    \\uXXXX \\u{X} \\cX                  \\x{X}
    (?=a) (?!a) (?<=a) \\1 \\k<a> \\p{L}  refused, as are flags: (?i)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import re2

#: Instructions of one compiled pattern. A repetition repeats its instructions, and `.` has some 20 of them.
MAX_SIZE = 25_000
#: Characters of a pattern.
MAX_LENGTH = 8192
#: Compiled patterns that are kept.
CACHE_SIZE = 128
#: Bytes that RE2 may use for one pattern. Below what a search needs it uses a slower, still linear matcher.
_MAX_MEMORY = 2**20

_SPACE = r"\t\n\v\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
_NO_SPACE = (
    r"\x00-\x08\x0e-\x1f!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}"
    r"\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}"
)
_ANY = r"[^\n\r\x{2028}\x{2029}]"
#: Escapes outside of classes, and within: what RE2 calls them.
_ESCAPES = {char: rf"\{char}" for char in "dDwWbBtnvfrA"}
_ESCAPES |= {"s": f"[{_SPACE}]", "S": f"[{_NO_SPACE}]", "Z": r"\z"}
_CLASS_ESCAPES = {char: rf"\{char}" for char in "dDwWtnvfr"}
_CLASS_ESCAPES |= {"s": _SPACE, "S": _NO_SPACE, "b": r"\x08"}

_TOKEN = re.compile(
    r"""
      \\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})
    | \\(?:u(?P<four>[0-9a-fA-F]{4})|u\{0*(?P<braced>[0-9a-fA-F]{1,6})\}|x(?P<two>[0-9a-fA-F]{2}))
    | \\c(?P<control>[A-Za-z])
    | \\(?P<zero>0)(?![0-9])
    | \\(?P<reference>[1-9k])
    | \\(?P<property>[pP])
    | \\(?P<escaped>.)
    | (?P<group>\(\?(?:[^:<P]|P?<[=!]|P[^<]))
    | (?P<class>\[\^?\]?)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class PatternError(ValueError):
    """A pattern that is invalid, or cannot be matched in linear time; the message says which."""


class Pattern:
    """A compiled pattern. The time of a search is at most in proportion to `size` times the bytes of the text."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_LENGTH:
            raise PatternError(f"is too large: more than {MAX_LENGTH} characters")
        options = re2.Options()
        options.max_mem = _MAX_MEMORY
        options.never_capture = True
        options.log_errors = False
        try:
            self._compiled = re2.compile(translated(pattern), options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace")
            if "too large" in reason or "repetition size" in reason:
                raise PatternError(f"is too large: {reason}") from None
            raise PatternError(f"is not understood: {reason}") from None
        except UnicodeEncodeError:
            raise PatternError("is not understood: half of a surrogate pair") from None
        self.size: int = self._compiled.programsize
        if self.size > MAX_SIZE:
            raise PatternError(f"is too large: {self.size} instructions of at most {MAX_SIZE}")

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in `text`."""
        try:
            return self._compiled.search(text) is not None
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and RE2 does not know
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return self._compiled.search(whole) is not None


@lru_cache(CACHE_SIZE)
def compiled(pattern: str) -> Pattern:
    """`pattern`, ready to search. Raises PatternError."""
    return Pattern(pattern)


def translated(pattern: str) -> str:
    """`pattern` in RE2's syntax. Raises PatternError for what RE2 cannot do; RE2 itself finds other errors."""
    return "".join(_translated(pattern))


def _translated(pattern: str) -> Iterator[str]:
    in_class = False
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token[0]
        if kind == "low":
            yield _char(0x10000 + ((int(token["high"], 16) & 0x3FF) << 10) + (int(token["low"], 16) & 0x3FF))
        elif kind in ("four", "braced", "two"):
            yield _char(int(token[kind], 16))
        elif kind == "control":
            yield _char(ord(token["control"]) & 31)
        elif kind == "zero":
            yield _char(0)
        elif kind == "escaped":
            yield _escape(token["escaped"], in_class)
        elif kind == "property":
            raise PatternError(r"uses \p")
        elif in_class:
            in_class = not text.endswith("]")
            yield text.replace("[", r"\[")
        elif kind == "reference":
            raise PatternError("uses look-around or back-references")
        elif kind == "group":
            if text[-1] in "=!":
                raise PatternError("uses look-around or back-references")
            raise PatternError(f"uses {text}, flags or the like")
        elif kind == "class":
            in_class = not text.endswith("]")
            yield {"[]": r"[^\x00-\x{10ffff}]", "[^]": r"[\x00-\x{10ffff}]"}.get(text, text)
        elif text == ".":
            yield _ANY
        else:
            yield text


def _char(code: int) -> str:
    if 0xD800 <= code < 0xE000:
        raise PatternError("is not understood: half of a surrogate pair")
    return rf"\x{{{code:x}}}"


def _escape(char: str, in_class: bool) -> str:
    known = (_CLASS_ESCAPES if in_class else _ESCAPES).get(char)
    if known is not None:
        return known
    if char.isalnum() and char.isascii():
        raise PatternError(f"is not understood: the escape \\{char}")
    return rf"\{char}" if char.isascii() and char.isprintable() else char
