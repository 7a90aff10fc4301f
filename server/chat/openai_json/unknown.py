"""Separates the fields unknown to the contract, so that the rest can be validated, and restores them.

A `Level` has the known keys of an object, and the levels of the objects below it. Separated
fields are stored by the path of their object, of keys and indices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from server.chat import limits
from server.errors import InvalidRequest

_T = TypeVar("_T", bound=msgspec.Struct)

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

Path = tuple[str | int, ...]
Unknown = list[tuple[Path, dict[str, Any]]]
"""The unknown fields of each object that has some, by the object's path; the outermost objects first."""


class Level(NamedTuple):
    """One kind of object: the keys the contract knows, and the levels of objects (or lists of them) below it."""

    known: frozenset[str]
    below: Mapping[str, Level] = {}
    #: Values of `type` for which the keys are known; objects of other types are not changed. Empty for any.
    types: tuple[str, ...] = ()
    #: Keys of open enums -> the values known to the contract.
    open: Mapping[str, Collection[str]] = {}

    @classmethod
    def of(cls, struct: type[msgspec.Struct], *more: str, **below: Level) -> Level:
        """The level whose known keys are the fields of `struct`, and `more`."""
        return cls(frozenset({*struct.__struct_fields__, *more}), below)


class KnownDecoder(Generic[_T]):
    """Decodes JSON to structs that forbid unknown fields, after separating the fields unknown to a level.

    `levels` are tried in turn: one that has unknown fields only where they are usual saves searching all objects.
    """

    def __init__(self, struct: type[_T], *levels: Level) -> None:
        self._struct = struct
        self._levels = levels
        self._decode = msgspec.json.Decoder(struct).decode

    def decode(self, body: bytes) -> tuple[_T, Unknown] | None:
        """The struct and the unknown fields; None where `body` is not JSON, or a known field has another form.

        Raises InvalidRequest for an object with too many unknown fields.
        """
        try:
            try:
                return self._decode(body), []
            except msgspec.ValidationError:  # the object may have unknown fields
                return self._decode_extended(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _decode_extended(self, body: bytes) -> tuple[_T, Unknown] | None:
        obj = _decode_object(body)
        unknown: Unknown = []
        for level in self._levels:
            separate_unknown(obj, level, unknown)
            if unknown:
                try:
                    return msgspec.convert(obj, self._struct), unknown
                except msgspec.ValidationError:
                    continue
        return None


def separate_unknown(obj: dict[str, Any], level: Level, found: Unknown, path: Path = ()) -> None:
    """Move the keys of `obj` that `level` does not know to `found`, and so for the objects below it.

    Raises InvalidRequest for an object with too many of them.
    """
    if level.types and obj.get("type", level.types[0]) not in level.types:
        return
    unknown = [] if obj.keys() <= level.known else [key for key in obj if key not in level.known]
    if level.open:
        unknown += [key for key, words in level.open.items() if _is_new(obj.get(key), words)]
    if unknown:
        _check(len(unknown), path)
        found.append((path, {key: obj.pop(key) for key in unknown}))
    for key, below in level.below.items():
        value = obj.get(key)
        if value.__class__ is dict:
            separate_unknown(value, below, found, (*path, key))
        elif value.__class__ is list:
            for index, item in enumerate(value):
                if item.__class__ is dict:
                    separate_unknown(item, below, found, (*path, key, index))


def _check(count: int, path: Path) -> None:
    try:
        limits.check_unknown(count)
    except InvalidRequest as error:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        error.param = steps.removeprefix(".") or None
        raise


def _is_new(word: Any, known: Collection[str]) -> bool:
    return word.__class__ is str and word not in known and 0 < len(word) <= limits.MAX_WORD


def restore_unknown(obj: dict[str, Any], unknown: Unknown) -> None:
    """Restore the separated fields to their objects; existing fields win."""
    for path, fields in unknown:
        target: Any = obj
        for step in path:
            target = target[step]
        for key, value in fields.items():
            target.setdefault(key, value)


def fields_at(unknown: Unknown, path: Path) -> Mapping[str, Any]:
    """The unknown fields of the object at `path`."""
    return next((fields for where, fields in unknown if where == path), {})
