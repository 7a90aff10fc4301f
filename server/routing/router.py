"""From a typed request to a typed answer: plan, try, account for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.catalog import Catalog, Model
from server.config import Retry
from server.errors import InvalidRequest, LmchatError, Reason
from server.openai_json import ChatRequest, PlainCompletion, include_usage, typed
from server.providers import features
from server.providers.base import Endpoint
from server.providers.caller import PlainCaller
from server.providers.upstream import Answer, PlainAnswer
from server.routing import resume
from server.routing.attempts import Attempts, Success, T
from server.routing.finish import StreamFinisher
from server.routing.health import EndpointHealth
from server.routing.plan import Candidate, Plan, check_names, options, plan
from server.routing.report import Report
from server.routing.stream import RoutedStream

R = TypeVar("R", pb.ChatCompletionRequest, ChatRequest)
A = TypeVar("A", Answer, Answer | PlainAnswer)

#: Models one request may name: more than the provider calls it may have would never be asked.
_MOST_MODELS = 100
#: The one topic of `lmchat.debug`.
_DEBUG_ROUTING = "routing"


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
        success, report = await self._complete(request, timeout, self._upstream.complete)
        return _typed(success.result.completion, report, success.upstream_seconds)

    async def complete_plain(self, request: ChatRequest, timeout: float | None) -> Routed | RoutedPlain:
        """The same for whoever writes JSON."""
        success, report = await self._complete(request, timeout, self._upstream.complete_plain)
        completion = success.result.completion
        if not isinstance(completion, PlainCompletion):
            return _typed(completion, report, success.upstream_seconds)
        completion.lmchat = report
        return RoutedPlain(completion, report, success.upstream_seconds)

    async def _complete(
        self,
        request: R,
        timeout: float | None,
        ask: Callable[[Endpoint, R, float], Awaitable[A]],
    ) -> tuple[Success[A], Report]:
        made = self._plan(request)

        async def call(candidate: Candidate, limit: float) -> A:
            return await ask(candidate.endpoint, features.without(request, candidate.dropped), limit)

        success = await self._try(request, made, self._deadline(made, timeout), call, tokens=_tokens)
        completion = success.result.completion
        completion.id = completion.id or self._ids.new()
        completion.created = completion.created or int(self._ids.now())
        completion.model = success.candidate.endpoint.public_model
        native = success.result.native_finish_reason
        return success, Report.of(made, success, native, debug=_debugs(request))

    async def stream(self, request: ChatRequest, timeout: float | None) -> RoutedStream:
        """A stream whose first content has come. Raises LmchatError, after which nothing is left open."""
        made = self._plan(request)
        deadline = self._deadline(made, timeout)

        async def call(candidate: Candidate, limit: float) -> resume.Opened:
            return await self._open(candidate, request, limit)

        success = await self._try(request, made, deadline, call)
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
            Report.of(made, success, "", debug=_debugs(request)),
            self._health,
            self._ids.clock,
            deadline,
            resumption,
        )

    async def _try(
        self,
        request: ChatRequest,
        made: Plan,
        deadline: float,
        call: Callable[[Candidate, float], Awaitable[T]],
        *,
        tokens: Callable[[T], int] | None = None,
    ) -> Success[T]:
        """See `Attempts.run`. Callers who debug their routing learn from errors, too, which endpoints were out."""
        try:
            return await self._attempts.run(made, deadline, call, tokens=tokens)
        except LmchatError as error:
            out = (*(skipped.record() for skipped in made.skipped), *error.skipped)
            error.skipped = out if _debugs(request) else ()
            raise

    async def _open(self, candidate: Candidate, request: ChatRequest, limit: float) -> resume.Opened:
        stream = self._upstream.stream(candidate.endpoint, features.without(request, candidate.dropped))
        try:
            return stream, await stream.open(limit)
        except BaseException:
            await stream.aclose()
            raise

    def _plan(self, request: ChatRequest) -> Plan:
        asked = options(request)
        if asked is not None:
            self._check(asked)
        tries = self._retry.max_provider_tries
        return plan(
            request, self._models(request.model, asked), self._health, self._ids.random, default_tries=tries
        )

    def _check(self, asked: pb.RequestOptions) -> None:
        """Raise InvalidRequest for names that mean nothing."""
        for index, topic in enumerate(asked.debug):
            if topic != _DEBUG_ROUTING:
                raise InvalidRequest(
                    f"There is no topic {topic[:40]!r}, only {_DEBUG_ROUTING!r}.", f"lmchat.debug[{index}]"
                )
        routing = asked.routing
        if routing.prefer or routing.only or routing.ignore:
            check_names(routing, self._catalog.endpoint_names())

    def _models(self, name: str, asked: pb.RequestOptions | None) -> list[Model]:
        """The model of that name, then the others that may answer in its place, none twice."""
        first = self._catalog.resolve(name)
        if asked is None:
            return [first]
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
        total = max([candidate.endpoint.timeouts.total for candidate in made.candidates])
        return self._ids.clock() + (total if timeout is None else min(total, timeout))


def _typed(completion: pb.ChatCompletion, report: Report, upstream_seconds: float) -> Routed:
    completion.lmchat.CopyFrom(report.typed())
    return Routed(completion, report, upstream_seconds)


def _debugs(request: ChatRequest) -> bool:
    asked = options(request)
    return asked is not None and _DEBUG_ROUTING in asked.debug


def _tokens(answer: Answer | PlainAnswer) -> int:
    usage = answer.completion.usage
    return usage.completion_tokens if usage is not None else 0
