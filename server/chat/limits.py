"""The limits of requests and of JSON: one table. Whatever exceeds one is refused before work is done for it.

Every step from a body to a provider's request is linear in these sizes, and they are chosen so that no step holds
the event loop for longer than 50 ms; the steps of large bodies are done in a thread (large.py). The one exception
is gRPC itself, which copies a message as long as MAX_REQUEST (worker/app.py) in some 100 ms.

    limit              what it bounds                                                    error
    MAX_VALUES         JSON values of a request: objects, arrays, strings, numbers, ...  request_too_large
    MAX_ESCAPES        backslashes in its strings                                        request_too_large
    MAX_DIGITS         digits of one number                                              request_too_large
    MAX_TEXT_BYTES     bytes of strings that are not ASCII (files are: base64)           request_too_large
    MAX_FIELDS         fields of a gRPC message, those of nested messages included       request_too_large
    MAX_MESSAGES       messages                                                          invalid_request
    MAX_TOOLS          tools, `functions` included                                       invalid_request
    MAX_PARTS          content parts, tool calls, reasoning details and annotations
                       of all messages                                                   invalid_request
    MAX_STOP           stop sequences                                                    invalid_request
    MAX_ENTRIES        entries of `logit_bias` and `metadata`                            invalid_request
    MAX_NAMES          strings of any other array, such as a routing directive's         invalid_request
    MAX_UNKNOWN        fields of one object that the contract does not know              invalid_request
    MAX_WORD           characters of a word that an open enumeration does not know       invalid_request
    MAX_ECHOED         characters of a caller's key that an error repeats                none: it is cut
    MAX_CHOICES        choices of an answer                                              upstream_invalid_response
    MAX_ANSWER_VALUES  JSON values of an answer or an event                              upstream_invalid_response

The HTTP status is 413, 400 or 502. How deep JSON may nest is bounded by its decoder: 1,000 levels, Python's
recursion limit; deeper JSON is an invalid_request. Limits of schemas that the gateway checks itself are in
upstream/emulation/json_schema.py, those of streams in dialects/choices.py and dialects/decoding.py, those of
what is fetched in upstream/emulation/media_urls.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmchat.v1 import chat_pb2 as pb

from server.errors import InvalidRequest, Reason

#: 4,096 messages have some 20,000 values, 1,024 tools with their schemas some 60,000.
MAX_VALUES = 100_000
#: Log probabilities: 4,096 tokens with 20 alternatives each have some 700,000.
MAX_ANSWER_VALUES = 1_000_000
#: As many as four million characters that are written as \\uXXXX.
MAX_ESCAPES = 4_000_000
#: Decoding an integer takes time in proportion to the square of its digits. No double has as many.
MAX_DIGITS = 512
#: One character can make its string take four times as much memory, and time. No model reads as much text.
MAX_TEXT_BYTES = 16 << 20
#: A request at all the limits below has about as many.
MAX_FIELDS = 100_000
MAX_MESSAGES = 4_096
MAX_TOOLS = 1_024
MAX_PARTS = 8_192
#: No provider takes more; how many an endpoint takes is for its translator to check.
MAX_STOP = 64
MAX_ENTRIES = 4_096
MAX_NAMES = 256
MAX_UNKNOWN = 256
MAX_WORD = 64
MAX_ECHOED = 64
#: `n` is at most 128.
MAX_CHOICES = 128

#: Bytes of JSON that cannot exceed any of the first three limits by enough to matter: a value that is not the only
#: one of its array takes two bytes, and the depth of arrays is limited.
UNCHECKED_BYTES = 2 * MAX_VALUES
#: Bytes of JSON up to which decoding takes little time whatever the length of its numbers.
_UNCHECKED_DIGITS = 1 << 20
_PREFIX = 4 << 20


class TooMuchJsonError(ValueError):
    """JSON beyond a limit; the message completes "it has ..."."""


def check_json(data: bytes, most: int = MAX_ANSWER_VALUES) -> None:
    """Raise TooMuchJsonError where decoding `data` would take too long.

    Linear, and some 1 ns a byte: it counts characters of the syntax, and looks where they are only if there are
    too many, since strings may hold any number of them.
    """
    if len(data) <= UNCHECKED_BYTES:
        return
    if len(data) > MAX_ESCAPES and data.count(b"\\") > MAX_ESCAPES:
        raise TooMuchJsonError(f"more than {MAX_ESCAPES} backslashes in its strings")
    digits = len(data) > _UNCHECKED_DIGITS and _has_digits(data)
    text = len(data) > MAX_TEXT_BYTES and _is_text(data)
    if not digits and not text and _values(data) <= most:
        return
    for end in (_PREFIX, len(data)):  # of most JSON that has too many, the beginning has too many already
        pieces = _split(data[:end], most)
        syntax = b'"'.join(pieces[::2])
        if _values(syntax) > most:
            raise TooMuchJsonError(f"more than {most} values")
    if digits and _has_digits(syntax):
        raise TooMuchJsonError(f"a number of more than {MAX_DIGITS} digits")
    if text and sum(len(string) for string in pieces[1::2] if _is_text(string)) > MAX_TEXT_BYTES:
        raise TooMuchJsonError(f"more than {MAX_TEXT_BYTES} bytes of text that is not ASCII")


def check_body(body: bytes) -> None:
    """`check_json` for the body of a request. Raises InvalidRequest."""
    try:
        check_json(body, MAX_VALUES)
    except TooMuchJsonError as error:
        raise too_large(str(error)) from None


def too_large(what: str) -> InvalidRequest:
    """The error for a body that has `what`."""
    return InvalidRequest(f"The body is too large: it has {what}.", reason=Reason.REQUEST_TOO_LARGE)


def _values(data: bytes) -> int:
    """The values in `data`; an empty list or object counts twice, and so does what strings hold of the syntax."""
    return 1 + data.count(b",") + data.count(b"[") + data.count(b"{")


def _has_digits(data: bytes) -> bool:
    """Whether there are many digits in a row: surely for MAX_DIGITS of them, never for less than half as many."""
    half = MAX_DIGITS // 2
    return any(data[start : start + half].isdigit() for start in range(0, len(data) - half, half))


def _is_text(data: bytes) -> bool:
    """Whether strings in `data` may hold characters that are not ASCII, written as they are or as \\uXXXX."""
    return not data.isascii() or rb"\u" in data


def _split(data: bytes, most: int) -> list[bytes]:
    """Syntax and strings of `data`, by turns. Raises TooMuchJsonError if `most` values have fewer strings."""
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    if data.count(b'"') > 4 * most:  # a value has at most a key and a string
        raise TooMuchJsonError(f"more than {most} values")
    return data.split(b'"')


def check_length(length: int, most: int, param: str | None = None, what: str = "items") -> None:
    """Raise InvalidRequest for an array, or map, of more than `most`."""
    if length > most:
        raise InvalidRequest(f"At most {most} {what}, got {length}.", param)


def check_unknown(length: int) -> None:
    """Raise InvalidRequest for an object with more than MAX_UNKNOWN fields that the contract does not know."""
    if length > MAX_UNKNOWN:
        raise InvalidRequest(f"At most {MAX_UNKNOWN} unknown fields, got {length}.")


def check_parts(count: int) -> None:
    """Raise InvalidRequest for messages that have more than MAX_PARTS parts together."""
    if count > MAX_PARTS:
        raise InvalidRequest(
            f"At most {MAX_PARTS} content parts, tool calls, reasoning details and annotations, got {count}.",
            "messages",
        )


def echoed(text: str) -> str:
    """A caller's text as errors repeat it."""
    return text if len(text) <= MAX_ECHOED else f"{text[:MAX_ECHOED]}..."


# Typed requests


def check_typed(request: pb.ChatCompletionRequest) -> None:
    """`check_body` for a typed request: the same limits, by its fields. Raises InvalidRequest."""
    for field, value in request.ListFields():
        most = _MAX_LENGTHS.get(field.name)
        if most is not None and len(value) > most:
            check_length(len(value), most, field.name, "sequences" if field.name == "stop" else "items")
    if request.HasField("lmchat"):
        check_length(len(request.lmchat.debug), MAX_NAMES, "lmchat.debug")
        for name in ("prefer", "only", "ignore", "models"):
            check_length(len(getattr(request.lmchat.routing, name)), MAX_NAMES, f"lmchat.routing.{name}")
    if request.ByteSize() > MAX_PARTS:  # each takes two bytes at least
        check_length(len(request.prediction.content), MAX_PARTS, "prediction.content")
        check_parts(sum(map(parts, request.messages)))


#: Repeated fields of a request -> how many items they may have.
_MAX_LENGTHS = {
    "messages": MAX_MESSAGES,
    "tools": MAX_TOOLS,
    "stop": MAX_STOP,
    "logit_bias": MAX_ENTRIES,
    "metadata": MAX_ENTRIES,
    "modalities": MAX_NAMES,
}


def check_texts(texts: Iterable[str]) -> None:
    """`check_body` for the fields of JSON text of one request. Raises InvalidRequest.

    One that is no JSON may hide what is in those after it, but is itself an error before they are decoded.
    """
    check_body(b",".join([text.encode() for text in texts]))


def parts(message: pb.Message) -> int:
    """How much of MAX_PARTS a message takes."""
    return (
        len(message.content) + len(message.tool_calls) + len(message.reasoning_details) + len(message.annotations)
    )
