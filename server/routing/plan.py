"""Which endpoints may answer a request, and in which order they are tried.

Pure: models, directive and statistics in, an ordered plan out,
with the reason for every endpoint left out. The semantics are in ROUTING.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.request import ChatRequest
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, LmchatError, Reason, SkippedRecord
from server.routing import capabilities
from server.routing.catalog import Model

#: The one topic of `lmchat.debug`.
DEBUG_ROUTING = "routing"
_SORTS = frozenset(pb.RoutingSort.values())


class Stats(Protocol):
    """How endpoints are doing, by `Endpoint.id`; see `stats.EndpointStats`."""

    def is_open(self, endpoint_id: str) -> bool:
        """Whether its circuit is open."""
        ...

    def latency(self, endpoint_id: str) -> float | None:
        """Recent seconds to the first content; None when not known of late."""
        ...

    def throughput(self, endpoint_id: str) -> float | None:
        """Recent output tokens per second; None when not known of late."""
        ...


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An endpoint to try, and the parameters that it would not honour."""

    endpoint: Endpoint
    dropped: list[str]


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """An endpoint left out, and why."""

    endpoint: Endpoint
    reason: str

    def record(self) -> SkippedRecord:
        """As errors and reports list it."""
        return SkippedRecord(self.endpoint.name, self.endpoint.public_model, self.reason)


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Candidates in the order of trying, at least one, none twice; `max_tries` bounds the calls of them all."""

    candidates: list[Candidate]
    skipped: list[Skipped]
    max_tries: int
    #: Whether the report lists all attempts and skipped endpoints.
    debug: bool = False


class Directive(NamedTuple):
    """A request's routing directive with its defaults."""

    prefer: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    sort: pb.RoutingSort.ValueType = pb.ROUTING_SORT_UNSPECIFIED
    require_parameters: bool = False
    allow_fallbacks: bool = True
    #: None: the configuration's.
    max_tries: int | None = None
    debug: bool = False

    @classmethod
    def of(cls, options: pb.RequestOptions) -> Directive:
        """Raises InvalidRequest for an unknown sort, which typed requests may have."""
        routing = options.routing
        if routing.sort not in _SORTS:
            raise InvalidRequest(
                f"There is no sort {routing.sort}.", "lmchat.routing.sort", reason=Reason.INVALID_ROUTING
            )
        return cls(
            tuple(routing.prefer),
            frozenset(routing.only),
            frozenset(routing.ignore),
            routing.sort,
            routing.require_parameters,
            routing.allow_fallbacks or not routing.HasField("allow_fallbacks"),
            routing.max_provider_tries if routing.HasField("max_provider_tries") else None,
            DEBUG_ROUTING in options.debug,
        )


_NO_DIRECTIVE = Directive()


def covers(name: str, endpoint_name: str) -> bool:
    """Whether a directive's name means this endpoint: it, or the base of a variant (`azure`, `azure-eastus`)."""
    return endpoint_name == name or endpoint_name.startswith(f"{name}-")


def check_names(routing: pb.Routing, known: Iterable[str]) -> None:
    """Raise InvalidRequest for a name that no endpoint of the catalogue has."""
    for field in ("prefer", "only", "ignore"):
        names = list(getattr(routing, field))
        for name in dict.fromkeys(names):
            if not any(covers(name, endpoint_name) for endpoint_name in known):
                raise InvalidRequest(
                    f"No endpoint is named {name[:80]!r}. Known: {', '.join(sorted(known))}.",
                    f"lmchat.routing.{field}[{names.index(name)}]",
                    reason=Reason.INVALID_ROUTING,
                )


def plan(
    request: ChatRequest,
    models: Sequence[Model],
    stats: Stats,
    random: Callable[[], float],
    *,
    default_tries: int,
) -> Plan:
    """The plan for `request` over `models`, the requested one first.

    `random` gives numbers in [0, 1). Raises InvalidRequest when the directive,
    or what the request needs, leaves no endpoint at all.
    """
    directive = _NO_DIRECTIVE if request.options is None else Directive.of(request.options)
    needed = request.needs
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    for model in models:
        fit: list[Candidate] = []
        for endpoint in model.endpoints:
            dropped = capabilities.dropped(request, endpoint)
            reason = _unfit(endpoint, directive, needed, dropped)
            if not reason and endpoint.id in seen:  # two models may share one; it is called as one
                reason = "already a candidate"
            if reason:
                skipped.append(Skipped(endpoint, reason))
            else:
                seen.add(endpoint.id)
                fit.append(Candidate(endpoint, dropped))
        candidates += fit if len(fit) < 2 else _ordered(fit, directive, stats, random)
    if not candidates:
        raise _nothing_left(request.model, skipped, needed)
    if len(candidates) > 1:
        candidates.sort(key=lambda c: stats.is_open(c.endpoint.id))  # stable: open circuits last
    if not directive.allow_fallbacks:
        skipped += [Skipped(c.endpoint, "fallbacks are not allowed") for c in candidates[1:]]
        del candidates[1:]
    tries = default_tries if directive.max_tries is None else directive.max_tries
    return Plan(candidates, skipped, tries, directive.debug)


def _unfit(endpoint: Endpoint, directive: Directive, needed: frozenset[str], dropped: list[str]) -> str:
    """Why `endpoint` cannot be a candidate; empty if it can."""
    if directive.only and not any(covers(name, endpoint.name) for name in directive.only):
        return "not in `only`"
    if directive.ignore and any(covers(name, endpoint.name) for name in directive.ignore):
        return "in `ignore`"
    if endpoint.features is not None and not needed <= endpoint.features:
        return f"cannot do: {', '.join(sorted(needed - endpoint.features))}"
    if dropped and directive.require_parameters:
        return f"would drop: {', '.join(dropped)}"
    return ""


def _ordered(
    fit: list[Candidate], directive: Directive, stats: Stats, random: Callable[[], float]
) -> list[Candidate]:
    """The preferred in their order, then the rest; the variants that one name covers are equals."""
    ordered: list[Candidate] = []
    rest = fit
    for name in dict.fromkeys(directive.prefer):
        covered = [c for c in rest if covers(name, c.endpoint.name)]
        if covered:
            ordered += _equals(covered, directive.sort, stats, random)
            rest = [c for c in rest if not covers(name, c.endpoint.name)]
    return ordered + _equals(rest, directive.sort, stats, random)


def _equals(
    group: list[Candidate], sort: pb.RoutingSort.ValueType, stats: Stats, random: Callable[[], float]
) -> list[Candidate]:
    """By `sort`, or in the catalogue's order and by weight."""
    if sort:
        return sorted(group, key=lambda c: _score(c.endpoint, sort, stats))
    return _weighted(group, random)


def _score(endpoint: Endpoint, sort: pb.RoutingSort.ValueType, stats: Stats) -> float:
    """Lower is better. What has no price comes last; what was not measured of late comes first, to be measured."""
    if sort == pb.ROUTING_SORT_PRICE:
        # Chat prompts are some three times as long as their answers.
        return (3 * endpoint.price.input + endpoint.price.output) / 4 if endpoint.price else math.inf
    if sort == pb.ROUTING_SORT_LATENCY:
        latency = stats.latency(endpoint.id)
        return -math.inf if latency is None else latency
    throughput = stats.throughput(endpoint.id)
    return -math.inf if throughput is None else -throughput


def _weighted(group: list[Candidate], random: Callable[[], float]) -> list[Candidate]:
    """Neighbours that have a weight share the traffic; the others keep their places.

    Each of a run gets an exponentially distributed key of rate `weight`;
    sorting by it picks every order with the probability of drawing by weight
    without replacement (Efraimidis and Spirakis, 2006).
    """
    out: list[Candidate] = []
    drawn: list[tuple[float, Candidate]] = []
    for candidate in group:
        weight = candidate.endpoint.weight
        if weight is None:
            out += _drawn(drawn)
            drawn = []
            out.append(candidate)
        else:
            drawn.append((-math.log(1.0 - random()) / weight, candidate))
    return out + _drawn(drawn)


def _drawn(drawn: list[tuple[float, Candidate]]) -> list[Candidate]:
    return [candidate for _, candidate in sorted(drawn, key=lambda pair: pair[0])]


def _nothing_left(model: str, skipped: list[Skipped], needed: frozenset[str]) -> LmchatError:
    """The error when every endpoint was left out, with each one's reason."""
    reasons = "; ".join(f"{s.endpoint.name} {s.reason}" for s in skipped)
    if all(s.reason.startswith("cannot do") for s in skipped):
        missing = frozenset.intersection(*(needed - (s.endpoint.features or frozenset()) for s in skipped))
        param = next((_PARAMS[name] for name in sorted(missing) if name in _PARAMS), None)
        return InvalidRequest(
            f"No endpoint of {model!r} can do what the request needs: {reasons}.",
            param,
            reason=Reason.UNSUPPORTED_FEATURE,
        )
    return InvalidRequest(
        f"The routing directive leaves no endpoint of {model!r}: {reasons}.",
        "lmchat.routing",
        reason=Reason.INVALID_ROUTING,
    )


#: The field that asks for a feature.
_PARAMS = {
    "tools": "tools",
    "other_tools": "tools",
    "json_object": "response_format",
    "json_schema": "response_format",
    "n": "n",
    "audio_output": "modalities",
    "image": "messages",
    "audio": "messages",
    "file": "messages",
    "other_parts": "messages",
}
