"""Command-line changes to a document: ``-s path=value`` and ``--off KIND``, with the same validation as the file."""

from __future__ import annotations

from typing import Any

from agentctl.core.document import Document
from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.plugins import KINDS, LISTS
from agentctl.core.strict_yaml import Loc, Refused, parse


def override(document: Document, text: str) -> None:
    """Apply ``policy.lr=3e-4`` or ``reward.0.weight=2`` (list items also by name: ``reward.clip.weight=2``)."""
    origin = _shown(text)
    path, equals, value = text.partition("=")
    words = [word.strip() for word in path.split(".")]
    if not equals or not all(words):
        raise ConfigError(f"{origin}: write it as path.to.key=value, e.g. -s policy.lr=3e-4")
    try:
        new = parse(value)[0]
    except Refused as error:
        raise ConfigError(f"{origin}: {error}") from error
    place: Any = document.data
    loc: Loc = ()
    for word in words[:-1]:
        loc = (*loc, _key(place, word, origin))
        place = _descend(document, place, loc, origin)
    key = _key(place, words[-1], origin)
    place[key] = new
    document.came_from((*loc, key), origin)


def switch_off(document: Document, kind: str) -> None:
    """``--off memory``: leave out every component of a kind."""
    known = [name for name in KINDS if name not in {"game", "policy"}]
    if kind in {"game", "policy"}:
        raise ConfigError(f"--off {kind}: a run needs a {kind}; these can be switched off: {', '.join(known)}")
    if kind not in known:
        raise ConfigError(f"--off {kind}: not a kind of component{did_you_mean(kind, known)}")
    document.data[kind] = [] if kind in LISTS else None
    document.came_from((kind,), f"--off {kind}")


def index_of(names: list[str], word: str, origin: str) -> int:
    """The position of a list's item, by number or by its only bearer's name. Raises ConfigError."""
    if word.isdecimal() and int(word[:9]) < len(names):
        return int(word[:9])
    if names.count(word) == 1:
        return names.index(word)
    if word in names:
        numbers = " and ".join(str(index) for index, name in enumerate(names) if name == word)
        raise ConfigError(f"{origin}: the items {numbers} are called {word!r}; write the number")
    items = f"its items are 0 to {len(names) - 1}" if names else "it is empty"
    raise ConfigError(f"{origin}: the list has no item {word!r}; {items}{did_you_mean(word, filter(None, names))}")


def names_of(items: list[Any]) -> list[str]:
    """What a list's items are called; "" where an item has no name."""
    return [str(item.get("name", "")) if isinstance(item, dict) else "" for item in items]


def _key(place: dict[str, Any] | list[Any], word: str, origin: str) -> str | int:
    return word if isinstance(place, dict) else index_of(names_of(place), word, origin)


def _descend(document: Document, place: Any, loc: Loc, origin: str) -> Any:
    """The block at ``loc`` inside ``place``; what is missing or switched off becomes an empty one."""
    key = loc[-1]
    if isinstance(place, dict) and place.get(key) is None:
        place[key] = {}
        document.came_from(loc, origin)
    if not isinstance(place[key], dict | list):
        raise ConfigError(f"{origin}: {key!r} is {place[key]!r}, a value without keys of its own")
    return place[key]


def _shown(text: str) -> str:
    """How messages name an override: short, and harmless to a terminal."""
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return f"-s {text if text.isprintable() else repr(text)}"
