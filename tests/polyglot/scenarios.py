"""The scenarios that the clients of all languages run: what the provider answers, and what the client prints.

A client is a program that gets the gateway's address as its argument and the API key in LMCHAT_API_KEY. It reads
names of scenarios from standard input, one on each line, and sends the requests of each to the model of that name.
It prints JSON, one object on each line: `token` for each token as it arrives, then `done`, the result, or `error`.
"""

from __future__ import annotations

from tests.polyglot.rows import (
    Scenario,
    call_piece,
    call_start,
    deltas,
    done,
    error,
    events,
    tokens,
    tool_call,
)
from tests.support.faults import answer, completion, cut, failure, reply, silence, stall

#: Base64 of the 8 bytes that every PNG file begins with, which the clients send as an image.
PNG = "iVBORw0KGgo="

#: More than the 4 MiB that gRPC libraries accept unless told otherwise.
LARGE = 6 << 20

WEATHER_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
    "additionalProperties": False,
}
_WEATHER = {"type": "function", "function": {"name": "weather", "parameters": WEATHER_SCHEMA}}
#: What a provider wants to have back with a tool call, beyond the contract.
_SIGNATURE = {"vendor": {"signature": "c2lnbmVk"}}
_PARIS = '{"city":"Paris"}'
_HELLO = [{"role": "user", "content": "Hello"}]

SCENARIOS = (
    Scenario(
        "unary",
        "`Hello` as a unary call.",
        [answer("Hello ", "there")],
        [done("Hello there", tokens=5)],
        body={"messages": _HELLO},
    ),
    Scenario(
        "stream",
        "`Hello` as a stream with usage.",
        [answer("Grüße", ", ", "世界 🙂")],
        [*tokens("Grüße", ", ", "世界 🙂"), done("Grüße, 世界 🙂", tokens=6)],
        body={"messages": _HELLO, "stream": True},
    ),
    Scenario(
        "first_token",
        "`Hello` as a stream. The provider sends the second token once the client has printed the first.",
        [],  # see the test
        [*tokens("one", " two"), done("one two")],
        held=True,
    ),
    Scenario(
        "reasoning",
        "`Hello` as a stream.",
        [deltas({"reasoning_content": "Think"}, {"reasoning_content": "ing."}, {"content": "42"})],
        [*tokens("42"), done("42", reasoning="Thinking.")],
    ),
    Scenario(
        "refusal",
        "`Hello` as a stream; a refusal is no content, so no token is printed.",
        [deltas({"refusal": "I can't "}, {"refusal": "do that."})],
        [done(refusal="I can't do that.")],
    ),
    Scenario(
        "stop_sequence",
        "`Hello` with the stop sequence `END` as a stream.",
        [
            events(
                {"delta": {"role": "assistant", "content": "one"}},
                {"delta": {}, "finish_reason": "stop", "matched_stop": "END"},
            )
        ],
        [*tokens("one"), done("one", stop_sequence="END")],
        body={"stop": ["END"]},
    ),
    Scenario(
        "two_choices",
        "`Hello` with `n` 2 as a stream; tokens of both choices are printed.",
        [
            events(
                {"index": 0, "delta": {"role": "assistant", "content": "a"}},
                {"index": 1, "delta": {"role": "assistant", "content": "x"}},
                {"index": 0, "delta": {"content": "b"}},
                {"index": 1, "delta": {"content": "y"}, "finish_reason": "length"},
                {"index": 0, "delta": {}, "finish_reason": "stop"},
            )
        ],
        [
            *tokens("a", "x", "b", "y"),
            {
                "done": {
                    "choices": [
                        done("ab")["done"]["choices"][0],
                        done("xy", finish_reason="LENGTH")["done"]["choices"][0],
                    ],
                    "total_tokens": 0,
                    "provider": "first",
                }
            },
        ],
        body={"n": 2},
    ),
    Scenario(
        "tool_calls",
        "`Hello` with the tool `weather` as a stream; the model calls it twice, and the pieces alternate.",
        [
            deltas(
                call_start(0, "call_1", "weather"),
                call_piece(0, '{"city":'),
                call_start(1, "call_2", "weather"),
                call_piece(1, '{"city":"Ro'),
                call_piece(0, '"Paris"}'),
                call_piece(1, 'me"}'),
                finish_reason="tool_calls",
            )
        ],
        [
            done(
                finish_reason="TOOL_CALLS",
                tool_calls=[
                    tool_call("call_1", "weather", _PARIS),
                    tool_call("call_2", "weather", '{"city":"Rome"}'),
                ],
            )
        ],
        body={"tools": [_WEATHER]},
    ),
    Scenario(
        "tools_two_turns",
        "`Hello` with the tool `weather` as a stream; the second turn has its result, `18 degrees in <city>`.",
        [
            deltas(
                call_start(0, "call_1", "weather", extra_content=_SIGNATURE),
                call_piece(0, _PARIS),
                finish_reason="tool_calls",
            ),
            answer("It is", " mild."),
        ],
        [*tokens("It is", " mild."), done("It is mild.", tokens=5)],
        calls=2,
        body={
            "messages": [
                *_HELLO,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": _PARIS},
                            "extra_content": _SIGNATURE,
                        }
                    ],
                },
                {"role": "tool", "content": "18 degrees in Paris", "tool_call_id": "call_1"},
            ]
        },
    ),
    Scenario(
        "structured_output",
        "`Hello` with a strict JSON Schema named `city` as a unary call; the content is decoded to a type.",
        [answer('{"city": "Paris", ', '"country": "France"}')],
        [{"done": {"city": "Paris", "country": "France"}}],
        body={
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": CITY_SCHEMA, "strict": True},
            }
        },
    ),
    Scenario(
        "image",
        "`What is this?` and an image as a unary call.",
        [answer("A picture.")],
        [done("A picture.", tokens=5)],
        body={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                }
            ]
        },
    ),
    Scenario(
        "large_completion",
        "`Hello` as a unary call; the answer has more than the 4 MiB that gRPC libraries accept by default.",
        [reply(200, completion("x" * LARGE))],
        [{"done": {"characters": LARGE}}],
    ),
    Scenario(
        "fallback",
        "`Hello` as a unary call with at most 2 provider tries; the first endpoint fails.",
        [failure(500), answer("From the second")],
        [done("From the second", tokens=5, provider="second")],
        calls=2,
    ),
    Scenario(
        "retry",
        "`Hello` as a unary call; the first call fails as UNAVAILABLE, and the client's retry policy repeats it.",
        [failure(500), answer("Again")],
        [done("Again", tokens=5)],
        calls=2,
    ),
    Scenario(
        "retry_stream",
        "`Hello` as a stream; the first call fails as UNAVAILABLE before its first token.",
        [failure(500), answer("Again")],
        [*tokens("Again"), done("Again", tokens=4)],
        calls=2,
    ),
    Scenario(
        "upstream_error",
        "`Hello` as a unary call; each of the client's 3 attempts fails.",
        [failure(500)],
        [error("UNAVAILABLE", "UPSTREAM_ERROR")],
        calls=3,
    ),
    Scenario(
        "model",
        "GetModel instead of a completion.",
        [],
        [{"done": {"id": "model", "context_length": 8192}}],
        calls=0,
    ),
    Scenario(
        "invalid_field",
        "`Hello` with temperature 9 as a unary call.",
        [],
        [error("INVALID_ARGUMENT", "INVALID_REQUEST", "temperature")],
        calls=0,
    ),
    Scenario(
        "invalid_field_stream",
        "`Hello` with temperature 9 as a stream.",
        [],
        [error("INVALID_ARGUMENT", "INVALID_REQUEST", "temperature")],
        calls=0,
    ),
    Scenario(
        "missing_key",
        "`Hello` as a unary call by a client without a key.",
        [],
        [error("UNAUTHENTICATED", "MISSING_API_KEY")],
        calls=0,
    ),
    Scenario(
        "wrong_key",
        "`Hello` as a unary call by a client with the key `wrong`.",
        [],
        [error("UNAUTHENTICATED", "INVALID_API_KEY")],
        calls=0,
    ),
    Scenario(
        "unknown_model",
        "`Hello` as a unary call; the catalogue has no such model.",
        [],
        [error("NOT_FOUND", "MODEL_NOT_FOUND", "model")],
        calls=0,
    ),
    Scenario(
        "rate_limited",
        "`Hello` as a unary call; it is not repeated, since the delay is for the caller to decide.",
        [failure(429, retry_after="7")],
        [error("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=7)],
    ),
    Scenario(
        "context_length",
        "`Hello` as a unary call.",
        [failure(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")],
        [error("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED")],
    ),
    Scenario(
        "broken_stream",
        "`Hello` as a stream, which breaks after two tokens: an error, and no completion.",
        [cut("one", " two")],
        [*tokens("one", " two"), error("ABORTED", "STREAM_TRUNCATED")],
    ),
    Scenario(
        "deadline",
        "`Hello` as a unary call with a deadline of 0.5 s; the provider never answers.",
        [silence],
        [error("DEADLINE_EXCEEDED", "TIMEOUT")],
        closed=True,
    ),
    Scenario(
        "deadline_stream",
        "`Hello` as a stream with a deadline of 0.5 s; the provider stops after one token.",
        [stall("one")],
        [*tokens("one"), error("DEADLINE_EXCEEDED", "TIMEOUT")],
        closed=True,
    ),
    Scenario(
        "unreachable",
        "`Hello` as a unary call by a client of port 1 of this machine, where nothing listens.",
        [],
        [error("UNAVAILABLE", "")],
        calls=0,
    ),
    Scenario(
        "cancel",
        "`Hello` as a stream, which the client cancels after the first token.",
        [stall("one")],
        [*tokens("one"), {"done": {"cancelled": True}}],
        closed=True,
    ),
    Scenario(
        "leave",
        "`Hello` as a stream; the client leaves its loop over the chunks after the first token.",
        [stall("one")],
        [*tokens("one"), {"done": {"left": True}}],
        closed=True,
    ),
)
