"""Whatever a dialect raises becomes the gateway's error, after which the next endpoint is tried."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion
from server.chat.request import ChatRequest, ProtoRequest, read
from server.dialects.base import Endpoint, HttpRequest, StreamDecoder
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import InvalidRequest, LmchatError, ProviderError, Reason, StreamTruncated, TranslationError
from server.upstream.boundary import BoundedTranslator
from server.upstream.client import Upstream
from tests.dialects.openai_help import ask, endpoint
from tests.routing.router_rig import Behaviour, Rig, _NoKeys, answer, drain, sends
from tests.routing.routing_help import run
from tests.support.sending import MockSender

R = Reason


class Raising:
    """A dialect whose every method raises `error`."""

    def __init__(self, error: Exception) -> None:
        self._raised = error

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        raise self._raised

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        raise self._raised

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        raise self._raised

    def decoder(self, request: ChatRequest) -> StreamDecoder:
        return _Decoder(self._raised)


class _Decoder:
    native_finish_reason = "native"
    finished = True

    def __init__(self, error: Exception) -> None:
        self._raised = error

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        raise self._raised

    def close(self) -> list[pb.ChatCompletionChunk]:
        raise self._raised


REQUEST = ProtoRequest(ask())
BUGS = [
    AttributeError("'list' object has no attribute 'get'"),
    KeyError("choices"),
    RecursionError("maximum recursion depth exceeded"),
    TypeError("unhashable type: 'dict'"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    OverflowError("int too large"),
    MemoryError(),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
def test_a_bug_is_the_gateways_error(bug: Exception, caplog: pytest.LogCaptureFixture) -> None:
    translator = BoundedTranslator("odd", Raising(bug))
    decoder = translator.decoder(REQUEST)
    for call in (
        lambda: translator.completion(b"{}", REQUEST),
        lambda: decoder.feed(b"data: {}\n\n"),
        decoder.close,
    ):
        caplog.clear()
        with pytest.raises(ProviderError) as caught:
            call()
        error = caught.value
        assert (error.reason, error.http_status, error.fall_over) == (R.UPSTREAM_INVALID_RESPONSE, 200, True)
        assert str(bug) not in error.message or not str(bug)
        [record] = caplog.records
        assert (record.levelno, record.name) == (logging.ERROR, "lmchat.dialects")
        assert record.getMessage().startswith("odd: ")
        assert record.exc_info is not None
        assert record.exc_info[1] is bug
    error = translator.error(418, {}, b"")
    assert (error.reason, error.http_status) == (R.UPSTREAM_INVALID_RESPONSE, 418)
    caplog.clear()
    with pytest.raises(TranslationError) as refused:
        translator.request(REQUEST, endpoint(), stream=False)
    assert (refused.value.reason, refused.value.status.http) == (R.INTERNAL, 500)
    assert caplog.records[0].getMessage().startswith("odd: ")


@pytest.mark.parametrize(
    "error",
    [InvalidRequest("x", "y"), StreamTruncated(), ProviderError(R.TIMEOUT, "x"), LmchatError(R.TIMEOUT, "x")],
)
def test_the_gateways_errors_pass(error: LmchatError, caplog: pytest.LogCaptureFixture) -> None:
    translator = BoundedTranslator("odd", Raising(error))
    decoder = translator.decoder(REQUEST)
    for call in (
        lambda: translator.request(REQUEST, endpoint(), stream=True),
        lambda: translator.completion(b"{}", REQUEST),
        lambda: decoder.feed(b""),
        decoder.close,
    ):
        with pytest.raises(LmchatError) as caught:
            call()
        assert caught.value is error
    assert not caplog.records
    assert (decoder.native_finish_reason, decoder.finished) == ("native", True)


class FailsAtA(OpenAITranslator):
    """Fails for the endpoint `a`: with `building` on its requests, else on its answers."""

    def __init__(self, *, building: bool) -> None:
        super().__init__()
        self._building = building

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        if self._building and endpoint.name == "a":
            raise KeyError("messages")
        return super().request(request, endpoint, stream=stream)

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        if b"poison" in body:
            raise AttributeError("no such thing")
        return super().completion(body, request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        if b"poison" in body:
            raise TypeError("no such thing")
        return super().error(status, headers, body)

    def decoder(self, request: ChatRequest) -> Any:
        decoder: Any = super().decoder(request)
        feed = decoder.feed

        def poisoned(data: bytes) -> Any:
            if b"poison" in data:
                raise IndexError("no such thing")
            return feed(data)

        decoder.feed = poisoned
        return decoder


POISONED = {"a whole answer": answer("poison"), "an error": sends(b"poison", status=400)}


@pytest.mark.parametrize("behaviour", POISONED.values(), ids=POISONED)
@pytest.mark.parametrize("streamed", [False, True])
def test_another_endpoint_answers(behaviour: Behaviour, *, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [behaviour], "b": [answer("fine")]})
        use(rig, FailsAtA(building=False))
        if streamed:
            chunks: list[pb.ChatCompletionChunk] = []
            await drain(await rig.open(), chunks)
            tries = [*chunks[-1].lmchat.attempts]
        else:
            tries = [*(await rig.complete()).completion.lmchat.attempts]
        assert (tries[0].provider, tries[0].reason) == ("a", "upstream_invalid_response")
        assert (tries[-1].provider, tries[-1].reason) == ("b", "ok")

    run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_that_cannot_be_built_skips_the_endpoint(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [answer("fine")], "b": [answer("fine")]})
        use(rig, FailsAtA(building=True))
        if streamed:
            await (await rig.open()).aclose()
        else:
            await rig.complete()
        assert rig.names() == "b"
        assert not rig.is_open("a")
        alone = Rig({"a": [answer("fine")]})
        use(alone, FailsAtA(building=True))
        with pytest.raises(TranslationError):
            await (alone.open() if streamed else alone.complete())

    run(main())


def use(rig: Rig, translator: OpenAITranslator) -> None:
    """Give the router of `rig` this dialect."""
    sender: Any = MockSender(rig._serve)
    rig.router._upstream = Upstream(sender, {"openai": translator}, {"a": _NoKeys(), "b": _NoKeys()})


class Unconvertible(Completion):
    """A completion that has no typed form, since a value of the provider's is none of the contract's."""

    completion_tokens = 0

    def __init__(self, error: Exception) -> None:
        super().__init__("stop")
        self._raised = error

    def stamp(self, **_: Any) -> None:
        raise AssertionError

    def typed(self) -> Any:
        raise self._raised

    def to_proto(self) -> Any:
        raise AssertionError

    def to_openai(self) -> dict[str, Any]:
        raise AssertionError


@pytest.mark.parametrize("bug", [*BUGS, InvalidRequest("x", "created")], ids=lambda bug: type(bug).__name__)
def test_a_conversion_that_fails_is_the_providers_error(bug: Exception) -> None:
    """It happens here, and not once routing is over, where no other endpoint could be tried."""
    dialect: Any = Raising(bug)
    dialect.completion = lambda body, request: Unconvertible(bug)
    translator = BoundedTranslator("odd", dialect)
    with pytest.raises(ProviderError) as caught:
        translator.completion(b"{}", REQUEST)
    assert (caught.value.reason, caught.value.fall_over) == (R.UPSTREAM_INVALID_RESPONSE, True)
    assert isinstance(translator.completion(b"{}", read(JSON_BODY)), Unconvertible)  # no message is needed


JSON_BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'


def test_what_a_request_needs_is_inherited() -> None:
    typed, rest = ProtoRequest(ask(), size=7), read(JSON_BODY)
    for request, derived in ((typed, typed.without(["seed"])), (typed, typed.with_debug(["routing"]))):
        assert derived is not request
        assert (derived.typed, derived.size, derived.fetched) == (True, 7, request.fetched)
    assert not rest.with_debug(["routing"]).typed
    assert rest.with_debug(["routing"]).size == len(JSON_BODY)
    assert rest.with_message(ask()).typed
    assert not read(JSON_BODY.replace(b'"messages"', b'"functions":[{"name":"f"}],"messages"')).typed
