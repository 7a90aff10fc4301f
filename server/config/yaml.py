"""YAML with positions: nodes in, typed values out, and every problem collected with its file, line and field.

Independent of what the fields are. Scalars are converted here and not by PyYAML, so
that YAML 1.1's rules do not apply: `on` is text, `08` is a number, `2024-10-21`
is not a date. `${VAR}` and `${VAR:-default}` expand in values, `$$` is a dollar
sign; a variable that is unset or empty, and has no default, is a problem.
Anchors and merge keys (`<<`) work; duplicate keys and tags are problems.

Messages show what is written in the file, never what a variable expanded to, and
no text values: they may be secrets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import yaml

from server.config.problems import ConfigError, Problem, suggest

#: libyaml's parser where PyYAML was built with it: the same nodes, many times faster.
_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_STANDARD = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bare>))")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Document:
    """One file being read: its problems so far, and the line of every field read."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self._environ = environ

    def report(self, line: int, field: str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(self.file, line, field, message))

    def root(self, text: str) -> Section:
        """The file's mapping. Raises ConfigError for what is not YAML."""
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise ConfigError([Problem(self.file, line, "", f"not YAML: {what}")]) from None
        except yaml.YAMLError as error:
            what = str(error).splitlines()[0]
            raise ConfigError([Problem(self.file, 0, "", f"not YAML: {what}")]) from None
        if isinstance(node, yaml.MappingNode):
            return Section(self, "", 1, self.entries(node, ""))
        found = "nothing" if node is None else _kind(node)
        raise ConfigError([Problem(self.file, 1, "", f"expected a mapping at the top, found {found}")])

    def entries(self, node: yaml.MappingNode, field: str, within: frozenset[int] = frozenset()) -> _Entries:
        """Key -> (its line, value), merge keys applied: the mapping's own keys win, then earlier merges."""
        entries: _Entries = {}
        merged: list[tuple[int, yaml.Node]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged.extend((line, part) for part in _parts(value))
            elif not isinstance(key, yaml.ScalarNode):
                self.report(line, field, f"a key must be plain text, found {_kind(key)}")
            elif key.value in entries:
                first = entries[key.value][0]
                self.report(line, _join(field, key.value), f"duplicate key, first on line {first}")
            else:
                entries[key.value] = (line, value)
        within |= {id(node)}
        for line, part in merged:
            if not isinstance(part, yaml.MappingNode) or id(part) in within:
                self.report(line, _join(field, "<<"), "a merge key takes another mapping, or a list of them")
                continue
            for name, entry in self.entries(part, field, within).items():
                entries.setdefault(name, entry)
        return entries

    def expand(self, line: int, field: str, text: str) -> str | None:
        """`text` with its variables replaced; None where one is missing."""
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            name, default = match["name"], match["default"]
            if name is None and match["bare"] is None:
                return "$"
            if name is not None and self._environ.get(name):
                return self._environ[name]
            if default is not None:
                return default
            missing = True
            if name is None:
                self.report(line, field, "a lone $: write ${NAME} for a variable, $$ for the sign itself")
            else:
                self.report(line, field, f"the environment variable {name} is not set")
            return ""

        expanded = _VARIABLE.sub(value, text)
        return None if missing else expanded


class Section:
    """One mapping of the file, read key by key.

    A key that is absent or null gives its default. An invalid one is reported,
    and gives its default too, so that the remaining problems are found; a section
    that is not a mapping reports nothing further. Used as a context manager: at
    its end, keys that were not read are reported, except those that start with `extensions`.
    """

    extensions = "\0"

    def __init__(self, document: Document, field: str, line: int, entries: _Entries | None) -> None:
        self.document = document
        self.field = field
        self.line = line
        self._void = entries is None
        self._entries = entries or {}
        self._read: set[str] = set()

    def __enter__(self) -> Section:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name in self._entries:
            if kind is None and name not in self._read and not name.startswith(self.extensions):
                self.report(name, "unknown key" + suggest(name, self._read))

    def __contains__(self, name: str) -> bool:
        return self._value(name) is not None

    def report(self, name: str, message: str) -> None:
        """A problem with the key `name`, or with the whole section where `name` is empty."""
        if self._void:
            return
        line = self._entries[name][0] if name in self._entries else self.line
        self.document.report(line, _join(self.field, name), message)

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        """A scalar as it is written. `required`: it must be present, and not empty."""
        value = self._scalar(name, "text")
        if required and not value and not (value is None and name in self):
            self.report(name, "must not be empty" if name in self else "missing")
        return default if value is None else value

    def name(self, name: str, default: str = "") -> str:
        """A scalar that is a name: see `is_name`."""
        value = self.text(name, default)
        if value and not is_name(value):
            self._wrong(name, NAME_FORM)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """`true` or `false`; nothing else counts."""
        value = self._scalar(name, "true or false")
        if value is None:
            return default
        if value.lower() not in ("true", "false"):
            self._wrong(name, "true or false")
            return default
        return value.lower() == "true"

    def integer(self, name: str, default: int, *, minimum: int) -> int:
        """A decimal integer, at least `minimum`."""
        value = self._scalar(name, "a whole number")
        if value is None:
            return default
        if not _INTEGER.fullmatch(value) or int(value) < minimum:
            self._wrong(name, f"a whole number of at least {minimum}")
            return default
        return int(value)

    def number(
        self, name: str, default: float, *, minimum: float, maximum: float = math.inf, positive: bool = False
    ) -> float:
        """A decimal number within the bounds; `positive` excludes zero."""
        value = self._scalar(name, "a number")
        if value is None:
            return default
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        if not minimum <= number <= maximum or math.isinf(number) or (positive and number <= 0):
            bounds = f"from {minimum:g} to {maximum:g}" if maximum < math.inf else f"of at least {minimum:g}"
            self._wrong(name, "a number above 0" if positive else f"a number {bounds}")
            return default
        return number

    def duration(self, name: str, default: float) -> float:
        """`500ms`, `30s`, `5m` or `1h` as seconds, above 0. A number without a unit is not a duration."""
        value = self._scalar(name, "a duration")
        if value is None:
            return default
        match = _DURATION.fullmatch(value)
        seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
        if not 0 < seconds < math.inf:
            self._wrong(name, "a duration above 0 such as 500ms, 30s, 5m or 1h")
            return default
        return seconds

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of scalars."""
        texts: list[str] = []
        for line, field, node in self._items(name, "a list of texts"):
            text = self._expanded(line, field, node, "text")
            if text is not None:
                texts.append(text)
        return tuple(texts)

    def table(self) -> dict[str, str]:
        """This section's own keys, all of them scalars."""
        return {key: self.text(key, required=True) for key in self._entries}

    def section(self, name: str) -> Section:
        """A mapping; empty where absent."""
        entry = self._value(name)
        field = _join(self.field, name)
        if entry is None:
            return Section(self.document, field, self.line, {})
        return self._mapping(*entry, field)

    def sections(self, name: str) -> dict[str, Section]:
        """A mapping of mappings."""
        section = self.section(name)
        return {
            key: section._mapping(line, node, _join(section.field, key))
            for key, (line, node) in section._entries.items()
        }

    def items(self, name: str) -> list[Section]:
        """A list of mappings."""
        items = self._items(name, "a list of mappings")
        return [self._mapping(line, node, field) for line, field, node in items]

    def _value(self, name: str) -> tuple[int, yaml.Node] | None:
        """The line and node of a key; None where it is absent or null."""
        self._read.add(name)
        entry = self._entries.get(name)
        if entry is None or entry[1].tag == _NULL:
            return None
        self.document.lines[_join(self.field, name)] = entry[0]
        return entry

    def _scalar(self, name: str, expected: str) -> str | None:
        entry = self._value(name)
        if entry is None:
            return None
        line, node = entry
        return self._expanded(line, _join(self.field, name), node, expected)

    def _expanded(self, line: int, field: str, node: yaml.Node, expected: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith(_STANDARD):
            self.document.report(line, field, f"expected {expected}, found {_kind(node)}")
            return None
        return self.document.expand(line, field, node.value)

    def _items(self, name: str, expected: str) -> list[tuple[int, str, yaml.Node]]:
        """Line, field and node of each item of a list."""
        entry = self._value(name)
        if entry is None:
            return []
        node = entry[1]
        if not isinstance(node, yaml.SequenceNode):
            self.report(name, f"expected {expected}, found {_kind(node)}")
            return []
        field = _join(self.field, name)
        return [(item.start_mark.line + 1, f"{field}[{i}]", item) for i, item in enumerate(node.value)]

    def _mapping(self, line: int, node: yaml.Node, field: str) -> Section:
        self.document.lines[field] = line
        if isinstance(node, yaml.MappingNode) and node.tag.startswith(_STANDARD):
            return Section(self.document, field, line, self.document.entries(node, field))
        self.document.report(line, field, f"expected a mapping, found {_kind(node)}")
        return Section(self.document, field, line, None)

    def _wrong(self, name: str, expected: str) -> None:
        node = self._entries[name][1]
        self.report(name, f'expected {expected}, found "{_shown(node.value)}"')


#: What a name looks like, for messages.
NAME_FORM = "a name of at most 64 ASCII letters, digits, `.`, `_` and `-` that begins with a letter or digit"


def is_name(text: str) -> bool:
    """Whether `text` can be part of headers, metrics and paths without escaping."""
    return _NAME.fullmatch(text) is not None


_Entries = dict[str, tuple[int, yaml.Node]]


def _join(field: str, name: str) -> str:
    return f"{field}.{name}" if field and name else field or name


def _parts(node: yaml.Node) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _kind(node: yaml.Node) -> str:
    if not node.tag.startswith(_STANDARD):
        return f"the tag {node.tag}, and tags are not understood"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if node.tag == _NULL else "text"
