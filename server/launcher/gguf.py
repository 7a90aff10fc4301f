"""The chat templates in a GGUF file, and whether they take tools.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a header of keys and typed values comes before the
tensors, and is all that is read here.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

_TEMPLATE = "tokenizer.chat_template"

#: Types of values: type -> bytes of one; strings and arrays have a length of their own.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9

#: A statement or expression of Jinja that reads the variable `tools`, which is how templates get them.
_READS_TOOLS = re.compile(r"\{[{%](?:(?![%}]\}).)*?(?<![\w.'\"])tools\b", re.DOTALL)


class GGUFError(Exception):
    """The file is no GGUF file, or is broken. One line."""


def takes_tools(file: Path) -> bool:
    """Whether a chat template of `file` has a place for tools. Where none has, llama.cpp ignores tools silently.

    Raises OSError and GGUFError.
    """
    return any(_READS_TOOLS.search(template) for template in chat_templates(file).values())


def chat_templates(file: Path) -> dict[str, str]:
    """Every chat template of the file, by its key; may be none. Raises OSError and GGUFError."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise GGUFError(f"{file} is not a GGUF file")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return dict(_Header(data).templates())
            except (struct.error, KeyError, UnicodeDecodeError, OverflowError, RecursionError):
                raise GGUFError(f"the header of {file} is broken") from None


class _Header:
    """Reads keys and values in order. Raises struct.error or OverflowError past the end, KeyError for no type."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(b"GGUF") + 4  # and the version

    def templates(self) -> list[tuple[str, str]]:
        """The templates, each with its key."""
        _, keys = self._numbers("<QQ")
        templates = []
        for _ in range(keys):
            key = self._string()
            (kind,) = self._numbers("<I")
            if key.startswith(_TEMPLATE) and kind == _STRING:
                templates.append((key, self._string()))
            else:
                self._skip(kind)
        return templates

    def _numbers(self, form: str) -> tuple[int, ...]:
        numbers = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return numbers

    def _string(self) -> str:
        (length,) = self._numbers("<Q")
        begin, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise struct.error("past the end")
        return self._data[begin : self._at].decode("utf-8")

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            (length,) = self._numbers("<Q")
            self._at += length
        elif kind == _ARRAY:
            item, count = self._numbers("<IQ")
            if item in _SIZES:
                self._at += _SIZES[item] * count
            else:
                for _ in range(count):
                    self._skip(item)
        else:
            self._at += _SIZES[kind]
