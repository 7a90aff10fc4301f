"""Routes a request: plans it, runs the attempts, reports the routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion
from server.chat.large import by_size
from server.chat.request import ChatRequest
from server.config.model import Retry
from server.errors import InvalidRequest, LmchatError, Reason
from server.routing import resume
from server.routing.attempts import Attempts
from server.routing.catalog import Catalog, Model
from server.routing.chunks import StreamFinisher
from server.routing.plan import DEBUG_ROUTING, Candidate, Plan, check_names, plan
from server.routing.report import Report
from server.routing.stats import EndpointStats
from server.routing.stream import RoutedStream
from server.upstream.ports import Caller

#: The most models one request may name in `lmchat.routing.models`.
MAX_MODELS = 100
_total_timeout = attrgetter("endpoint.timeouts.total")


class Ids(NamedTuple):
    """Sources of ids, times and randomness.

    `new` gives `chatcmpl-...`, `now` Unix seconds, `clock` monotonic seconds, `random` numbers in [0, 1).
    """

    new: Callable[[], str]
    now: Callable[[], float]
    clock: Callable[[], float]
    random: Callable[[], float]


class Routed(msgspec.Struct, frozen=True, gc=False):
    """A completion, its routing report, and the seconds spent in provider calls."""

    completion: Completion
    report: Report
    upstream_seconds: float


class Router:
    """Serves requests with the catalogue's endpoints."""

    def __init__(self, catalog: Catalog, upstream: Caller, stats: EndpointStats, ids: Ids, retry: Retry) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._stats = stats
        self._ids = ids
        self._retry = retry
        self._attempts = Attempts(stats, clock=ids.clock, random=ids.random)

    async def complete(self, request: ChatRequest, timeout: float | None) -> Routed:
        """The completion, within `timeout` seconds. Raises LmchatError."""
        routing_plan = self._plan(request)

        async def call(candidate: Candidate, limit: float) -> Completion:
            fitted = request
            if candidate.dropped:
                fitted = await by_size(request.size, request.without, candidate.dropped)
            return await self._upstream.complete(candidate.endpoint, fitted, limit)

        success = await self._attempts.run(
            routing_plan, self._deadline(routing_plan, timeout), call, tokens=_completion_tokens
        )
        completion = success.result
        report = Report.of(routing_plan, success, completion)
        completion.stamp(
            new_id=self._ids.new,
            created=int(self._ids.now()),
            model=success.candidate.endpoint.public_model,
            report=report,
        )
        return Routed(completion, report, success.upstream_seconds)

    async def stream(self, request: ChatRequest, timeout: float | None) -> RoutedStream:
        """A stream whose first content has arrived. Raises LmchatError, with every connection released."""
        routing_plan = self._plan(request)
        deadline = self._deadline(routing_plan, timeout)

        async def call(candidate: Candidate, limit: float) -> resume.Opened:
            return await self._open(candidate, request, limit)

        success = await self._attempts.run(routing_plan, deadline, call)
        resumption = None
        if resume.may_resume(request):
            resumption = resume.Resumption(request, self._attempts, self._open, deadline, routing_plan.max_tries)
        finisher = StreamFinisher(
            id=self._ids.new(),
            created=int(self._ids.now()),
            model=success.candidate.endpoint.public_model,
            include_usage=request.include_usage,
        )
        return RoutedStream(
            success,
            finisher,
            Report.of(routing_plan, success, success.result[0]),
            self._stats,
            self._ids.clock,
            deadline,
            resumption,
        )

    async def _open(self, candidate: Candidate, request: ChatRequest, limit: float) -> resume.Opened:
        if candidate.dropped:
            request = await by_size(request.size, request.without, candidate.dropped)
        stream = self._upstream.stream(candidate.endpoint, request)
        try:
            return stream, await stream.open(limit)
        except BaseException:
            await stream.aclose()
            raise

    def _plan(self, request: ChatRequest) -> Plan:
        options = request.options
        if options is None:
            models = [self._catalog.resolve(request.model)]
        else:
            self._check(options)
            models = self._models(request.model, options.routing.models)
        tries = self._retry.max_provider_tries
        return plan(request, models, self._stats, self._ids.random, default_tries=tries)

    def _check(self, options: pb.RequestOptions) -> None:
        """Raise InvalidRequest for names that do not exist."""
        for index, topic in enumerate(options.debug):
            if topic != DEBUG_ROUTING:
                raise InvalidRequest(
                    f"There is no topic {topic[:40]!r}, only {DEBUG_ROUTING!r}.", f"lmchat.debug[{index}]"
                )
        routing = options.routing
        if routing.prefer or routing.only or routing.ignore:
            check_names(routing, self._catalog.endpoint_names())

    def _models(self, name: str, others: Sequence[str]) -> list[Model]:
        """The requested model, then the fallback models, without duplicates."""
        first = self._catalog.resolve(name)
        models = {first.id: first}
        for index, other in enumerate(others):
            param = f"lmchat.routing.models[{index}]"
            if index >= MAX_MODELS:
                raise InvalidRequest(f"At most {MAX_MODELS}.", param, reason=Reason.INVALID_ROUTING)
            try:
                model = self._catalog.resolve(other)
            except LmchatError as error:
                raise InvalidRequest(error.message, param, reason=Reason.INVALID_ROUTING) from None
            models.setdefault(model.id, model)
        return [*models.values()]

    def _deadline(self, routing_plan: Plan, timeout: float | None) -> float:
        """The caller's deadline, at most the longest `total` timeout of the candidates; calls have limits too."""
        total: float = max(map(_total_timeout, routing_plan.candidates))
        return self._ids.clock() + (total if timeout is None else min(total, timeout))


def _completion_tokens(completion: Completion) -> int:
    return completion.completion_tokens
