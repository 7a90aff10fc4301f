"""Errors as callers get them, in both forms: OpenAI's error object, and google.rpc.Status (AIP-193).

Whatever a caller or a provider wrote, both are bounded. A status travels in HTTP/2 headers, and a peer that finds
them too large ends the connection that all streams of a worker share: it is cut so that the headers `grpc-message`
(where most bytes beyond ASCII take three) and `grpc-status-details-bin` (base64) have at most MAX_STATUS bytes
together. The body of a REST error is bounded by the limits below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import grpc
import msgspec
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from server import errors
from server.errors import STATUS, LmchatError, ProviderError, Reason, cut, fitting

Redact = Callable[[str], str]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

#: Bytes of UTF-8.
MAX_MESSAGE = 8 * 1024
MAX_PARAM = 512
MAX_CODE = 64
#: Of a name, or of the reason why an endpoint was skipped.
MAX_RECORD_TEXT = 256
#: Bytes of JSON: of `attempts` and of `skipped`, each.
MAX_RECORDS = 16 * 1024

#: Bytes of JSON of a provider's further fields.
MAX_DETAILS = 8 * 1024
#: Seconds.
MAX_RETRY_AFTER = 24 * 3600.0

#: Bytes of a whole status as HTTP/2 headers: `grpc-message` and `grpc-status-details-bin`.
MAX_STATUS = 6 * 1024
#: Of these, the message's in both.
_MAX_STATUS_MESSAGE = 3000
#: Bytes before base64: of `param`, which is there twice; of the violation's description; and of JSON in metadata.
_MAX_STATUS_PARAM = 200
_MAX_STATUS_DESCRIPTION = 300
_MAX_STATUS_DETAILS = 600
_MAX_STATUS_JSON = 1000

#: Characters beyond a limit that are searched for secrets: one that crosses the limit is found whole.
_REDACTION_MARGIN = 4096
#: The beginning of a message that does not name its field -> what replaces it after the field's name.
_MESSAGE_STARTS = (("Required", " is required"), ("Must ", " must "))


class PublicError(msgspec.Struct, frozen=True, kw_only=True):
    """One error, without secrets, bounded, its message naming the field at fault. Holds no exception.

    `retry_after` is in seconds; `details` are further fields of a provider's error on the caller's request.
    """

    reason: Reason
    request_id: str
    message: str
    param: str | None
    code: str
    retry_after: float | None
    attempts: Sequence[Mapping[str, Any]]
    skipped: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]

    @classmethod
    def of(cls, error: LmchatError, request_id: str, redact: Redact = str) -> Self:
        """What a caller may see of `error`; `redact` takes the secrets out of a text."""

        param = clean(error.param, MAX_PARAM, redact) if error.param else None
        message = clean(error.message, MAX_MESSAGE, redact)
        details: Mapping[str, Any] = {}
        if isinstance(error, ProviderError):  # a provider's message stays as it is
            details = error.details
        else:
            message = cut(_naming(param, message), MAX_MESSAGE)
        return cls(
            reason=error.reason,
            request_id=request_id,
            message=message,
            param=param,
            code=clean(error.code, MAX_CODE, redact),
            retry_after=None if error.retry_after is None else min(max(0.0, error.retry_after), MAX_RETRY_AFTER),
            attempts=_records(error.attempts, redact),
            skipped=_records(error.skipped, redact),
            details=_clean_details(details, redact),
        )

    @property
    def http(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason].http

    @property
    def grpc(self) -> grpc.StatusCode:
        """The gRPC code."""
        return STATUS[self.reason].grpc

    def body(self) -> dict[str, Any]:
        """OpenAI's error object, with the gateway's own fields under `lmchat`."""
        own: dict[str, Any] = {"reason": str(self.reason), "request_id": self.request_id}
        if self.attempts:
            own["attempts"] = self.attempts
        if self.skipped:
            own["skipped"] = self.skipped
        return {
            "error": {
                **self.details,
                "message": self.message,
                "type": STATUS[self.reason].type,
                "param": self.param,
                "code": self.code,
                "lmchat": own,
            }
        }

    def status_message(self) -> str:
        """The message of the gRPC status."""
        return _cut_encoded(self.message, _MAX_STATUS_MESSAGE)

    def status(self) -> status_pb2.Status:
        """google.rpc.Status with ErrorInfo, BadRequest and RetryInfo.

        The metadata of ErrorInfo is described in error_reason.proto.
        """
        message = self.status_message()
        info = error_details_pb2.ErrorInfo(reason=self.reason.upper(), domain=errors.DOMAIN)
        info.metadata["request_id"] = self.request_id
        if self.code != self.reason:
            info.metadata["code"] = self.code
        room = _MAX_STATUS_JSON
        if details := fitting(self.details, _MAX_STATUS_DETAILS):
            info.metadata["details"] = _encode(details).decode()
            room -= len(_encode(details))
        for name, records in (("attempts", self.attempts), ("skipped", self.skipped)):
            if listed := _within(records, room):
                info.metadata[name] = _encode(listed).decode()
                room -= len(_encode(listed))
        packed: list[Any] = [info]
        if self.param:
            param = info.metadata["param"] = cut(self.param, _MAX_STATUS_PARAM)
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=param, description=cut(message, _MAX_STATUS_DESCRIPTION)
            )
            packed.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            packed.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.grpc.value[0], message=message)
        for detail in packed:
            status.details.append(_any(detail))
        return status


def clean(text: str, limit: int, redact: Redact) -> str:
    """`text` without secrets, cut to `limit` bytes."""
    return cut(redact(text[: limit + _REDACTION_MARGIN]), limit)


def _naming(param: str | None, message: str) -> str:
    """`message` with the path of the field at fault, since SDKs show only the message of an error."""
    if not param:
        return message
    for start, replacement in _MESSAGE_STARTS:
        if message.startswith(start):
            return f"{param}{replacement}{message.removeprefix(start)}"
    if re.search(rf"(?<![\w.]){re.escape(param)}(?!\w)", message):
        return message
    return f"{param}: {message}"


def _records(records: Sequence[msgspec.Struct], redact: Redact) -> list[dict[str, Any]]:
    """Attempts or skipped endpoints as JSON objects, the first of them that fit into MAX_RECORDS."""

    def shown(value: Any) -> Any:
        return clean(value, MAX_RECORD_TEXT, redact) if isinstance(value, str) else value

    objects = [
        {name: shown(value) for name, value in msgspec.structs.asdict(record).items()} for record in records
    ]
    return _within(objects, MAX_RECORDS)


def _within(objects: Sequence[Mapping[str, Any]], limit: int) -> list[Any]:
    """The first objects whose JSON array has at most `limit` bytes."""
    size = 1
    for index, obj in enumerate(objects):
        size += len(_encode(obj)) + 1
        if size > limit:
            return list(objects[:index])
    return list(objects)


def _clean_details(details: Mapping[str, Any], redact: Redact) -> dict[str, Any]:
    """`details` bounded and without secrets, also in keys and nested values: its JSON is searched as a text."""
    bounded = fitting(details, MAX_DETAILS + 4 * _REDACTION_MARGIN)
    text = _encode(bounded).decode()
    redacted = redact(text)
    if redacted != text:
        try:
            bounded = _decode(redacted)
        except msgspec.DecodeError:  # a secret that is JSON itself
            return {}
    return fitting(bounded, MAX_DETAILS)


def _cut_encoded(text: str, limit: int) -> str:
    """`text`, cut to what takes `limit` bytes as `grpc-message` and as base64 together.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses says what is percent-encoded.
    """
    data = text.encode()
    thirds = 3 * limit
    for index, byte in enumerate(data):
        thirds -= 7 if 0x20 <= byte <= 0x7E and byte != 0x25 else 13
        if thirds < 0:
            return cut(text, index)
    return text


def _any(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
