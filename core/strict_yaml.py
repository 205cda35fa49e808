"""YAML as a configuration needs it: every value with its line and column, and nothing hostile gets through.

PyYAML's nodes, read as people expect: YAML 1.2 numbers (``3e-4``, ``250_000``, ``0x1F``; ``1e6`` is a whole number),
YAML 1.1 switches (``on``, ``off``), anchors and ``<<``. No tags, no dates, no repeated keys, no infinite numbers; size,
depth and what aliases expand to are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import yaml

MAX_DEPTH = 40
MAX_NODES = 5_000
MAX_INT = 2**63

Loc = tuple[str | int, ...]
"""Where a value stands: ``("reward", 0, "weight")``."""

Mark = tuple[int, int]
"""Line and column, both from 1."""

Number = TypeVar("Number", int, float)

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
TRUE, FALSE = {"true", "yes", "on"}, {"false", "no", "off"}

_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {f"{TAG}bool", f"{TAG}null", MERGE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = re.compile(r"^[-+]?(0x[0-9a-fA-F][0-9a-fA-F_]*|0o[0-7][0-7_]*|[0-9][0-9_]*)$")
_FLOAT = re.compile(r"^[-+]?((\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$")

HINTS = {
    "mapping values are not allowed here": "; is the indentation off, or does unquoted text hold a colon?",
    "found character '\\t' that cannot start any token": "; indent with spaces, not tabs",
    "could not find expected ':'": "; does a key lack its colon?",
    "but found another document": "; one file is one run: remove the second '---'",
}
"""What helps with PyYAML's most frequent complaints."""


class Refused(Exception):
    """Text that is not YAML, or YAML that a configuration must not hold; ``mark`` says where."""

    def __init__(self, problem: str, mark: Mark) -> None:
        super().__init__(problem)
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """Composes nodes and stops at the first that is too deep or one too many."""

    yaml_implicit_resolvers = _RESOLVERS
    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = _mark(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused(f"nested deeper than {MAX_DEPTH} levels", mark)
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES:,} values in one configuration", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


# The float pattern also matches whole numbers, so it comes second.
_Loader.add_implicit_resolver(f"{TAG}int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{TAG}float", _FLOAT, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """Quotes the text that ``_Loader`` would otherwise read as something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def quoted(self, text: str) -> yaml.ScalarNode:
        """Text; escaped where PyYAML would otherwise break a line and lose what kind of break it was."""
        return self.represent_scalar(f"{TAG}str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.quoted)


def parse(text: str) -> tuple[Any, dict[Loc, Mark]]:
    """Plain data (None for empty text) and where each key and item of it stands. Raises Refused."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        mark = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        raise Refused(f"the character {error.character!r} cannot stand in YAML", mark) from error
    except yaml.MarkedYAMLError as error:
        problem = str(error.problem or error.context)
        raise Refused(f"not valid YAML: {problem}{HINTS.get(problem, '')}", _mark(error.problem_mark)) from error
    builder = _Builder()
    return None if node is None else builder.build(node, ()), builder.marks


def dump(data: Mapping[str, Any]) -> str:
    """Plain data as readable YAML, keys in their order; parsed again it is the same data."""
    return str(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True))


class _Builder:
    """Turns nodes into data, noting where each stands and counting what aliases expand to."""

    def __init__(self) -> None:
        self.marks: dict[Loc, Mark] = {}
        self.nodes = 0
        self.around: list[yaml.Node] = []

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        mark = _mark(node.start_mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES:,} values; are there aliases that expand each other?", mark)
        self.marks.setdefault(loc, mark)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if any(node is outer for outer in self.around):
            raise Refused("this block contains itself through its anchor", mark)
        if node.tag not in {f"{TAG}map", f"{TAG}seq"}:
            raise _unknown_tag(node)
        self.around.append(node)
        data = self._mapping(node, loc) if isinstance(node, yaml.MappingNode) else self._sequence(node, loc)
        self.around.pop()
        return data

    def _sequence(self, node: yaml.Node, loc: Loc) -> list[Any]:
        return [self.build(child, (*loc, index)) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for source in (value for key, value in node.value if key.tag == MERGE):
            data |= self._merged(source, loc)
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                continue
            key = _key(key_node)
            if key in own:
                raise Refused(f"the key {key!r} stands twice in the same block; keep one", _mark(key_node.start_mark))
            own.add(key)
            self.marks[(*loc, key)] = _mark(key_node.start_mark)
            data[key] = self.build(value_node, (*loc, key))
        return data

    def _merged(self, node: yaml.Node, loc: Loc) -> dict[str, Any]:
        """What ``<<: *anchor`` or ``<<: [*first, *second]`` brings in; the first of a list wins."""
        data: dict[str, Any] = {}
        for source in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise Refused("'<<' takes a block by its anchor: `<<: *name`", _mark(source.start_mark))
            data |= self.build(source, loc)
        return data


def _key(node: yaml.Node) -> str:
    """A key as it is written: ``on:`` and ``3:`` are words too."""
    if not isinstance(node, yaml.ScalarNode):
        raise Refused("a key must be a plain word", _mark(node.start_mark))
    return _read(_text, node)  # type: ignore[no-any-return]


def _scalar(node: yaml.ScalarNode) -> Any:
    reader = READERS.get(node.tag)
    if reader is None:
        raise _unknown_tag(node)
    return _read(reader, node)


def _read(reader: Any, node: yaml.ScalarNode) -> Any:
    try:
        return reader(node.value)
    except ValueError as error:
        shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}..."
        raise Refused(f"cannot read {shown!r}: {error}", _mark(node.start_mark)) from error


def _unknown_tag(node: yaml.Node) -> Refused:
    tag = node.tag.replace(TAG, "!!")
    return Refused(f"{tag} has no meaning here; write plain text, numbers, lists and blocks", _mark(node.start_mark))


def _mark(mark: Any) -> Mark:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _text(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("half a surrogate pair is not text")
    return text


def _whole(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        raise ValueError(f"a whole number has no leading zero; write {digits.lstrip('0') or '0'}, or quote it for text")
    if len(digits) > 40 or abs(value := _number(int, text.replace("_", ""), 0)) >= MAX_INT:
        raise ValueError("a whole number has at most 64 bits")
    return value


def _real(text: str) -> float | int:
    """``0.5``; without a point ``1e6`` is a whole number, as in ``steps: 1e6``."""
    value = _number(float, re.sub(r"\.(?=[in])", "", text.replace("_", "").lower()))
    if not math.isfinite(value):
        raise ValueError("a number must be finite")
    return int(value) if "." not in text and value.is_integer() and abs(value) < MAX_INT else value


def _number(reader: Callable[..., Number], *arguments: Any) -> Number:
    try:
        return reader(*arguments)
    except ValueError as error:
        raise ValueError("it is not a number") from error


def _switch(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError("write true or false")
    return text.lower() in TRUE


READERS = {
    f"{TAG}str": _text,
    f"{TAG}int": _whole,
    f"{TAG}float": _real,
    f"{TAG}bool": _switch,
    f"{TAG}null": lambda text: None,
}
"""How each kind of scalar is read."""
