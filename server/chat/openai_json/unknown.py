"""Separates the fields unknown to the contract, so that the rest can be validated, and restores them.

A `Level` has the known keys of an object, and the levels of the objects below it. Separated
fields are stored by the path of their object, of keys and indices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from server.chat import limits
from server.errors import InvalidRequest

T = TypeVar("T")

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


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def decode_extended(body: bytes, struct: type[T], *levels: Level) -> tuple[T | None, Unknown]:
    """A JSON object with unknown fields as `struct`, which forbids them; and these fields.

    `levels` are tried in turn: one that looks for them only where they usually are saves going through everything.
    None instead of the struct where there are no unknown fields. Raises msgspec.DecodeError, UnicodeDecodeError or
    RecursionError, and InvalidRequest for an object with too many unknown fields.
    """
    obj = _decode_object(body)
    unknown: Unknown = []
    for level in levels:
        set_aside(obj, level, unknown)
        if unknown:
            try:
                return msgspec.convert(obj, struct), unknown
            except msgspec.ValidationError:
                if level is levels[-1]:
                    raise
    return None, unknown


def set_aside(obj: dict[str, Any], level: Level, found: Unknown, path: Path = ()) -> None:
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
            set_aside(value, below, found, (*path, key))
        elif value.__class__ is list:
            for index, item in enumerate(value):
                if item.__class__ is dict:
                    set_aside(item, below, found, (*path, key, index))


def _check(count: int, path: Path) -> None:
    try:
        limits.check_unknown(count)
    except InvalidRequest as error:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        error.param = steps.removeprefix(".") or None
        raise


def _is_new(word: Any, known: Collection[str]) -> bool:
    return word.__class__ is str and word not in known and 0 < len(word) <= limits.MAX_WORD


def put_back(obj: dict[str, Any], unknown: Unknown) -> None:
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
