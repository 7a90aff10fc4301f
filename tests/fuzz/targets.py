"""Fuzz targets: for each, how an input is generated from a random generator, and the property that must hold.

The rule everywhere: an input is accepted or refused with the gateway's own error, which has a reason, a status and
text that can be written in every form it is sent in. Any other exception is a failure. What is accepted can be
written as JSON and read again. A check raises an exception where the property does not hold.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from google.protobuf.message import DecodeError
from lmchat.v1 import chat_pb2 as pb

from server.api.public_error import MAX_STATUS, PublicError
from server.api.validate import validate
from server.chat import openai_json
from server.chat.openai_json import EventWriter
from server.chat.request import ChatRequest, ProtoRequest, read
from server.dialects.base import Endpoint, Translator
from server.dialects.registry import DIALECTS
from server.errors import LmchatError, ProviderError, Reason
from server.routing.catalog import Model
from server.routing.plan import plan
from tests.conformance.test_requests import TARGETS as ENDPOINTS
from tests.fuzz import grpc_bytes, http_bytes, mutate, seeds
from tests.support.dialects import endpoint_for
from tests.support.streams import WRITERS, written

#: Requests that answers are read by: a plain one, and one with what changes how they are read.
REQUESTS: Sequence[ChatRequest] = tuple(
    read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode())
    for fields in (
        {},
        {"n": 2, "stream": True, "stream_options": {"include_usage": True}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    )
)
_STATUSES = (400, 401, 402, 403, 404, 408, 413, 422, 424, 429, 500, 502, 503, 504, 529, 599)
_HEADERS = ("retry-after", "retry-after-ms", "date", "content-type", "x-amzn-errortype", "x-request-id")


#: What gRPC leaves as it is in `grpc-message`: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

Check = Callable[[Any], None]


class Target(NamedTuple):
    """`generate` makes an input; what `checker` opens raises if the rule does not hold for one."""

    name: str
    generate: Callable[[Random], Any]
    checker: Callable[[], AbstractContextManager[Check]]


class Answer(NamedTuple):
    """What a provider sends: a body, or the pieces of a stream, for one of REQUESTS."""

    pieces: list[bytes]
    request: int


class Failure(NamedTuple):
    """A provider's answer other than 2xx."""

    status: int
    headers: dict[str, str]
    body: bytes


def check_error(error: LmchatError) -> None:
    """An error can be sent to a caller in every form: OpenAI's body, google.rpc.Status."""
    assert error.reason is not Reason.INTERNAL
    assert error.message
    public = PublicError.of(error, "req_1")
    body = msgspec.json.decode(msgspec.json.encode(public.body()))
    assert body["error"]["message"]
    assert 400 <= public.http < 600
    status = base64.b64encode(public.status().SerializeToString())
    message = quote(public.status_message(), _UNQUOTED)
    assert len(status) + len(message) <= MAX_STATUS, "a status fits into headers"


# Requests


def _rest_input(rng: Random) -> bytes:
    bodies = seeds.requests()
    if rng.random() < 0.7:
        return mutate.write_json(mutate.mutate_json(rng.choice(bodies), rng, bodies), rng)
    return mutate.mutate_bytes(json.dumps(rng.choice(bodies)).encode(), rng, _request_bytes())


@cache
def _request_bytes() -> list[bytes]:
    return [json.dumps(body).encode() for body in seeds.requests()]


def check_rest(body: bytes) -> None:
    """A REST body is read, or refused; what is read is written again, in both forms, and for every dialect."""
    try:
        request = read(body)
    except LmchatError as error:
        check_error(error)
        return
    check_request(request)


def _typed_input(rng: Random) -> bytes:
    messages = seeds.messages()
    if rng.random() < 0.7:
        message = pb.ChatCompletionRequest()
        message.CopyFrom(rng.choice(messages))
        mutate.mutate_message(message, rng, messages)
        return message.SerializeToString()
    return mutate.mutate_bytes(rng.choice(_message_bytes()), rng, _message_bytes())


@cache
def _message_bytes() -> list[bytes]:
    return [message.SerializeToString() for message in seeds.messages()]


def check_typed(data: bytes) -> None:
    """A typed request is validated, or refused; what is valid is written for every dialect."""
    message = pb.ChatCompletionRequest()
    try:
        message.ParseFromString(data)
    except DecodeError:  # the server's deserializer has its own target
        return
    try:
        validate(message, large=True)
    except LmchatError as error:
        check_error(error)
        return
    check_request(ProtoRequest(message))


def check_request(request: ChatRequest) -> None:
    """Use an accepted request in every way that the gateway does, and translate it for every endpoint."""
    names = (*request.parameters(), *request.unknown_parameters(), *request.needs)
    assert all(isinstance(name, str) for name in names)
    assert request.model
    assert request.choices >= 1
    with_debug = request.with_debug(["routing"])
    assert with_debug.options is not None
    for write in (request.to_openai, partial(_round_trip, request)):
        try:
            obj = write()
        except LmchatError as error:
            check_error(error)
            continue
        json.loads(msgspec.json.encode(obj))
    for endpoint in _endpoints():
        try:
            check_translation(request, endpoint)
        except LmchatError as error:
            check_error(error)


def _round_trip(request: ChatRequest) -> dict[str, Any]:
    return ProtoRequest(request.to_proto()).to_openai()


@cache
def _endpoints() -> Sequence[Endpoint]:
    """One endpoint for every dialect and platform."""
    return [endpoint_for(vendor, model) for vendor, model in ENDPOINTS.values()]


class _Healthy:
    """Endpoints of which nothing is known; see `server.routing.plan.Stats`."""

    def is_open(self, endpoint_id: str) -> bool:
        return False

    def latency(self, endpoint_id: str) -> float | None:
        return None

    def throughput(self, endpoint_id: str) -> float | None:
        return None


def check_translation(request: ChatRequest, endpoint: Endpoint) -> None:
    """The provider's request is JSON, its URL and headers are of printable ASCII. Raises LmchatError."""
    model = Model(id=endpoint.public_model, endpoints=(endpoint,))
    try:
        dropped = plan(request, [model], _Healthy(), lambda: 0.0, default_tries=1).candidates[0].dropped
    except LmchatError as error:
        check_error(error)
        dropped = []  # the translator must hold without the plan, too
    translator = DIALECTS[endpoint.dialect].translator
    call = translator.request(request.without(dropped), endpoint, stream=request.stream)
    json.loads(call.body)
    for text in (call.method, call.url, *call.headers, *call.headers.values()):
        assert text.isascii(), text
        assert text.isprintable(), text
    assert all(isinstance(name, str) for name in call.dropped)


# Answers


def _completion_input(dialect: str, rng: Random) -> Answer:
    pool = seeds.answers()[dialect].whole
    if rng.random() < 0.7:
        body = mutate.write_json(mutate.mutate_json(rng.choice(pool), rng, pool), rng)
    else:
        body = mutate.mutate_bytes(
            json.dumps(rng.choice(pool)).encode(), rng, [json.dumps(a).encode() for a in pool]
        )
    return Answer([body], rng.randrange(len(REQUESTS)))


def check_completion(translator: Translator, answer: Answer) -> None:
    """A body is a completion, whose choices are all finished, in both forms; or a ProviderError."""
    try:
        completion = translator.completion(b"".join(answer.pieces), REQUESTS[answer.request])
    except ProviderError as error:
        check_error(error)
        return
    assert isinstance(completion.native_finish_reason, str)
    assert isinstance(completion.completion_tokens, int)
    obj = json.loads(msgspec.json.encode(completion.to_openai()))
    assert obj["choices"]
    assert all(choice["finish_reason"] for choice in obj["choices"])
    choices = completion.to_proto().choices
    assert all(choice.finish_reason and choice.message.role for choice in choices)
    openai_json.rewrite_legacy(completion.to_openai())


def _stream_input(dialect: str, rng: Random) -> Answer:
    pool = seeds.answers()[dialect].streams
    events = list(rng.choice(pool))
    match rng.randrange(6):
        case 0:
            data = mutate.mutate_bytes(b"".join(written(dialect, events)), rng, _stream_bytes(dialect))
        case 1:
            data = _reorder(dialect, events, rng)
        case 2 if dialect == "bedrock":
            data = _write_payload(events, rng)
        case _:
            data = b"".join(_write_events(dialect, _mutated_events(dialect, events, rng), rng))
    return Answer(mutate.split(data, rng), rng.randrange(len(REQUESTS)))


@cache
def _stream_bytes(dialect: str) -> list[bytes]:
    return [b"".join(written(dialect, events)) for events in seeds.answers()[dialect].streams]


def _reorder(dialect: str, events: list[Any], rng: Random) -> bytes:
    """Events left out, repeated, moved, or of another stream."""
    pool = [event for stream in seeds.answers()[dialect].streams for event in stream]
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(len(events) + 1)
        match rng.randrange(4):
            case 0 if len(events) > 1:
                del events[min(place, len(events) - 1)]
            case 1 if events:
                events.insert(place, rng.choice(events))
            case 2 if events:
                events.insert(place, events.pop(rng.randrange(len(events))))
            case _:
                events.insert(place, rng.choice(pool))
    return b"".join(written(dialect, events))


def _mutated_events(dialect: str, events: list[Any], rng: Random) -> list[Any]:
    pool = [event for stream in seeds.answers()[dialect].streams for event in stream]
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(events))
        if isinstance(events[place], dict):
            events[place] = mutate.mutate_json(events[place], rng, pool)
    return events


def _write_events(dialect: str, events: Sequence[Any], rng: Random) -> Iterator[bytes]:
    for event in events:
        if dialect == "bedrock":
            yield _write_frame(event, rng)
        elif isinstance(event, str):
            yield WRITERS[dialect](event.encode("utf-8", "surrogatepass"))
        else:
            if dialect == "anthropic" and isinstance(event, dict):
                yield f"event: {event.get('type')!a:.100}\n".replace("'", "").encode()
            yield WRITERS[dialect](mutate.write_json(event, rng))


def _write_frame(event: Any, rng: Random) -> bytes:
    """An event of Bedrock, whose name and payload may be anything, in a frame that is intact."""
    if not isinstance(event, dict) or len(event) != 1 or "exception" in event:
        event = {"metadata": event}
    [(name, payload)] = event.items()
    return WRITERS["bedrock"]({name.encode("ascii", "replace").decode()[:100]: mutate.write_json(payload, rng)})


def _write_payload(events: Sequence[Any], rng: Random) -> bytes:
    """Intact frames, of which one holds damaged bytes."""
    chosen = rng.randrange(len(events))
    frames = written("bedrock", events)
    [(name, payload)] = events[chosen].items()
    data = mutate.mutate_bytes(json.dumps(payload).encode(), rng, [b"{}"])
    frames[chosen] = WRITERS["bedrock"]({name: data})
    return b"".join(frames)


class Decoded(NamedTuple):
    """The result of decoding a stream."""

    chunks: list[pb.ChatCompletionChunk]
    error: ProviderError | None


def decode(translator: Translator, pieces: Sequence[bytes], request: ChatRequest) -> Decoded:
    """Decode a stream to its end."""
    decoder = translator.decoder(request)
    chunks: list[pb.ChatCompletionChunk] = []
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except ProviderError as error:
        return Decoded([*chunks, *error.decoded], error)
    assert isinstance(decoder.native_finish_reason, str)
    return Decoded(chunks, None)


def check_chunks(decoded: Decoded) -> None:
    """The contract of `base.StreamDecoder`: roles first; a choice ends with its finish reason; usage is last."""
    chunks, error = decoded
    begun: set[int] = set()
    finished: set[int] = set()
    for number, chunk in enumerate(chunks):
        assert not chunk.HasField("usage") or (number == len(chunks) - 1 and not chunk.choices), "usage is last"
        for choice in chunk.choices:
            assert choice.index not in finished, "nothing follows a finish reason"
            assert bool(choice.delta.role) == (choice.index not in begun), "the first chunk has the role"
            begun.add(choice.index)
            if choice.finish_reason:
                finished.add(choice.index)
    if error is None:
        assert begun, "an answer has a choice"
        assert finished == begun, "every choice is finished"
    else:
        assert not finished, "an answer that failed has no finish reason"


def check_stream(translator: Translator, answer: Answer) -> None:
    """A stream keeps the contract, can be written as events, and is the same however its bytes are split."""
    request = REQUESTS[answer.request]
    decoded = decode(translator, answer.pieces, request)
    check_chunks(decoded)
    if decoded.error is not None:
        check_error(decoded.error)
    for legacy in (False, True):
        writer = EventWriter(include_usage=request.include_usage, legacy=legacy)
        for event in writer.events(decoded.chunks).split(b"\n\n")[:-1]:
            json.loads(event.removeprefix(b"data: "))
    whole = decode(translator, [b"".join(answer.pieces)], request)
    assert whole.chunks == decoded.chunks, "any split gives the same chunks"
    assert (whole.error and whole.error.reason) == (decoded.error and decoded.error.reason)


def _failure_input(dialect: str, rng: Random) -> Failure:
    pool = seeds.answers()[dialect].errors
    body = mutate.write_json(mutate.mutate_json(rng.choice(pool), rng, pool), rng)
    if rng.random() < 0.3:
        body = mutate.mutate_bytes(body, rng, [b"<html>502 Bad Gateway</html>", b""])
    headers = {}
    for name in _HEADERS:
        if rng.random() < 0.4:
            value = rng.choice(mutate.TEXTS) if rng.random() < 0.5 else str(rng.choice(mutate.NUMBERS))
            headers[name] = value.encode("latin-1", "replace").decode("latin-1")
    return Failure(rng.choice(_STATUSES), headers, body)


def check_failure(translator: Translator, failure: Failure) -> None:
    """Whatever a provider sends is an error with a text and a bounded wait."""
    error = translator.error(failure.status, failure.headers, failure.body)
    assert isinstance(error, ProviderError)
    assert error.http_status == failure.status
    assert error.retry_after is None or 0 <= error.retry_after <= 24 * 3600
    check_error(error)


def _pure(check: Check) -> Callable[[], AbstractContextManager[Check]]:
    """The checker of a target that needs nothing opened."""
    return lambda: nullcontext(check)


def _of_dialect(name: str, translator: Translator) -> Iterator[Target]:
    yield Target(
        f"completion-{name}",
        partial(_completion_input, name),
        _pure(partial(check_completion, translator)),
    )
    yield Target(f"stream-{name}", partial(_stream_input, name), _pure(partial(check_stream, translator)))
    yield Target(f"error-{name}", partial(_failure_input, name), _pure(partial(check_failure, translator)))


def _targets() -> Iterator[Target]:
    yield Target("rest", _rest_input, _pure(check_rest))
    yield Target("typed", _typed_input, _pure(check_typed))
    yield Target("grpc", grpc_bytes.generate, grpc_bytes.checker)
    yield Target("http", http_bytes.generate, http_bytes.checker)
    for name, dialect in DIALECTS.items():
        yield from _of_dialect(name, dialect.translator)


TARGETS: Mapping[str, Target] = {target.name: target for target in _targets()}
