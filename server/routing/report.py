"""How an answer came to be, for its caller: the `lmchat` object of an answer."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.errors import AttemptRecord, SkippedRecord
from server.routing.attempts import Success
from server.routing.plan import Plan


class Answer(Protocol):
    """What a report needs of a completion, or of a stream that has begun."""

    @property
    def native_finish_reason(self) -> str:
        """The provider's own word; empty until a stream has ended."""
        ...

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of parameters that the translation left out."""
        ...


class Report(msgspec.Struct, omit_defaults=True):
    """Encoded it is what REST has; `to_proto` gives what gRPC has. The fields are described in chat.proto."""

    provider: str
    tries: int
    dropped_params: list[str]
    native_finish_reason: str
    attempts: list[AttemptRecord] | None = None
    skipped: list[SkippedRecord] | None = None
    resumed: bool = False
    native_model: str = ""

    @classmethod
    def of(cls, plan: Plan, success: Success[Any], answer: Answer) -> Report:
        """Of an answer, or of a stream that has begun. Attempts are listed after a fallback or for debugging."""
        candidate, attempts = success.candidate, success.attempts
        dropped = [*candidate.dropped, *answer.dropped]
        report = cls(candidate.endpoint.name, len(attempts), dropped, answer.native_finish_reason)
        if plan.debug or len(attempts) > 1:
            report.attempts = attempts
        if plan.debug:
            report.skipped = [skipped.record() for skipped in (*plan.skipped, *success.skipped)] or None
        return report

    def resume(self, success: Success[Any]) -> None:
        """Add the endpoint that continues the stream."""
        self.provider = success.candidate.endpoint.name
        self.tries = len(success.attempts)
        self.attempts = success.attempts
        self.resumed = True
        stream, _ = success.result
        dropped = (*success.candidate.dropped, *stream.dropped)
        self.dropped_params += [name for name in dropped if name not in self.dropped_params]

    def to_proto(self) -> pb.RoutingReport:
        """The message of the contract."""
        report = pb.RoutingReport(
            provider=self.provider,
            tries=self.tries,
            dropped_params=self.dropped_params,
            native_finish_reason=self.native_finish_reason,
            resumed=self.resumed,
            native_model=self.native_model,
        )
        for a in self.attempts or ():
            report.attempts.add(provider=a.provider, model=a.model, status=a.status, reason=a.reason, ms=a.ms)
        for s in self.skipped or ():
            report.skipped.add(provider=s.provider, model=s.model, reason=s.reason)
        return report
