"""Headers of a unary REST response, in the message of its gRPC status.

gRPC sends initial metadata as a separate message, which costs a tenth of the call, and drops the body of a
response whose status is not OK. So the unary REST method always ends with OK, and the status message has one line
`name: value` per header; an error's code is the line `grpc-status`. Envoy's Lua filter converts the lines to
headers (`status_headers` in envoy.yaml).
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

Headers = tuple[tuple[str, str], ...]


def status_text(headers: Iterable[tuple[str, str]], code: grpc.StatusCode | None = None) -> str:
    """The status message for `headers`; `code` is that of an error. Values are ASCII without line breaks."""
    lines = "\n".join(map(": ".join, headers))
    return lines if code is None else f"{lines}\ngrpc-status: {code.value[0]}"
