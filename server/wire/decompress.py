"""Incremental decompression of response bodies: gzip and deflate."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx

#: Bytes of one decompressed piece.
PIECE_SIZE = 256 * 1024
#: Decompressed bytes of one body, however it is read: deflate can expand its input a thousandfold.
MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024
#: Compressed parts, one after the other, that may form one body. Each costs time, though it may hold nothing.
MAX_MEMBERS = 1000


class Decompressor:
    """Decompresses one body. `encoding` is `gzip` or `deflate`."""

    def __init__(self, encoding: bytes) -> None:
        self._deflate = encoding == b"deflate"
        self._decoder: zlib._Decompress | None = None
        self._left = MAX_DECOMPRESSED_BYTES
        self._members = 0

    @classmethod
    def of(cls, encoding: bytes) -> Decompressor | None:
        """One for that `content-encoding`, if it is one that requests ask for."""
        encoding = encoding.strip().lower()
        return cls(encoding) if encoding in (b"gzip", b"x-gzip", b"deflate") else None

    @property
    def complete(self) -> bool:
        """Whether the bytes so far, if there were any, are a whole compressed body."""
        return self._decoder is None or self._decoder.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """`data` decompressed, in pieces. Raises httpx.ReadError: for corrupt data, or past the limit."""
        try:
            while data:
                if self._decoder is None or self._decoder.eof:
                    self._decoder = zlib.decompressobj(self._format(data))
                    self._members += 1
                    if self._members > MAX_MEMBERS:
                        raise httpx.ReadError(f"The compressed response has more than {MAX_MEMBERS} parts.")
                piece = self._decoder.decompress(data, PIECE_SIZE)
                self._left -= len(piece)
                if self._left < 0:
                    raise httpx.ReadError(f"The response is larger than {MAX_DECOMPRESSED_BYTES} bytes.")
                if piece:
                    yield piece
                data = self._decoder.unconsumed_tail or self._decoder.unused_data
        except zlib.error as error:
            raise httpx.ReadError(f"The compressed response cannot be read: {error}") from None

    def _format(self, data: bytes) -> int:
        """zlib's number for the format. Some servers omit the header that `deflate` has (RFC 9110, 8.4.1.2)."""
        if not self._deflate:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 15 == 8 else -zlib.MAX_WBITS
