"""Compression taken off a body, as its bytes come."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx

#: Bytes of a piece.
_PIECE = 2**18


class Inflater:
    """Takes compression off a body."""

    def __init__(self, encoding: bytes) -> None:
        self._deflate = encoding == b"deflate"
        self._decoder: zlib._Decompress | None = None

    @classmethod
    def of(cls, encoding: bytes) -> Inflater | None:
        """One for that `content-encoding`, if it is one of those we ask for."""
        encoding = encoding.strip().lower()
        return cls(encoding) if encoding in (b"gzip", b"x-gzip", b"deflate") else None

    @property
    def done(self) -> bool:
        """Whether what came so far, if anything did, is the whole of it."""
        return self._decoder is None or self._decoder.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for, in pieces, since it may be a thousand times as much. Raises httpx.ReadError."""
        try:
            while data:
                if self._decoder is None or self._decoder.eof:
                    self._decoder = zlib.decompressobj(self._bits(data))
                piece = self._decoder.decompress(data, _PIECE)
                if piece:
                    yield piece
                data = self._decoder.unconsumed_tail or self._decoder.unused_data
        except zlib.error as error:
            raise httpx.ReadError(f"The compressed answer cannot be read: {error}") from None

    def _bits(self, data: bytes) -> int:
        """zlib's name of the format. Some leave out the header that `deflate` has (RFC 9110, 8.4.1.2)."""
        if not self._deflate:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 15 == 8 else -zlib.MAX_WBITS
