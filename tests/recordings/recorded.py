"""The recorded calls in ../shared/recordings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.needs import RECORDINGS


class Recording(NamedTuple):
    """One recorded call."""

    path: Path
    id: str
    request: dict[str, Any]
    status: int
    body: bytes

    @property
    def stream(self) -> bool:
        body = self.request.get("body")
        return "stream" in self.request["url"].lower() or (isinstance(body, dict) and bool(body.get("stream")))

    @property
    def n(self) -> int:
        body = self.request.get("body")
        return body.get("n", 1) if isinstance(body, dict) else 1

    @property
    def batch(self) -> bool:
        return "/batches" in self.request["url"] or ":batch" in self.request["url"]


def recordings(vendor: str) -> Iterator[Recording]:
    for path in sorted((RECORDINGS / vendor).rglob("*.json")):
        obj = json.loads(path.read_bytes())
        response = obj["response"]
        body = base64.b64decode(response["body_b64"]) if "body_b64" in response else response["body"].encode()
        yield Recording(path, path.stem[-6:], obj["request"], response["status"], body)
