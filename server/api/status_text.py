"""Headers of a unary REST response, in the message of its gRPC status.

gRPC would send initial metadata as a separate message, which costs a tenth of
the whole call, and would send a status other than OK without the body. So the
unary REST method always ends with OK, and the status text has a line `name: value`
for each header; the reply's true code is the line `grpc-status`. Envoy's Lua filter
turns the lines into headers again (`status_headers` in envoy.yaml).
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

Headers = tuple[tuple[str, str], ...]


def status_text(headers: Iterable[tuple[str, str]], code: grpc.StatusCode | None = None) -> str:
    """The status message for `headers`; `code` is that of an error. Values are ASCII without line breaks."""
    lines = "\n".join(map(": ".join, headers))
    return lines if code is None else f"{lines}\ngrpc-status: {code.value[0]}"
