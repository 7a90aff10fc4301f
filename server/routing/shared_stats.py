"""Statistics of endpoints in memory that the workers of a machine share.

A flat array of records, one an endpoint, found by a hash of its id. Records are
grouped in sets; an endpoint that finds its set full takes the place of the least
recently used. Endpoints of the configuration have one half of the sets, those of
models that callers name through a wildcard the other, so that ever new names
neither grow it nor evict what is configured. Reading takes no lock, because a word
is read whole; changing locks one set, and a process that dies releases its lock.

The alternatives cost more: a database needs one transaction per call; messages between workers need one per call
and worker, and let two workers probe at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

#: Records per set, words per record, bytes per word.
_WAYS, _WORDS, _WORD = 8, 64, 8
#: Room for 8,192 configured and 8,192 other endpoints in 8 MiB, whose pages take memory once they are touched.
_SETS = 1024
_HALF = _SETS * _WAYS * _WORDS
SIZE: Final = 2 * _HALF * _WORD

#: A record begins with its key and the time of its last change. Its values are the words from FIRST_WORD to
FIRST_WORD: Final = 2
#: LAST_WORD. Then comes the endpoint id as text: one byte of length, then the id, truncated to fit.
LAST_WORD: Final = 43
_CHANGED_AT, _NAME = 1, LAST_WORD + 1
_NAME_BYTES = (_WORDS - _NAME) * _WORD - 1

#: Endpoints whose positions are cached.
_MAX_CACHED = 4096
#: Tries for a lock that another process holds; it does so for microseconds unless it is suspended.
_LOCK_TRIES = 200

Record: TypeAlias = "memoryview[float]"
"""The words of one endpoint's record, as floats; all 0 when new."""


class SharedStats:
    """`memory` has SIZE bytes, initially zero. `clock`: seconds, above 0, the same clock in all processes.

    `descriptor` is the file behind shared memory, on which processes lock; None where memory is private.
    """

    def __init__(
        self, memory: mmap.mmap | bytes, clock: Callable[[], float], descriptor: int | None = None
    ) -> None:
        self._memory = memoryview(memory)
        self._floats = memoryview(memory).cast("d")
        self._keys = memoryview(memory).cast("Q")
        self.clock = clock
        self.descriptor = descriptor
        #: The ids that `reserve` was called with.
        self.configured: frozenset[str] = frozenset()
        #: Where records were last found: the place of the key, the key, and the record.
        self._cache: dict[str, tuple[int, int, Record]] = {}

    @classmethod
    def private(cls, clock: Callable[[], float]) -> SharedStats:
        """Statistics of this process alone."""
        return cls(mmap.mmap(-1, SIZE), clock)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float]) -> SharedStats:
        """The statistics in the file at `path`, created if missing with mode 0600. Raises OSError.

        It holds times of `clock`, which starts at 0 when the machine boots. A time in the future was written
        before the last boot: the file is cleared.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, SIZE)
        memory = mmap.mmap(descriptor, SIZE)
        # Read from the file, since every page of the mapping that is touched uses memory.
        before = memoryview(os.pread(descriptor, SIZE, 0)).cast("d")
        if max(before[_CHANGED_AT::_WORDS]) > clock():
            memory[:] = bytes(SIZE)
        return cls(memory, clock, descriptor)

    def reserve(self, endpoint_ids: Iterable[str]) -> None:
        """Set which endpoints are configured; to be called before any other method."""
        self.configured = frozenset(endpoint_ids)
        self._cache.clear()

    def copy(self) -> SharedStats:
        """What is known now, to be read only; its clock stands still."""
        # Not read from a mapping of a file, of which every page touched takes memory.
        memory = bytes(self._memory) if self.descriptor is None else os.pread(self.descriptor, SIZE, 0)
        now = self.clock()
        stats = SharedStats(memory, lambda: now)
        stats.reserve(self.configured)
        return stats

    def find(self, endpoint_id: str) -> Record | None:
        """The record of an endpoint, for reading only; None where there is none."""
        cached = self._cache.get(endpoint_id)
        if cached is not None and self._keys[cached[0]] == cached[1]:
            return cached[2]
        key, places = self.place(endpoint_id)
        keys = self._keys[places.start : places.stop : _WORDS].tolist()
        return self._record(endpoint_id, places[keys.index(key)], key) if key in keys else None

    def change(self, endpoint_id: str) -> Change:
        """A context manager that locks and gives the record of an endpoint, created if missing."""
        return Change(self, endpoint_id)

    def place(self, endpoint_id: str) -> tuple[int, range]:
        """The key, never 0, which is a free record's; and the first words of the records that may have it."""
        return _place(endpoint_id, endpoint_id in self.configured)

    def endpoints(self) -> Iterator[tuple[str, Record, bool]]:
        """Every endpoint with its record, and whether it is configured, in no order.

        An id of more than 159 bytes is cut. Records of an earlier configuration are left out.
        """
        configured_keys = {self.place(endpoint_id)[0] for endpoint_id in self.configured}
        for at in range(0, 2 * _HALF, _WORDS):
            key, configured = self._keys[at], at < _HALF
            if key and (key in configured_keys) == configured:
                start = (at + _NAME) * _WORD
                length = self._memory[start]
                name = bytes(self._memory[start + 1 : start + 1 + length])
                yield name.decode(errors="ignore"), self._floats[at : at + _WORDS], configured

    def create(self, endpoint_id: str) -> Record:
        """A new record for an endpoint that has none; the caller holds the lock."""
        key, places = self.place(endpoint_id)
        at = min(places, key=lambda place: self._floats[place + _CHANGED_AT])
        self._claim(at, key, endpoint_id)
        return self._record(endpoint_id, at, key)

    def _record(self, endpoint_id: str, at: int, key: int) -> Record:
        """The record at `at`, cached."""
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        record = self._floats[at : at + _WORDS]
        self._cache[endpoint_id] = (at, key, record)
        return record

    def _claim(self, at: int, key: int, endpoint_id: str) -> None:
        start = at * _WORD
        self._keys[at] = 0  # readers must not find the record while it is replaced
        name = endpoint_id.encode()[:_NAME_BYTES]
        self._memory[start + _WORD : start + _WORDS * _WORD] = bytes((_WORDS - 1) * _WORD)
        self._memory[start + _NAME * _WORD : start + _NAME * _WORD + 1 + len(name)] = bytes((len(name),)) + name
        self._keys[at] = key


class Change:
    """See `SharedStats.change`. A class, since contextlib's generators are slower than the change itself."""

    __slots__ = ("_endpoint_id", "_lock", "_stats")

    def __init__(self, stats: SharedStats, endpoint_id: str) -> None:
        self._stats = stats
        self._endpoint_id = endpoint_id

    def __enter__(self) -> Record:
        stats = self._stats
        if stats.descriptor is not None:
            self._lock = _lock(stats.descriptor, stats.place(self._endpoint_id)[1].start * _WORD)
        record = stats.find(self._endpoint_id)
        if record is None:
            record = stats.create(self._endpoint_id)
        record[_CHANGED_AT] = stats.clock()
        return record

    def __exit__(self, *exc: object) -> None:
        if self._stats.descriptor is not None and self._lock >= 0:
            fcntl.lockf(self._stats.descriptor, fcntl.LOCK_UN, 1, self._lock)


def _lock(descriptor: int, at: int) -> int:
    """Lock the byte at `at`; returns it, or -1 without a lock where the holder seems suspended.

    A lost update of statistics is harmless; a blocked event loop is not.
    """
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            return at
        except OSError:
            time.sleep(0)  # yields to the holder
    return -1


@lru_cache(_MAX_CACHED)
def _place(endpoint_id: str, configured: bool) -> tuple[int, range]:
    """See `SharedStats.place`."""
    key = int.from_bytes(hashlib.blake2b(endpoint_id.encode(), digest_size=8).digest(), "little") | 1
    first = (key >> 1) % _SETS * _WAYS * _WORDS + (0 if configured else _HALF)
    return key, range(first, first + _WAYS * _WORDS, _WORDS)
