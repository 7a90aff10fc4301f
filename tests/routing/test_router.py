"""The router over real catalogues, translators and calls; only the network is scripted, and time is simulated."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import aclosing
from random import Random
from typing import Any

import httpx
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import JsonCompletion
from server.chat.openai_json import encode_text, parse_completion
from server.chat.request import ProtoRequest
from server.config.model import Circuit, Price, Timeouts
from server.errors import InvalidRequest, LmchatError, Reason
from tests.routing.router_rig import (
    DONE,
    FOR_EVER,
    RESET,
    ROLE,
    STOP,
    Behaviour,
    Rig,
    answer,
    attempts,
    chunk,
    drain,
    event,
    refuses,
    sends,
    silent,
    status,
    text,
)
from tests.routing.routing_help import request, run

row = pytest.param

HELLO = answer("hello there")
OTHER = answer("from b")

#: Failures of the first endpoint before content, unary or streamed; all calls; its attempts in the report.
BEFORE_CONTENT = [
    row([status(500)], "aab", [("a", 500, "upstream_error")] * 2, id="500 always"),
    row([status(503)], "aab", [("a", 503, "overloaded")] * 2, id="503 always"),
    row([status(429)], "ab", [("a", 429, "rate_limited")], id="429"),
    row([status(429, retry_after="1")], "ab", [("a", 429, "rate_limited")], id="429 with a short retry-after"),
    row([status(401)], "ab", [("a", 401, "upstream_authentication")], id="its 401"),
    row([status(404)], "ab", [("a", 404, "model_not_found")], id="its 404"),
    row([status(408)], "ab", [("a", 408, "timeout")], id="408"),
    row([refuses], "aab", [("a", 0, "upstream_error")] * 2, id="refused"),
    row([silent], "ab", [("a", 0, "timeout")], id="accepted, no response"),
    row([sends(FOR_EVER)], "ab", [("a", 0, "timeout")], id="headers, then a stall"),
    row([sends(RESET)], "aab", [("a", 0, "upstream_error")] * 2, id="headers, then reset"),
    row([sends(b"<html>oops</html>", content_type="text/html")], "ab", None, id="an HTML page with 200"),
    row([sends(b"{garbage", content_type="application/json")], "ab", None, id="garbage with 200"),
    row(
        [sends(b"<html>bad gateway</html>", status=502, content_type="text/html")],
        "aab", [("a", 502, "upstream_error")] * 2, id="an HTML page with 502",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("script", "calls", "failed"), BEFORE_CONTENT)
def test_unary_calls_fall_back(
    script: list[Behaviour], calls: str, failed: list[tuple[str, int, str]] | None
) -> None:
    async def main() -> None:
        rig = Rig({"a": script, "b": [OTHER]}, timeouts=Timeouts(total=20.0))
        completion = (await rig.complete()).completion
        assert completion.choices[0].message.content[0].text == "from b"
        assert (completion.lmchat.provider, completion.lmchat.tries) == ("b", len(calls))
        if failed is not None:
            assert attempts(completion.lmchat) == [*failed, ("b", 200, "ok")]
        assert rig.names() == calls
        rig.check_closed()

    run(main())


PINGS: list[bytes | float] = [b": ping\n\n", 1.0] * 99
STREAMS_ONLY = [
    row([sends(ROLE, FOR_EVER)], "ab", [("a", 0, "timeout")], id="a role, then a stall"),
    row([sends(ROLE, RESET)], "aab", [("a", 0, "upstream_error")] * 2, id="a role, then reset"),
    row([sends(ROLE)], "ab", [("a", 0, "stream_truncated")], id="a role, then the end"),
    row([sends()], "ab", [("a", 0, "stream_truncated")], id="no bytes"),
    row([sends(b": ping\n\n" * 9, FOR_EVER)], "ab", [("a", 0, "timeout")], id="pings"),
    row([sends(*PINGS)], "ab", [("a", 0, "timeout")], id="pings without end"),
    row([sends(event({"error": {"message": "no", "code": 503}}))], "aab", None, id="an error for a first event"),
    row([sends(event(b"{torn"))], "ab", [("a", 200, "upstream_invalid_response")], id="a malformed first event"),
]


@pytest.mark.parametrize(("script", "calls", "failed"), [*BEFORE_CONTENT, *STREAMS_ONLY])
def test_streams_fall_back_before_content(
    script: list[Behaviour], calls: str, failed: list[tuple[str, int, str]] | None
) -> None:
    async def main() -> None:
        rig = Rig({"a": script, "b": [OTHER]})
        chunks = await rig.stream()
        assert text(chunks) == "from b"
        assert sum(choice.delta.role == pb.ROLE_ASSISTANT for c in chunks for choice in c.choices) == 1
        report = chunks[-1].lmchat
        assert (report.provider, report.tries) == ("b", len(calls))
        if failed is not None:
            assert attempts(report) == [*failed, ("b", 200, "ok")]
        assert not any(c.HasField("lmchat") for c in chunks[:-1])
        assert rig.names() == calls
        rig.check_closed()

    run(main())


CONTENT = (ROLE, chunk(content="hello"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        row([*CONTENT, RESET], Reason.STREAM_TRUNCATED, id="cut"),
        row([*CONTENT], Reason.STREAM_TRUNCATED, id="ended without a finish reason"),
        row([*CONTENT, FOR_EVER], Reason.TIMEOUT, id="stalled"),
        row([*CONTENT, event(b"{torn")], Reason.UPSTREAM_INVALID_RESPONSE, id="a malformed event"),
        row([*CONTENT, event({"error": {"message": "no", "code": 503}})], Reason.OVERLOADED, id="an error event"),
        row([*CONTENT, event({"error": {"message": "no", "code": 429}})], Reason.RATE_LIMITED, id="a rate limit"),
    ],
)
def test_streams_never_fall_back_after_content(script: list[bytes | float | Exception], reason: Reason) -> None:
    async def main() -> None:
        rig = Rig({"a": [status(500), sends(*script)], "b": [OTHER]}, circuit=Circuit(min_requests=2))
        routed = await rig.open(request(), None)
        heard: list[pb.ChatCompletionChunk] = []
        with pytest.raises(LmchatError) as e:
            await drain(routed, heard)
        assert text(heard) == "hello"
        assert not any(choice.finish_reason for c in heard for choice in c.choices)
        assert e.value.reason is reason
        assert [(a.provider, a.status, a.reason) for a in e.value.attempts] == [
            ("a", 500, "upstream_error"),
            ("a", 200, str(reason)),
        ]
        assert rig.names() == "aa"
        assert rig.is_open("a")  # both calls failed, the second in the middle of its stream
        rig.check_closed()

    run(main())


@pytest.mark.parametrize(
    "tail",
    [
        row([DONE], id="complete"),
        row([], id="no [DONE]"),
        row([RESET], id="reset after the finish reason"),
        row([FOR_EVER], id="a stall after the finish reason"),
    ],
)
def test_a_finish_reason_completes_a_stream(tail: list[bytes | float | Exception]) -> None:
    async def main() -> None:
        rig = Rig({"a": [sends(*CONTENT, STOP, *tail)]}, circuit=Circuit(min_requests=1))
        chunks = await rig.stream()
        assert text(chunks) == "hello"
        assert chunks[-1].choices[0].finish_reason == pb.FINISH_REASON_STOP
        assert chunks[-1].lmchat.native_finish_reason == "stop"
        assert not rig.is_open("a")
        rig.check_closed()

    run(main())


@pytest.mark.parametrize(
    ("scripts", "calls", "code", "retry_after"),
    [
        row({"a": [status(400)], "b": [OTHER]}, "a", 400, None, id="invalid request"),
        row({"a": [status(413)], "b": [OTHER]}, "a", 413, None, id="too large"),
        row(
            {"a": [status(503)], "b": [status(422)]}, "aab", 400, None, id="invalid request at the second endpoint"
        ),
        row(
            {"a": [status(429, retry_after="9")], "b": [status(429, retry_after="5")]},
            "ab",
            429,
            5.0,
            id="rate limits",
        ),
        row({"a": [status(429, retry_after="1")]}, "aa", 429, 1.0, id="a short retry-after, always"),
        row({"a": [silent], "b": [silent], "c": [silent]}, "abc", 504, None, id="timeouts"),
        row({"a": [refuses], "b": [refuses]}, "aab", 502, None, id="connections refused"),
        row({"a": [status(429)], "b": [refuses]}, "abb", 503, None, id="different errors"),
        row({"a": [status(503)]}, "aa", 503, None, id="overload"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_errors(
    scripts: dict[str, list[Behaviour]], calls: str, code: int, retry_after: float | None, *, streamed: bool
) -> None:
    async def main() -> None:
        rig = Rig(scripts)
        with pytest.raises(LmchatError) as e:
            await (rig.stream() if streamed else rig.complete())
        assert e.value.status.http == code
        assert e.value.retry_after == retry_after
        assert rig.names() == calls
        assert [a.provider for a in e.value.attempts] == list(calls)
        assert rig.now() <= 100
        rig.check_closed()

    run(main())


# The directive, from end to end


@pytest.mark.parametrize(
    ("routing", "fields", "calls", "provider", "model"),
    [
        row({}, {}, "a", "a", "m", id="no directive"),
        row({"prefer": ["b"]}, {}, "b", "b", "m", id="prefer"),
        row({"only": ["c"]}, {}, "c", "c", "m", id="only"),
        row({"ignore": ["a"]}, {}, "b", "b", "m", id="ignore"),
        row({"sort": pb.ROUTING_SORT_PRICE}, {}, "c", "c", "m", id="sort"),
        row({"require_parameters": True}, {"seed": 1}, "b", "b", "m", id="require_parameters"),
        row({"models": ["second"]}, {}, "a", "a", "m", id="models, first available"),
        row({"models": ["second"], "only": ["z"]}, {}, "z", "z", "second", id="models"),
        row({}, {"model": "alias"}, "a", "a", "m", id="an alias"),
        row({}, {"model": "w/any/thing"}, "a", "a", "w/any/thing", id="a wildcard"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_directives(
    routing: dict[str, Any], fields: dict[str, Any], calls: str, provider: str, model: str, *, streamed: bool
) -> None:
    async def main() -> None:
        own: dict[str, dict[str, Any]] = {
            "a": {"drops": frozenset({"seed"}), "price": Price(input=9, output=9)},
            "c": {"price": Price(input=1, output=1)},
        }
        rig = Rig({"a": [HELLO], "b": [HELLO], "c": [HELLO], "z": [HELLO]}, own=own)
        proto = request(routing, **fields)
        answered = (await rig.stream(proto))[-1] if streamed else (await rig.complete(proto)).completion
        assert (rig.names(), answered.lmchat.provider, answered.model) == (calls, provider, model)
        assert rig.calls[0][2]["model"] == (model.removeprefix("w/") if "/" in model else "up")

    run(main())


@pytest.mark.parametrize(
    ("routing", "calls", "code"),
    [
        row({"allow_fallbacks": False}, "aa", 503, id="no fallbacks: the first error"),
        row({"allow_fallbacks": False, "max_provider_tries": 1}, "a", 503, id="no fallbacks, no retries"),
        row({"allow_fallbacks": False, "prefer": ["b"]}, "b", 429, id="no fallbacks from the preferred"),
        row({"max_provider_tries": 1}, "a", 503, id="one call"),
        row({"max_provider_tries": 2}, "ab", 503, id="two calls"),
        row(
            {"max_provider_tries": 100, "models": ["m", "alias", "m"]}, "aab", 503, id="a model named three times"
        ),
        row({"max_provider_tries": 100, "models": ["second"]}, "aabzz", 503, id="another model after this one's"),
    ],
)
def test_bounds(routing: dict[str, Any], calls: str, code: int) -> None:
    async def main() -> None:
        rig = Rig({"a": [status(503)], "b": [status(429)], "z": [status(503)]})
        with pytest.raises(LmchatError) as e:
            await rig.complete(request(routing))
        assert (rig.names(), e.value.status.http) == (calls, code)

    run(main())


@pytest.mark.parametrize(
    ("routing", "fields", "reason", "param"),
    [
        row({}, {"model": "nope"}, Reason.MODEL_NOT_FOUND, "model", id="model"),
        row({"models": ["second", "nope"]}, {}, Reason.INVALID_ROUTING, "lmchat.routing.models[1]", id="models"),
        row({"models": ["m"] * 101}, {}, Reason.INVALID_ROUTING, "lmchat.routing.models[100]", id="many models"),
        row({"prefer": ["nope"]}, {}, Reason.INVALID_ROUTING, "lmchat.routing.prefer[0]", id="prefer"),
        row({"only": ["a", "nope"]}, {}, Reason.INVALID_ROUTING, "lmchat.routing.only[1]", id="only"),
        row({"ignore": ["nope"]}, {}, Reason.INVALID_ROUTING, "lmchat.routing.ignore[0]", id="ignore"),
        row({"only": ["z"]}, {}, Reason.INVALID_ROUTING, "lmchat.routing", id="no endpoint left"),
        row({"sort": 9}, {}, Reason.INVALID_ROUTING, "lmchat.routing.sort", id="sort"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_bad_directives(
    routing: dict[str, Any], fields: dict[str, Any], reason: Reason, param: str, *, streamed: bool
) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO], "z": [HELLO]})
        proto = request(routing, **fields)
        with pytest.raises(LmchatError) as e:
            await (rig.stream(proto) if streamed else rig.complete(proto))
        assert (e.value.reason, e.value.param, rig.calls) == (reason, param, [])

    run(main())


# Accounting


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_report(*, streamed: bool) -> None:
    async def main() -> None:
        own = {"a": {"drops": frozenset({"seed"})}, "b": {"drops": frozenset({"seed", "user", "top_p"})}}
        rig = Rig({"a": [status(429)], "b": [answer("from b", 2.0)], "c": [HELLO], "z": [HELLO]}, own=own)
        proto = request({"ignore": ["c"]}, seed=1, user="u", temperature=0.5, debug=["routing"])
        answered = (await rig.stream(proto))[-1] if streamed else (await rig.complete(proto)).completion
        report = answered.lmchat
        assert (report.provider, report.tries, report.native_finish_reason) == ("b", 2, "stop")
        assert sorted(report.dropped_params) == ["seed", "user"]
        assert attempts(report) == [("a", 429, "rate_limited"), ("b", 200, "ok")]
        assert [a.ms for a in report.attempts] == [0, 0 if streamed else 2000]
        assert [(s.provider, s.model, s.reason) for s in report.skipped] == [("c", "m", "in `ignore`")]
        sent = [body for _, _, body in rig.calls]
        assert ["seed" in body for body in sent] == [False, False]
        assert ["user" in body for body in sent] == [True, False]
        assert [body["temperature"] for body in sent] == [0.5, 0.5]
        assert proto.seed == 1  # the caller's request is as it was

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_no_list_of_attempts_for_the_first_answer(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO]})
        report = ((await rig.stream())[-1] if streamed else (await rig.complete()).completion).lmchat
        assert (report.provider, report.tries, len(report.attempts), len(report.skipped)) == ("a", 1, 0, 0)

    run(main())


def test_a_duplicate_fallback_model_skips_nothing() -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO]})
        proto = request({"models": ["m", "alias"]}, debug=["routing"])
        assert not (await rig.complete(proto)).completion.lmchat.skipped

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_inexpressible_request_falls_back(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO], "b": [HELLO]}, own={"a": {"dialect": "gemini"}})
        proto = request(debug=["routing"])
        report = ((await rig.stream(proto))[-1] if streamed else (await rig.complete(proto)).completion).lmchat
        assert (report.provider, report.tries, rig.names()) == ("b", 1, "b")
        assert [(s.provider, s.reason) for s in report.skipped] == [("a", "There is no word for it.")]

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_request_that_no_dialect_can_express(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO]})
        proto = request(stop=list("abcdefghijklmnopq"))
        with pytest.raises(InvalidRequest) as e:
            await (rig.stream(proto) if streamed else rig.complete(proto))
        assert (e.value.param, e.value.attempts, rig.calls) == ("stop", (), [])

    run(main())


def test_ids_and_times_where_the_provider_gives_none() -> None:
    async def main() -> None:
        nameless = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
        rig = Rig({"a": [sends(json.dumps(nameless).encode()), HELLO]})
        first, second = (await rig.complete()).completion, (await rig.complete()).completion
        assert (first.id, first.created) == ("chatcmpl-own1", 1_750_000_000)
        assert (second.id, second.created) == ("chatcmpl-up", 5)

    run(main())


CITED = {
    "index": 0,
    "message": {"role": "assistant", "content": "hi", "annotations": [{"type": "file_path"}]},
    "finish_reason": "stop",
}


@pytest.mark.parametrize(
    "fields",
    [{}, {"x_of_a_vendor": 1}, {"choices": [CITED]}],
    ids=["plain", "unknown field", "parsed to protobuf"],
)
@pytest.mark.parametrize("typed", [False, True], ids=["json", "message"])
def test_an_answer_in_json_and_its_message_are_stamped_alike(fields: dict[str, Any], typed: bool) -> None:
    async def main() -> None:
        message = {"role": "assistant", "content": "hi"}
        nameless = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **fields}
        again = {**nameless, "usage": {"prompt_tokens": 1, "completion_tokens": 40, "total_tokens": 41}}
        script = [sends(1.0, json.dumps(body).encode()) for body in (nameless, again)]
        rig = Rig({"a": script})
        for number in (1, 2):
            routed = await rig.router.complete(ProtoRequest(request(), typed=typed), None)
            assert isinstance(routed.completion, JsonCompletion) is ("choices" not in fields and not typed)
            assert (routed.report.provider, routed.report.native_finish_reason) == ("a", "stop")
            found = routed.completion.to_openai()
            stamped = (found["id"], found["created"], found["model"])
            assert stamped == (f"chatcmpl-own{number}", 1_750_000_000, "m")
            assert routed.completion.to_proto() == parse_completion(json.loads(encode_text(found)))
            assert routed.completion.to_proto().lmchat == routed.report.to_proto()
        assert rig.health.throughput("a/a/up") == 40.0

    run(main())


@pytest.mark.parametrize("include_usage", [False, True])
def test_usage_only_on_request(*, include_usage: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO]})
        proto = request(stream_options=pb.StreamOptions(include_usage=include_usage))
        chunks = await rig.stream(proto)
        assert [c.usage.completion_tokens for c in chunks if c.HasField("usage")] == [40] * include_usage
        assert chunks[-1].HasField("lmchat")

    run(main())


def test_upstream_seconds_leave_out_the_waits() -> None:
    async def main() -> None:
        rig = Rig({"a": [status(429, retry_after="2"), answer("hello", 3.0)]})
        assert (await rig.complete()).upstream_seconds == pytest.approx(3.0)
        assert rig.now() == pytest.approx(5.0)

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_averages(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [answer("hello", 4.0)], "b": [answer("hello", 2.0)]})
        for name in ("a", "b"):
            proto = request({"only": [name]})
            await (rig.stream(proto) if streamed else rig.complete(proto))
        assert rig.health.throughput("a/a/up") == pytest.approx(10.0)
        assert rig.health.throughput("b/b/up") == pytest.approx(20.0)
        assert rig.health.latency("a/a/up") == pytest.approx(0.0 if streamed else 4.0)
        await rig.complete(request({"sort": pb.ROUTING_SORT_THROUGHPUT}))
        assert rig.names() == "abb"

    run(main())


def test_throughput_without_reported_usage() -> None:
    """An endpoint without measurements would always come first by `sort: throughput`."""

    async def main() -> None:
        rig = Rig({"a": [sends(ROLE, chunk(content="one"), 2.0, chunk(content="two"), STOP, DONE)]})
        await rig.stream()
        assert rig.health.throughput("a/a/up") == pytest.approx(1.0)

    run(main())


# Time


@pytest.mark.parametrize(
    ("timeout", "timeouts", "streamed", "begun"),
    [
        row(None, Timeouts(total=60.0), False, [0.0, 20.0, 40.0], id="unary: the total, shared"),
        row(30.0, Timeouts(total=60.0), False, [0.0, 10.0, 20.0], id="unary: the caller's deadline, shared"),
        row(600.0, Timeouts(total=60.0), False, [0.0, 20.0, 40.0], id="unary: a longer deadline of the caller"),
        row(None, Timeouts(first_token=5.0), True, [0.0, 5.0, 10.0], id="streamed: first tokens"),
        row(9.0, Timeouts(first_token=5.0), True, [0.0, 3.0, 6.0], id="streamed: the caller's deadline, shared"),
    ],
)
def test_all_endpoints_unresponsive(
    timeout: float | None, timeouts: Timeouts, streamed: bool, begun: list[float]
) -> None:
    async def main() -> None:
        rig = Rig({"a": [silent], "b": [silent], "c": [silent]}, timeouts=timeouts)
        with pytest.raises(LmchatError) as e:
            await (rig.stream(timeout=timeout) if streamed else rig.complete(timeout=timeout))
        assert e.value.reason is Reason.TIMEOUT
        assert [at for _, at, _ in rig.calls] == pytest.approx(begun)
        assert rig.now() == pytest.approx(begun[1] * 3)

    run(main())


def test_a_short_timeout_of_the_first_endpoint_does_not_limit_others() -> None:
    async def main() -> None:
        own = {"a": {"timeouts": Timeouts(total=10.0)}, "b": {"timeouts": Timeouts(total=300.0)}}
        rig = Rig({"a": [silent], "b": [answer("at last", 200.0)]}, own=own)
        assert (await rig.complete()).completion.lmchat.provider == "b"
        assert [at for _, at, _ in rig.calls] == pytest.approx([0.0, 10.0])

    run(main())


@pytest.mark.parametrize(
    ("timeout", "timeouts", "ends", "counts"),
    [
        row(20.0, Timeouts(), 20.0, False, id="the caller's deadline is not counted against the endpoint"),
        row(None, Timeouts(total=30.0), 30.0, False, id="a stream without end is not counted"),
        row(None, Timeouts(idle=0.5, total=30.0), 0.5, True, id="a stall in mid-stream is counted"),
    ],
)
def test_the_deadline_passes_in_a_stream(
    timeout: float | None, timeouts: Timeouts, ends: float, counts: bool
) -> None:
    async def main() -> None:
        trickle: list[bytes | float] = [
            ROLE,
            *[piece for _ in range(999) for piece in (chunk(content="drip"), 1.0)],
        ]
        rig = Rig({"a": [sends(*trickle)], "b": [OTHER]}, timeouts=timeouts, circuit=Circuit(min_requests=1))
        with pytest.raises(LmchatError) as e:
            await rig.stream(timeout=timeout)
        assert (e.value.reason, rig.names()) == (Reason.TIMEOUT, "a")
        assert rig.now() == pytest.approx(ends)
        assert rig.is_open("a") is counts
        rig.check_closed()

    run(main())


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_no_call_after_the_deadline(timeout: float) -> None:
    async def main() -> None:
        rig = Rig({"a": [HELLO]})
        with pytest.raises(LmchatError) as e:
            await rig.complete(timeout=timeout)
        assert (e.value.reason, rig.calls) == (Reason.TIMEOUT, [])

    run(main())


# Callers who leave


@pytest.mark.parametrize(
    ("behaviour", "streamed"),
    [
        row(silent, False, id="unary, before headers"),
        row(sends(FOR_EVER), False, id="unary, before the body"),
        row(sends(b'{"id"', FOR_EVER), False, id="unary, in the body"),
        row(silent, True, id="streamed, before headers"),
        row(sends(FOR_EVER), True, id="streamed, before content"),
        row(sends(ROLE, FOR_EVER), True, id="streamed, after the role"),
        row(sends(*CONTENT, FOR_EVER), True, id="streamed, after content"),
        row(status(429, retry_after="2"), True, id="while waiting to try again"),
    ],
)
def test_cancellation(behaviour: Behaviour, *, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [behaviour]}, circuit=Circuit(min_requests=1))
        task = asyncio.create_task(rig.stream() if streamed else rig.complete())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        rig.check_closed()
        assert rig.now() == pytest.approx(1.0)
        await asyncio.sleep(500.0)
        assert rig.names() == "a"
        assert not rig.is_open("a")

    run(main())


@pytest.mark.parametrize("read", [None, 0, 1], ids=["never iterated", "entered only", "left after a batch"])
def test_a_stream_that_is_not_read_to_its_end_is_closed(read: int | None) -> None:
    async def main() -> None:
        rig = Rig({"a": [sends(*CONTENT, FOR_EVER)]}, circuit=Circuit(min_requests=1))
        routed = await rig.open(request(), None)
        if read is None:
            await routed.aclose()
        else:
            async with aclosing(routed.batches()) as batches:
                for _ in range(read):
                    assert text(await anext(batches)) == "hello"
        await routed.aclose()  # closing again has no effect
        assert [body.closed for body in rig.bodies] == [True]
        assert not rig.is_open("a")

    run(main())


# Circuits


def test_many_callers_and_a_single_probe() -> None:
    async def main() -> None:
        rig = Rig({"a": [status(401), answer("hello", 1.0)], "b": [OTHER]}, circuit=Circuit(min_requests=1))
        await rig.complete()
        await asyncio.sleep(10.0)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(rig.complete())
        assert Counter(rig.names()[2:]) == {"a": 1, "b": 19}
        await rig.complete()
        assert rig.names()[-1] == "a"

    run(main())


def test_streams_that_break_open_the_circuit() -> None:
    async def main() -> None:
        rig = Rig({"a": [sends(*CONTENT, RESET)], "b": [OTHER]})
        for _ in range(5):
            with pytest.raises(LmchatError):
                await rig.stream()
        assert (await rig.stream())[-1].lmchat.provider == "b"
        assert rig.names() == "aaaaab"

    run(main())


def test_a_flapping_endpoint_recovers_within_a_cooldown() -> None:
    async def main() -> None:
        rig = Rig({"a": [refuses] * 6 + [HELLO], "b": [OTHER]})
        served = ""
        for _ in range(60):
            served += (await rig.complete()).completion.lmchat.provider
            await asyncio.sleep(0.5)
        # The third request brings the fifth failure; the probe 10 s later fails, the one 20 s later does not.
        assert served == "b" * 42 + "a" * 18
        assert rig.names() == "aabaab" + "ab" + "b" * 19 + "ab" + "b" * 19 + "a" * 18

    run(main())


def test_a_thousand_requests_over_an_endpoint_that_fails_half_of_the_time() -> None:
    async def main() -> None:
        dice = Random(3)
        evils = [status(500), status(529), refuses, silent, sends(RESET), sends(ROLE, RESET), sends(FOR_EVER)]

        async def flaky(proto: dict[str, Any]) -> httpx.Response:
            return await (dice.choice(evils) if dice.random() < 0.5 else HELLO)(proto)

        rig = Rig({"a": [flaky], "b": [OTHER]}, timeouts=Timeouts(first_token=2.0, total=60.0))
        texts: Counter[str] = Counter()

        async def one(number: int) -> None:
            await asyncio.sleep(number * 0.05)
            if number % 2:
                chunks = await rig.stream()
                assert sum(bool(choice.finish_reason) for c in chunks for choice in c.choices) == 1
                texts[text(chunks)] += 1
            else:
                texts[(await rig.complete()).completion.choices[0].message.content[0].text] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(one(number))
        assert set(texts) == {"hello there", "from b"}
        assert texts.total() == 1000
        rig.check_closed()

    run(main())
