"""Converts a JSON object to a protobuf message with a table of setters, one per key.

A setter takes the message and the JSON value, and raises InvalidRequest for an invalid value. The path of the
field is built while the error propagates, so that valid requests do not pay for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message as Proto

from server.chat import limits
from server.errors import InvalidRequest

Setter = Callable[[Any, Any], object]
Fields = Mapping[str, Setter]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

#: Returned by a setter for a value that is to be kept with the unknown fields.
KEEP = object()

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


def decode(data: bytes | str) -> Any:
    """JSON as Python values. Raises msgspec.DecodeError, or UnicodeDecodeError for what is not UTF-8.

    JSON beyond the limits of an answer, see `limits.check_json`, is a DecodeError too.
    """
    if len(data) > limits.UNCHECKED_BYTES:
        try:
            limits.check_json(data.encode() if isinstance(data, str) else data)
        except limits.TooMuchJsonError as error:
            raise msgspec.DecodeError(f"JSON has {error}") from None
    try:
        return _decode(data)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None


def encode_text(value: Any) -> str:
    """`value` as compact JSON text; keys keep their order."""
    try:
        return _encode(value).decode()
    except RecursionError:
        raise InvalidRequest("Nested too deeply.") from None


def load(text: str) -> dict[str, Any]:
    """The JSON object in a `*_json` field."""
    obj: dict[str, Any] = decode(text)
    return obj


def merge_extra(out: dict[str, Any], extra_json: str) -> None:
    """Add the fields of an `extra_json`; known fields win."""
    for key, value in load(extra_json).items():
        out.setdefault(key, value)


def joined_extra(one: str, other: str) -> str:
    """Two `extra_json` as one; of fields that both have, those of `other`, unless they are null there."""
    if not one or not other or one == other:
        return one or other
    fields = load(one)
    fields |= {key: value for key, value in load(other).items() if value is not None or key not in fields}
    return encode_text(fields)


def with_extra(out: dict[str, Any], extra_json: str) -> dict[str, Any]:
    """`out` with the fields kept in an `extra_json`, if there are any."""
    if extra_json:
        merge_extra(out, extra_json)
    return out


def kind(value: Any) -> str:
    """The JSON kind of a decoded value, for people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: dict[Any, str] = {str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def wrong_type(expected: str, value: Any) -> InvalidRequest:
    """The error for a value of the wrong kind; its path is added by `at`."""
    return InvalidRequest(f"Expected {expected}, got {kind(value)}.")


def at(error: InvalidRequest, segment: str | int) -> InvalidRequest:
    """Prefix the path of `error` with a key or an array index."""
    head = f"[{segment}]" if isinstance(segment, int) else limits.echoed(segment)
    rest = error.param or ""
    error.param = head + (rest if not rest or rest.startswith("[") else f".{rest}")
    return error


def fill(msg: Any, obj: Any, fields: Fields, extra: str | None = "extra_json", *, skip: str | None = None) -> None:
    """Set every field of `msg` from a JSON object.

    null is absence. Unknown keys are kept in the field named `extra`; where that
    is None they are an error. `skip` is a key that the caller has handled.
    """
    if obj.__class__ is not dict:
        raise wrong_type("an object", obj)
    rest: dict[str, Any] | None = None
    for key, value in obj.items():
        setter = fields.get(key)
        if setter is not None:
            if value is not None:
                try:
                    kept = setter(msg, value)
                except InvalidRequest as error:
                    raise at(error, key) from None
                if kept is KEEP:
                    rest = rest if rest is not None else {}
                    rest[key] = value
        elif key != skip:
            rest = rest if rest is not None else {}
            rest[key] = value
    if rest is None:
        return
    if extra is None:
        raise unknown(next(iter(rest)), fields)
    limits.check_unknown(len(rest))
    setattr(msg, extra, encode_text(rest))


def unknown(key: str, known: Mapping[str, Any]) -> InvalidRequest:
    """The error for an unknown key, with the most similar known one."""
    shown = limits.echoed(key)  # comparing longer ones would take time in proportion to the square
    near = difflib.get_close_matches(shown, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."
    return InvalidRequest(f"Unknown field {shown!r}.{hint}", shown)


def text(name: str) -> Setter:
    """A string."""

    def set_text(msg: Any, value: Any) -> None:
        if value.__class__ is not str:
            raise wrong_type("a string", value)
        setattr(msg, name, value)

    return set_text


def required_text(name: str) -> Setter:
    """A string that is not empty."""

    def set_text(msg: Any, value: Any) -> None:
        if value.__class__ is not str:
            raise wrong_type("a string", value)
        if not value:
            raise InvalidRequest("Must not be empty.")
        setattr(msg, name, value)

    return set_text


def boolean(name: str) -> Setter:
    """true or false."""

    def set_boolean(msg: Any, value: Any) -> None:
        if value.__class__ is not bool:
            raise wrong_type("a boolean", value)
        setattr(msg, name, value)

    return set_boolean


def as_number(value: Any, low: float, high: float) -> float:
    """`value` as a number within bounds."""
    if value.__class__ is not float and value.__class__ is not int:
        raise wrong_type("a number", value)
    if not low <= value <= high:
        raise InvalidRequest(f"Must be between {low:g} and {high:g}, got {_shown(value)}.")
    return float(value)


def _shown(value: float) -> str:
    """A number for a message, unless it is an integer of a thousand digits."""
    return f"{value}" if value.__class__ is float or abs(value) < 10**20 else "far too many digits"


def number(name: str, low: float, high: float) -> Setter:
    """A number within bounds, both included."""

    def set_number(msg: Any, value: Any) -> None:
        setattr(msg, name, as_number(value, low, high))

    return set_number


def integer(name: str, low: int, high: int) -> Setter:
    """A whole number within bounds, both included; 5.0 is one, as JSON Schema has it."""

    def set_integer(msg: Any, value: Any) -> None:
        if value.__class__ is float and value.is_integer():
            value = int(value)
        if value.__class__ is not int:
            raise wrong_type("an integer", value)
        if not low <= value <= high:
            bound = f"at least {low}" if value < low else f"at most {high}"
            raise InvalidRequest(f"Must be {bound}, got {_shown(value)}.")
        setattr(msg, name, value)

    return set_integer


def enum(name: str, values: Mapping[str, int]) -> Setter:
    """A value of a closed enum."""

    def set_enum(msg: Any, value: Any) -> None:
        if value.__class__ is not str:
            raise wrong_type("a string", value)
        code = values.get(value)
        if code is None:
            raise InvalidRequest(f"Must be one of {', '.join(values)}; got {value[:40]!r}.")
        setattr(msg, name, code)

    return set_enum


def open_enum(name: str, values: Mapping[str, int]) -> Setter:
    """A value of an open enum; vendors' own values are kept with the unknown fields."""
    set_known = enum(name, values)

    def set_enum(msg: Any, value: Any) -> object:
        if value.__class__ is str and value not in values and 0 < len(value) <= limits.MAX_WORD:
            return KEEP
        return set_known(msg, value)

    return set_enum


def json_text(name: str) -> Setter:
    """A JSON object, kept as text."""

    def set_json(msg: Any, value: Any) -> None:
        if value.__class__ is not dict:
            raise wrong_type("an object", value)
        setattr(msg, name, encode_text(value))

    return set_json


def message(name: str, fields: Fields, extra: str | None = "extra_json") -> Setter:
    """A nested object."""

    def set_message(msg: Any, value: Any) -> None:
        nested: Proto = getattr(msg, name)
        nested.SetInParent()
        fill(nested, value, fields, extra)

    return set_message


def each(name: str, set_item: Callable[[Any, Any], None], most: int = limits.MAX_PARTS) -> Setter:
    """An array of at most `most` objects; `set_item` fills one added message."""

    def set_each(msg: Any, value: Any) -> None:
        if value.__class__ is not list:
            raise wrong_type("an array", value)
        limits.check_length(len(value), most)
        add = getattr(msg, name).add
        for index, item in enumerate(value):
            try:
                set_item(add(), item)
            except InvalidRequest as error:
                raise at(error, index) from None

    return set_each


def texts(name: str, most: int = limits.MAX_NAMES, what: str = "items") -> Setter:
    """An array of at most `most` strings."""

    def set_texts(msg: Any, value: Any) -> None:
        if value.__class__ is not list:
            raise wrong_type("an array", value)
        limits.check_length(len(value), most, what=what)
        for index, item in enumerate(value):
            if item.__class__ is not str:
                raise at(wrong_type("a string", item), index)
        getattr(msg, name).extend(value)

    return set_texts


def names(enum_type: Any, prefix: str) -> dict[str, int]:
    """JSON string -> number of a protobuf enum: ROLE_USER with the prefix ROLE_ is `user`."""
    return {
        word.removeprefix(prefix).lower(): code
        for word, code in enum_type.items()
        if not word.endswith("_UNSPECIFIED")
    }


def words(values: Mapping[str, int]) -> dict[int, str]:
    """The inverse mapping: enum number -> JSON string."""
    return {code: word for word, code in values.items()}
