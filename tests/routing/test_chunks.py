"""StreamFinisher: when each chunk is sent, and its fields."""

from __future__ import annotations

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.routing.chunks import StreamFinisher

row = pytest.param

REPORT = pb.RoutingReport(provider="a", tries=2)


def chunks(line: str) -> list[pb.ChatCompletionChunk]:
    """`0:hello` is content of choice 0, `0.` its end, `u7` usage of 7 tokens, `-` an empty chunk."""
    out = []
    for word in line.split():
        chunk = pb.ChatCompletionChunk(id="chatcmpl-up", created=1700000000, model="up-2024")
        if word[0] == "u":
            chunk.usage.completion_tokens = int(word[1:])
        elif word != "-":
            choice = chunk.choices.add(index=int(word[0]))
            if word[1] == ".":
                choice.finish_reason = pb.FINISH_REASON_STOP
            else:
                choice.delta.content = word[2:]
        out.append(chunk)
    return out


def shown(out: list[pb.ChatCompletionChunk]) -> str:
    """The inverse, with `!` where the report is."""
    words = []
    for chunk in out:
        word = f"u{chunk.usage.completion_tokens}" if chunk.HasField("usage") else "-"
        for choice in chunk.choices:
            word = f"{choice.index}" + ("." if choice.finish_reason else f":{choice.delta.content}")
        words.append(word + ("!" if chunk.HasField("lmchat") else ""))
    return " ".join(words)


def finisher(*, include_usage: bool = False) -> StreamFinisher:
    return StreamFinisher(id="chatcmpl-own", created=1, model="public", include_usage=include_usage)


@pytest.mark.parametrize(
    ("batches", "include_usage", "expected"),
    [
        row(["0:a", "0:b", "0."], False, ["0:a", "0:b", "", "0.!"], id="one by one"),
        row(["0:a 0:b", "0:c 0."], False, ["0:a 0:b", "0:c", "0.!"], id="batches stay batches"),
        row(["0:a 0:b 0."], False, ["0:a 0:b", "0.!"], id="all at once"),
        row(["0."], False, ["", "0.!"], id="an empty answer"),
        row(["0:a", "0. u7"], False, ["0:a", "", "0.!"], id="usage not requested"),
        row(["0:a", "0.", "u7"], True, ["0:a", "", "0.", "u7!"], id="usage requested"),
        row(["0:a", "0. u7"], True, ["0:a", "0.", "u7!"], id="usage in the same read"),
        row(["0:a", "0."], True, ["0:a", "", "0.!"], id="usage requested, but not sent"),
        row(["-", "0:a", "0."], False, ["", "0:a", "", "0.!"], id="an empty chunk"),
        row(["-", "0:a - 0."], True, ["", "0:a", "0.!"], id="an empty chunk is not usage"),
        row(["0:a 1:b", "0.", "1:c", "1."], False, ["0:a 1:b", "0.", "1:c", "", "1.!"], id="two choices together"),
        row(["0:a 0.", "1:b 1."], False, ["0:a", "0. 1:b", "1.!"], id="two choices, one after the other"),
        row(["0:a 0.", "0:note"], False, ["0:a", "0.", "0:note!"], id="something after the end"),
        row(["0:a 0.", "0:note 0:more"], False, ["0:a", "0. 0:note", "0:more!"], id="more after the end"),
        row([], False, [""], id="no chunks"),
    ],
)
def test_order(batches: list[str], include_usage: bool, expected: list[str]) -> None:
    finish = finisher(include_usage=include_usage)
    out = [shown(finish.feed(chunks(batch))) for batch in batches]
    assert [*out, shown(finish.end(REPORT))] == expected


def test_the_last_chunk_has_a_copy_of_the_report() -> None:
    finish = finisher()
    finish.feed(chunks("0:a 0."))
    report = pb.RoutingReport(provider="a", native_finish_reason="end_turn")
    [last] = finish.end(report)
    report.provider = "b"
    assert (last.lmchat.provider, last.lmchat.native_finish_reason) == ("a", "end_turn")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        row(("x", "x", "x"), "x", id="the provider's"),
        row(("", "", ""), "chatcmpl-own", id="no id: the gateway's"),
        row(("", "x", "x"), "chatcmpl-own", id="an id after the first chunk"),
        row(("x", "", "y"), "x", id="different ids: the first"),
    ],
)
def test_one_id_time_and_model(ids: tuple[str, ...], expected: str) -> None:
    finish = finisher()
    fed = chunks("0:a 0:b 0.")
    for chunk, id_ in zip(fed, ids, strict=True):
        chunk.id = id_
        chunk.created = 5 if id_ == "x" else 6 if id_ else 0
    out = [*finish.feed(fed), *finish.end(REPORT)]
    assert [chunk.id for chunk in out] == [expected] * 3
    assert {chunk.created for chunk in out} == {5 if expected == "x" else 1}
    assert {chunk.model for chunk in out} == {"public"}


@pytest.mark.parametrize(
    ("batch", "include_usage", "tokens"),
    [
        row("0: 0:a 0:b 0. u7", False, 7, id="known without include_usage"),
        row("0: 0:a 0:b 0. u7", True, 7, id="requested"),
        row("0: 0:a 0:b 0.", True, 0, id="unknown"),
    ],
)
def test_tokens(batch: str, include_usage: bool, tokens: int) -> None:
    finish = finisher(include_usage=include_usage)
    finish.feed(chunks(batch))
    assert (finish.tokens, finish.pieces) == (tokens, 2)


def test_only_the_last_chunk_is_held() -> None:
    """A slow stream is sent chunk by chunk."""
    finish = finisher()
    for number in range(100):
        assert shown(finish.feed(chunks(f"0:{number}"))) == f"0:{number}"


@pytest.mark.parametrize("include_usage", [False, True])
def test_fields_beside_the_usage_reach_callers_without_it(include_usage: bool) -> None:
    finish = finisher(include_usage=include_usage)
    content, end, usage = chunks("0:a 0. u7")
    end.extra_json, usage.extra_json = '{"a":1,"b":1}', '{"b":2,"metrics":{"latencyMs":3}}'
    out = finish.feed([content, end]) + finish.feed([usage]) + finish.end(REPORT)
    last = '{"b":2,"metrics":{"latencyMs":3}}' if include_usage else '{"a":1,"b":2,"metrics":{"latencyMs":3}}'
    assert out[-1].extra_json == last
    assert out[-1].HasField("usage") == include_usage


def test_the_first_model_that_the_provider_names_is_reported() -> None:
    finish = finisher()
    out = chunks("0:a 0:b 0.")
    out[0].model = ""
    assert [chunk.model for chunk in finish.feed(out)] == ["public"] * 2
    assert finish.native_model == "up-2024"
