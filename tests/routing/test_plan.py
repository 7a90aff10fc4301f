"""Directives, capabilities and health in, ordered candidates and reasons out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.request import ProtoRequest
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, Reason
from server.routing.catalog import Model
from server.routing.plan import Plan, check_names, covers, plan
from tests.routing.routing_help import endpoint, model, request

row = pytest.param


@dataclass
class Health:
    """Statistics by endpoint name; `open_circuits` are those whose circuit is open."""

    open_circuits: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def is_open(self, endpoint_id: str) -> bool:
        return endpoint_id.split("/")[1] in self.open_circuits

    def latency(self, endpoint_id: str) -> float | None:
        return self.seconds.get(endpoint_id.split("/")[1])

    def throughput(self, endpoint_id: str) -> float | None:
        return self.rates.get(endpoint_id.split("/")[1])


def never() -> float:
    """A source of randomness that must not be used."""
    raise AssertionError("the plan threw dice")


def planned(
    proto: pb.ChatCompletionRequest,
    *models: Model,
    health: Health | None = None,
    random: Callable[[], float] = never,
    default_tries: int = 3,
) -> Plan:
    return plan(ProtoRequest(proto), models, health or Health(), random, default_tries=default_tries)


def order(plan_: Plan) -> list[str]:
    return [candidate.endpoint.name for candidate in plan_.candidates]


def left_out(plan_: Plan) -> dict[str, str]:
    return {skipped.endpoint.name: skipped.reason for skipped in plan_.skipped}


FOUR = model(*map(endpoint, ("direct", "vertex", "azure-eastus", "azure-westus")))


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        row({}, "direct vertex azure-eastus azure-westus", id="the catalogue's order"),
        row({"prefer": ["vertex"]}, "vertex direct azure-eastus azure-westus", id="prefer one"),
        row(
            {"prefer": ["azure-westus", "vertex"]},
            "azure-westus vertex direct azure-eastus",
            id="prefer, in order",
        ),
        row({"prefer": ["azure"]}, "azure-eastus azure-westus direct vertex", id="prefer a base name"),
        row(
            {"prefer": ["azure-westus", "azure"]},
            "azure-westus azure-eastus direct vertex",
            id="prefer a variant, then its base name",
        ),
        row({"prefer": ["vertex", "vertex"]}, "vertex direct azure-eastus azure-westus", id="prefer one twice"),
        row(
            {"prefer": ["bedrock", "vertex"]},
            "vertex direct azure-eastus azure-westus",
            id="preferred names without an endpoint of the model",
        ),
        row({"only": ["vertex"]}, "vertex", id="only one"),
        row({"only": ["vertex", "direct"]}, "direct vertex", id="only filters, it does not order"),
        row({"only": ["azure"]}, "azure-eastus azure-westus", id="only a base name"),
        row({"only": ["bedrock", "vertex"]}, "vertex", id="only, with a name that does not serve it"),
        row({"ignore": ["direct"]}, "vertex azure-eastus azure-westus", id="ignore one"),
        row({"ignore": ["azure"]}, "direct vertex", id="ignore a base name"),
        row({"ignore": ["azure-eastus"]}, "direct vertex azure-westus", id="ignore a variant"),
        row({"only": ["azure"], "ignore": ["azure-eastus"]}, "azure-westus", id="only and ignore"),
        row(
            {"prefer": ["vertex"], "ignore": ["vertex"]},
            "direct azure-eastus azure-westus",
            id="ignore takes precedence over only",
        ),
        row({"prefer": ["vertex"], "only": ["direct", "vertex"]}, "vertex direct", id="prefer within only"),
        row({"allow_fallbacks": False}, "direct", id="no fallbacks: the first"),
        row(
            {"allow_fallbacks": False, "prefer": ["azure"]}, "azure-eastus", id="no fallbacks: the first preferred"
        ),
        row({"allow_fallbacks": True}, "direct vertex azure-eastus azure-westus", id="explicit allow_fallbacks"),
    ],
)
def test_names(routing: dict[str, Any], expected: str) -> None:
    plan_ = planned(request(routing), FOUR)
    assert order(plan_) == expected.split()
    assert len(plan_.candidates) + len(plan_.skipped) == len(FOUR.endpoints)


@pytest.mark.parametrize(
    ("routing", "default", "expected"),
    [
        row({}, 3, 3, id="the configured number"),
        row({}, 7, 7, id="another configured number"),
        row({"max_provider_tries": 1}, 3, 1, id="one call"),
        row({"max_provider_tries": 9}, 3, 9, id="more than the configured number"),
        row({"max_provider_tries": 2, "allow_fallbacks": False}, 3, 2, id="retries of the only endpoint"),
    ],
)
def test_max_tries(routing: dict[str, Any], default: int, expected: int) -> None:
    assert planned(request(routing), FOUR, default_tries=default).max_tries == expected


PRICED = model(
    endpoint("dear", price=(10.0, 10.0)),
    endpoint("unpriced"),
    endpoint("cheap", price=(1.0, 2.0)),
    endpoint("middling", price=(1.0, 6.0)),
)
#: The input price counts three times as much as the output price.
ANSWER_HEAVY = model(endpoint("input", price=(2.0, 1.0)), endpoint("output", price=(1.0, 3.0)))
LATENCY = Health(seconds={"a": 0.9, "b": 0.2, "c": 0.5})
RATES = Health(rates={"a": 20.0, "b": 80.0, "c": 40.0})
ABC = model(*map(endpoint, "abc"))
ABCD = model(*map(endpoint, "abcd"))
VARIANTS = model(endpoint("a"), endpoint("x-1", price=(3.0, 3.0)), endpoint("x-2", price=(2.0, 2.0)))


@pytest.mark.parametrize(
    ("models", "sort", "prefer", "health", "expected"),
    [
        row(PRICED, "PRICE", (), Health(), "cheap middling dear unpriced", id="price"),
        row(ANSWER_HEAVY, "PRICE", (), Health(), "output input", id="price of a typical mix"),
        row(PRICED, "PRICE", ("dear",), Health(), "dear cheap middling unpriced", id="price after prefer"),
        row(
            PRICED,
            "PRICE",
            (),
            Health(("cheap",)),
            "middling dear unpriced cheap",
            id="price, open circuit of the cheapest",
        ),
        row(VARIANTS, "PRICE", ("x",), Health(), "x-2 x-1 a", id="price among preferred variants"),
        row(ABC, "PRICE", (), Health(), "a b c", id="no prices: the catalogue's order"),
        row(ABC, "LATENCY", (), LATENCY, "b c a", id="latency"),
        row(ABCD, "LATENCY", (), LATENCY, "d b c a", id="latency: unmeasured first"),
        row(ABCD, "LATENCY", (), Health(("d",), LATENCY.seconds), "b c a d", id="unmeasured, but open"),
        row(ABC, "LATENCY", (), Health(), "a b c", id="no latencies: the catalogue's order"),
        row(ABC, "THROUGHPUT", (), RATES, "b c a", id="throughput"),
        row(ABCD, "THROUGHPUT", (), RATES, "d b c a", id="throughput: unmeasured first"),
        row(ABC, "UNSPECIFIED", (), RATES, "a b c", id="no sort"),
    ],
)
def test_sort(models: Model, sort: str, prefer: tuple[str, ...], health: Health, expected: str) -> None:
    routing = {"sort": pb.RoutingSort.Value(f"ROUTING_SORT_{sort}"), "prefer": prefer}
    assert order(planned(request(routing), models, health=health)) == expected.split()


@pytest.mark.parametrize(
    ("routing", "open_circuits", "expected"),
    [
        row({}, ("direct",), "vertex azure-eastus azure-westus direct", id="open circuits come last"),
        row({"prefer": ["vertex"]}, ("vertex",), "direct azure-eastus azure-westus vertex", id="preferred"),
        row({}, ("direct", "azure-eastus"), "vertex azure-westus direct azure-eastus", id="two keep their order"),
        row(
            {},
            ("direct", "vertex", "azure-eastus", "azure-westus"),
            "direct vertex azure-eastus azure-westus",
            id="all circuits open",
        ),
        row({"allow_fallbacks": False}, ("direct",), "vertex", id="no fallbacks: the first with a closed circuit"),
        row({"only": ["direct"]}, ("direct",), "direct", id="the only endpoint is tried"),
    ],
)
def test_open_circuits(routing: dict[str, Any], open_circuits: tuple[str, ...], expected: str) -> None:
    assert order(planned(request(routing), FOUR, health=Health(open_circuits))) == expected.split()


def test_weights_share_the_traffic() -> None:
    weighted = model(endpoint("a", weight=1.0), endpoint("b", weight=3.0), endpoint("c", weight=0.001))
    random = Random(7).random
    first = Counter(order(planned(request(), weighted, random=random))[0] for _ in range(4000))
    assert first["b"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert first["c"] < 20


@pytest.mark.parametrize(
    ("weights", "share"),
    [
        row((1e-4, 3e-4), 0.25, id="tiny"),
        row((1e6, 1e6), 0.5, id="huge"),
        row((5e-324, 1.0), 0.0, id="a negligible weight"),
    ],
)
def test_weights_of_any_size(weights: tuple[float, float], share: float) -> None:
    weighted = model(*(endpoint(name, weight=weight) for name, weight in zip("ab", weights, strict=True)))
    random = Random(7).random
    first = Counter(order(planned(request(), weighted, random=random))[0] for _ in range(2000))
    assert first["a"] / 2000 == pytest.approx(share, abs=0.03)


def test_weights_apply_to_consecutive_endpoints() -> None:
    weighted = model(
        endpoint("first"), endpoint("a", weight=1.0), endpoint("b", weight=1.0), endpoint("last"),
        endpoint("c", weight=1.0),
    )  # fmt: skip
    seen = set()
    random = Random(7).random
    for _ in range(50):
        names = order(planned(request(), weighted, random=random))
        assert (names[0], names[3], names[4]) == ("first", "last", "c")
        seen.add(tuple(names[1:3]))
    assert seen == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(("dice", "expected"), [((0.9, 0.1), "x-2 x-1 a"), ((0.1, 0.9), "x-1 x-2 a")])
def test_weights_among_the_variants_of_a_preferred_name(dice: tuple[float, float], expected: str) -> None:
    weighted = model(endpoint("a"), endpoint("x-1", weight=1.0), endpoint("x-2", weight=1.0))
    plan_ = planned(request({"prefer": ["x"]}), weighted, random=iter(dice).__next__)
    assert order(plan_) == expected.split()


def test_weights_are_ignored_with_a_sort() -> None:
    weighted = model(
        endpoint("a", weight=9.0, price=(2.0, 2.0)), endpoint("b", weight=1.0, price=(1.0, 1.0)), endpoint("c")
    )
    assert order(planned(request({"sort": pb.ROUTING_SORT_PRICE}), weighted)) == ["b", "a", "c"]


TOOL = pb.Tool(function=pb.FunctionDefinition(name="f"))
IMAGE = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(image_url=pb.ImageUrl(url="https://x.test/i.png"))])
SCHEMA = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="s"))


@pytest.mark.parametrize(
    ("fields", "lacking", "reason", "param"),
    [
        row({"tools": [TOOL]}, "tools", "cannot do: tools", "tools", id="tools"),
        row(
            {"tools": [pb.Tool(other_json='{"type": "web"}')]},
            "other_tools",
            "cannot do: other_tools",
            "tools",
            id="a provider's own tool",
        ),
        row({"n": 2}, "n", "cannot do: n", "n", id="several choices"),
        row(
            {"response_format": SCHEMA},
            "json_schema",
            "cannot do: json_schema",
            "response_format",
            id="json_schema",
        ),
        row({"messages": [IMAGE]}, "image", "cannot do: image", "messages", id="an image"),
        row({"modalities": ["audio"]}, "audio_output", "cannot do: audio_output", "modalities", id="audio output"),
        row({"tools": [TOOL], "n": 3}, "n tools", "cannot do: n, tools", "n", id="two features: both are named"),
    ],
)
def test_features(fields: dict[str, Any], lacking: str, reason: str, param: str) -> None:
    able = {"tools", "other_tools", "n", "json_schema", "image", "audio_output"}
    cannot = endpoint("cannot", features=sorted(able - set(lacking.split())))
    proto = request(**fields)
    plan_ = planned(proto, model(cannot, endpoint("can", features=sorted(able)), endpoint("anything")))
    assert order(plan_) == ["can", "anything"]
    assert left_out(plan_) == {"cannot": reason}
    with pytest.raises(
        InvalidRequest, match=f"No endpoint of 'm' can do what the request needs: cannot {reason}"
    ) as e:
        planned(proto, model(cannot))
    assert (e.value.reason, e.value.param) == (Reason.UNSUPPORTED_FEATURE, param)
    with pytest.raises(InvalidRequest) as e:
        planned(proto, model(endpoint("none", features=())))
    assert e.value.reason is Reason.UNSUPPORTED_FEATURE
    assert e.value.param in {"tools", "n", "response_format", "messages", "modalities"}


def test_n_of_one_needs_nothing() -> None:
    assert order(planned(request(n=1), model(endpoint("a", features=())))) == ["a"]


@pytest.mark.parametrize(
    ("routing", "fields", "expected", "reasons"),
    [
        row({}, {"seed": 1}, {"a": ["seed"], "b": []}, {}, id="a tuning parameter is dropped"),
        row(
            {"require_parameters": True},
            {"seed": 1},
            {"b": []},
            {"a": "would drop: seed"},
            id="a tuning parameter is required",
        ),
        row(
            {"require_parameters": True},
            {"user": "u"},
            {"a": [], "b": []},
            {},
            id="another tuning parameter is supported",
        ),
        row(
            {"require_parameters": True},
            {"seed": 1, "top_p": 0.5},
            {},
            {"a": "would drop: seed", "b": "would drop: top_p"},
            id="no endpoint supports all",
        ),
        row({}, {"seed": 1, "top_p": 0.5}, {"a": ["seed"], "b": ["top_p"]}, {}, id="different ones per endpoint"),
    ],
)
def test_dropped_parameters(
    routing: dict[str, Any], fields: dict[str, Any], expected: dict[str, list[str]], reasons: dict[str, str]
) -> None:
    models = model(endpoint("a", drops=["seed"]), endpoint("b", drops=["top_p"]))
    if not expected:
        with pytest.raises(InvalidRequest) as e:
            planned(request(routing, **fields), models)
        assert (e.value.reason, e.value.param) == (Reason.INVALID_ROUTING, "lmchat.routing")
        assert all(f"{name} {reason}" in e.value.message for name, reason in reasons.items())
        return
    plan_ = planned(request(routing, **fields), models)
    assert {candidate.endpoint.name: candidate.dropped for candidate in plan_.candidates} == expected
    assert left_out(plan_) == reasons


def second(*endpoints: Endpoint) -> Model:
    return model(*endpoints, id_="second")


@pytest.mark.parametrize(
    ("routing", "open_circuits", "expected"),
    [
        row({}, (), "a b c d", id="one model after the other"),
        row({"prefer": ["d"]}, (), "a b d c", id="prefer orders within each"),
        row({"prefer": ["b", "d"]}, (), "b a d c", id="prefer in both"),
        row({"only": ["c"]}, (), "c", id="only of the second"),
        row({"ignore": ["a", "b"]}, (), "c d", id="ignore the first"),
        row({"allow_fallbacks": False}, (), "a", id="no fallbacks"),
        row({}, ("a",), "b c d a", id="open circuits come last across models"),
        row({"sort": pb.ROUTING_SORT_PRICE}, (), "a b d c", id="sort orders within each"),
    ],
)
def test_models(routing: dict[str, Any], open_circuits: tuple[str, ...], expected: str) -> None:
    other = second(endpoint("c", price=(2.0, 2.0)), endpoint("d", price=(1.0, 1.0)))
    plan_ = planned(request(routing), model(endpoint("a"), endpoint("b")), other, health=Health(open_circuits))
    assert order(plan_) == expected.split()


def test_a_fallback_model_has_the_missing_feature() -> None:
    plan_ = planned(request(tools=[TOOL]), model(endpoint("a", features=())), second(endpoint("b")))
    assert order(plan_) == ["b"]
    assert left_out(plan_) == {"a": "cannot do: tools"}


def test_an_endpoint_that_two_models_share_is_tried_once() -> None:
    shared = endpoint("a", public_model="second")
    plan_ = planned(request(), model(endpoint("a")), second(shared, endpoint("b", public_model="second")))
    assert [(c.endpoint.name, c.endpoint.public_model) for c in plan_.candidates] == [("a", "m"), ("b", "second")]
    assert [(s.endpoint.public_model, s.reason) for s in plan_.skipped] == [("second", "already a candidate")]


@pytest.mark.parametrize(
    ("routing", "words"),
    [
        row({"only": ["bedrock"]}, "direct not in `only`; vertex not in `only`", id="only elsewhere"),
        row({"ignore": ["direct", "vertex", "azure"]}, "direct in `ignore`", id="all ignored"),
        row({"only": ["direct"], "ignore": ["direct"]}, "direct in `ignore`", id="only an ignored one"),
    ],
)
def test_no_candidates(routing: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match="The routing directive leaves no endpoint of 'm'") as e:
        planned(request(routing), FOUR)
    assert words in e.value.message
    assert (e.value.reason, e.value.param) == (Reason.INVALID_ROUTING, "lmchat.routing")


def test_an_unknown_sort() -> None:
    with pytest.raises(InvalidRequest) as e:
        planned(request({"sort": 17}), FOUR)
    assert (e.value.reason, e.value.param) == (Reason.INVALID_ROUTING, "lmchat.routing.sort")


@pytest.mark.parametrize(
    ("name", "endpoint_name", "expected"),
    [
        ("azure", "azure", True),
        ("azure", "azure-eastus", True),
        ("azure-eastus", "azure-eastus", True),
        ("azure-eastus", "azure", False),
        ("azure", "azurestack", False),
        ("azure-", "azure-eastus", False),
        ("", "azure", False),
        ("Azure", "azure", False),
    ],
)
def test_covers(name: str, endpoint_name: str, *, expected: bool) -> None:
    assert covers(name, endpoint_name) is expected


KNOWN = ("direct", "vertex", "azure-eastus", "bedrock")


@pytest.mark.parametrize(
    ("routing", "param"),
    [
        row({"prefer": ["vertex", "bedrock"]}, None, id="known"),
        row({"only": ["azure"], "ignore": ["azure-eastus"]}, None, id="a base name, a variant"),
        row({"prefer": ["vertx"]}, "prefer[0]", id="a typo"),
        row({"prefer": ["vertex", "nope", "vertex"]}, "prefer[1]", id="the second of three"),
        row({"prefer": ["vertex", "vertex", "nope"]}, "prefer[2]", id="after a repeated name"),
        row({"only": ["nope"]}, "only[0]", id="only"),
        row({"ignore": ["direct", ""]}, "ignore[1]", id="an empty name"),
        row({"ignore": ["azure-westus"]}, "ignore[0]", id="an unknown variant"),
    ],
)
def test_unknown_names(routing: dict[str, Any], param: str | None) -> None:
    directive = request(routing).lmchat.routing
    if param is None:
        check_names(directive, KNOWN)
        return
    with pytest.raises(InvalidRequest, match="Known: azure-eastus, bedrock, direct, vertex") as e:
        check_names(directive, KNOWN)
    assert (e.value.reason, e.value.param) == (Reason.INVALID_ROUTING, f"lmchat.routing.{param}")
