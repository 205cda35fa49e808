"""YAML with positions: every key and value knows its line and column, and nothing hostile gets through.

Plain PyYAML SafeLoader nodes, with YAML 1.2 numbers (``3e-4``, ``250_000``), no dates, no duplicate keys, bounded size,
depth and alias expansion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agentctl.core.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 20_000

Loc = tuple[str | int, ...]
"""Where a value stands: ``("reward", 0, "weight")``."""


class _Loader(yaml.SafeLoader):
    """SafeLoader whose scalars follow YAML 1.2 where 1.1 surprises: floats need no dot, dates stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|nan)$"),
    list("-+.0123456789"),
)


@dataclass(slots=True)
class Document:
    """A parsed file (or an override's value): plain data, and where each value came from."""

    path: Path | None
    data: dict[str, Any]
    origins: dict[Loc, str] = field(default_factory=dict)  # "game.yaml:12:7" or "-s policy.lr=3e-4"

    def origin(self, loc: Loc) -> str:
        """The closest known place for ``loc``: its own, or that of the block around it."""
        for length in range(len(loc), 0, -1):
            if loc[:length] in self.origins:
                return self.origins[loc[:length]]
        return str(self.path or "the configuration")


def read_document(path: Path) -> Document:
    """Read a YAML mapping. Raises ConfigError with file:line:column for everything that is not one."""
    if path.is_dir() or not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; a configuration is at most {MAX_BYTES:,}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> Document:
    """The document in ``text``; ``path`` only names it in messages."""
    node = _compose(text, path)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:1:1: a run is a mapping of keys such as 'game:' and 'policy:'")
    document = Document(path, {})
    document.data = _Builder(document).build(node, ())
    return document


def parse_value(text: str) -> Any:
    """The YAML value in a command-line override, e.g. ``3e-4`` or ``[pixels, toy_cells]``."""
    node = _compose(text, Path("-s"))
    return "" if node is None else _Builder(Document(Path("-s"), {})).build(node, ())


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        depth = deepest = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                raise ConfigError(f"{path}: nested deeper than {MAX_DEPTH} levels")
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


class _Builder:
    """Turns nodes into data, noting origins and counting what aliases expand to."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.scalars = _Loader("")
        self.nodes = 0

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        where = f"{self.document.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ConfigError(f"{where}: more than {MAX_NODES:,} values; are there aliases that expand each other?")
        self.document.origins.setdefault(loc, where)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*loc, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, where)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = f"{self.document.path}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key must be a plain word")
            key = str(key_node.value)
            if key in data:
                raise ConfigError(f"{where}: the key {key!r} stands twice in the same block; keep one")
            self.document.origins[(*loc, key)] = where
            data[key] = self.build(value_node, (*loc, key))
        return data

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            return self.scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{where}: cannot read the value {node.value!r}: {error}") from error
