"""n by parallel calls, over a scripted provider. The loop checks that no task outlives a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from itertools import chain
from typing import Any

import httpx
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.usage import add_usage
from server.errors import InvalidRequest, ProviderError, Reason, StreamTruncated
from tests.routing.routing_help import run
from tests.support.fold import fold_messages
from tests.upstream.emulation_help import (
    DONE,
    FOR_EVER,
    Provider,
    Response,
    chunk,
    completion,
    endpoint,
    read,
    request,
    texts,
    usage,
    whole,
)

N = endpoint("n")
ROLE = chunk(role="assistant", content="")
STOP = chunk("stop")


def words(*texts: str, start: float = 0.0, every: float = 1.0, tokens: int = 5) -> Response:
    """A stream of words, each `every` seconds after the one before."""
    timed = [piece for word in texts for piece in (every, chunk(content=word))]
    return Response(ROLE, start, *timed, STOP, usage(10, tokens), DONE)


def by_call(*responses: Response) -> Provider:
    return Provider(lambda body, index: responses[index])


# Unary


def test_large_requests_are_not_copied_a_hundred_times() -> None:
    provider = Provider(lambda body, index: whole(completion("a")))
    large = request(n=128, user="x" * 3_000_000)
    with pytest.raises(InvalidRequest, match="ask for fewer choices") as raised:
        run(provider.emulation.complete(N, large, 100.0))
    assert (raised.value.param, raised.value.reason) == ("n", Reason.REQUEST_TOO_LARGE)
    assert not provider.calls


def test_choices_are_joined_and_usage_summed() -> None:
    # The first call is the slowest: the order is the index, not the time.
    provider = Provider(lambda body, index: whole(completion(f"answer {index}"), wait=3.0 - index))
    answer = run(provider.emulation.complete(N, request(n=3, temperature=1), 100.0))
    got = answer.completion
    assert [choice.index for choice in got.choices] == [0, 1, 2]
    assert [choice.message.content[0].text for choice in got.choices] == ["answer 0", "answer 1", "answer 2"]
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (30, 15, 45)
    assert answer.native_finish_reason == "stop"
    assert len(provider.calls) == 3
    assert not any("n" in call for call in provider.calls)
    assert all(call["temperature"] == 1 for call in provider.calls)


def test_calls_run_in_parallel() -> None:
    provider = Provider(lambda body, index: whole(completion("x"), wait=6.0))

    async def main() -> float:
        await provider.emulation.complete(N, request(n=128), 100.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(6.0)
    assert len(provider.calls) == 128


def test_a_lower_native_maximum_is_used() -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        answer = completion("x")
        answer["choices"] = [{**answer["choices"][0], "index": i} for i in range(body.get("n", 1))]
        return whole(answer)

    provider = Provider(script)
    where = endpoint("n", native_n=4)
    got = run(provider.emulation.complete(where, request(n=9), 100.0)).completion
    assert [choice.index for choice in got.choices] == list(range(9))
    assert [call.get("n") for call in provider.calls] == [4, 4, None]
    assert got.usage.prompt_tokens == 30
    run(provider.emulation.complete(where, request(n=4), 100.0))
    assert provider.calls[-1]["n"] == 4


@pytest.mark.parametrize(("seed", "seeds"), [(7, [7, 8, 9]), (2**31 - 1, [2**31 - 1, 2**31 - 2, 2**31 - 3])])
def test_every_call_has_a_different_seed(seed: int, seeds: list[int]) -> None:
    provider = Provider(lambda body, index: whole(completion("x")))
    run(provider.emulation.complete(N, request(n=3, seed=seed), 100.0))
    assert [call["seed"] for call in provider.calls] == seeds


def test_one_failure_fails_all() -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        return whole({"error": {}}, status=429, wait=1.0) if index == 1 else Response(FOR_EVER)

    provider = Provider(script)
    with pytest.raises(ProviderError) as raised:
        run(provider.emulation.complete(N, request(n=3), 100.0))
    assert raised.value.reason is Reason.RATE_LIMITED
    provider.check_closed()


def test_a_cancelled_call_cancels_all() -> None:
    provider = Provider(lambda body, index: Response(FOR_EVER))

    async def main() -> None:
        task = asyncio.create_task(provider.emulation.complete(N, request(n=3), FOR_EVER))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert len(provider.bodies) == 3
    provider.check_closed()


# Streams


def test_streams_are_interleaved() -> None:
    provider = by_call(words("a", "b", "c", every=2.0), words("x", "y", start=0.5))
    batches = run(read(provider.emulation.stream(N, request(n=2))))
    order = [
        (choice.index, choice.delta.content)
        for batch in batches
        for one in batch
        for choice in one.choices
        if choice.delta.content
    ]
    assert order == [(1, "x"), (0, "a"), (1, "y"), (0, "b"), (0, "c")]
    got = fold_messages(chain.from_iterable(batches))
    assert [choice.message.content[0].text for choice in got.choices] == ["abc", "xy"]
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (20, 10, 30)
    assert batches[-1] == [pb.ChatCompletionChunk(id="chatcmpl-up", created=5, model="up", usage=got.usage)]
    assert not any("n" in call for call in provider.calls)
    provider.check_closed()


def test_simultaneous_chunks_are_batched() -> None:
    provider = Provider(lambda body, index: words("a", "b"))
    batches = run(read(provider.emulation.stream(N, request(n=5))))
    assert texts(batches) == dict.fromkeys(range(5), "ab")
    assert len(batches) < 10


def test_a_stream_opens_with_its_first_content() -> None:
    provider = by_call(words("slow", start=8.0), words("fast"))

    async def main() -> float:
        stream = provider.emulation.stream(N, request(n=2))
        first = await stream.open(100.0)
        assert texts([first]) == {1: "fast"}
        opened = asyncio.get_running_loop().time()
        await stream.aclose()
        return opened

    assert run(main()) == pytest.approx(1.0)
    provider.check_closed()


def test_streams_without_content_end_too() -> None:
    provider = Provider(lambda body, index: Response(ROLE, STOP, DONE))
    got = fold_messages(chain.from_iterable(run(read(provider.emulation.stream(N, request(n=3))))))
    assert len(got.choices) == 3
    assert not got.HasField("usage")


BREAKS: list[tuple[Response, Reason]] = [
    (whole({"error": {}}, status=429), Reason.RATE_LIMITED),
    (Response(ROLE, httpx.ReadError("reset")), Reason.UPSTREAM_ERROR),
    (Response(ROLE, FOR_EVER), Reason.TIMEOUT),
    (Response(wait=FOR_EVER), Reason.TIMEOUT),
]


@pytest.mark.parametrize(("bad", "reason"), BREAKS)
def test_a_failure_before_content_fails_all(bad: Response, reason: Reason) -> None:
    provider = by_call(words("late", start=9.5), bad, words("late", start=9.5))
    stream = provider.emulation.stream(N, request(n=3))
    with pytest.raises(ProviderError) as raised:
        run(stream.open(100.0))
    assert raised.value.reason is reason
    provider.check_closed()


def test_a_failure_together_with_the_first_content_fails_opening() -> None:
    provider = by_call(words("a", every=0.0), whole({"error": {}}, status=500))
    with pytest.raises(ProviderError) as raised:
        run(provider.emulation.stream(N, request(n=2)).open(100.0))
    assert raised.value.reason is Reason.UPSTREAM_ERROR
    provider.check_closed()


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (Response(ROLE, 0.5, chunk(content="b"), 1.0, httpx.ReadError("reset")), StreamTruncated),
        (Response(ROLE, 0.5, chunk(content="b"), 1.0), StreamTruncated),
        (whole({"error": {}}, status=429, wait=1.5), ProviderError),
    ],
)
def test_a_failure_after_content_ends_the_stream(bad: Response, kind: type[ProviderError]) -> None:
    provider = by_call(words("a", "a", "a", "a"), bad)
    seen: list[str] = []

    async def main() -> None:
        stream = provider.emulation.stream(N, request(n=2))
        try:
            batch = await stream.open(100.0)
            seen.extend(texts([batch]).values())
            async with aclosing(stream.batches(FOR_EVER)) as batches:
                async for batch in batches:
                    seen.extend(texts([batch]).values())
        finally:
            await stream.aclose()

    with pytest.raises(ProviderError) as raised:
        run(main())
    assert type(raised.value) is kind
    assert "a" in seen
    provider.check_closed()


def _closes_unread(provider: Provider) -> Any:
    async def main() -> None:
        stream = provider.emulation.stream(N, request(n=3))
        await stream.open(100.0)
        await stream.aclose()
        await stream.aclose()

    return main()


def _stops_reading(provider: Provider) -> Any:
    async def main() -> None:
        stream = provider.emulation.stream(N, request(n=3))
        await stream.open(100.0)
        async with aclosing(stream.batches(FOR_EVER)) as batches:
            await anext(batches)
        await stream.aclose()

    return main()


def _cancelled(seconds: float) -> Callable[[Provider], Any]:
    def leave(provider: Provider) -> Any:
        async def main() -> None:
            task = asyncio.create_task(read(provider.emulation.stream(N, request(n=3))))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        return main()

    return leave


def _never_opened(provider: Provider) -> Any:
    return provider.emulation.stream(N, request(n=3)).aclose()


@pytest.mark.parametrize(
    "leave", [_closes_unread, _stops_reading, _cancelled(0.0), _cancelled(0.5), _cancelled(3.5), _never_opened]
)
def test_closing_releases_every_stream(leave: Callable[[Provider], Any]) -> None:
    provider = Provider(lambda body, index: words(*"abcdefgh", start=index))
    run(leave(provider))
    provider.check_closed()


def test_backpressure_of_a_slow_reader() -> None:
    """Only a few chunks of each stream are read ahead."""
    words: list[bytes | float] = [chunk(content="a"), 0.0] * 1000
    endless = Response(ROLE, *words, STOP, DONE)
    provider = Provider(lambda body, index: endless)

    async def main() -> int:
        stream = provider.emulation.stream(N, request(n=2))
        await stream.open(100.0)
        async with aclosing(stream.batches(FOR_EVER)) as batches:
            await anext(batches)
            for _ in range(1000):
                await asyncio.sleep(0)
            got = await anext(batches)
        await stream.aclose()
        return len(got)

    assert run(main()) < 10


def test_the_deadline_holds_for_all() -> None:
    provider = by_call(words("a", "b", every=5.0), Response(ROLE, chunk(content="x"), FOR_EVER))

    async def main() -> float:
        stream = provider.emulation.stream(N, request(n=2))
        await stream.open(100.0)
        with pytest.raises(ProviderError) as raised:
            async for _ in stream.batches(7.0):
                pass
        assert raised.value.reason is Reason.TIMEOUT
        await stream.aclose()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(7.0)
    provider.check_closed()


# With JSON mode


def test_each_choice_is_repaired_separately() -> None:
    where = endpoint("n", "json_object")

    def script(body: dict[str, Any], index: int) -> Response:
        repair = body["messages"][-1]["content"].startswith("Your answer cannot be used")
        return whole(completion('{"a":1}' if repair or index == 0 else "no", tokens=1))

    for streamed in (False, True):
        provider = Provider(script)
        chat_request = request(n=3, response_format={"type": "json_object"})
        if streamed:
            got = fold_messages(chain.from_iterable(run(read(provider.emulation.stream(where, chat_request)))))
        else:
            got = run(provider.emulation.complete(where, chat_request, 100.0)).completion
        assert [choice.index for choice in got.choices] == [0, 1, 2]
        assert [choice.message.content[0].text for choice in got.choices] == ['{"a":1}'] * 3
        assert len(provider.calls) == 5
        assert got.usage.total_tokens == 55
        assert not any("n" in call or "response_format" in call for call in provider.calls)


def test_one_failed_repair_fails_all() -> None:
    where = endpoint("n", "json_object")
    provider = Provider(lambda body, index: whole(completion("no")))
    with pytest.raises(ProviderError) as raised:
        run(read(provider.emulation.stream(where, request(n=3, response_format={"type": "json_object"}))))
    assert raised.value.reason is Reason.STRUCTURED_OUTPUT_INVALID


# Usage


def test_usage_is_added_in_every_part() -> None:
    one = pb.Usage(
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=15,
        prompt_tokens_details=pb.PromptTokensDetails(cached_tokens=4),
        extra_json='{"cost":0.25,"tier":"x","deep":{"a":1},"flag":true}',
    )
    two = pb.Usage(
        prompt_tokens=10,
        total_tokens=11,
        prompt_tokens_details=pb.PromptTokensDetails(cached_tokens=6, audio_tokens=1),
        completion_tokens_details=pb.CompletionTokensDetails(reasoning_tokens=0),
        extra_json='{"cost":0.5,"tier":"y","deep":{"a":2,"b":3},"flag":false,"more":1}',
    )
    add_usage(one, two)
    assert one == pb.Usage(
        prompt_tokens=20,
        completion_tokens=5,
        total_tokens=26,
        prompt_tokens_details=pb.PromptTokensDetails(cached_tokens=10, audio_tokens=1),
        completion_tokens_details=pb.CompletionTokensDetails(reasoning_tokens=0),
        extra_json='{"cost":0.75,"tier":"x","deep":{"a":3,"b":3},"flag":true,"more":1}',
    )


def test_usage_beyond_64_bits_is_cut() -> None:
    """A provider may report what it likes."""
    one = pb.Usage(prompt_tokens=2**63 - 1, completion_tokens=-(2**63), total_tokens=1)
    add_usage(one, pb.Usage(prompt_tokens=5, completion_tokens=-5, total_tokens=1))
    assert one == pb.Usage(prompt_tokens=2**63 - 1, completion_tokens=1 - 2**63, total_tokens=2)


def test_what_cannot_be_joined_is_the_providers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so the next endpoint is tried."""

    def fail(*_: Any) -> None:
        raise KeyError("usage")

    monkeypatch.setattr("server.upstream.emulation.choices.add_usage", fail)
    unary = Provider(lambda body, index: whole(completion("x")))
    with pytest.raises(ProviderError) as raised:
        run(unary.emulation.complete(N, request(n=3), 100.0))
    assert (raised.value.reason, raised.value.fall_over) == (Reason.UPSTREAM_INVALID_RESPONSE, True)
    streamed = Provider(lambda body, index: words("x", "y"))
    with pytest.raises(ProviderError) as raised:
        run(read(streamed.emulation.stream(N, request(n=3, stream_options={"include_usage": True}))))
    assert (raised.value.reason, raised.value.fall_over) == (Reason.UPSTREAM_INVALID_RESPONSE, True)
