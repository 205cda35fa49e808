"""A run's file in memory: plain data, and for each value the place it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentctl.core.errors import ConfigError
from agentctl.core.strict_yaml import Loc, Refused, parse

MAX_BYTES = 100_000
"""A hundred times the size of a run's YAML; what is larger is something else."""


@dataclass(slots=True)
class Document:
    """A parsed file with its overrides: plain data, and where each value came from."""

    path: Path | None
    data: dict[str, Any]
    origins: dict[Loc, str] = field(default_factory=dict)  # "game.yaml:12:7" or "-s policy.lr=3e-4"

    def origin(self, loc: Loc) -> str:
        """The closest known place for ``loc``: its own, or that of the block around it."""
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.origins:
                return self.origins[loc[:length]]
        return str(self.path or "the configuration")

    def holds(self, loc: Loc) -> bool:
        """Whether ``loc`` is written here, and not left to a default."""
        place: Any = self.data
        for part in loc:
            keys = place if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
            if part not in keys:
                return False
            place = place[part]
        return True

    def came_from(self, loc: Loc, origin: str) -> None:
        """Note that everything at and below ``loc`` came from ``origin``."""
        self.origins = {at: place for at, place in self.origins.items() if at[: len(loc)] != loc}
        self.origins[loc] = origin


def read_document(path: Path) -> Document:
    """Read a YAML mapping. Raises ConfigError with file:line:column for everything that is not one."""
    raw = _read(path)
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; is this really a run's YAML?")
    try:
        return parse_document(raw.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(f"{path}:{line}:{column}: not UTF-8 text; save the file as UTF-8") from error


def parse_document(text: str, path: Path) -> Document:
    """The document in ``text``; ``path`` only names it in messages."""
    try:
        data, marks = parse(text)
    except Refused as error:
        raise ConfigError(f"{path}:{error.mark[0]}:{error.mark[1]}: {error}") from error
    origins = {loc: f"{path}:{line}:{column}" for loc, (line, column) in marks.items()}
    if not isinstance(data, dict):
        found = "the file is empty" if data is None else "this is no run"
        where = origins.get((), f"{path}:1:1")
        raise ConfigError(f"{where}: {found}; a run is written as keys, at least 'game:' and 'policy:'")
    return Document(path, data, origins)


def _read(path: Path) -> bytes:
    """At most one byte more than allowed: /dev/zero is a file too."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        names = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))[:5])
        raise ConfigError(f"{path}: a folder; name a YAML in it{f': {names}' if names else ''}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
