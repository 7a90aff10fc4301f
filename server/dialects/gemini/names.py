"""Gemini's names: of fields, which are in camel case, the snake case that its SDKs also take, and of functions."""

from __future__ import annotations

import re

from lmchat.v1 import chat_pb2 as pb

from server.dialects.tool_ids import fit, renamed

#: A function's name begins with a letter or an underscore. https://ai.google.dev/api/caching#FunctionDeclaration
_FORBIDDEN = re.compile(r"^[^a-zA-Z_]|[^a-zA-Z0-9_.-]")


def snake(name: str) -> str:
    """`topK` as `top_k`."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def camel(name: str) -> str:
    """`top_k` as `topK`."""
    return re.sub("_([a-z])", lambda letter: letter[1].upper(), name)


def tool_name(name: str) -> str:
    """A function's name as Gemini takes it."""
    return fit(name, _FORBIDDEN)


def tool_names(request: pb.ChatCompletionRequest) -> dict[str, str]:
    """Gemini's name -> the caller's, for the tools of `request` whose names are rewritten."""
    return renamed(request, tool_name)
