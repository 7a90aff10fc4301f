"""Gemini's names of fields, which are in camel case, and the snake case that its SDKs also take."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """`topK` as `top_k`."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def camel(name: str) -> str:
    """`top_k` as `topK`."""
    return re.sub("_([a-z])", lambda letter: letter[1].upper(), name)
