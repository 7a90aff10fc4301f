"""How much of structured outputs and of prompt caching one request may use; beyond that it is a 400.

Structured outputs: strict tools, optional parameters and union types, of all schemas of a request together.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#schema-complexity-limits
Caching: https://platform.claude.com/docs/en/build-with-claude/prompt-caching#explicit-cache-breakpoints
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from server.dialects.anthropic.schema import InexpressibleError, strict

T = TypeVar("T")

_MAX_STRICT_TOOLS = 20
_MAX_OPTIONAL = 24
_MAX_UNIONS = 16


class Limits:
    """What is left for one request."""

    def __init__(self) -> None:
        self._tools = _MAX_STRICT_TOOLS
        self._optional = _MAX_OPTIONAL
        self._unions = _MAX_UNIONS

    def enforce(self, schema: dict[str, Any], *, tool: bool) -> dict[str, Any]:
        """`schema` as Anthropic enforces it, counted against the limits. `tool`: it is that of a strict tool.

        Raises InexpressibleError, also for what does not fit into the limits.
        """
        enforced: dict[str, Any] = strict(schema)
        optional, unions = _count(enforced)
        if self._tools < tool:
            raise InexpressibleError("so many strict tools")
        if self._optional < optional or self._unions < unions:
            raise InexpressibleError("so many optional properties or union types")
        self._tools -= tool
        self._optional -= optional
        self._unions -= unions
        return enforced

    def enforced(self, schema: dict[str, Any], *, tool: bool) -> dict[str, Any] | None:
        """The same; None where that is not possible."""
        try:
            return self.enforce(schema, tool=tool)
        except InexpressibleError:
            return None


#: Blocks that may end a cached prefix, of Anthropic's models wherever they are served, and of Amazon's.
MAX_CACHE_MARKERS = 4


class CacheMarkers(Generic[T]):
    """Where a request wants its prompt cached, as the caller's path and the provider's block of each place.

    Clients mark turn after turn. When there are too many places, the oldest turns' are given up first, then those
    of the system prompt and the tools, and the last turn's last.
    https://github.com/vellum-ai/vellum-assistant/pull/23506 https://github.com/Wei-Shaw/sub2api/pull/2144
    """

    def __init__(self) -> None:
        self._lasting: list[tuple[str, T]] = []
        self._turns: list[tuple[str, T]] = []

    def add(self, path: str, block: T, *, lasting: bool) -> None:
        """Note a place; `lasting`: in the tools or the system prompt."""
        (self._lasting if lasting else self._turns).append((path, block))

    def excess(self, most: int = MAX_CACHE_MARKERS) -> list[tuple[str, T]]:
        """Those to be given up."""
        places = [*self._turns[:-1], *self._lasting, *self._turns[-1:]]
        return places[: max(0, len(places) - most)]


def _count(schema: dict[str, Any]) -> tuple[int, int]:
    """The optional properties and the union types in a schema, its definitions included."""
    optional = unions = 0
    pending: list[Any] = [schema]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        if not isinstance(item, dict):
            continue
        unions += "anyOf" in item or isinstance(item.get("type"), list)
        for key, value in item.items():
            if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
                pending += value.values()
            elif key in ("items", "anyOf", "allOf"):
                pending.append(value)
        properties, required = item.get("properties"), item.get("required")
        if isinstance(properties, dict):
            names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
            optional += sum(name not in names for name in properties)
    return optional, unions
