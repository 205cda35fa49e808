"""One YAML = one run: read, override, validate, resolve.

The frame (:mod:`agentctl.core.frame`) is pydantic; each component's own keys are checked by its nested ``Config``.
All of it is strict: an unknown key or a wrong type is an error with file:line:column, the value and a suggestion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentctl.core.document import Document, read_document
from agentctl.core.errors import AgentctlError, ConfigError, PluginError
from agentctl.core.frame import SECTIONS, VERSION, EvaluationSettings, RunConfig, Section, check_version, expand
from agentctl.core.overrides import override, switch_off
from agentctl.core.plugins import KINDS, LISTS, Registry, Switches
from agentctl.core.problems import MAX_PROBLEMS, validate
from agentctl.core.strict_yaml import Loc, dump

__all__ = [
    "Chosen",
    "Composition",
    "EvaluationSettings",
    "RunConfig",
    "Section",
    "choose",
    "compose",
    "compose_document",
    "dump",
    "validate",
]

NEEDED = ("game", "policy")
ALONE = ("game", "replay")
"""Kinds that no fallback can stand in for: what they hold cannot be taken over in the middle of a run."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One component of a run, its class loaded and its configuration checked."""

    kind: str
    name: str
    loc: Loc
    component_class: type[Any]
    config: BaseModel
    plugin: str
    section: Section
    fallback: Chosen | None = None
    expert: Chosen | None = None

    def resolved(self) -> dict[str, Any]:
        """Its block of ``config.yaml``: every default filled in."""
        extra: dict[str, Any] = {
            key: getattr(self.section, key) for key in ("batch", "weight") if hasattr(self.section, key)
        }
        if self.fallback is not None:
            extra["fallback"] = self.fallback.name
        if self.expert is not None:
            extra["expert"] = self.expert.resolved()
        return {"name": self.name, **extra, **self.config.model_dump(mode="json")}


@dataclass(frozen=True, slots=True)
class Composition:
    """A run's configuration, resolved: every component found, imported and checked; nothing built or started."""

    document: Document
    settings: RunConfig
    registry: Registry
    chosen: tuple[Chosen, ...]

    def one(self, kind: str) -> Chosen | None:
        return next((item for item in self.chosen if item.kind == kind), None)

    def many(self, kind: str) -> tuple[Chosen, ...]:
        return tuple(item for item in self.chosen if item.kind == kind)

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data with every default, as written to ``config.yaml``."""
        data: dict[str, Any] = {"version": VERSION}
        for kind in KINDS:
            blocks = [item.resolved() for item in self.many(kind)]
            data[kind] = blocks if kind in LISTS else (blocks[0] if blocks else False)
        for part in ("run", "evaluation"):
            data[part] = getattr(self.settings, part).model_dump(mode="json")
        switches = self.registry.switches
        data["plugins"] = {"paths": [str(p) for p in switches.paths], "disable": sorted(switches.disable)}
        return data

    def without(self, *kinds: str) -> Composition:
        """The same with some kinds left out: what only plays needs no replay, and so no recordings and no expert."""
        return replace(self, chosen=tuple(item for item in self.chosen if item.kind not in kinds))

    @property
    def digest(self) -> str:
        """A hash of the resolved configuration; where plugin files lie does not count."""
        data = self.resolved()
        data["plugins"]["paths"] = [path.name for path in self.registry.switches.paths]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def compose(
    path: Path,
    overrides: Sequence[str] = (),
    off: Sequence[str] = (),
    switches: Switches | None = None,
) -> Composition:
    """Read ``path``, apply ``-s`` and ``--off``, and check everything. Raises ConfigError or PluginError."""
    document = read_document(path)
    expand(document)
    for text in overrides:
        override(document, text)
        expand(document)
    for kind in off:
        switch_off(document, kind)
    return compose_document(document, switches or Switches())


def compose_document(document: Document, switches: Switches) -> Composition:
    """The composition that an (already overridden) document describes."""
    expand(document)
    check_version(document)
    settings: RunConfig = validate(RunConfig, document.data, document, ())
    registry = _registry(settings, document, switches)
    enabled = [(kind, loc, section) for kind, loc, section in settings.sections() if section.enabled]
    chosen: list[Chosen] = []
    problems: list[AgentctlError] = []
    for needed in NEEDED:
        if not any(kind == needed for kind, _, _ in enabled):
            remedy = "here it is empty or switched off" if document.holds((needed,)) else f"add '{needed}: NAME'"
            problems.append(ConfigError(f"{document.origin((needed,))}: a run needs a {needed}; {remedy}"))
    for kind, loc, section in enabled:
        try:
            chosen.append(choose(registry, kind, section, loc, document))
        except AgentctlError as error:
            problems.append(error)
        if len(problems) == MAX_PROBLEMS:
            break
    if problems:
        raise type(problems[0])("\n".join(str(problem) for problem in problems)) from problems[0]
    return Composition(document, settings, registry, tuple(chosen))


def choose(
    registry: Registry,
    kind: str,
    section: Section | Mapping[str, Any],
    loc: Loc,
    document: Document | None = None,
) -> Chosen:
    """Find, import and check one component, its fallback and its expert.

    Raises PluginError or ConfigError naming the YAML line.
    """
    document = document or Document(None, {})
    frame = SECTIONS.get(kind, Section)
    block: Section = section if isinstance(section, Section) else validate(frame, section, document, loc)
    chosen = _with_expert(registry, _checked(registry, kind, block, loc, document), document)
    name = block.fallback or registry.find(kind, block.name)[1].fallback
    if not name:
        return chosen
    loc = (*loc, "fallback")
    if name == block.name:
        raise ConfigError(f"{document.origin(loc)}: {kind} {name!r} cannot be its own fallback; name another one")
    if kind in ALONE:
        raise ConfigError(f"{document.origin(loc)}: nothing can stand in for a {kind}; remove the fallback")
    return replace(chosen, fallback=_checked(registry, kind, frame.model_validate({"name": name}), loc, document))


def _with_expert(registry: Registry, chosen: Chosen, document: Document) -> Chosen:
    """The component with the policy that it learns from, where its section names one."""
    block, loc = getattr(chosen.section, "expert", None), (*chosen.loc, "expert")
    if block is not None and not getattr(chosen.component_class, "needs_expert", False):
        raise ConfigError(f"{document.origin(loc)}: policy {chosen.name!r} learns from no expert; remove it")
    if block is not None:
        section: Section = validate(Section, block, document, loc)
        return replace(chosen, expert=_checked(registry, "policy", section, loc, document))
    if getattr(chosen.component_class, "needs_expert", False):
        raise ConfigError(
            f"{document.origin(chosen.loc)}: policy {chosen.name!r} learns from another one: add expert: NAME, or the "
            "folder of a run"
        )
    return chosen


def _checked(registry: Registry, kind: str, block: Section, loc: Loc, document: Document) -> Chosen:
    """The component that ``block`` names, its options validated; without a fallback."""
    where = document.origin((*loc, "name"))
    try:
        plugin, component = registry.find(kind, block.name)
        component_class = registry.load(kind, block.name)
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from error
    frame, options = type(block).model_fields.keys(), {**component.defaults, **block.options}
    if taken := sorted(frame & component_class.Config.model_fields.keys()):
        raise PluginError(f"{where}: {component.target}.Config has {taken}, which every {kind} has; rename it there")
    try:
        config = validate(component_class.Config, options, document, loc, beside=frame)
    except AgentctlError:
        raise
    except Exception as error:  # the plugin's own validator broke
        what = f"{type(error).__name__}: {error}; disable it with -p no:{plugin.name}"
        raise PluginError(f"{where}: {kind} {block.name!r} cannot check its options: {what}") from error
    return Chosen(kind, block.name, loc, component_class, config, plugin.name, block)


def _registry(settings: RunConfig, document: Document, switches: Switches) -> Registry:
    """The plugins of this run. Raises PluginError when a file that was asked for does not load."""
    base = document.path.parent if document.path else Path()
    named = {(base / path).resolve(): ("plugins", "paths", i) for i, path in enumerate(settings.plugins.paths)}
    asked = Switches(tuple(path.resolve() for path in switches.paths), switches.disable)
    registry = Registry(Switches(tuple(named), frozenset(settings.plugins.disable)).also(asked))
    for path in registry.switches.paths:
        where = document.origin(named[path]) if path in named else f"-p {path}"
        for plugin in registry.plugins.values():
            broken = plugin.status in {"failed", "incompatible"} and not plugin.components
            if plugin.source == str(path) and broken:
                raise PluginError(f"{where}: the plugin {plugin.name!r} {plugin.status}: {plugin.reason}")
    return registry
