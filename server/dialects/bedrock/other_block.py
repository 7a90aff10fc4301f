"""Blocks of a streamed answer that the contract does not have: calls and results of Bedrock's own tools, images.

They are put together as a whole answer has them. https://docs.aws.amazon.com/nova/latest/nova2-userguide/using-tools.html
"""

from __future__ import annotations

import base64
from typing import Any, Self

import msgspec

from server.chat.openai_json.fields import decode
from server.dialects.bedrock import shapes
from server.dialects.bedrock.response import from_base64


class OtherBlock:
    """One block: its kind, its head and its pieces. A `kind` without pieces, such as `text`, is not one."""

    def __init__(self, kind: str, head: dict[str, Any]) -> None:
        self._kind = kind
        self._head = head
        self._input: list[str] = []
        self._results: list[dict[str, Any]] = []
        self._source: dict[str, Any] = {}
        self._bytes: list[bytes] = []

    @classmethod
    def of(cls, start: shapes.Start) -> Self | None:
        """The block that begins with `start`; None where that is the head of no such block."""
        if start.tool_use is not None:
            use = start.tool_use
            return cls("toolUse", {"toolUseId": use.tool_use_id, "name": use.name, "type": use.type})
        if start.tool_result is not None:
            return cls("toolResult", start.tool_result)
        return cls("image", start.image) if start.image is not None else None

    def add(self, piece: shapes.Delta) -> int:
        """Add a delta; returns its size in characters. Raises ProviderError for bytes that are not base64."""
        if piece.tool_use is not None:
            self._input.append(piece.tool_use.input)
            return len(piece.tool_use.input)
        if piece.tool_result is not None:
            self._results += piece.tool_result
        image = dict(piece.image or {})
        source = image.pop("source", None)
        if isinstance(source, dict) and isinstance(source.get("bytes"), str):
            self._bytes.append(from_base64(source["bytes"]))
        elif source is not None:
            self._source["source"] = source
        self._source |= image
        return len(msgspec.json.encode(piece))

    def whole(self) -> dict[str, Any]:
        """The block. Raises msgspec.DecodeError for an input that is not JSON."""
        if self._kind == "toolUse":
            return {"toolUse": {**self._head, "input": decode("".join(self._input) or "{}")}}
        if self._kind == "toolResult":
            return {"toolResult": {**self._head, "content": _joined(self._results)}}
        drawn = {"source": {"bytes": base64.b64encode(b"".join(self._bytes)).decode()}} if self._bytes else {}
        return {"image": {**self._head, **self._source, **drawn}}


def _joined(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pieces of a result; text that follows text continues it."""
    out: list[dict[str, Any]] = []
    texts: list[str] = []
    for piece in [*pieces, {}]:
        if piece.keys() == {"text"} and isinstance(piece["text"], str):
            texts.append(piece["text"])
            continue
        if texts:
            out.append({"text": "".join(texts)})
            texts = []
        if piece:
            out.append(piece)
    return out
