"""From a typed request to a typed answer: plan, try, account for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import ChatRequest, PlainCompletion, include_usage, typed
from server.config.model import Retry
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, LmchatError, Reason
from server.routing import capabilities as features
from server.routing import resume
from server.routing.attempts import Attempts, Success
from server.routing.catalog import Catalog, Model
from server.routing.chunks import StreamFinisher
from server.routing.circuit import EndpointHealth
from server.routing.plan import DEBUG_ROUTING, Candidate, Plan, check_names, options, plan
from server.routing.report import Report
from server.routing.stream import RoutedStream
from server.upstream.client import Answer, PlainAnswer
from server.upstream.ports import PlainCaller

R = TypeVar("R", pb.ChatCompletionRequest, ChatRequest)
A = TypeVar("A", Answer, Answer | PlainAnswer)

#: Models one request may name: more than the provider calls it may have would never be asked.
_MOST_MODELS = 100
_total = attrgetter("endpoint.timeouts.total")


class Ids(NamedTuple):
    """Where ids and times come from: `new` gives `chatcmpl-...`, `now` Unix seconds, `clock` monotonic seconds."""

    new: Callable[[], str]
    now: Callable[[], float]
    clock: Callable[[], float]
    random: Callable[[], float]


class Routed(msgspec.Struct, frozen=True, gc=False):
    """A whole answer, how it came to be, and the seconds providers took for it."""

    completion: pb.ChatCompletion
    report: Report
    upstream_seconds: float


class RoutedPlain(msgspec.Struct, frozen=True, gc=False):
    """The same in OpenAI's JSON."""

    completion: PlainCompletion
    report: Report
    upstream_seconds: float


class Router:
    """Answers requests from the catalogue's endpoints."""

    def __init__(
        self, catalog: Catalog, upstream: PlainCaller, health: EndpointHealth, ids: Ids, retry: Retry
    ) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._health = health
        self._ids = ids
        self._retry = retry
        self._attempts = Attempts(health, clock=ids.clock, random=ids.random)

    async def complete(self, request: pb.ChatCompletionRequest, timeout: float | None) -> Routed:
        """The whole answer, within `timeout` seconds. Raises LmchatError."""
        made = self._plan(request)
        call = _call(self._upstream.complete, request)
        success = await self._attempts.run(made, self._deadline(made, timeout), call, tokens=_tokens)
        completion = success.result.completion
        return _typed(completion, self._finish(completion, made, success), success.upstream_seconds)

    async def complete_plain(self, request: ChatRequest, timeout: float | None) -> Routed | RoutedPlain:
        """The same for whoever writes JSON."""
        made = self._plan(request)
        call = _call(self._upstream.complete_plain, request)
        success = await self._attempts.run(made, self._deadline(made, timeout), call, tokens=_tokens)
        completion = success.result.completion
        report = self._finish(completion, made, success)
        if not isinstance(completion, PlainCompletion):
            return _typed(completion, report, success.upstream_seconds)
        completion.lmchat = report
        return RoutedPlain(completion, report, success.upstream_seconds)

    def _finish(
        self,
        completion: pb.ChatCompletion | PlainCompletion,
        made: Plan,
        success: Success[Answer] | Success[Answer | PlainAnswer],
    ) -> Report:
        """Set what of an answer is the gateway's."""
        completion.id = completion.id or self._ids.new()
        completion.created = completion.created or int(self._ids.now())
        completion.model = success.candidate.endpoint.public_model
        return Report.of(made, success, success.result.native_finish_reason)

    async def stream(self, request: ChatRequest, timeout: float | None) -> RoutedStream:
        """A stream whose first content has come. Raises LmchatError, after which nothing is left open."""
        made = self._plan(request)
        deadline = self._deadline(made, timeout)

        async def call(candidate: Candidate, limit: float) -> resume.Opened:
            return await self._open(candidate, request, limit)

        success = await self._attempts.run(made, deadline, call)
        resumption = None
        if options(request) is not None:  # which may ask for it
            whole = typed(request)
            if resume.wanted(whole):
                resumption = resume.Resumption(whole, self._attempts, self._open, deadline, made.max_tries)
        endpoint = success.candidate.endpoint
        finisher = StreamFinisher(
            id=self._ids.new(),
            created=int(self._ids.now()),
            model=endpoint.public_model,
            include_usage=include_usage(request),
        )
        return RoutedStream(
            success,
            finisher,
            Report.of(made, success, ""),
            self._health,
            self._ids.clock,
            deadline,
            resumption,
        )

    async def _open(self, candidate: Candidate, request: ChatRequest, limit: float) -> resume.Opened:
        stream = self._upstream.stream(candidate.endpoint, features.without(request, candidate.dropped))
        try:
            return stream, await stream.open(limit)
        except BaseException:
            await stream.aclose()
            raise

    def _plan(self, request: ChatRequest) -> Plan:
        asked = options(request)
        if asked is None:
            models = [self._catalog.resolve(request.model)]
        else:
            self._check(asked)
            models = self._models(request.model, asked)
        tries = self._retry.max_provider_tries
        return plan(request, models, self._health, self._ids.random, default_tries=tries)

    def _check(self, asked: pb.RequestOptions) -> None:
        """Raise InvalidRequest for names that mean nothing."""
        for index, topic in enumerate(asked.debug):
            if topic != DEBUG_ROUTING:
                raise InvalidRequest(
                    f"There is no topic {topic[:40]!r}, only {DEBUG_ROUTING!r}.", f"lmchat.debug[{index}]"
                )
        routing = asked.routing
        if routing.prefer or routing.only or routing.ignore:
            check_names(routing, self._catalog.endpoint_names())

    def _models(self, name: str, asked: pb.RequestOptions) -> list[Model]:
        """The model of that name, then the others that may answer in its place, none twice."""
        first = self._catalog.resolve(name)
        models = {first.id: first}
        for index, other in enumerate(asked.routing.models):
            param = f"lmchat.routing.models[{index}]"
            if index >= _MOST_MODELS:
                raise InvalidRequest(f"At most {_MOST_MODELS}.", param, reason=Reason.INVALID_ROUTING)
            try:
                model = self._catalog.resolve(other)
            except LmchatError as error:
                raise InvalidRequest(error.message, param, reason=Reason.INVALID_ROUTING) from None
            models.setdefault(model.id, model)
        return [*models.values()]

    def _deadline(self, made: Plan, timeout: float | None) -> float:
        """The caller's, at most the time the most patient endpoint has; each call has its own limits too."""
        total: float = max(map(_total, made.candidates))
        return self._ids.clock() + (total if timeout is None else min(total, timeout))


def _typed(completion: pb.ChatCompletion, report: Report, upstream_seconds: float) -> Routed:
    completion.lmchat.CopyFrom(report.typed())
    return Routed(completion, report, upstream_seconds)


def _call(
    ask: Callable[[Endpoint, R, float], Awaitable[A]], request: R
) -> Callable[[Candidate, float], Awaitable[A]]:
    """`ask` for `request`, of a candidate."""

    def call(candidate: Candidate, limit: float) -> Awaitable[A]:
        return ask(candidate.endpoint, features.without(request, candidate.dropped), limit)

    return call


def _tokens(answer: Answer | PlainAnswer) -> int:
    usage = answer.completion.usage
    return usage.completion_tokens if usage is not None else 0
