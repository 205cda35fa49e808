"""The JSON Schema of a run's YAML, assembled from the plugins that are installed: completion and checks in editors."""

from __future__ import annotations

import json
from typing import Any

from agentctl.core.errors import PluginError
from agentctl.core.frame import SECTIONS, VERSION, RunConfig, Section
from agentctl.core.hooks import Component
from agentctl.core.plugins import KINDS, LISTS, Registry

SWITCHED_OFF = {"enum": ["off", False, None], "description": "switched off"}
"""``off`` is false to YAML 1.1 and the word to YAML 1.2; editors read either."""


def schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (2020-12). A component that cannot be loaded here is known by name, its options unchecked."""
    frame = RunConfig.model_json_schema()
    definitions = frame.setdefault("$defs", {})
    for unused in ("Section", *(section.__name__ for section in SECTIONS.values())):
        definitions.pop(unused, None)
    for kind in KINDS:
        definitions[kind] = {"anyOf": _choices(registry, kind, definitions)}
        one = {"$ref": f"#/$defs/{kind}"}
        several = {"type": "array", "items": one}
        optional = [] if kind in ("game", "policy") else [SWITCHED_OFF]
        frame["properties"][kind] = {"anyOf": [one, *([several] if kind in LISTS else []), *optional]}
    frame["properties"]["version"] = {"const": VERSION, "description": "of this file's format"}
    paths = {"type": "array", "items": {"type": "string"}, "description": "one-file plugins, relative to the YAML"}
    frame["properties"]["plugins"] = {"anyOf": [{"$ref": "#/$defs/PluginSettings"}, paths]}
    frame["required"] = ["game", "policy"]
    frame["title"], frame["$schema"] = "a run of agentctl", "https://json-schema.org/draft/2020-12/schema"
    _take_underscores(frame)
    return frame


def _choices(registry: Registry, kind: str, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """What may stand as one component: a bare name, or a block; names that share a class share their block."""
    groups: dict[str, list[Component]] = {}
    bare: list[Component] = []
    for _, (_, component) in sorted(registry.components(kind).items()):
        groups.setdefault(component.target, []).append(component)
    blocks = []
    for members in groups.values():
        block = _block(registry, kind, members, definitions)
        blocks.append(block)
        bare += [m for m in members if set(block["required"]) <= {"name", *m.defaults}]
    return [_names(sorted(bare, key=lambda component: component.name)), *blocks] if bare else blocks


def _names(components: list[Component]) -> dict[str, Any]:
    """A choice of names; ``enumDescriptions`` is how editors show what each one is."""
    return {"enum": [c.name for c in components], "enumDescriptions": [c.summary for c in components]}


def _block(registry: Registry, kind: str, members: list[Component], definitions: dict[str, Any]) -> dict[str, Any]:
    frame = SECTIONS.get(kind, Section).model_json_schema()["properties"]
    name = {"name": _names(members) | {"type": "string", "description": frame["name"]["description"]}}
    whole: dict[str, Any] = {"type": "object", "properties": frame | name, "required": ["name"]}
    try:
        config = registry.load(kind, members[0].name).Config
    except PluginError:
        return whole
    home = f"{kind}.{members[0].name.replace('/', '.')}"
    body: dict[str, Any] = config.model_json_schema(ref_template=f"#/$defs/{home}.{{model}}")
    definitions.update({f"{home}.{model}": found for model, found in body.pop("$defs", {}).items()})
    implied = set.intersection(*(set(member.defaults) for member in members))
    required = [key for key in body.get("required", []) if key not in implied]
    return whole | {
        "properties": whole["properties"] | body.get("properties", {}),
        "required": ["name", *required],
        "additionalProperties": False,
    }


def _take_underscores(found: Any) -> None:
    """Let whole numbers be written ``250_000``, which an editor (YAML 1.2) takes for text."""
    for part in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        _take_underscores(part)
    if isinstance(found, dict) and found.get("type") == "integer":
        found |= {"type": ["integer", "string"], "pattern": r"^[-+]?\d+(_\d+)+$"}
        found["patternErrorMessage"] = "write a whole number, without quotes"


def as_text(found: dict[str, Any]) -> str:
    """As it is committed: stable, one key per line."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
