"""The servicer of `lmchat.v1.Models`, over REST `GET /api/v1/models`."""

from __future__ import annotations

import asyncio

from lmchat.v1 import model_pb2, model_service_pb2
from lmchat.v1 import model_service_pb2_grpc as model_grpc

from server.api.call import Calls, Context
from server.api.registration import returns_bytes
from server.dialects.base import Endpoint
from server.routing import capabilities
from server.routing.catalog import Catalog, Model
from server.routing.stats import EndpointStats

#: Request parameters besides capabilities.KNOBS -> the feature they need.
_FEATURE_PARAMETERS = {"tools": "tools", "tool_choice": "tools", "response_format": "json_schema", "n": "n"}
#: Models listed before the event loop serves other calls, since there may be thousands.
_SLICE = 250
_MODALITIES = ("image", "audio", "file")


class Models(model_grpc.ModelsServicer):
    """`created` is the time at which the catalogue was loaded, in Unix seconds."""

    def __init__(self, calls: Calls, catalog: Catalog, created: int, stats: EndpointStats) -> None:
        self._calls = calls
        self._catalog = catalog
        self._stats = stats
        self._created = created
        self._models = catalog.models()
        self._list = [self._model(model) for model in self._models]

    @returns_bytes
    async def ListModels(  # type: ignore[override]
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> bytes:
        """Every model, wildcards included, as the bytes of a ListModelsResponse."""
        async with self._calls(context) as call:
            pieces = [model_service_pb2.ListModelsResponse(object="list").SerializeToString()]
            for start in range(0, len(self._list), _SLICE):
                if start:
                    await asyncio.sleep(0)
                # The bytes of messages one after the other are those of one with the lists of all.
                piece = model_service_pb2.ListModelsResponse(data=self._list[start : start + _SLICE])
                for model, known in zip(piece.data, self._models[start : start + _SLICE], strict=True):
                    self._add_stats(model, known)
                pieces.append(piece.SerializeToString())
            await call.begin()
            return b"".join(pieces)

    async def GetModel(self, request: model_service_pb2.GetModelRequest, context: Context) -> model_pb2.Model:
        """One model, by id, alias, or an id that matches a wildcard."""
        async with self._calls(context) as call:
            known = self._catalog.resolve(request.model)
            model = self._model(known)
            self._add_stats(model, known)
            await call.begin()
            return model

    def _add_stats(self, model: model_pb2.Model, known: Model) -> None:
        """Set the current health of the endpoints."""
        for shown, endpoint in zip(model.lmchat.endpoints, known.endpoints, strict=True):
            snapshot = self._stats.snapshot(endpoint.id)
            shown.health.state = snapshot.state
            if snapshot.latency is not None:
                shown.health.latency_ms = round(snapshot.latency * 1000, 1)
            if snapshot.first_token is not None:
                shown.health.first_token_ms = round(snapshot.first_token * 1000, 1)
            if snapshot.throughput is not None:
                shown.health.tokens_per_second = round(snapshot.throughput, 1)

    def _model(self, model: Model) -> model_pb2.Model:
        return model_pb2.Model(
            id=model.id,
            object="model",
            created=self._created,
            owned_by=model.endpoints[0].provider.key,
            lmchat=model_pb2.ModelDetails(
                endpoints=[_endpoint(endpoint) for endpoint in model.endpoints],
                context_length=model.context_length,
                max_output_tokens=model.max_output_tokens,
                aliases=model.aliases,
            ),
        )


def _endpoint(endpoint: Endpoint) -> model_pb2.Endpoint:
    has = capabilities.FEATURES if endpoint.features is None else endpoint.features
    parameters = capabilities.KNOBS - endpoint.drops | {
        p for p, feature in _FEATURE_PARAMETERS.items() if feature in has
    }
    price = endpoint.price
    return model_pb2.Endpoint(
        name=endpoint.name,
        provider=endpoint.provider.key,
        dialect=endpoint.dialect,
        model=endpoint.model,
        supported_parameters=sorted(parameters),
        input_modalities=["text", *(name for name in _MODALITIES if name in has)],
        price=model_pb2.Price(input=price.input, output=price.output) if price else None,
    )
