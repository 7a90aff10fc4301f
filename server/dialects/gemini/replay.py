"""The signatures of Gemini's reasoning, as they go back to Gemini in an assistant's turn. Pure.

A signature stands in `reasoning_details`, and those of calls and images also in their own
`extra_content.google.thought_signature`, as in Google's OpenAI-compatible API. The thoughts themselves are not
sent back: their signature stands for them. https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

from typing import Any

from lmchat.v1 import chat_pb2 as pb

from server.dialects.dropped import Dropped
from server.dialects.gemini.json_object import json_object

#: `ReasoningDetail.format` of blocks that can be replayed to Gemini.
FORMAT = "gemini"


def thought_signature(extra_content: Any) -> str:
    """The signature in the `extra_content` of a call or an image; empty where there is none."""
    match extra_content:
        case {"google": {"thought_signature": str(signature)}}:
            return signature
    return ""


class Signatures:
    """The signatures of one message. `parts`: parts that are sent back whole.

    What cannot be replayed is reported as dropped.
    """

    def __init__(self, message: pb.Message, path: str, dropped: Dropped) -> None:
        self._message = message
        self._path = path
        self._dropped = dropped
        self.parts: list[dict[str, Any]] = []
        #: Index in `reasoning_details` -> signature, for those that are not part of `parts`.
        self._signatures: dict[int, str] = {}
        self._unused: list[int] = []
        for index, block in enumerate(message.reasoning_details):
            part = _whole_part(block)
            signature = (block.signature or block.redacted) if block.format == FORMAT else ""
            if part is not None:
                self.parts.append(part)
            elif signature:
                self._signatures[index] = signature
            else:
                self._unused.append(index)

    def read(self, path: str, extra_content: Any) -> str:
        """The signature in the `extra_content` of a call, at `path`; empty where there is none."""
        if extra_content is None:
            return ""
        signature = thought_signature(extra_content)
        if not signature:
            self._dropped.add(path)
            return ""
        self._dropped.pick_from(path, extra_content, ("google",))
        self._dropped.pick_from(f"{path}.google", extra_content["google"], ("thought_signature",))
        return signature

    def sign(self, parts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
        """Put the signatures on the parts and calls of the turn.

        Calls come last and so do their signatures; one before them belongs to the text. A signature on a call
        itself is certain and takes precedence.
        """
        indices = list(self._signatures)
        of_calls = indices[-len(calls) :] if calls else []
        of_parts = indices[: len(indices) - len(of_calls)]
        for call, index in zip(calls, of_calls, strict=False):
            call.setdefault("thoughtSignature", self._signatures[index])
        if of_parts and parts and "thoughtSignature" not in parts[-1]:
            parts[-1]["thoughtSignature"] = self._signatures[of_parts.pop()]
        self._unused += of_parts
        signed = any("thoughtSignature" in part for part in parts + calls)
        self._name_unused(replayed=signed or bool(self.parts))

    def _name_unused(self, *, replayed: bool) -> None:
        path = f"{self._path}.reasoning_details"
        if self._unused and len(self._unused) == len(self._message.reasoning_details):
            self._dropped.add(path)
        else:
            for index in sorted(self._unused):
                self._dropped.add(f"{path}[{index}]")
        if self._message.reasoning_content and not replayed:
            self._dropped.add(f"{self._path}.reasoning_content")


def _whole_part(block: pb.ReasoningDetail) -> dict[str, Any] | None:
    if not block.HasField("other_json"):
        return None
    other = json_object(block.other_json)
    part = other.get("part")
    return part if other.get("format") == FORMAT and isinstance(part, dict) else None
