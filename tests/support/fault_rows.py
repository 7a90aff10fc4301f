"""Provider faults, one row each, and the expected outcomes for callers: the table of the fault tests.

Two endpoints, `a` and `b`, in this order. The rows apply to a single worker and to the whole gateway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.errors import STATUS, Reason
from tests.support.faults import (
    Behaviour,
    Call,
    answer,
    broken,
    cut,
    failure,
    headers_only,
    late,
    reply,
    reset,
    silence,
    stall,
    unframed,
)
from tests.support.gateway import AUTH, RestReply, ask

#: API and whether to stream.
CALL_MODES = [(api, stream) for api in ("rest", "typed") for stream in (False, True)]


class Apis(Protocol):
    """A client of the REST and the gRPC API of a gateway."""

    @property
    def chat(self) -> Any:
        """The gRPC stub."""
        ...

    async def post(self, body: Any) -> RestReply:
        """One REST call, to its end."""
        ...


class Outcome(NamedTuple):
    """The outcome of a call: all text, `ok` or the error's reason, and the attempts as `a 429 rate_limited`."""

    text: str
    reason: str
    attempts: list[str]


def listed(attempts: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{a['provider']} {a.get('status', 0)} {a['reason']}" for a in attempts]


async def by_rest(gateway: Apis, body: dict[str, Any]) -> Outcome:
    answered = await gateway.post(body)
    if not (body["stream"] and answered.status == 200):
        parsed = answered.json()
        if answered.status == 200:
            return Outcome(parsed["choices"][0]["message"]["content"], "ok", listed(parsed["lmchat"]["attempts"]))
        reason = parsed["error"]["lmchat"]["reason"]
        assert STATUS[Reason(reason)].http == answered.status
        assert (answered.status in (429, 503)) == ("retry-after" in answered.headers)
        attempts = parsed["error"]["lmchat"].get("attempts", [])
        assert answered.headers.get("x-lmchat-tries", "0") == str(len(attempts))
        return Outcome("", reason, listed(attempts))
    *chunks, last = answered.events()
    done = last == "[DONE]"
    if not done:
        chunks.append(last)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert sum("role" in choice["delta"] for choice in choices) <= 1
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    if done:
        assert finishes == ["stop"]
        return Outcome(text, "ok", listed(chunks[-1]["lmchat"]["attempts"]))
    assert finishes == ["error"]
    error = chunks[-1]["error"]["lmchat"]
    return Outcome(text, error["reason"], listed(error["attempts"]))


async def by_grpc(gateway: Apis, body: dict[str, Any]) -> Outcome:
    request = openai_json.parse(json.dumps(body).encode()).request
    text = ""
    try:
        if not body["stream"]:
            whole = await gateway.chat.CreateChatCompletion(request, metadata=AUTH)
            return Outcome(whole.choices[0].message.content[0].text, "ok", reported(whole.lmchat))
        finishes = []
        async for chunk in gateway.chat.StreamChatCompletion(request, metadata=AUTH):
            text += "".join(choice.delta.content for choice in chunk.choices)
            finishes += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        assert finishes == [pb.FINISH_REASON_STOP]
        return Outcome(text, "ok", reported(chunk.lmchat))
    except grpc.aio.AioRpcError as error:
        return failed_outcome(error, text)


def failed_outcome(error: grpc.aio.AioRpcError, text: str) -> Outcome:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    reason = info.reason.lower()
    assert STATUS[Reason(reason)].grpc is error.code()
    return Outcome(text, reason, listed(json.loads(info.metadata["attempts"])))


def reported(report: pb.RoutingReport) -> list[str]:
    return [f"{a.provider} {a.status} {a.reason}" for a in report.attempts]


async def get(
    gateway: Apis, api: str, stream: bool, model: str = "m", text: str = "hello", **routing: Any
) -> Outcome:
    """Make one call whose report lists the attempts."""
    body = ask(model, stream=stream, lmchat={"routing": routing, "debug": ["routing"]})
    body["messages"][0]["content"] = text
    return await (by_rest if api == "rest" else by_grpc)(gateway, body)


def most_in_three_seconds(calls: Sequence[Call]) -> int:
    return max((sum(c.begun <= d.begun < c.begun + 3 for d in calls) for c in calls), default=0)


A, B = "from a", "from b"
FINE = answer("from", " a")
OK_A, OK_B = "a 200 ok", "b 200 ok"
TOO_LONG = failure(400, "maximum context length is 10", "context_length_exceeded")
POLICY = failure(400, "we will not", "content_policy_violation")
PAGE = b"<html><h1>Bad gateway</h1></html>"


def row(
    script: Behaviour | list[Behaviour],
    whole: Outcome,
    stream: Outcome | None = None,
    *,
    within: float = 1.5,
    id: str,
) -> Any:
    """`script` is the behaviour of `a`; `stream` the outcome of a streamed call, where that differs."""
    return pytest.param(script if isinstance(script, list) else [script], whole, stream or whole, within, id=id)


def falls_back(*attempts: str) -> Outcome:
    """`b` answers in the end."""
    return Outcome(B, "ok", [*attempts, OK_B])


def breaks_off(text: str, reason: str) -> Outcome:
    """A stream of `a` that broke in its middle."""
    return Outcome(text, reason, [f"a 200 {reason}"])


FAULTS = [
    row(FINE, Outcome(A, "ok", [OK_A]), id="none"),
    row([failure(429), FINE], falls_back("a 429 rate_limited"), id="429 once"),
    row(failure(429), falls_back("a 429 rate_limited"), id="429 always"),
    row([failure(429, retry_after="1"), FINE], falls_back("a 429 rate_limited"), id="429 with retry-after, once"),
    row(failure(429, retry_after="30"), falls_back("a 429 rate_limited"), id="429 with retry-after, always"),
    row([failure(500), FINE], Outcome(A, "ok", ["a 500 upstream_error", OK_A]), id="500 once"),
    row(failure(500), falls_back("a 500 upstream_error", "a 500 upstream_error"), id="500 always"),
    row(failure(503), falls_back("a 503 overloaded", "a 503 overloaded"), id="503 always"),
    row([reset, FINE], Outcome(A, "ok", ["a 0 upstream_error", OK_A]), id="reset before headers, once"),
    row(reset, falls_back("a 0 upstream_error", "a 0 upstream_error"), id="reset before headers, always"),
    row(silence, falls_back("a 0 timeout"), id="accepted, no response"),
    row(headers_only, falls_back("a 0 timeout"), id="headers, then a stall"),
    row(late(0.1, FINE), Outcome(A, "ok", [OK_A]), id="slow first token"),
    row(late(10, FINE), falls_back("a 0 timeout"), id="first token too late"),
    row(
        cut("one"),
        falls_back("a 0 upstream_error", "a 0 upstream_error"),
        breaks_off("one", "stream_truncated"),
        id="cut in the middle",
    ),
    row(cut(), falls_back("a 0 upstream_error", "a 0 upstream_error"), id="cut before content"),
    row(
        unframed("one"),
        falls_back("a 0 upstream_error", "a 0 upstream_error"),
        breaks_off("one", "stream_truncated"),
        id="malformed HTTP in the middle",
    ),
    row(stall("one"), falls_back("a 0 timeout"), breaks_off("one", "timeout"), id="stall in the middle"),
    row(broken(), falls_back("a 200 upstream_invalid_response"), id="malformed event first"),
    row(
        broken("one"),
        falls_back("a 200 upstream_invalid_response"),
        breaks_off("one", "upstream_invalid_response"),
        id="malformed event in the middle",
    ),
    row(
        broken("one", event=b""),
        falls_back("a 200 upstream_invalid_response"),
        breaks_off("one", "stream_truncated"),
        id="clean end in the middle",
    ),
    row(answer("from", " a", done=False), Outcome(A, "ok", [OK_A]), id="no [DONE]"),
    row(TOO_LONG, falls_back("a 400 context_length_exceeded"), id="context too long"),
    row(POLICY, Outcome("", "content_policy_violation", ["a 400 content_policy_violation"]), id="content policy"),
    row(failure(400), Outcome("", "invalid_request", ["a 400 invalid_request"]), id="invalid request"),
    row(failure(401), falls_back("a 401 upstream_authentication"), id="401"),
    row(failure(403), falls_back("a 403 upstream_authentication"), id="403"),
    row(failure(404), falls_back("a 404 model_not_found"), id="404"),
    row(
        reply(502, PAGE, "text/html"),
        falls_back("a 502 upstream_error", "a 502 upstream_error"),
        id="HTML error page",
    ),
    row(reply(200, PAGE, "text/html"), falls_back("a 200 upstream_invalid_response"), id="HTML with 200"),
    row(reply(200, b"{]"), falls_back("a 200 upstream_invalid_response"), id="garbage JSON with 200"),
    row(
        reply(200, {"error": {"message": "inside", "code": 429}}),
        falls_back("a 429 rate_limited"),
        id="error with 200",
    ),
]
