"""The configuration's other faces: its JSON Schema for editors, where a value comes from, and older files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentctl.core.config import SECTIONS, VERSION, Composition, RunConfig, Section, check_version
from agentctl.core.document import Loc, parse_document
from agentctl.core.errors import ConfigError, PluginError, did_you_mean
from agentctl.core.overrides import index_of
from agentctl.core.plugins import KINDS, LISTS, Registry


def schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema of a run's YAML, assembled from the installed plugins, for editors."""
    frame = RunConfig.model_json_schema()
    definitions = frame.setdefault("$defs", {})
    for kind in KINDS:
        options = [_component_schema(registry, kind, name, definitions) for name in sorted(registry.components(kind))]
        names = {"type": "string", "enum": sorted(registry.components(kind))}
        one = {"anyOf": [names, {"const": False}, {"type": "null"}, *[option for option in options if option]]}
        frame["properties"][kind] = {"anyOf": [one, {"type": "array", "items": one}]} if kind in LISTS else one
    frame["properties"]["plugins"] = {"anyOf": [{"type": "array"}, {"$ref": "#/$defs/PluginSettings"}]}
    frame["title"], frame["$schema"] = "agentctl run", "https://json-schema.org/draft/2020-12/schema"
    return frame


def explain(composition: Composition, path: str) -> dict[str, str]:
    """Where a value of the resolved configuration comes from: ``{"value", "from"}``."""
    words, value, loc = path.split("."), composition.resolved(), []
    place: Any = value
    for word in words:
        key: Any = index_of(place, word, path) if isinstance(place, list) else word
        if not isinstance(place, (dict, list)) or (isinstance(place, dict) and key not in place):
            known = place if isinstance(place, dict) else ()
            raise ConfigError(f"{path}: there is no {word!r} here{did_you_mean(word, known)}")
        loc.append(key)
        place = place[key]
    return {"path": path, "value": json.dumps(place), "from": _source(composition, tuple(loc))}


def migrate(text: str, path: Path) -> str:
    """The same file for this version, comments kept. Files from before the ``version`` key gain it."""
    document = parse_document(text, path)
    found = document.data.get("version")
    if found == VERSION:
        return text
    if found is not None:
        check_version(document)
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(("#", "---"))), 0)
    return "".join([*lines[:start], f"version: {VERSION}\n", *lines[start:]])


def _source(composition: Composition, loc: Loc) -> str:
    if loc in composition.document.origins:
        return composition.document.origins[loc]
    for item in composition.chosen:
        if loc[: len(item.loc)] == item.loc:
            return f"default of {item.component_class.__module__}:{item.component_class.__qualname__}.Config"
    return "default of agentctl.core.config:RunConfig"


def _component_schema(registry: Registry, kind: str, name: str, definitions: dict[str, Any]) -> dict[str, Any] | None:
    try:
        config = registry.load(kind, name).Config
    except PluginError:
        return None
    body: dict[str, Any] = config.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(body.pop("$defs", {}))
    properties = {**SECTIONS.get(kind, Section).model_json_schema()["properties"], **body.get("properties", {})}
    properties["name"] = {"const": name}
    return {"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False}
