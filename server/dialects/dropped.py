"""What a translation leaves out of a request, by the paths of the fields in OpenAI's JSON.

A field is left out where the provider has no equivalent. Not reported are values that equal the default, and
fields that repeat what is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message as Proto
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode

#: Role -> the fields of its messages that a dialect can have a place for; `extra_json` is read field by field.
_FIELDS: Mapping[int, frozenset[str]] = {
    pb.ROLE_SYSTEM: frozenset({"role", "content", "extra_json"}),
    pb.ROLE_DEVELOPER: frozenset({"role", "content", "extra_json"}),
    pb.ROLE_USER: frozenset({"role", "content", "name", "extra_json"}),
    pb.ROLE_ASSISTANT: frozenset(
        {
            "role", "content", "refusal", "tool_calls", "reasoning_content", "reasoning_details", "audio",
            "extra_json",
        }
    ),
    pb.ROLE_TOOL: frozenset({"role", "content", "name", "tool_call_id", "extra_json"}),
}  # fmt: skip
#: Those of them that most messages have.
_USUAL = 2
#: Values of `image_url.detail` that ask for nothing in particular.
_DEFAULT_DETAIL = (pb.IMAGE_DETAIL_UNSPECIFIED, pb.IMAGE_DETAIL_AUTO)


class Dropped:
    """Collects paths while one request is translated."""

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, each once and in the order in which they were found; none that is part of another."""
        paths = self._paths
        return (
            tuple(path for path in paths if not any(parent in paths for parent in _parents(path))) if paths else ()
        )

    def add(self, path: str) -> None:
        """Report the field at `path`."""
        self._paths[path] = None

    def add_set(self, message: Proto, path: str, names: Iterable[str]) -> None:
        """Report those of the fields `names` that `message`, at `path`, has."""
        for name in names:
            if message.HasField(name):
                self.add(_join(path, name))

    def pick(self, path: str, extra_json: str, used: Collection[str] = ()) -> dict[str, Any]:
        """The fields in `used` of the object at `path`, of which `extra_json` holds the further fields.

        Its other fields are reported; null is absence. Raises msgspec.DecodeError.
        """
        return self.pick_from(path, decode(extra_json), used) if extra_json else {}

    def pick_from(self, path: str, fields: Any, used: Collection[str] = ()) -> dict[str, Any]:
        """The same for decoded fields; anything but an object has none."""
        found: dict[str, Any] = {}
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if name in used:
                found[name] = value
            elif value is not None:
                self.add(_join(path, name))
        return found

    def merge(self, used: Collection[str], *extras: tuple[str, str]) -> dict[str, Any]:
        """The fields in `used` of several objects, given by path and `extra_json`; those of the last one win."""
        found: dict[str, Any] = {}
        places: dict[str, str] = {}
        for path, extra_json in extras:
            for name, value in self.pick(path, extra_json, used).items():
                if value is None:
                    continue
                if name in found:
                    self.add(_join(places[name], name))
                found[name], places[name] = value, path
        return found

    def detail(self, image: pb.ImageUrl, path: str) -> None:
        """Report the `detail` of the image at `path`, unless it is the default."""
        if image.detail not in _DEFAULT_DETAIL:
            self.add(_join(path, "detail"))

    def message(self, message: pb.Message, path: str) -> None:
        """Report the fields of the message at `path` that have no meaning for its role."""
        fields = message.ListFields()
        if len(fields) <= _USUAL and message.content:
            return
        meant = _FIELDS.get(message.role, _FIELDS[pb.ROLE_USER])
        for field, _ in fields:
            if field.name not in meant:
                self.add(_join(path, field.name))


def _parents(path: str) -> Iterator[str]:
    """The paths of the objects and lists that the field at `path` is part of."""
    for index, letter in enumerate(path):
        if letter in ".[":
            yield path[:index]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
