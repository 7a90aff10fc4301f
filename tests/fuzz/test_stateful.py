"""The stream decoder of every dialect, driven event by event with faults between.

Each run takes one golden stream. Steps send its next event in pieces, send events without content, send the next
event damaged, or break the stream off. The contract that the chunks must keep is in `check_chunks`.
"""

from __future__ import annotations

import json
import re
from functools import partial
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lmchat.v1 import chat_pb2 as pb

from server.dialects.base import StreamDecoder
from server.dialects.registry import DIALECTS
from server.errors import ProviderError, StreamTruncated
from tests.conformance.test_streams import UNKNOWN
from tests.fuzz import mutate, seeds
from tests.fuzz.targets import REQUESTS, Decoded, check_chunks
from tests.support.streams import WRITERS, Event

_REASON = re.compile(r'"(finish_reason|stop_reason|finishReason|stopReason)": ?"')


def has_reason(event: Event) -> bool:
    """Whether an event says why a choice ended."""
    return isinstance(event, dict) and bool(_REASON.search(json.dumps(event)))


def damaged(dialect: str, event: Event) -> bytes:
    """`event` in an intact frame, its JSON cut in the middle of its longest text."""
    writer = WRITERS[dialect]
    if dialect == "bedrock":
        assert isinstance(event, dict)
        [(name, payload)] = event.items()
        return writer({name: json.dumps(payload).encode()[:-1]})
    return writer(json.dumps(event).encode()[:-1])


class DecoderMachine(RuleBasedStateMachine):
    """`received`: events sent undamaged, in order; `failure`: the error that the decoder raised."""

    dialect: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.decoder: StreamDecoder = DIALECTS[self.dialect].translator.decoder(REQUESTS[0])
        self.events: list[Event] = []
        self.received = 0
        self.damaged = False
        self.damaged_before_the_end = False
        self.closed = False
        self.failure: ProviderError | None = None
        self.chunks: list[pb.ChatCompletionChunk] = []

    # The stream

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        streams = [each for each in seeds.answers()[self.dialect].streams if any(map(has_reason, each))]
        self.events = data.draw(st.sampled_from(streams))

    @property
    def last_reason(self) -> int:
        """The number of the last event that has a reason: with it the answer is whole, but for its usage."""
        return max(number for number, event in enumerate(self.events) if has_reason(event))

    def is_open(self) -> bool:
        return not self.closed and self.failure is None

    def has_next(self) -> bool:
        return self.is_open() and self.received < len(self.events)

    def feed(self, data: bytes, seed: int) -> None:
        try:
            for piece in mutate.split(data, Random(seed)):
                self.chunks += self.decoder.feed(piece)
        except ProviderError as error:
            self.failure = error
            self.chunks += error.decoded

    # Steps

    @precondition(has_next)
    @rule(seed=st.integers(0, 1000), count=st.integers(1, 4))
    def send_events(self, seed: int, count: int) -> None:
        """The next events, in any pieces."""
        for event in self.events[self.received : self.received + count]:
            self.received += 1
            self.feed(WRITERS[self.dialect](event), seed)
            if self.failure is not None:
                break

    @precondition(is_open)
    @rule(data=st.data())
    def send_what_says_nothing(self, data: st.DataObject) -> None:
        """Comments, pings and events of unknown types."""
        before = len(self.chunks)
        self.feed(data.draw(st.sampled_from(UNKNOWN[self.dialect])), 0)
        assert self.failure is None
        assert len(self.chunks) == before

    @precondition(has_next)
    @rule(seed=st.integers(0, 1000))
    def send_an_event_damaged(self, seed: int) -> None:
        """The next event is lost: an incomplete answer must not look complete."""
        event = self.events[self.received]
        if not isinstance(event, dict):
            return
        self.damaged_before_the_end |= self.received <= self.last_reason
        self.damaged = True
        self.received += 1
        self.feed(damaged(self.dialect, event), seed)
        if self.received <= self.last_reason + 1:
            assert self.failure is not None, "an unreadable event that is part of the answer"

    @precondition(is_open)
    @rule(place=st.integers(0, 1000))
    def break_off(self, place: int) -> None:
        """The stream ends, perhaps within an event; nothing comes after."""
        if self.received < len(self.events):
            whole = WRITERS[self.dialect](self.events[self.received])
            self.feed(whole[: place % (len(whole) // 2)], place)
        self.close()

    @precondition(lambda self: self.is_open() and self.received == len(self.events))
    @rule()
    def close(self) -> None:
        self.closed = True
        try:
            self.chunks += self.decoder.close()
        except ProviderError as error:
            self.failure = error
            self.chunks += error.decoded
        if self.failure is None:
            assert self.received > self.last_reason, "a truncated stream is never a success"
            assert not self.damaged_before_the_end
        elif self.received == len(self.events) and not self.damaged:
            raise AssertionError("a whole stream failed") from self.failure
        elif not self.damaged:
            assert isinstance(self.failure, StreamTruncated)

    @precondition(lambda self: self.failure is not None)
    @rule()
    def feed_after_a_failure(self) -> None:
        """A decoder that failed stays failed, and gives nothing more."""
        for again in (partial(self.decoder.feed, b""), self.decoder.close):
            with pytest.raises(ProviderError) as caught:
                again()
            assert self.failure is not None
            assert caught.value.reason is self.failure.reason

    @precondition(lambda self: self.closed and self.failure is None)
    @rule(data=st.data())
    def feed_after_the_end(self, data: st.DataObject) -> None:
        """A stream that is complete has nothing more."""
        event = data.draw(st.sampled_from(self.events))
        assert self.decoder.feed(WRITERS[self.dialect](event)) == []
        assert self.decoder.close() == []

    # What holds at any time

    @invariant()
    def chunks_keep_the_contract(self) -> None:
        if self.failure is not None or self.closed:
            check_chunks(Decoded(self.chunks, self.failure))
        else:
            assert sum(chunk.HasField("usage") for chunk in self.chunks) <= 1


_SETTINGS = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def _case(name: str) -> Any:
    machine: Any = type(f"{name.title()}Machine", (DecoderMachine,), {"dialect": name})
    machine.TestCase.settings = _SETTINGS
    return machine.TestCase


TestOpenAI = _case("openai")
TestAnthropic = _case("anthropic")
TestGemini = _case("gemini")
TestBedrock = _case("bedrock")


def test_every_dialect_has_its_machine() -> None:
    cases = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    assert cases == set(DIALECTS)
