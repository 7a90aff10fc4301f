"""The routing report: the `lmchat` object of a completion."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.errors import AttemptRecord, SkippedRecord
from server.routing.attempts import Success
from server.routing.plan import Plan


class Answer(Protocol):
    """What a report reads from a completion or an open stream."""

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason; empty until a stream has ended."""
        ...

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of parameters that the translation dropped."""
        ...


class Report(msgspec.Struct, omit_defaults=True):
    """Encoded as JSON for REST; `to_proto` converts it for gRPC. chat.proto describes the fields."""

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
        """The report of a completion or an open stream. Attempts are listed after a fallback or with `debug`."""
        candidate, attempts = success.candidate, success.attempts
        dropped = [*candidate.dropped, *answer.dropped]
        report = cls(candidate.endpoint.name, len(attempts), dropped, answer.native_finish_reason)
        if plan.debug or len(attempts) > 1:
            report.attempts = attempts
        if plan.debug:
            report.skipped = [skipped.record() for skipped in (*plan.skipped, *success.skipped)] or None
        return report

    def resume(self, success: Success[Any]) -> None:
        """Update the report for the endpoint that continues the stream."""
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
