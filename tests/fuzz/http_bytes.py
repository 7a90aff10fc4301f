"""Responses of providers as bytes of HTTP/1.1: they are read, or end in a transport error, whatever they are."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random

import httpx

from tests.fuzz import mutate, seeds
from tests.wire.test_exchange import answer

_INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


def generate(rng: Random) -> list[bytes]:
    """The pieces of a mutated response."""
    pool = _responses()
    return mutate.split(mutate.mutate_bytes(rng.choice(pool), rng, pool), rng)


@cache
def _responses() -> list[bytes]:
    """Golden answers in every framing there is."""
    found = []
    for answers in seeds.answers().values():
        body = json.dumps(answers.whole[0]).encode()
        packed = gzip.compress(body, mtime=0)
        half = len(body) // 2
        found += [
            _head(f"content-length: {len(body)}") + body,
            _INTERIM + _head("transfer-encoding: chunked", "trailer: x-a") + _chunked(body[:half], body[half:]),
            _head("connection: close") + body,
            _head("content-encoding: gzip", f"content-length: {len(packed)}") + packed,
            _head("content-encoding: gzip", "transfer-encoding: chunked") + _chunked(packed),
        ]
    return found


def _head(*headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", "content-type: application/json", *headers, "", "")).encode()


def _chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nx-a: b\r\n\r\n"


@contextmanager
def checker() -> Iterator[Callable[[list[bytes]], None]]:
    """The check of one response."""
    with asyncio.Runner() as runner:
        yield lambda pieces: runner.run(check(pieces))


async def check(pieces: list[bytes]) -> None:
    """A response, however its bytes are split, is the same: status, headers and body; or a transport error."""
    _, whole = await answer(b"".join(pieces), end=True)
    call, found = await answer(*pieces, end=True)
    assert call.pooled.state, "the connection is pooled or closed"
    if isinstance(whole, httpx.TransportError):
        assert isinstance(found, httpx.TransportError)
    else:
        assert found == whole, "any split gives the same response"
