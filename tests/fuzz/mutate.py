"""Mutators: a valid input in, a damaged one out. All draw from the `random.Random` they get and nothing else.

`mutate_bytes` damages bytes, `mutate_json` a JSON tree, `mutate_message` a protobuf message; `write_json` writes a
mutated tree, `split` cuts bytes into the pieces of a stream.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

#: Stands for a deeply nested value in a mutated tree; `write_json` puts the nesting in its place.
NESTED = "\x00nested\x00"
_NESTED_TOKEN = json.dumps(NESTED).encode()
#: Levels of nested values: below and above the limits of parsers, and of Python's stack.
_DEPTHS = (3, 60, 101, 400, 1_100, 5_000)

#: Integers and floats at the limits of the types that they are converted to.
NUMBERS: Sequence[int | float] = (
    0, 1, -1, 127, 128, 129, 255, 256, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**53 + 1,
    2**63 - 1, 2**63,
    -(2**63), -(2**63) - 1, 2**64, 2**70, 10**40, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e15, 1e308, -1e308, 2.0**63,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
#: Texts that are parsed further, or that encoders often fail on.
TEXTS: Sequence[str] = (
    "", " ", "\x00", "\n", "\r\n\r\n", "null", "{}", "[]", "{", '{"a":', "7", '{"a":1}', '{"a":[[]]}',
    "NaN", "ä€🌍",
    "\ud800", "\udfff", "\ud83d", "�", "\u2028", "x" * 300, "漢" * 1_000, "user", "assistant", "tool",
    "function", "text", "image_url", "stop", "data:", "data:;base64,", "data:image/png;base64,AA=",
    "http://[", "file:///etc",
    "data:image/png;base64,\x00", "https://example.com/a.png", "gs://b/a.png", "s3://b/a.png",
    "../../x", "%ff", "a.b[0]",
    "-1", "1e999", "1.5", "12.5s", "Thu, 01 Jan 1970 00:00:00 GMT", "reasoning.text",
    "reasoning.encrypted", "ephemeral",
)  # fmt: skip
#: Pieces of JSON that are inserted into bytes.
_FRAGMENTS: Sequence[bytes] = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"true", b"{}", b"[]", b'""',
    b'{"":0}', b"[null]", b"\n",
    b"\r\n", b"\n\n", b"data: ", b"data:", b"event: error\n", b"data: [DONE]\n\n",
    b"\xef\xbb\xbf", b"\\u0000", b"\\ud800",
)  # fmt: skip
#: Bytes that are no UTF-8: lone continuations, cut and overlong sequences, encoded surrogates, beyond U+10FFFF.
_INVALID_UTF8: Sequence[bytes] = (
    b"\x80", b"\xff", b"\xfe", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x8c", b"\xc0\xaf",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
)  # fmt: skip


# Bytes


def _flip(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _truncate(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 8, 64))]


def _duplicate(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 8, 64, 512))]
    place = rng.choice((start, rng.randrange(len(data))))
    data[place:place] = piece * rng.choice((1, 1, 3))


def _splice(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other) + 1) :]


def _insert_structure(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(_FRAGMENTS)


def _insert_number(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    place = rng.choice(digits) if digits else rng.randrange(len(data))
    data[place : place + 1] = json.dumps(rng.choice(NUMBERS)).encode()


def _insert_nesting(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = nesting(rng)


def _insert_invalid_utf8(data: bytearray, rng: Random, pool: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(_INVALID_UTF8)


ByteMutator = Callable[[bytearray, Random, Sequence[bytes]], None]
BYTE_MUTATORS: Sequence[ByteMutator] = (
    _flip, _overwrite, _truncate, _remove, _duplicate, _splice, _insert_structure, _insert_number, _insert_nesting,
    _insert_invalid_utf8,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: Random, pool: Sequence[bytes]) -> bytes:
    """`data` after one to three mutations; parts of the inputs in `pool` may be spliced in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not out:
            out += rng.choice(pool)
        if out:
            rng.choice(BYTE_MUTATORS)(out, rng, pool)
    return bytes(out)


def nesting(rng: Random) -> bytes:
    """A deeply nested JSON value, or one whose end is missing."""
    depth = rng.choice(_DEPTHS)
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    return opening * depth + b"1" + closing * (depth if rng.random() < 0.8 else depth // 2)


def split(data: bytes, rng: Random) -> list[bytes]:
    """`data` in pieces: whole, byte by byte at the start, or cut at random."""
    if rng.random() < 0.2:
        cuts = list(range(1, min(len(data), 100)))
    else:
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 2, 5, 20))))
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


# JSON

Place = tuple[Any, Any]


def places(tree: Any) -> list[Place]:
    """Every place in a tree that holds a value: a container, and a key or an index in it."""
    found: list[Place] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict | list):
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            found += [(node, key) for key in keys]
            pending += [node[key] for key in keys]
    return found


def odd_value(rng: Random) -> Any:
    """A value of any type, of which most are wrong wherever they stand."""
    match rng.randrange(6):
        case 0:
            return rng.choice(NUMBERS)
        case 1 | 2:
            return rng.choice(TEXTS)
        case 3:
            return rng.choice((None, True, False))
        case 4:
            return copy.deepcopy(rng.choice(_CONTAINERS))
        case _:
            return NESTED if rng.random() < 0.1 else [odd_value(rng) for _ in range(rng.randrange(3))]


_CONTAINERS: Sequence[Any] = (
    [], {}, [[]], [None], [{}], {"": None}, {"type": None}, {"type": "text"}, {"type": ["x"]},
    [[[[]]]], {"a": {"b": []}},
    {"\x00": 1}, {"index": -1}, {"error": {}}, {"lmchat": {}}, {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}},
    {"anyOf": [{"type": ["string", 7]}]}, {"role": "assistant"}, {"role": {}, "content": 7},
    [1, "a", None, {}, []],
)  # fmt: skip


def mutate_json(tree: Any, rng: Random, pool: Sequence[Any]) -> Any:
    """A copy of `tree` with one to three places changed; values may come from the trees in `pool`."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        _mutate_place(*rng.choice(places(root)), root, rng, pool)
    return root[0] if root else None


def _mutate_place(container: Any, key: Any, root: list[Any], rng: Random, pool: Sequence[Any]) -> None:
    value = container[key]
    match rng.randrange(10):
        case 0 if isinstance(container, dict) or container is not root:
            del container[key]
        case 1:
            container[key] = rng.choice(([value], {"a": value}, [value, value], {"type": value}))
        case 2 if isinstance(container, list) and container is not root:
            container.insert(key, copy.deepcopy(value))
        case 3 if isinstance(container, dict):
            container[rng.choice((*TEXTS, str(key).upper(), f"{key}_json"))] = container.pop(key)
        case 4:
            container[key] = copy.deepcopy(_picked(rng.choice(pool), rng))
        case 5:
            container[key] = copy.deepcopy(_picked(root, rng))
        case 6 if isinstance(value, str) and value:
            place = rng.randrange(len(value))
            container[key] = value[:place] + rng.choice(TEXTS) + value[place + rng.randrange(2) :]
        case 7 if isinstance(value, int | float):
            container[key] = rng.choice(NUMBERS)
        case _:
            container[key] = odd_value(rng)


def _picked(tree: Any, rng: Random) -> Any:
    """Any value in `tree`."""
    found = places(tree)
    if not found:
        return tree
    container, key = rng.choice(found)
    return container[key]


def write_json(tree: Any, rng: Random) -> bytes:
    """`tree` as JSON text: compact or not, escaped or not; halves of surrogate pairs are written as they are."""
    separators = rng.choice(((",", ":"), (", ", ": ")))
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5, separators=separators)
    data = text.encode("utf-8", "surrogatepass")
    return data.replace(_NESTED_TOKEN, nesting(rng)) if _NESTED_TOKEN in data else data


# Protobuf


def mutate_message(message: Message, rng: Random, pool: Sequence[Message]) -> None:
    """Change one to three fields of `message`, or of messages in it; parts may come from those in `pool`."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        target = rng.choice([inner for inner in _messages(message) if inner.DESCRIPTOR.fields])
        _mutate_field(target, rng)
    if rng.random() < 0.1:
        message.MergeFrom(rng.choice(pool))


def _messages(message: Message) -> list[Message]:
    """`message` and all messages in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                found += _messages(inner)
    return found


def _mutate_field(message: Message, rng: Random) -> None:
    fields: Any = message.DESCRIPTOR.fields
    field = fields[rng.randrange(len(fields))]
    values: Any = getattr(message, field.name)
    if rng.random() < 0.2:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        kinds = field.message_type.fields_by_name
        values[_scalar(kinds["key"], rng)] = _scalar(kinds["value"], rng)
    elif field.message_type is not None and field.is_repeated:
        values.add()
        if len(values) > 1 and rng.random() < 0.5:
            values[-1].CopyFrom(rng.choice(values[:-1]))
    elif field.message_type is not None:
        values.SetInParent()
    elif field.is_repeated:
        values.append(_scalar(field, rng))
    else:
        setattr(message, field.name, _scalar(field, rng))


_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM, FieldDescriptor.CPPTYPE_INT64)


def _scalar(field: Any, rng: Random) -> Any:
    """A value that the field's type can hold."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice(_INVALID_UTF8)
    if field.type == FieldDescriptor.TYPE_STRING:
        if field.name.endswith("_json") and rng.random() < 0.8:
            return write_json({"a": odd_value(rng)} if rng.random() < 0.5 else odd_value(rng), rng).decode(
                "utf-8", "replace"
            )
        return rng.choice(TEXTS).encode("utf-8", "replace").decode()
    if field.cpp_type in _INTEGERS:
        bits = 63 if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else 31
        fitting = [number for number in NUMBERS if isinstance(number, int) and -(2**bits) <= number < 2**bits]
        return rng.choice(fitting)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    return float(rng.choice(NUMBERS))
