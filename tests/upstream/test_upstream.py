"""One provider call with scripted responses and simulated time: results and their times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import httpx
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.config.model import Timeouts
from server.dialects.base import Endpoint, HttpRequest
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from server.upstream.client import Upstream
from server.upstream.ports import has_content
from server.upstream.stream import MAX_STEP_BYTES
from tests.dialects.openai_help import DONE, TRANSLATOR, ask, chunk, delta, endpoint, sse
from tests.routing.routing_help import VirtualLoop
from tests.support.sending import MockSender
from tests.support.typed import Answer, TypedCaller

T = TypeVar("T")
R = Reason


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


class Wait(float):
    """Seconds until the provider continues."""


NEVER = Wait(1e9)
RESET = httpx.ReadError("reset")

Step = bytes | Wait | Exception


def again(times: int, *steps: Step) -> list[Step]:
    return list(steps) * times


class Body(httpx.AsyncByteStream):
    """A scripted response body that records whether it was closed and whether a read is pending."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.closed = False
        self.left = False
        self.read = 0

    async def __aiter__(self) -> Any:
        try:
            for step in self._steps:
                self.read += 1
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Wait):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.left = True

    async def aclose(self) -> None:
        self.closed = True


class Key:
    """The credentials of every call."""

    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        return {"authorization": "Bearer k"}


Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Provider:
    """Answers every call with the same status, headers and steps, `delay` seconds after it arrived."""

    def __init__(
        self,
        *steps: Step,
        status: int = 200,
        type: str = "text/event-stream",
        delay: float = 0.0,
        failure: Exception | None = None,
        auth: Any = None,
        **headers: str,
    ) -> None:
        self.body = Body(*steps)
        self.requests: list[httpx.Request] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            await asyncio.sleep(delay)
            if failure is not None:
                raise failure
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return httpx.Response(status, headers={"content-type": type, **named}, stream=self.body)

        self.upstream = TypedCaller(
            Upstream(MockSender(answer), {"openai": TRANSLATOR.translator}, {"up": auth or Key()})
        )

    async def complete(self, where: Endpoint | None = None, limit: float = 1000.0, **fields: Any) -> Answer:
        return await self.upstream.complete(where or endpoint(), ask(**fields), limit)

    async def stream(
        self, where: Endpoint | None = None, limit: float = 1000.0, deadline: float = 1e6, **fields: Any
    ) -> tuple[list[list[str]], list[float], ProviderError | None]:
        """The batches, their times, and the error; closed as the router closes it."""
        stream = self.upstream.stream(where or endpoint(), ask(**fields))
        batches: list[list[str]] = []
        times: list[float] = []
        try:
            batches.append(words(await stream.open(limit)))
            times.append(now())
            async for batch in stream.batches(deadline):
                batches.append(words(batch))
                times.append(now())
        except ProviderError as error:
            times.append(now())
            return batches, times, error
        finally:
            await stream.aclose()
        times.append(now())
        return batches, times, None


def words(chunks: list[pb.ChatCompletionChunk]) -> list[str]:
    """Chunks in short: `+` a role, text, `.` a finish reason, `#` usage."""
    found = []
    for each in chunks:
        text = "#" if each.HasField("usage") else ""
        for choice in each.choices:
            content = choice.delta.content + choice.delta.reasoning_content
            text += "+" * bool(choice.delta.role) + content + "." * bool(choice.finish_reason)
        found.append(text)
    return found


ROLE = sse(chunk(delta(role="assistant", content="")))
HI = sse(chunk(delta(content="Hi")))
BYE = sse(chunk(delta(content=" bye")))
STOP = sse(chunk(delta("stop")))
USAGE = sse(chunk(usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}))
COMPLETION = json.dumps(
    {"id": "1", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "eos"}]}
).encode()
SHORT = Timeouts(connect=1.0, first_token=10.0, idle=20.0, total=40.0)


# Requests


@pytest.mark.parametrize("stream", [False, True])
def test_the_request(stream: bool) -> None:
    provider = Provider(HI, STOP, DONE) if stream else Provider(COMPLETION, type="application/json")
    where = endpoint(timeouts=SHORT, headers={"x-title": "t"})
    run(provider.stream(where) if stream else provider.complete(where))
    [request] = provider.requests
    assert request.method == "POST"
    assert request.url == "https://up.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer k"
    assert request.headers["x-title"] == "t"
    assert request.headers["content-type"] == "application/json"
    assert request.extensions["timeout"] == {"connect": 1.0}
    body = json.loads(request.content)
    assert body["model"] == "up-model"
    assert body.get("stream") is (True if stream else None)


class NoKey:
    async def headers(self, request: HttpRequest) -> Mapping[str, str]:
        raise ProviderError(R.UPSTREAM_AUTHENTICATION, "There are no credentials.")


@pytest.mark.parametrize("stream", [False, True])
def test_without_credentials_there_is_no_call(stream: bool) -> None:
    provider = Provider(auth=NoKey())
    if stream:
        *_, error = run(provider.stream())
    else:
        with pytest.raises(ProviderError) as caught:
            run(provider.complete())
        error = caught.value
    assert error is not None
    assert error.reason is R.UPSTREAM_AUTHENTICATION
    assert not provider.requests


@pytest.mark.parametrize("stream", [False, True])
def test_an_inexpressible_request_is_an_invalid_request(stream: bool) -> None:
    provider = Provider()
    with pytest.raises(InvalidRequest):
        run(provider.stream(stop=["x"] * 5) if stream else provider.complete(stop=["x"] * 5))
    assert not provider.requests


# Unary


def test_complete() -> None:
    provider = Provider(COMPLETION[:20], Wait(30), COMPLETION[20:], type="application/json", delay=300)
    answer = run(provider.complete())
    assert answer.completion.choices[0].message.content[0].text == "Hi"
    assert answer.completion.id == "chatcmpl-1"
    assert answer.native_finish_reason == "eos"
    assert provider.body.closed


#: A failing call, and the failure: reason, status, `retry_here`, and its time.
UNARY: list[tuple[str, Provider, Reason, int | None, bool, float]] = [
    ("no connection", Provider(failure=httpx.ConnectError("refused")), R.UPSTREAM_ERROR, None, True, 0),
    (
        "a connection that takes too long",
        Provider(failure=httpx.ConnectTimeout("slow")),
        R.TIMEOUT,
        None,
        False,
        0,
    ),
    ("a reset before the answer", Provider(failure=httpx.ReadError("reset")), R.UPSTREAM_ERROR, None, True, 0),
    ("not HTTP", Provider(failure=httpx.RemoteProtocolError("SMTP")), R.UPSTREAM_ERROR, None, True, 0),
    ("a reset within the answer", Provider(b'{"id', RESET), R.UPSTREAM_ERROR, None, True, 0),
    ("no answer", Provider(delay=NEVER), R.TIMEOUT, None, False, 40),
    ("headers, then silence", Provider(NEVER, type="application/json"), R.TIMEOUT, None, False, 40),
    ("half an answer, then silence", Provider(COMPLETION[:30], NEVER), R.TIMEOUT, None, False, 40),
    ("an answer drop by drop", Provider(*again(5, b"{", Wait(15))), R.TIMEOUT, None, False, 40),
    ("half an answer", Provider(COMPLETION[:30]), R.UPSTREAM_INVALID_RESPONSE, 200, False, 0),
    ("nothing", Provider(), R.UPSTREAM_INVALID_RESPONSE, 200, False, 0),
    ("a page", Provider(b"<html>", type="text/html"), R.UPSTREAM_INVALID_RESPONSE, 200, False, 0),
    ("an error in a 200", Provider(b'{"error": {"message": "x", "code": 503}}'), R.OVERLOADED, 503, True, 0),
    ("an error", Provider(b'{"error": {"message": "x"}}', status=400), R.INVALID_REQUEST, 400, False, 0),
    ("a redirect", Provider(status=302, location="https://x"), R.UPSTREAM_ERROR, 302, False, 0),
    ("an error page", Provider(b"<html>", status=502, type="text/html"), R.UPSTREAM_ERROR, 502, True, 0),
    ("an error that breaks off", Provider(b'{"err', RESET, status=429), R.RATE_LIMITED, 429, True, 0),
    ("an error without an end", Provider(b"x", NEVER, status=500), R.TIMEOUT, None, False, 40),
]


@pytest.mark.parametrize(
    ("provider", "reason", "status", "here", "when"), [row[1:] for row in UNARY], ids=[row[0] for row in UNARY]
)
def test_failures_of_a_unary_call(
    provider: Provider, reason: Reason, status: int | None, here: bool, when: float
) -> None:
    async def main() -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await provider.complete(endpoint(timeouts=SHORT))
        assert now() == when
        return caught.value

    error = run(main())
    assert (error.reason, error.http_status, error.retry_here) == (reason, status, here)
    assert error.fall_over == (reason is not R.INVALID_REQUEST)
    assert provider.body.closed or not provider.body.read


@pytest.mark.parametrize(("limit", "when"), [(7.0, 7.0), (100.0, 40.0)])
def test_the_smaller_limit_counts(limit: float, when: float) -> None:
    async def main() -> None:
        with pytest.raises(ProviderError):
            await Provider(NEVER).complete(endpoint(timeouts=SHORT), limit)
        assert now() == when

    run(main())


def test_a_completion_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.upstream.body.MAX_BODY_BYTES", 100_000)
    provider = Provider(*[b"x" * 16384] * 100)
    with pytest.raises(ProviderError, match="larger than 100000 bytes") as caught:
        run(provider.complete())
    assert caught.value.reason is R.UPSTREAM_INVALID_RESPONSE
    assert provider.body.read == 7
    assert provider.body.closed


def test_only_the_head_of_a_long_error_is_read() -> None:
    provider = Provider(*[b"x" * 16384] * 100, status=400)
    with pytest.raises(ProviderError):
        run(provider.complete())
    assert provider.body.read == 4
    assert provider.body.closed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry_after": "3"}, 3.0), ({"retry_after_ms": "1500", "Retry_After": "1"}, 1.5), ({}, None)],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    with pytest.raises(ProviderError) as caught:
        run(Provider(b"{}", status=429, **headers).complete())  # type: ignore[arg-type]
    assert caught.value.retry_after == seconds


# Streams

#: The steps of a stream, and its batches.
VALID: list[tuple[str, list[Step], list[list[str]]]] = [
    ("read by read", [ROLE, HI, BYE, STOP, DONE], [["+", "Hi"], [" bye"], ["."]]),
    ("the role is held back until the content", [ROLE, Wait(5), HI, STOP, DONE], [["+", "Hi"], ["."]]),
    (
        "what comes in one read goes out in one",
        [ROLE + HI + BYE, STOP + USAGE + DONE],
        [["+", "Hi", " bye"], [".", "#"]],
    ),
    ("all in one read", [ROLE + HI + STOP + DONE], [["+", "Hi", "."]]),
    ("torn", [HI[:9], HI[9:40], HI[40:], STOP + DONE], [["+Hi"], ["."]]),
    ("comments and pings first", [b": ping\n\n", b"event: ping\ndata:\n\n", HI, STOP], [["+Hi"], ["."]]),
    ("only a finish reason", [ROLE, STOP, DONE], [["+", "."]]),
    ("only [DONE]", [ROLE, DONE], [["+", "."]]),
    ("cut after the finish reason", [HI, STOP], [["+Hi"], ["."]]),
    ("reset after the finish reason", [HI, STOP, RESET], [["+Hi"], ["."]]),
    ("cut within [DONE]", [HI, STOP, DONE[:9]], [["+Hi"], ["."]]),
    ("reset within the usage", [HI, STOP, USAGE[:30], RESET], [["+Hi"], ["."]]),
    ("usage, then a reset", [HI, STOP, USAGE, RESET], [["+Hi"], [".", "#"]]),
    ("usage with [DONE]", [HI, STOP, USAGE, DONE], [["+Hi"], [".", "#"]]),
    ("an early finish reason", [HI, STOP, BYE, STOP, DONE], [["+Hi"], [" bye"], ["."]]),
    ("an early finish reason and no [DONE]", [HI, STOP, BYE, STOP], [["+Hi"], [" bye"], ["."]]),
    ("an error after the finish reason", [HI, STOP, sse({"error": {"code": 500}})], [["+Hi"], ["."]]),
    ("the same in one read", [HI, STOP + sse({"error": {"code": 500}})], [["+Hi"], ["."]]),
    (
        "reasoning is content",
        [sse(chunk(delta(role="assistant", reasoning="Hm."))), Wait(15), HI, STOP],
        [["+Hm."], ["Hi"], ["."]],
    ),
    (
        "slow, but never idle",
        [HI, *again(3, Wait(19), BYE), STOP],
        [["+Hi"], [" bye"], [" bye"], [" bye"], ["."]],
    ),
]


@pytest.mark.parametrize(("steps", "batches"), [row[1:] for row in VALID], ids=[row[0] for row in VALID])
def test_streams(steps: list[Step], batches: list[list[str]]) -> None:
    provider = Provider(*steps)
    found, _, error = run(provider.stream(endpoint(timeouts=SHORT)))
    assert error is None
    assert found == batches
    assert provider.body.closed


#: The steps of a stream, its batches, and the failure: reason, status and time.
FAILING: list[tuple[str, Provider, list[list[str]], Reason, int | None, float]] = [
    ("no connection", Provider(failure=httpx.ConnectError("x")), [], R.UPSTREAM_ERROR, None, 0),
    ("no headers", Provider(delay=NEVER), [], R.TIMEOUT, None, 10),
    ("headers, then silence", Provider(NEVER), [], R.TIMEOUT, None, 10),
    ("a role, then silence", Provider(ROLE, NEVER), [], R.TIMEOUT, None, 10),
    ("pings are no content", Provider(*again(9, b": ping\n\n", Wait(3)), HI), [], R.TIMEOUT, None, 10),
    ("time for headers is time for content", Provider(Wait(6), HI, delay=6), [], R.TIMEOUT, None, 10),
    ("nothing", Provider(), [], R.STREAM_TRUNCATED, None, 0),
    ("a role, then the end", Provider(ROLE), [], R.STREAM_TRUNCATED, None, 0),
    ("a role, then a reset", Provider(ROLE, RESET), [], R.UPSTREAM_ERROR, None, 0),
    ("an error status", Provider(b"<html>", status=503, type="text/html"), [], R.OVERLOADED, 503, 0),
    (
        "JSON with an error in a 200",
        Provider(b'{"error": {"message": "x", "code": 429}}', type="application/json"),
        [],
        R.RATE_LIMITED,
        429,
        0,
    ),
    ("garbage as JSON", Provider(b"oops", type="application/json"), [], R.UPSTREAM_INVALID_RESPONSE, 200, 0),
    ("JSON without an end", Provider(b"{", NEVER, type="application/json"), [], R.TIMEOUT, None, 10),
    ("JSON that breaks off", Provider(b"{", RESET, type="application/json"), [], R.UPSTREAM_ERROR, None, 0),
    ("a page in a 200", Provider(b"<html>", type="text/html"), [], R.UPSTREAM_INVALID_RESPONSE, 200, 0),
    ("an error as the first event", Provider(sse({"error": {"code": 503}})), [], R.OVERLOADED, 503, 0),
    ("an error after the role", Provider(ROLE, sse({"error": {"message": "x"}})), [], R.UPSTREAM_ERROR, 200, 0),
    ("chunks without content", Provider(ROLE * 1100, HI), [], R.UPSTREAM_INVALID_RESPONSE, 200, 0),
    ("garbage as the first event", Provider(b"data: oops\n\n"), [], R.UPSTREAM_INVALID_RESPONSE, 200, 0),
    ("the end after content", Provider(HI), [["+Hi"]], R.STREAM_TRUNCATED, None, 0),
    ("the end within an event", Provider(HI, BYE[:30]), [["+Hi"]], R.STREAM_TRUNCATED, None, 0),
    ("a reset after content", Provider(HI, RESET), [["+Hi"]], R.STREAM_TRUNCATED, None, 0),
    (
        "a reset a while after content",
        Provider(HI, Wait(5), BYE, RESET),
        [["+Hi"], [" bye"]],
        R.STREAM_TRUNCATED,
        None,
        5,
    ),
    ("silence after content", Provider(HI, Wait(7), BYE, NEVER), [["+Hi"], [" bye"]], R.TIMEOUT, None, 27),
    ("an error after content", Provider(HI, sse({"error": {"code": 502}})), [["+Hi"]], R.UPSTREAM_ERROR, 502, 0),
    ("garbage after content", Provider(HI, b"data: oops\n\n"), [["+Hi"]], R.UPSTREAM_INVALID_RESPONSE, 200, 0),
]


@pytest.mark.parametrize(
    ("provider", "batches", "reason", "status", "when"),
    [row[1:] for row in FAILING],
    ids=[row[0] for row in FAILING],
)
def test_failures_of_a_stream(
    provider: Provider, batches: list[list[str]], reason: Reason, status: int | None, when: float
) -> None:
    found, times, error = run(provider.stream(endpoint(timeouts=SHORT)))
    assert error is not None
    assert found == batches
    assert (error.reason, error.http_status) == (reason, status)
    assert isinstance(error, StreamTruncated) == (reason is R.STREAM_TRUNCATED)
    assert error.fall_over
    assert times[-1] == when
    assert provider.body.closed or not provider.body.read


@pytest.mark.parametrize("type_", ["application/json", "Application/JSON; charset=utf-8"])
def test_all_of_a_completion_in_answer_to_a_request_for_a_stream(type_: str) -> None:
    """https://github.com/lidge-jun/opencodex/pull/1006"""
    provider = Provider(COMPLETION, type=type_)
    batches, _, error = run(provider.stream(endpoint(timeouts=SHORT)))
    assert error is None
    assert batches == [["+Hi", "."]]
    assert provider.body.closed or provider.body.read


def test_names_of_tools_in_answers_of_the_other_form() -> None:
    """OpenAI takes no dot in a name; the caller gets it back."""
    where = endpoint(timeouts=SHORT)
    tools = [pb.Tool(function=pb.FunctionDefinition(name="files.read"))]
    made = {
        "id": "c",
        "index": 0,
        "type": "function",
        "function": {"name": "files_read_601e4eb6", "arguments": "{}"},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    whole = json.dumps({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    stream = Provider(whole.encode(), type="application/json").upstream.stream(where, ask(tools=tools))
    chunks = run(stream.open(9.0))
    [call] = [call for each in chunks for choice in each.choices for call in choice.delta.tool_calls]
    assert call.function.name == "files.read"
    provider = Provider(sse(chunk(delta(tool_calls=[made]))), sse(chunk(delta("tool_calls"))), DONE)
    [only] = run(provider.complete(where, tools=tools)).completion.choices
    assert only.message.tool_calls[0].function.name == "files.read"


@pytest.mark.parametrize("type_", ["text/event-stream; charset=utf-8", "application/json", "text/plain"])
def test_a_stream_in_answer_to_a_request_for_a_completion(type_: str) -> None:
    """https://github.com/BYK/loreai/pull/605"""
    provider = Provider(ROLE, HI, BYE, STOP, USAGE, DONE, type=type_)
    whole = run(provider.complete(endpoint(timeouts=SHORT))).completion
    [choice] = whole.choices
    assert [part.text for part in choice.message.content] == ["Hi bye"]
    assert choice.finish_reason == pb.FINISH_REASON_STOP
    assert whole.usage.completion_tokens == 1
    with pytest.raises(StreamTruncated):
        run(Provider(ROLE, HI, type=type_).complete(endpoint(timeouts=SHORT)))


@pytest.mark.parametrize(("limit", "when"), [(3.0, 3.0), (100.0, 10.0)])
def test_the_smaller_limit_of_the_first_content_counts(limit: float, when: float) -> None:
    _, times, error = run(Provider(ROLE, NEVER).stream(endpoint(timeouts=SHORT), limit))
    assert error is not None
    assert times == [when]


def test_the_deadline_of_a_stream() -> None:
    provider = Provider(HI, *again(9, Wait(4), BYE), STOP)
    found, times, error = run(provider.stream(endpoint(timeouts=SHORT), deadline=10.0))
    assert error is not None
    assert error.reason is R.TIMEOUT
    assert found == [["+Hi"], [" bye"], [" bye"]]
    assert times == [0, 4, 8, 10]
    assert provider.body.closed


@pytest.mark.parametrize(
    ("steps", "batches", "end"),
    [
        pytest.param([HI, STOP, NEVER], [["+Hi"], ["."]], 5, id="nothing comes"),
        pytest.param([HI, STOP, Wait(4), USAGE, NEVER], [["+Hi"], [".", "#"]], 9, id="usage comes"),
        pytest.param([HI, STOP, Wait(6), USAGE, DONE], [["+Hi"], ["."]], 5, id="usage comes too late"),
        pytest.param([HI, STOP, *again(3, b": ping\n\n", Wait(4))], [["+Hi"], ["."]], 12, id="pings come"),
    ],
)
def test_the_tail_timeout_after_the_last_finish_reason(steps: list[Step], batches: list[Any], end: float) -> None:
    provider = Provider(*steps)
    found, times, error = run(provider.stream(endpoint(timeouts=SHORT)))
    assert error is None
    assert found == batches
    assert times[-1] == end
    assert provider.body.closed


def test_of_two_choices_both_must_end() -> None:
    second = sse(chunk(delta(index=1, content="Yo")))
    ended = sse(chunk(delta("stop", index=1)))
    found, times, error = run(Provider(HI, STOP, Wait(9), second, Wait(9), ended).stream(n=2))
    assert error is None  # the second choice has all of the idle limit to begin
    assert found == [["+Hi"], ["+Yo"], [".", "."]]
    assert times[-1] == 18
    for steps in ([HI, STOP], [HI, STOP, RESET], [HI, STOP, second, RESET], [HI + second, STOP, NEVER]):
        *_, error = run(Provider(*steps).stream(endpoint(timeouts=SHORT), n=2))
        assert error is not None
        assert error.reason is (R.TIMEOUT if NEVER in steps else R.STREAM_TRUNCATED)


def test_the_native_finish_reason() -> None:
    async def main() -> None:
        stream = Provider(HI, sse(chunk(delta("eos"))), DONE).upstream.stream(endpoint(), ask())
        await stream.open(9)
        before = stream.native_finish_reason
        after = [stream.native_finish_reason async for _ in stream.batches(9)]
        assert (before, after) == ("", ["eos"])
        await stream.aclose()

    run(main())


def test_leaving_a_stream_closes_it() -> None:
    async def main() -> None:
        provider = Provider(HI, BYE, NEVER)
        stream = provider.upstream.stream(endpoint(), ask())
        await stream.open(9)
        batches = stream.batches(1e6)
        assert words(await anext(batches)) == [" bye"]
        await batches.aclose()
        open_until_now = not provider.body.closed
        for _ in range(2):
            await stream.aclose()
        assert (open_until_now, provider.body.closed, provider.body.left) == (True, True, True)

    run(main())


@pytest.mark.parametrize("steps", [(ROLE, NEVER), (HI, NEVER)], ids=["before the content", "after it"])
def test_cancelling_a_stream_closes_it(steps: tuple[Step, ...]) -> None:
    async def main() -> None:
        provider = Provider(*steps)
        call = asyncio.create_task(provider.stream(endpoint()))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert provider.body.closed

    run(main())


@pytest.mark.parametrize("steps", [(NEVER,), (b"{", NEVER)])
@pytest.mark.parametrize("status", [200, 500])
def test_cancelling_a_unary_call_closes_it(steps: tuple[Step, ...], status: int) -> None:
    async def main() -> None:
        provider = Provider(*steps, status=status)
        call = asyncio.create_task(provider.complete())
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert provider.body.closed

    run(main())


def test_closing_a_stream_that_was_never_opened() -> None:
    async def main() -> None:
        provider = Provider()
        await provider.upstream.stream(endpoint(), ask()).aclose()
        assert not provider.requests

    run(main())


@pytest.mark.parametrize(
    ("piece", "content"),
    [
        (pb.Delta(), False),
        (pb.Delta(role=pb.ROLE_ASSISTANT), False),
        (pb.Delta(content=""), False),
        (pb.Delta(reasoning_content="", refusal=""), False),
        (pb.Delta(extra_json='{"reasoning":null,"x":"","y":[]}'), False),  # OpenRouter's first
        (pb.Delta(content="a"), True),
        (pb.Delta(refusal="a"), True),
        (pb.Delta(reasoning_content="a"), True),
        (pb.Delta(reasoning_details=[pb.ReasoningDetail(redacted="x")]), True),
        (pb.Delta(tool_calls=[pb.ToolCallDelta(index=0, id="1")]), True),
        (pb.Delta(audio=pb.Audio(id="a")), True),
        (pb.Delta(extra_json='{"images":[{}]}'), True),
    ],
)
def test_has_content(piece: pb.Delta, content: bool) -> None:
    assert has_content(pb.ChatCompletionChunk(choices=[pb.ChunkChoice(delta=piece)])) is content
    ended = pb.ChunkChoice(delta=piece, finish_reason=pb.FINISH_REASON_STOP)
    assert has_content(pb.ChatCompletionChunk(choices=[pb.ChunkChoice(), ended]))


def test_usage_does_not_count_as_content() -> None:
    assert not has_content(pb.ChatCompletionChunk(usage=pb.Usage(total_tokens=1)))


def test_a_read_of_thousands_of_chunks_is_decoded_in_steps() -> None:
    """Other calls have a turn between them, and nothing is lost."""
    many = HI * (4 * MAX_STEP_BYTES // len(HI))
    batches, _, error = run(Provider(HI, many + STOP + DONE).stream(endpoint(timeouts=SHORT)))
    assert error is None
    assert len(batches) >= 5
    assert max(map(len, batches)) <= MAX_STEP_BYTES // len(HI) + 1
    assert sum(map(len, batches)) >= many.count(HI) + 1
