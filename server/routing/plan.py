"""Which endpoints may answer a request, and in which order they are tried.

Pure: catalogue, directive and a view of their health in, an ordered plan out,
with the reason for every endpoint left out. The semantics are in the README's
routing section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from lmchat.v1 import chat_pb2 as pb

from server.catalog import Model
from server.errors import InvalidRequest, LmchatError, Reason
from server.providers import features
from server.providers.base import Endpoint


class Health(Protocol):
    """What the plan asks about endpoints, by `Endpoint.id`."""

    def is_open(self, endpoint_id: str) -> bool:
        """Whether its circuit is open: it failed too often just now."""
        ...

    def latency(self, endpoint_id: str) -> float | None:
        """Recent seconds to the first content; None when not known."""
        ...

    def throughput(self, endpoint_id: str) -> float | None:
        """Recent output tokens per second; None when not known."""
        ...


class Candidate(NamedTuple):
    """An endpoint to try, and what it would not honour."""

    endpoint: Endpoint
    dropped: list[str]


class Skipped(NamedTuple):
    """An endpoint left out, and why."""

    endpoint: Endpoint
    reason: str


class Plan(NamedTuple):
    """Candidates in the order of trying; at least one."""

    candidates: list[Candidate]
    skipped: list[Skipped]
    max_tries: int


def covers(name: str, endpoint_name: str) -> bool:
    """Whether a name in a directive means this endpoint: itself, or the base of a variant (`azure`, `azure-eastus`)."""
    return endpoint_name == name or endpoint_name.startswith(f"{name}-")


def check_names(routing: pb.Routing, known: Iterable[str]) -> None:
    """Raise InvalidRequest for a name that no endpoint of the catalogue has."""
    for field in ("prefer", "only", "ignore"):
        for index, name in enumerate(getattr(routing, field)):
            if not any(covers(name, endpoint_name) for endpoint_name in known):
                raise InvalidRequest(
                    f"No endpoint is named {name!r}. Known: {', '.join(sorted(known))}.",
                    f"lmchat.routing.{field}[{index}]",
                    reason=Reason.INVALID_ROUTING,
                )


def plan(
    request: pb.ChatCompletionRequest,
    models: Sequence[Model],
    health: Health,
    random: Callable[[], float],
    *,
    default_tries: int,
) -> Plan:
    """The plan for `request` over `models`, the asked one first.

    Raises InvalidRequest when the directive, or what the request needs, leaves
    no endpoint at all.
    """
    routing = request.lmchat.routing
    needed = features.needs(request)
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    for model in models:
        fit: list[Candidate] = []
        for endpoint in model.endpoints:
            dropped = features.dropped(request, endpoint)
            reason = _unfit(endpoint, routing, needed, dropped)
            if reason:
                skipped.append(Skipped(endpoint, reason))
            else:
                fit.append(Candidate(endpoint, dropped))
        candidates += fit if len(fit) < 2 else _ordered(fit, routing, health, random)
    if not candidates:
        raise _nothing_left(request.model, skipped, needed)
    if len(candidates) > 1:
        candidates.sort(key=lambda c: health.is_open(c.endpoint.id))  # stable: open circuits go last
    if routing.HasField("allow_fallbacks") and not routing.allow_fallbacks:
        skipped += [Skipped(c.endpoint, "fallbacks are not allowed") for c in candidates[1:]]
        del candidates[1:]
    tries = routing.max_provider_tries if routing.HasField("max_provider_tries") else default_tries
    return Plan(candidates, skipped, tries)


def _unfit(endpoint: Endpoint, routing: pb.Routing, needed: frozenset[str], dropped: list[str]) -> str:
    """Why `endpoint` cannot be a candidate; empty if it can."""
    if routing.only and not any(covers(name, endpoint.name) for name in routing.only):
        return "not in `only`"
    if any(covers(name, endpoint.name) for name in routing.ignore):
        return "in `ignore`"
    if endpoint.features is not None and not needed <= endpoint.features:
        return f"cannot do: {', '.join(sorted(needed - endpoint.features))}"
    if dropped and routing.require_parameters:
        return f"would drop: {', '.join(dropped)}"
    return ""


def _ordered(
    fit: list[Candidate], routing: pb.Routing, health: Health, random: Callable[[], float]
) -> list[Candidate]:
    """The preferred in their order, then the rest by `sort`, or in the catalogue's order and by weight."""
    preferred: list[Candidate] = []
    rest = list(fit)
    for name in routing.prefer:
        preferred += [c for c in rest if covers(name, c.endpoint.name)]
        rest = [c for c in rest if not covers(name, c.endpoint.name)]
    if routing.sort:
        rest.sort(key=lambda c: _score(c.endpoint, routing.sort, health))
    else:
        rest = _weighted(rest, random)
    return preferred + rest


def _score(endpoint: Endpoint, sort: pb.RoutingSort.ValueType, health: Health) -> float:
    """Lower is better; what is not known comes last."""
    if sort == pb.ROUTING_SORT_PRICE:
        # Chat prompts are some three times as long as their answers.
        return (3 * endpoint.price.input + endpoint.price.output) / 4 if endpoint.price else float("inf")
    if sort == pb.ROUTING_SORT_LATENCY:
        latency = health.latency(endpoint.id)
        return float("inf") if latency is None else latency
    throughput = health.throughput(endpoint.id)
    return float("inf") if throughput is None else -throughput


def _weighted(rest: list[Candidate], random: Callable[[], float]) -> list[Candidate]:
    """Neighbours that have a weight share the traffic; the others keep their places.

    Each of a group gets the key random^(1/weight); sorting by it picks every
    order with the probability of drawing by weight without replacement
    (Efraimidis and Spirakis, 2006).
    """
    out: list[Candidate] = []
    group: list[tuple[float, Candidate]] = []
    for candidate in rest:
        weight = candidate.endpoint.weight
        if weight is None:
            out += _drawn(group)
            group = []
            out.append(candidate)
        else:
            group.append((random() ** (1 / weight), candidate))
    return out + _drawn(group)


def _drawn(group: list[tuple[float, Candidate]]) -> list[Candidate]:
    return [candidate for _, candidate in sorted(group, key=lambda pair: -pair[0])]


def _nothing_left(model: str, skipped: list[Skipped], needed: frozenset[str]) -> LmchatError:
    """The error when every endpoint was left out, with each one's reason."""
    reasons = "; ".join(f"{s.endpoint.name} {s.reason}" for s in skipped)
    if all(s.reason.startswith("cannot do") for s in skipped):
        missing = frozenset.intersection(*(needed - (s.endpoint.features or needed) for s in skipped))
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
