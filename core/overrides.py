"""Command-line changes to a document: ``-s path=value`` and ``--off KIND``, with the same validation as the file."""

from __future__ import annotations

from typing import Any

from agentctl.core.document import Document, parse_value
from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.plugins import KINDS, LISTS


def override(document: Document, text: str) -> None:
    """Apply ``policy.lr=3e-4`` or ``reward.0.weight=2`` (list items also by name: ``reward.clip.weight=2``)."""
    path, equals, value = text.partition("=")
    words = path.strip().split(".")
    if not equals or not all(words):
        raise ConfigError(f"-s {text}: write -s path.to.key=value")
    loc: list[str | int] = []
    place: Any = document.data
    for word in words[:-1]:
        place = _descend(place, word, loc, text)
    key: str | int = index_of(place, words[-1], text) if isinstance(place, list) else words[-1]
    place[key] = parse_value(value)
    here = (*loc, key)
    document.origins = {at: origin for at, origin in document.origins.items() if at[: len(here)] != here}
    document.origins[here] = f"-s {text}"


def switch_off(document: Document, kind: str) -> None:
    """``--off memory``: leave out every component of a kind."""
    if kind not in KINDS or kind in {"game", "policy"}:
        known = [name for name in KINDS if name not in {"game", "policy"}]
        raise ConfigError(f"--off {kind}: not a kind that can be switched off{did_you_mean(kind, known)}")
    document.data[kind] = [] if kind in LISTS else None
    document.origins[(kind,)] = f"--off {kind}"


def _descend(place: Any, word: str, loc: list[str | int], text: str) -> Any:
    """One level down, turning a bare name into ``{name: ...}`` so that options can be added."""
    key: str | int = index_of(place, word, text) if isinstance(place, list) else word
    if isinstance(place, dict):
        place.setdefault(key, {})
    if isinstance(place[key], str):
        place[key] = {"name": place[key]}
    if not isinstance(place[key], (dict, list)):
        raise ConfigError(f"-s {text}: {word!r} is {place[key]!r}, which has no keys")
    loc.append(key)
    return place[key]


def index_of(items: Any, word: str, text: str) -> int:
    names = [item if isinstance(item, str) else item.get("name", "") for item in items if isinstance(item, (str, dict))]
    if word.isdigit() and int(word) < len(items):
        return int(word)
    if word in names:
        return names.index(word)
    raise ConfigError(f"-s {text}: no item {word!r} in the list{did_you_mean(word, names)}")
