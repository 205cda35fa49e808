"""The contracts: what a plugin promises, checked by running it, for `agentctl plugins check` and `agentctl.testing`.

``examine`` runs the contract of one component's kind, ``examine_plugin`` that of everything in a plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from agentctl.core.config import validate
from agentctl.core.contracts import common, kinds
from agentctl.core.contracts.finding import Breach, Finding, find
from agentctl.core.contracts.imports import importing
from agentctl.core.contracts.manifest import manifest, observing
from agentctl.core.contracts.subject import BATCH, Subject, close, example_options, fit
from agentctl.core.document import Document
from agentctl.core.errors import AgentctlError, PluginError, did_you_mean
from agentctl.core.plugins import KINDS, Plugin, Registry
from agentctl.core.protocols import Setup

__all__ = ["Finding", "contract", "examine", "examine_component", "examine_plugin"]

Check = Callable[[Subject], str]

COMMON: dict[str, Check] = {
    "members": common.members,
    "config": common.config,
    "batching": common.batching,
    "fresh arrays": common.fresh_arrays,
    "determinism": common.determinism,
    "save and load": common.snapshot,
    "step budget": common.budget,
}

GROUNDWORK = ("members", "batching")
"""Where one of these is broken, what follows would only say the same again."""

CONTRACTS: dict[str, dict[str, Check]] = {
    "game": {"episodes": kinds.episodes, "reset": kinds.reset, "frame": kinds.frame, "gymnasium": kinds.gymnasium},
    "perception": {"other rows": common.other_rows, "pure": kinds.pure},
    "world_model": {"other rows": common.other_rows, "imagination": kinds.imagination},
    "memory": {"forgets": kinds.forgets},
    "reward": {},
    "policy": {"other rows": common.other_rows, "action mask": kinds.action_mask},
    "replay": {"experience": kinds.experience},
}
"""What each kind promises beside COMMON."""


def contract(kind: str) -> dict[str, Check]:
    """Every check of a kind, by name, in the order in which they run."""
    return COMMON | CONTRACTS[kind]


def subject_of(
    kind: str, component_class: type[Any], options: Mapping[str, Any], setups: Sequence[Setup] = ()
) -> Subject:
    """The class with its configuration, on the first setup that it takes. Raises Breach when there is none."""
    given = {**example_options(component_class), **options}
    try:
        config = validate(component_class.Config, given, Document(None, {}), ())
    except AgentctlError as error:
        remedy = 'give Config an example: model_config = ConfigDict(json_schema_extra={"examples": [{...}]})'
        raise Breach(f"no configuration to examine it with: {error}", remedy) from error
    return fit(Subject(kind, component_class.__name__, component_class, config), setups)


def examine(
    kind: str, component_class: type[Any], options: Mapping[str, Any] | None = None, setups: Sequence[Setup] = ()
) -> list[Finding]:
    """Run the contract of ``kind``. What cannot be built is reported as that alone."""
    subjects: list[Subject] = []

    def build() -> str:
        subjects.append(subject_of(kind, component_class, options or {}, setups))
        return f"{component_class.__module__}:{component_class.__qualname__}"

    findings = [find("build", build)]
    for name, check in contract(kind).items() if subjects else ():
        broken = [found.check for found in findings if found.check in GROUNDWORK and found.status == "failed"]
        first = Finding(name, "skipped", f"put {' and '.join(broken)} right first")
        findings.append(first if broken else find(name, partial(check, subjects[0])))
    return findings


def examine_component(registry: Registry, kind: str, name: str) -> list[Finding]:
    """The contract of an installed component: its row in the table, its import, and its kind's."""
    try:
        plugin, component = registry.find(kind, name)
    except PluginError as error:
        return [Finding("available", "skipped" if _lacks_library(registry, kind, name) else "failed", str(error))]
    target = component.target.partition(":")[0]
    targets = [] if target.startswith("agentctl_plugin_") else [target]  # a one-file plugin is its own table
    loaded: list[type[Any]] = []

    def load() -> str:
        loaded.append(registry.load(kind, name))
        return component.target

    findings = [
        find("manifest", partial(manifest, registry, plugin, kind, component)),
        find("import", partial(importing, plugin.module, targets)),
        find("load", load),
    ]
    setups = list(sibling_setups(registry, plugin)) if kind != "game" else []
    return findings + (examine(kind, loaded[0], component.defaults, setups) if loaded else [])


def examine_plugin(registry: Registry, name: str) -> dict[str, list[Finding]]:
    """The contract of everything in a plugin, by ``kind name``; its observers stand under ``observer``."""
    if name not in registry.plugins:
        raise AgentctlError(f"no plugin is called {name!r}{did_you_mean(name, registry.plugins)}")
    plugin = registry.plugins[name]
    if plugin.status not in {"ok", "missing extra"}:
        return {"plugin": [Finding("status", "failed", f"{plugin.status}: {plugin.reason}", "put that right first")]}
    found: dict[str, list[Finding]] = {}
    examined: dict[str, str] = {}  # target: the component that stands for it
    for kind, row in plugin.components:
        stand_in = examined.setdefault(row.target, row.name)
        alike = [Finding("contract", "skipped", f"the class of {stand_in!r}, examined there")]
        found[f"{kind} {row.name}"] = alike if stand_in != row.name else examine_component(registry, kind, row.name)
    if any(hook not in KINDS.values() for hook in plugin.hooks):
        found["observer"] = [
            find("import", partial(importing, plugin.module, [])),
            find("observers", partial(observing, registry, plugin)),
        ]
    return found


def _lacks_library(registry: Registry, kind: str, name: str) -> bool:
    rows = registry.components(kind)
    return name in rows and any(find_spec(library) is None for library in rows[name][1].requires)


def sibling_setups(registry: Registry, plugin: Plugin) -> Iterator[Setup]:
    """What the games of the same plugin show, one per class: the best example for what belongs to a game."""
    games = {component.target: component.name for kind, component in reversed(plugin.components) if kind == "game"}
    for name in games.values():
        try:
            game = registry.build("game", {"name": name}, Setup(batch=BATCH))
        except Exception:
            continue  # a game that cannot start here is no example
        close(game)
        yield Setup(game.observation_space, game.action_space, BATCH)
