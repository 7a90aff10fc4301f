"""How much of structured outputs one request may use: strict tools, optional parameters, union types.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#schema-complexity-limits
The limits hold for all schemas of a request together; beyond them the request is a 400.
"""

from __future__ import annotations

from typing import Any

from server.dialects.anthropic.schema import InexpressibleError, strict

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
            names = required if isinstance(required, list) else []
            optional += sum(name not in names for name in properties)
    return optional, unions
