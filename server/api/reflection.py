"""Server reflection in both of its versions: v1, which tools ask for first, has the messages of v1alpha.

grpcio-reflection has v1alpha. https://github.com/grpc/grpc/blob/master/src/proto/grpc/reflection/v1/reflection.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(services: Iterable[str], server: Any) -> None:
    """Register a servicer that lists `services` and reflection itself, which needs no key, with a gRPC server."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME, V1))
    for registrar in (server, _AsV1(server)):
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, registrar)  # type: ignore[no-untyped-call]


class _AsV1:
    """Registers methods of v1alpha as those of v1."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: `add_registered_method_handlers` registers the same methods."""

    def add_registered_method_handlers(
        self, _: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self._server.add_registered_method_handlers(V1, handlers)
