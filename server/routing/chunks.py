"""Makes a provider's chunks conform to the contract's guarantees for streams. Sans-I/O.

Every chunk gets the same id and creation time, and the public model id; usage is included only on request, and
the fields beside it move to the last chunk without; the routing report is on the last chunk, so a chunk that may
be the last is held until the provider's stream ends.
"""

from __future__ import annotations

from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import joined_extra
from server.upstream.ports import Chunks


class StreamFinisher:
    """`id` and `created` are the defaults where the provider's first chunk has none; `model` is the public id."""

    def __init__(self, *, id: str, created: int, model: str, include_usage: bool) -> None:
        self._id = id
        self._created = created
        #: The public model id of the following chunks; a resumed stream changes it.
        self.model = model
        #: The model that the provider's chunks name; in a resumed stream that of the first call.
        self.native_model = ""
        self._include_usage = include_usage
        self._begun = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._last: pb.ChatCompletionChunk | None = None
        #: Output tokens that the provider has reported so far; 0 where it reports none.
        self.tokens = 0
        #: Chunks with text or tool calls so far, most of which are one token.
        self.pieces = 0

    def feed(self, chunks: Chunks) -> Chunks:
        """Those of the held chunk and `chunks` that can be sent now."""
        out: Chunks = []
        for chunk in chunks:
            if chunk.HasField("usage"):
                self.tokens = chunk.usage.completion_tokens
            if not chunk.choices and not (self._include_usage and chunk.HasField("usage")):
                if chunk.extra_json and self._last is not None:
                    self._last.extra_json = joined_extra(self._last.extra_json, chunk.extra_json)
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
            if self._finished >= self._seen:  # this may be the last
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
        self.native_model = self.native_model or chunk.model
        chunk.id = self._id
        chunk.created = self._created
        chunk.model = self.model
