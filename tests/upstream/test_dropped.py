"""Fields dropped by a translation are reported, and refused with `require_parameters`."""

from __future__ import annotations

from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat.request import ChatRequest, ProtoRequest
from server.dialects.base import Endpoint, HttpRequest
from server.dialects.openai.dialect import OpenAITranslator
from server.errors import LmchatError, Reason
from server.upstream.client import Upstream
from tests.routing.router_rig import DONE, ROLE, STOP, Rig, _NoKeys, answer, chunk, drain, sends
from tests.routing.routing_help import request, run
from tests.support.sending import MockSender


class Forgetful(OpenAITranslator):
    """Leaves out the names of messages."""

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        call = super().request(request, endpoint, stream=stream)
        return replace(call, dropped=("messages[0].name",))


def forgetful(rig: Rig) -> None:
    sender: Any = MockSender(rig._serve)
    rig.router._upstream = Upstream(sender, {"openai": Forgetful()}, {"a": _NoKeys(), "b": _NoKeys()})


def test_whole_and_streamed() -> None:
    async def main() -> None:
        rig = Rig({"a": [answer("hi"), sends(ROLE, chunk(content="hi"), STOP, DONE)]})
        forgetful(rig)
        whole = await rig.complete()
        assert whole.report.dropped_params == ["messages[0].name"]
        assert [*whole.completion.lmchat.dropped_params] == ["messages[0].name"]
        streamed = await rig.open()
        assert streamed.report.dropped_params == ["messages[0].name"]
        chunks: list[pb.ChatCompletionChunk] = []
        await drain(streamed, chunks)
        assert [*chunks[-1].lmchat.dropped_params] == ["messages[0].name"]

    run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_callers_who_require_parameters(*, streamed: bool) -> None:
    async def main() -> None:
        rig = Rig({"a": [answer("hi")]})
        forgetful(rig)
        options = pb.RequestOptions(routing=pb.Routing(require_parameters=True))
        requiring = request(lmchat=options)
        with pytest.raises(LmchatError, match=r"would drop: messages\[0\]\.name") as raised:
            await (rig.open(requiring) if streamed else rig.complete(requiring))
        assert (raised.value.reason, raised.value.param) == (Reason.UNSUPPORTED_FEATURE, "messages[0].name")
        assert rig.calls == []

    run(main())


def test_a_request_says_what_it_requires() -> None:
    assert not ProtoRequest(request()).requires_parameters
