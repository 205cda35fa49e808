"""Where a value of a run's configuration comes from: the file, the command line, or whose default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from agentctl.core.config import Chosen, Composition
from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.frame import SETTINGS, RunConfig
from agentctl.core.overrides import index_of
from agentctl.core.plugins import LISTS
from agentctl.core.problems import shown
from agentctl.core.strict_yaml import Loc


def explain(composition: Composition, path: str) -> dict[str, Any]:
    """``{"path", "value", "from", "about"}`` of e.g. ``policy.lr``; list items by their number in the file, or name.

    Raises ConfigError when there is no such value, or the component is switched off.
    """
    place: Any = _in_the_file_s_order(composition)
    loc: Loc = ()
    for word in path.split("."):
        loc = (*loc, _step(composition, place, loc, word, path))
        place = place[loc[-1]]
    value = list(place.values()) if _is_list_of_components(loc) else place
    return {"path": path, "value": value, "from": _source(composition, loc), "about": _about(composition, loc)}


def _in_the_file_s_order(composition: Composition) -> dict[str, Any]:
    """The resolved configuration, its lists as ``{position in the file: block}``: disabled items leave gaps."""
    data = composition.resolved()
    return data | {kind: {item.loc[1]: item.resolved() for item in composition.many(kind)} for kind in LISTS}


def _step(composition: Composition, place: Any, loc: Loc, word: str, path: str) -> str | int:
    """The key or index that ``word`` means in ``place``. Raises ConfigError."""
    document = composition.document
    if _is_list_of_components(loc):
        written = document.data.get(str(loc[0]), [])
        index = index_of([item["name"] for item in written], word, path)
        if index not in place:
            raise ConfigError(f"{path}: {loc[0]} {word} is switched off ({document.origin((*loc, index, 'enabled'))})")
        return index
    if isinstance(place, list):
        return index_of([""] * len(place), word, path)
    if isinstance(place, dict) and word in place:
        return word
    if place is False and len(loc) == 1:
        raise ConfigError(f"{path}: {loc[0]} is switched off ({_source(composition, loc)})")
    known = did_you_mean(word, place if isinstance(place, dict) else ())
    raise ConfigError(f"{path}: there is no {word!r} in {shown(loc) or 'a run'}{known}")


def _is_list_of_components(loc: Loc) -> bool:
    return len(loc) == 1 and loc[0] in LISTS


def _source(composition: Composition, loc: Loc) -> str:
    """``game.yaml:12:7``, ``-s policy.lr=3e-4``, what the component's name implies, or whose default it is."""
    document = composition.document
    if len(loc) == 1 and document.holds((*loc, "enabled")) and composition.one(str(loc[0])) is None:
        return document.origin((*loc, "enabled"))
    if document.holds(loc):
        inside = {place for at, place in document.origins.items() if at[: len(loc)] == loc and place.startswith("-")}
        return ", changed by ".join([document.origin(loc), *sorted(inside - {document.origin(loc)})])
    item = _component_at(composition, loc)
    if item is not None:
        component = composition.registry.find(item.kind, item.name)[1]
        if loc[len(item.loc)] in component.defaults:
            return f"the name {item.name!r} implies it"
    owner, _ = next(_fields(composition, loc), (RunConfig, ""))
    return f"default of {owner.__module__}:{owner.__qualname__}"


def _about(composition: Composition, loc: Loc) -> str:
    """What the option does, in its author's words."""
    return next((about for _, about in _fields(composition, loc) if about), "")


def _fields(composition: Composition, loc: Loc) -> Iterator[tuple[type[BaseModel], str]]:
    """The model that declares the option at (or around) ``loc``, and its description."""
    item = _component_at(composition, loc)
    models: list[type[BaseModel]] = [type(item.section), type(item.config)] if item else []
    key = loc[len(item.loc)] if item else loc[min(1, len(loc) - 1)]
    models += [SETTINGS[str(loc[0])]] if loc[0] in SETTINGS else [RunConfig]
    for model in models:
        field = model.model_fields.get(str(key))
        if field is not None:
            yield model, field.description or ""


def _component_at(composition: Composition, loc: Loc) -> Chosen | None:
    """The component inside whose block ``loc`` stands."""
    return next((i for i in composition.chosen if loc[: len(i.loc)] == i.loc and len(loc) > len(i.loc)), None)
