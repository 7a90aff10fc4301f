"""From a typed request to a typed answer: plan, try, account for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, Self, TypeVar

from lmchat.v1 import chat_pb2 as pb

from server.catalog import Catalog, Model
from server.config import Retry
from server.errors import AttemptRecord, InvalidRequest, LmchatError, ProviderError, Reason
from server.openai_json import PlainCompletion
from server.providers import features
from server.providers.base import Endpoint
from server.providers.caller import PlainCaller
from server.providers.upstream import Answer, Chunks, PlainAnswer
from server.routing import resume
from server.routing.attempts import SLACK, Attempts, Success, T
from server.routing.finish import StreamFinisher
from server.routing.health import EndpointHealth
from server.routing.plan import Candidate, Plan, check_names, plan

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


class Routed(NamedTuple):
    """A whole answer, how it came to be, and the seconds providers took for it."""

    completion: pb.ChatCompletion
    report: pb.RoutingReport
    upstream_seconds: float


class RoutedPlain(NamedTuple):
    """The same in OpenAI's JSON; its `lmchat` is for whoever writes it to fill with the report."""

    completion: PlainCompletion
    report: pb.RoutingReport
    upstream_seconds: float


class RoutedStream:
    """A stream committed to an endpoint: lists of chunks as they come, to be iterated once.

    Whoever has it closes it, read or not: `async with aclosing(routed.batches())`
    does. A break raises ProviderError, with every attempt so far.
    """

    def __init__(
        self,
        success: Success[resume.Opened],
        finisher: StreamFinisher,
        report: pb.RoutingReport,
        health: EndpointHealth,
        clock: Callable[[], float],
        deadline: float,
        resumption: resume.Resumption | None,
    ) -> None:
        self._success = success
        self._stream, self._first = success.result
        self._finisher = finisher
        self._health = health
        self._clock = clock
        self._deadline = deadline
        self._resumption = resumption
        self._chunks = self._read()
        #: Tokens and pieces of the answer that calls before this one gave.
        self._carried = (0, 0)
        self.report = report
        self.upstream_seconds = success.upstream_seconds

    def batches(self) -> Self:
        """The stream itself."""
        return self

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Chunks]:
        return anext(self._chunks)

    async def aclose(self) -> None:
        """Let go of the provider without reading on; the socket closes if it was not done."""
        try:
            await self._chunks.aclose()
        finally:  # a generator that never ran has nothing of its own to clean up
            await self._stream.aclose()

    async def _read(self) -> AsyncGenerator[Chunks, None]:
        try:
            while True:
                first = self._feed(self._first)
                if first:
                    yield first
                until = asyncio.get_running_loop().time() + self._until() - self._clock()
                try:
                    async with aclosing(self._stream.batches(until)) as batches:
                        async for batch in batches:
                            out = self._feed(batch)
                            if out:
                                yield out
                    break
                except ProviderError as error:
                    await self._stream.aclose()
                    self._broke(error)
                    await self._resume(error)
        finally:
            await self._stream.aclose()
        self._health.success(self._success.call, self._tokens())
        self.report.native_finish_reason = self._stream.native_finish_reason
        last = self._finisher.end(self.report)
        if last:
            yield last

    def _tokens(self) -> int:
        """What the call that ended the stream gave; pieces stand for tokens where the provider counts none."""
        tokens, pieces = self._carried
        return max(0, self._finisher.tokens - tokens) or self._finisher.pieces - pieces

    def _until(self) -> float:
        """When the call under way must be done, by the clock."""
        call, timeouts = self._success.call, self._success.candidate.endpoint.timeouts
        return min(self._deadline, call.begun + timeouts.total)

    def _feed(self, chunks: Chunks) -> Chunks:
        if self._resumption is not None:
            chunks = self._resumption.splice.feed(chunks)
        return self._finisher.feed(chunks)

    async def _resume(self, error: ProviderError) -> None:
        """Go on with a fallback; raises `error` where there is none."""
        if self._resumption is None:
            raise error
        self._success = await self._resumption.run(self._success, error)
        self._stream, self._first = self._success.result
        self._carried = (self._resumption.splice.carried.completion_tokens, self._finisher.pieces)
        candidate, report = self._success.candidate, self.report
        self._finisher.model = candidate.endpoint.public_model
        report.resumed = True
        report.provider = candidate.endpoint.name
        report.tries = len(self._success.attempts)
        del report.attempts[:]
        report.attempts.extend(map(_attempt, self._success.attempts))
        report.dropped_params.extend(name for name in candidate.dropped if name not in report.dropped_params)

    def _broke(self, error: ProviderError) -> None:
        """Hold it against the endpoint, unless only the time was up, and put it on the account."""
        now = self._clock()
        call = self._success.call
        if error.reason is not Reason.TIMEOUT or now < self._until() - SLACK:
            self._health.failure(call, error)
        *before, this = self._success.attempts
        ms = round((now - call.begun) * 1000)
        error.attempts = (*before, AttemptRecord(this.provider, this.model, this.status, str(error.reason), ms))


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
        completion = success.result.completion
        completion.lmchat.CopyFrom(report)
        return Routed(completion, report, success.upstream_seconds)

    async def complete_plain(
        self, request: pb.ChatCompletionRequest, timeout: float | None
    ) -> Routed | RoutedPlain:
        """The same for whoever writes JSON."""
        success, report = await self._complete(request, timeout, self._upstream.complete_plain)
        completion = success.result.completion
        if isinstance(completion, PlainCompletion):
            return RoutedPlain(completion, report, success.upstream_seconds)
        completion.lmchat.CopyFrom(report)
        return Routed(completion, report, success.upstream_seconds)

    async def _complete(
        self,
        request: pb.ChatCompletionRequest,
        timeout: float | None,
        ask: Callable[[Endpoint, pb.ChatCompletionRequest, float], Awaitable[A]],
    ) -> tuple[Success[A], pb.RoutingReport]:
        made = self._plan(request)

        async def call(candidate: Candidate, limit: float) -> A:
            return await ask(candidate.endpoint, features.without(request, candidate.dropped), limit)

        success = await self._try(request, made, self._deadline(made, timeout), call, tokens=_tokens)
        completion = success.result.completion
        completion.id = completion.id or self._ids.new()
        completion.created = completion.created or int(self._ids.now())
        completion.model = success.candidate.endpoint.public_model
        report = _report(request, made, success)
        report.native_finish_reason = success.result.native_finish_reason
        return success, report

    async def stream(self, request: pb.ChatCompletionRequest, timeout: float | None) -> RoutedStream:
        """A stream whose first content has come. Raises LmchatError, after which nothing is left open."""
        made = self._plan(request)
        deadline = self._deadline(made, timeout)

        async def call(candidate: Candidate, limit: float) -> resume.Opened:
            return await self._open(candidate, request, limit)

        success = await self._try(request, made, deadline, call)
        resumption = None
        if resume.wanted(request):
            resumption = resume.Resumption(request, self._attempts, self._open, deadline, made.max_tries)
        endpoint = success.candidate.endpoint
        finisher = StreamFinisher(
            id=self._ids.new(),
            created=int(self._ids.now()),
            model=endpoint.public_model,
            include_usage=request.stream_options.include_usage,
        )
        return RoutedStream(
            success,
            finisher,
            _report(request, made, success),
            self._health,
            self._ids.clock,
            deadline,
            resumption,
        )

    async def _try(
        self,
        request: pb.ChatCompletionRequest,
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
            error.skipped = out if _DEBUG_ROUTING in request.lmchat.debug else ()
            raise

    async def _open(self, candidate: Candidate, request: pb.ChatCompletionRequest, limit: float) -> resume.Opened:
        stream = self._upstream.stream(candidate.endpoint, features.without(request, candidate.dropped))
        try:
            return stream, await stream.open(limit)
        except BaseException:
            await stream.aclose()
            raise

    def _plan(self, request: pb.ChatCompletionRequest) -> Plan:
        if request.HasField("lmchat"):
            self._check(request)
        tries = self._retry.max_provider_tries
        return plan(request, self._models(request), self._health, self._ids.random, default_tries=tries)

    def _check(self, request: pb.ChatCompletionRequest) -> None:
        """Raise InvalidRequest for names that mean nothing."""
        for index, topic in enumerate(request.lmchat.debug):
            if topic != _DEBUG_ROUTING:
                raise InvalidRequest(
                    f"There is no topic {topic[:40]!r}, only {_DEBUG_ROUTING!r}.", f"lmchat.debug[{index}]"
                )
        routing = request.lmchat.routing
        if routing.prefer or routing.only or routing.ignore:
            check_names(routing, self._catalog.endpoint_names())

    def _models(self, request: pb.ChatCompletionRequest) -> list[Model]:
        """The asked model, then the others, none twice."""
        asked = self._catalog.resolve(request.model)
        if not request.HasField("lmchat"):
            return [asked]
        models = {asked.id: asked}
        for index, name in enumerate(request.lmchat.routing.models):
            param = f"lmchat.routing.models[{index}]"
            if index >= _MOST_MODELS:
                raise InvalidRequest(f"At most {_MOST_MODELS}.", param, reason=Reason.INVALID_ROUTING)
            try:
                model = self._catalog.resolve(name)
            except LmchatError as error:
                raise InvalidRequest(error.message, param, reason=Reason.INVALID_ROUTING) from None
            models.setdefault(model.id, model)
        return [*models.values()]

    def _deadline(self, made: Plan, timeout: float | None) -> float:
        """The caller's, at most the time the most patient endpoint has; each call has its own limits too."""
        total = max(candidate.endpoint.timeouts.total for candidate in made.candidates)
        return self._ids.clock() + (total if timeout is None else min(total, timeout))


def _tokens(answer: Answer | PlainAnswer) -> int:
    usage = answer.completion.usage
    return usage.completion_tokens if usage is not None else 0


def _report(
    request: pb.ChatCompletionRequest,
    made: Plan,
    success: Success[A] | Success[resume.Opened],
) -> pb.RoutingReport:
    report = pb.RoutingReport(
        provider=success.candidate.endpoint.name,
        tries=len(success.attempts),
        dropped_params=success.candidate.dropped,
    )
    debug = request.HasField("lmchat") and _DEBUG_ROUTING in request.lmchat.debug
    if debug or len(success.attempts) > 1:
        report.attempts.extend(map(_attempt, success.attempts))
    if debug:
        for endpoint, reason in (*made.skipped, *success.skipped):
            report.skipped.add(provider=endpoint.name, model=endpoint.public_model, reason=reason)
    return report


def _attempt(record: AttemptRecord) -> pb.Attempt:
    return pb.Attempt(
        provider=record.provider, model=record.model, status=record.status, reason=record.reason, ms=record.ms
    )
