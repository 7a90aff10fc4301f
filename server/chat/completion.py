"""A completion: one abstraction over its two representations.

`JsonCompletion` holds a provider's OpenAI JSON that needs no translation,
`ProtoCompletion` the typed message. Either converts to the other form on demand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from lmchat.v1 import chat_pb2 as pb
from msgspec import UNSET

from server.chat import openai_json
from server.chat.openai_json import completion_fields
from server.chat.openai_json.completion_fields import CompletionFields
from server.chat.openai_json.unknown import Path, Unknown, fields_at, restore_unknown

_encode = msgspec.json.Encoder().encode


def completion_id(provider_id: str) -> str:
    """The provider's id in OpenAI's form, so that both logs can be searched for it; empty stays empty."""
    return provider_id if not provider_id or provider_id.startswith("chatcmpl-") else f"chatcmpl-{provider_id}"


class Report(Protocol):
    """The routing report: the `lmchat` object of a completion. msgspec encodes it for REST."""

    #: The model that the provider's response names.
    native_model: str

    def to_proto(self) -> pb.RoutingReport:
        """The message of the contract."""
        ...


class Completion(ABC):
    """A completion, and the provider's untranslated finish reason of its first choice."""

    __slots__ = ("dropped", "native_finish_reason", "size")

    def __init__(self, native_finish_reason: str) -> None:
        self.native_finish_reason = native_finish_reason
        #: Bytes of what it was read from; may be 0 where that is not large.
        self.size = 0
        #: Paths of parameters that the translation dropped.
        self.dropped: tuple[str, ...] = ()

    @property
    @abstractmethod
    def completion_tokens(self) -> int:
        """Output tokens; 0 where the provider reported no usage."""

    @abstractmethod
    def stamp(self, *, new_id: Callable[[], str], created: int, model: str, report: Report) -> None:
        """Set what is the gateway's; the provider's own model name goes into the report.

        `created` (Unix seconds) and an id that `new_id` makes are the defaults where the provider sent none.
        """

    @abstractmethod
    def typed(self) -> ProtoCompletion:
        """The completion in its typed form, before it is stamped. Raises what a provider's values may cause."""

    @abstractmethod
    def to_proto(self) -> pb.ChatCompletion:
        """The typed message; the same one each time."""

    @abstractmethod
    def to_openai(self) -> dict[str, Any]:
        """OpenAI's `chat.completion` object."""

    def to_json(self) -> bytes:
        """`to_openai` as JSON text."""
        return _encode(self.to_openai())


class JsonCompletion(Completion):
    """A completion in OpenAI's JSON. `unknown`: the fields that `fields` has no place for."""

    __slots__ = ("_proto", "fields", "unknown")

    def __init__(self, fields: CompletionFields, unknown: Unknown) -> None:
        first = fields.choices[0]
        native = fields_at(unknown, ("choices", 0)).get("native_finish_reason") if unknown else None
        super().__init__(str(native) if native else first.finish_reason)
        self.fields = fields
        self.unknown = unknown
        self._proto: pb.ChatCompletion | None = None

    @classmethod
    def read(cls, body: bytes) -> JsonCompletion | None:
        """The completion in a provider's body; None if it has to be parsed to its typed form."""
        known = completion_fields.read(body)
        if known is None:
            return None
        fields, unknown = known
        fields.id = completion_id(fields.id)
        return cls(fields, unknown)

    @property
    def completion_tokens(self) -> int:
        usage = self.fields.usage
        return usage.completion_tokens if usage is not None else 0

    def stamp(self, *, new_id: Callable[[], str], created: int, model: str, report: Report) -> None:
        fields = self.fields
        fields.id = fields.id or new_id()
        fields.created = fields.created or created
        report.native_model = fields.model
        fields.model = model
        fields.lmchat = report
        self._proto = None

    def unknown_at(self, path: Path) -> Mapping[str, Any]:
        """The unknown fields of the object at `path`."""
        return fields_at(self.unknown, path) if self.unknown else {}

    def typed(self) -> ProtoCompletion:
        message = openai_json.parse_completion(self.to_openai())
        return ProtoCompletion(message, self.native_finish_reason)

    def to_proto(self) -> pb.ChatCompletion:
        if self._proto is None:
            report, self.fields.lmchat = self.fields.lmchat, UNSET
            self._proto = openai_json.parse_completion(self.to_openai())
            self.fields.lmchat = report
            if report is not UNSET:
                self._proto.lmchat.CopyFrom(report.to_proto())
        return self._proto

    def to_openai(self) -> dict[str, Any]:
        out: dict[str, Any] = msgspec.to_builtins(self.fields)
        if self.unknown:
            restore_unknown(out, self.unknown)
        return out

    def to_json(self) -> bytes:
        return super().to_json() if self.unknown else _encode(self.fields)


class ProtoCompletion(Completion):
    """A completion in its typed form."""

    __slots__ = ("_message",)

    def __init__(self, message: pb.ChatCompletion, native_finish_reason: str) -> None:
        super().__init__(native_finish_reason)
        self._message = message

    @property
    def completion_tokens(self) -> int:
        return self._message.usage.completion_tokens

    def stamp(self, *, new_id: Callable[[], str], created: int, model: str, report: Report) -> None:
        message = self._message
        message.id = message.id or new_id()
        message.created = message.created or created
        report.native_model = message.model
        message.model = model
        message.lmchat.CopyFrom(report.to_proto())

    def typed(self) -> ProtoCompletion:
        return self

    def to_proto(self) -> pb.ChatCompletion:
        return self._message

    def to_openai(self) -> dict[str, Any]:
        return openai_json.dump_completion(self._message)
