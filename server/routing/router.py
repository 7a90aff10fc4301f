"""From a typed request to a typed answer: plan, try, account for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

from lmchat.v1 import chat_pb2 as pb

from server.catalog import Catalog, Model
from server.config import Retry
from server.errors import AttemptRecord, InvalidRequest, LmchatError, Reason
from server.providers import features
from server.providers.upstream import Answer, Chunks, Upstream, UpstreamStream
from server.routing.attempts import Attempts, Success
from server.routing.finish import StreamFinisher
from server.routing.health import EndpointHealth
from server.routing.plan import Candidate, Plan, check_names, plan


class Ids(NamedTuple):
    """Where ids and times come from: `new` gives `chatcmpl-...`, `now` Unix seconds, `clock` monotonic seconds."""

    new: Callable[[], str]
    now: Callable[[], float]
    clock: Callable[[], float]
    random: Callable[[], float]


class Routed(NamedTuple):
    """A whole answer, and the seconds providers took for it."""

    completion: pb.ChatCompletion
    upstream_seconds: float


class RoutedStream:
    """A stream committed to an endpoint. Iterate `batches` inside `aclosing`; that closes the provider's too."""

    def __init__(
        self,
        stream: UpstreamStream,
        first: Chunks,
        finisher: StreamFinisher,
        report: pb.RoutingReport,
        deadline: float,
    ) -> None:
        self._stream = stream
        self._first = first
        self._finisher = finisher
        self._deadline = deadline
        self.report = report
        self.upstream_seconds = 0.0

    async def batches(self) -> AsyncGenerator[Chunks, None]:
        """Lists of chunks as they come. Raises ProviderError when the provider breaks off."""
        try:
            first = self._finisher.feed(self._first)
            if first:
                yield first
            async with aclosing(self._stream.batches(self._deadline)) as batches:
                async for batch in batches:
                    out = self._finisher.feed(batch)
                    if out:
                        yield out
            self.report.native_finish_reason = self._stream.native_finish_reason
            last = self._finisher.end(self.report)
            if last:
                yield last
        finally:
            await self._stream.aclose()

    async def aclose(self) -> None:
        """Let go of the provider without reading on."""
        await self._stream.aclose()


class Router:
    """Answers requests from the catalogue's endpoints."""

    def __init__(
        self, catalog: Catalog, upstream: Upstream, health: EndpointHealth, ids: Ids, retry: Retry
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

        async def call(candidate: Candidate, limit: float) -> Answer:
            sent = features.without(request, candidate.dropped)
            return await self._upstream.complete(candidate.endpoint, sent, limit)

        success = await self._attempts.run(made, self._deadline(made, timeout), call)
        completion = success.result.completion
        completion.id = completion.id or self._ids.new()
        completion.created = completion.created or int(self._ids.now())
        completion.model = success.candidate.endpoint.public_model
        completion.lmchat.CopyFrom(_report(request, made, success))
        completion.lmchat.native_finish_reason = success.result.native_finish_reason
        self._health.speed(
            success.candidate.endpoint.id, completion.usage.completion_tokens, self._ids.clock() - success.begun
        )
        return Routed(completion, success.upstream_seconds)

    async def stream(self, request: pb.ChatCompletionRequest, timeout: float | None) -> RoutedStream:
        """A stream whose first content has come. Raises LmchatError, after which nothing is left open."""
        made = self._plan(request)
        deadline = self._deadline(made, timeout)

        async def call(candidate: Candidate, limit: float) -> tuple[UpstreamStream, Chunks]:
            stream = self._upstream.stream(candidate.endpoint, features.without(request, candidate.dropped))
            try:
                return stream, await stream.open(limit)
            except BaseException:
                await stream.aclose()
                raise

        success = await self._attempts.run(made, deadline, call)
        stream, first = success.result
        finisher = StreamFinisher(
            id=self._ids.new(),
            created=int(self._ids.now()),
            model=success.candidate.endpoint.public_model,
            include_usage=request.stream_options.include_usage,
        )
        routed = RoutedStream(stream, first, finisher, _report(request, made, success), deadline)
        routed.upstream_seconds = success.upstream_seconds
        return routed

    def _plan(self, request: pb.ChatCompletionRequest) -> Plan:
        routing = request.lmchat.routing
        if routing.prefer or routing.only or routing.ignore:
            check_names(routing, self._catalog.endpoint_names())
        return plan(
            request,
            self._models(request),
            self._health,
            self._ids.random,
            default_tries=self._retry.max_provider_tries,
        )

    def _models(self, request: pb.ChatCompletionRequest) -> list[Model]:
        models = [self._catalog.resolve(request.model)]
        for index, name in enumerate(request.lmchat.routing.models):
            try:
                models.append(self._catalog.resolve(name))
            except LmchatError as error:
                param = f"lmchat.routing.models[{index}]"
                raise InvalidRequest(error.message, param, reason=Reason.INVALID_ROUTING) from None
        return models

    def _deadline(self, made: Plan, timeout: float | None) -> float:
        total = made.candidates[0].endpoint.timeouts.total
        return self._ids.clock() + (total if timeout is None else min(total, timeout))


def _report(
    request: pb.ChatCompletionRequest,
    made: Plan,
    success: Success[Answer] | Success[tuple[UpstreamStream, Chunks]],
) -> pb.RoutingReport:
    report = pb.RoutingReport(
        provider=success.candidate.endpoint.name,
        tries=len(success.attempts),
        dropped_params=success.candidate.dropped,
    )
    debug = "routing" in request.lmchat.debug
    if debug or len(success.attempts) > 1:
        report.attempts.extend(map(_attempt, success.attempts))
    if debug:
        for endpoint, reason in made.skipped:
            report.skipped.add(provider=endpoint.name, model=endpoint.public_model, reason=reason)
    return report


def _attempt(record: AttemptRecord) -> pb.Attempt:
    return pb.Attempt(
        provider=record.provider, model=record.model, status=record.status, reason=record.reason, ms=record.ms
    )
