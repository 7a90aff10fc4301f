"""Plans a request: the candidate endpoints in the order in which they are tried.

Pure: models, directive and statistics in; the ordered candidates, and every skipped endpoint with the reason,
out. ROUTING.md describes the semantics.
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

#: The only topic of `lmchat.debug`.
DEBUG_ROUTING = "routing"
_SORTS = frozenset(pb.RoutingSort.values())


class Stats(Protocol):
    """Circuit state and averages by `Endpoint.id`; see `stats.EndpointStats`."""

    def is_open(self, endpoint_id: str) -> bool:
        """Whether its circuit is open."""
        ...

    def latency(self, endpoint_id: str) -> float | None:
        """Average seconds to the first content; None without recent measurements."""
        ...

    def throughput(self, endpoint_id: str) -> float | None:
        """Average output tokens per second; None without recent measurements."""
        ...


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An endpoint to try, and the parameters that are dropped for it."""

    endpoint: Endpoint
    dropped: list[str]


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that is not a candidate, and why."""

    endpoint: Endpoint
    reason: str

    def record(self) -> SkippedRecord:
        """The form in which errors and reports list it."""
        return SkippedRecord(self.endpoint.name, self.endpoint.public_model, self.reason)


class Plan(msgspec.Struct, frozen=True, gc=False):
    """At least one candidate, in order, without duplicates; `max_tries` bounds the provider calls in total."""

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
    #: None: the configured `retry.max_provider_tries`.
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
    """Whether a directive's name matches this endpoint: its name or the base name (`azure` of `azure-eastus`)."""
    return endpoint_name == name or endpoint_name.startswith(f"{name}-")


def check_names(routing: pb.Routing, known: Iterable[str]) -> None:
    """Raise InvalidRequest for a name that matches no endpoint of the catalogue."""
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
    """The plan for `request` over `models`, the requested model first.

    `random` gives numbers in [0, 1). Raises InvalidRequest where the directive or the features that the request
    needs leave no candidate.
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
            if (
                not reason and endpoint.id in seen
            ):  # several models may share an endpoint; the circuit is shared too
                reason = "already a candidate"
            if reason:
                skipped.append(Skipped(endpoint, reason))
            else:
                seen.add(endpoint.id)
                fit.append(Candidate(endpoint, dropped))
        candidates += fit if len(fit) < 2 else _ordered(fit, directive, stats, random)
    if not candidates:
        raise _no_candidates(request.model, skipped, needed)
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
    """Preferred endpoints in the order of `prefer`, then the rest; variants of one base name form a group."""
    ordered: list[Candidate] = []
    rest = fit
    for name in dict.fromkeys(directive.prefer):
        covered = [c for c in rest if covers(name, c.endpoint.name)]
        if covered:
            ordered += _ordered_group(covered, directive.sort, stats, random)
            rest = [c for c in rest if not covers(name, c.endpoint.name)]
    return ordered + _ordered_group(rest, directive.sort, stats, random)


def _ordered_group(
    group: list[Candidate], sort: pb.RoutingSort.ValueType, stats: Stats, random: Callable[[], float]
) -> list[Candidate]:
    """By `sort`, or in the catalogue's order and by weight."""
    if sort:
        return sorted(group, key=lambda c: _score(c.endpoint, sort, stats))
    return _weighted(group, random)


def _score(endpoint: Endpoint, sort: pb.RoutingSort.ValueType, stats: Stats) -> float:
    """Lower is better. Endpoints without a price come last; those without recent measurements first."""
    if sort == pb.ROUTING_SORT_PRICE:
        # Chat prompts are about three times as long as completions.
        return (3 * endpoint.price.input + endpoint.price.output) / 4 if endpoint.price else math.inf
    if sort == pb.ROUTING_SORT_LATENCY:
        latency = stats.latency(endpoint.id)
        return -math.inf if latency is None else latency
    throughput = stats.throughput(endpoint.id)
    return -math.inf if throughput is None else -throughput


def _weighted(group: list[Candidate], random: Callable[[], float]) -> list[Candidate]:
    """Shuffle each run of consecutive weighted endpoints by weight; the others keep their positions.

    Each endpoint of a run gets an exponentially distributed key of rate `weight`; sorting by it gives each order
    the probability of weighted sampling without replacement (Efraimidis and Spirakis, 2006).
    """
    out: list[Candidate] = []
    drawn: list[tuple[float, Candidate]] = []
    for candidate in group:
        weight = candidate.endpoint.weight
        if weight is None:
            if drawn:
                out += _drawn(drawn)
                drawn = []
            out.append(candidate)
        else:
            drawn.append((-math.log(1.0 - random()) / weight, candidate))
    return out + _drawn(drawn) if drawn else out


def _drawn(drawn: list[tuple[float, Candidate]]) -> list[Candidate]:
    return [candidate for _, candidate in sorted(drawn, key=lambda pair: pair[0])]


def _no_candidates(model: str, skipped: list[Skipped], needed: frozenset[str]) -> LmchatError:
    """The error where every endpoint was skipped, with the reason of each."""
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


#: Feature -> the request field that needs it.
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
