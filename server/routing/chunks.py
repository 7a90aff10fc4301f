"""The last touch on a stream, sans-I/O: what the contract promises and providers do not.

Every chunk gets the same id and time, and the public model; usage appears only
where it was asked for; the routing report rides on the last chunk, which is
therefore the one thing held back, until the provider's end is known.
"""

from __future__ import annotations

from lmchat.v1 import chat_pb2 as pb

from server.upstream.ports import Chunks


class StreamFinisher:
    """`id` and `created` stand in where the provider's first chunk gives none; `model` is the public id."""

    def __init__(self, *, id: str, created: int, model: str, include_usage: bool) -> None:
        self._id = id
        self._created = created
        #: The public id, from here on.
        self.model = model
        self._include_usage = include_usage
        self._begun = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._last: pb.ChatCompletionChunk | None = None
        #: Output tokens, as far as the provider said; 0 where it did not.
        self.tokens = 0
        #: Pieces of the answer so far, most of which are a token.
        self.pieces = 0

    def feed(self, chunks: Chunks) -> Chunks:
        """`chunks` as they may leave now."""
        out: Chunks = []
        for chunk in chunks:
            if chunk.HasField("usage"):
                self.tokens = chunk.usage.completion_tokens
            if not chunk.choices and not (self._include_usage and chunk.HasField("usage")):
                continue
            if self._last is not None:
                out.append(self._last)
                self._last = None
            self._stamp(chunk)
            for choice in chunk.choices:
                delta = choice.delta
                self.pieces += bool(delta.content or delta.reasoning_content or delta.tool_calls)
                self._seen.add(choice.index)
                if choice.finish_reason:
                    self._finished.add(choice.index)
            if self._finished >= self._seen:  # nothing need follow
                self._last = chunk
            else:
                out.append(chunk)
        return out

    def end(self, report: pb.RoutingReport) -> Chunks:
        """The last chunk, with the report."""
        if self._last is None:
            return []
        self._last.lmchat.CopyFrom(report)
        return [self._last]

    def _stamp(self, chunk: pb.ChatCompletionChunk) -> None:
        if not self._begun:
            self._begun = True
            self._id = chunk.id or self._id
            self._created = chunk.created or self._created
        chunk.id = self._id
        chunk.created = self._created
        chunk.model = self.model
