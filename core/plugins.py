"""Finding plugins and building components. Each loads inside its own guard; a broken one never stops the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from agentctl.core import hooks
from agentctl.core.errors import ConfigError, PluginError, did_you_mean
from agentctl.core.hooks import API_VERSION, Component

GROUP = "agentctl"
DISTRIBUTION = "game-agentctl"
KINDS = {
    "game": "agentctl_games",
    "perception": "agentctl_perceptions",
    "world_model": "agentctl_world_models",
    "memory": "agentctl_memories",
    "reward": "agentctl_rewards",
    "policy": "agentctl_policies",
    "replay": "agentctl_replays",
}
"""The kinds of component, in the order of the pipeline, and the hook that registers each."""

LISTS = ("perception", "reward")
"""The kinds of which a run may have several; each adds what it knows."""


@dataclass(frozen=True, slots=True)
class Switches:
    """Which plugins to take: files to add, names to leave out, and whether other distributions count at all."""

    paths: tuple[Path, ...] = ()
    disable: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Switches:
        """From ``-p`` words: ``no:NAME`` disables, anything else is the path of a one-file plugin."""
        words = list(words)
        names = frozenset(word[3:] for word in words if word.startswith("no:"))
        return cls(tuple(Path(word) for word in words if not word.startswith("no:")), names)

    def also(self, other: Switches) -> Switches:
        return Switches(tuple(dict.fromkeys(self.paths + other.paths)), self.disable | other.disable)


@dataclass(slots=True)
class Plugin:
    """What became of one plugin."""

    name: str
    source: str  # "game-agentctl 0.1.0" or the file's path
    status: str = "ok"  # ok | disabled | failed | incompatible | missing extra
    reason: str = ""
    module: str = ""
    version: str = ""
    components: list[tuple[str, Component]] = field(default_factory=list)  # (kind, component)
    hooks: list[str] = field(default_factory=list)

    @property
    def builtin(self) -> bool:
        return self.source.startswith(DISTRIBUTION)


class Registry:
    """All plugins of a process or a run, and the components they registered."""

    def __init__(self, switches: Switches | None = None, *, discover: bool = True) -> None:
        self.switches = switches or Switches()
        self.manager = pluggy.PluginManager("agentctl")
        self.manager.add_hookspecs(hooks)
        self.plugins: dict[str, Plugin] = {}
        self._components: dict[tuple[str, str], list[tuple[Plugin, Component]]] = {}
        for point in _entry_points() if discover else ():
            dist = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
            version = point.dist.version if point.dist else ""
            self._load(Plugin(point.name, dist, module=point.value, version=version))
        for path in self.switches.paths:
            self._load(Plugin(path.stem, str(path), module=str(path)))
        self.warnings = [
            f"-p no:{name}: no plugin is called so{did_you_mean(name, self.plugins)}"
            for name in sorted(self.switches.disable - self.plugins.keys())
        ]

    def register(self, module: ModuleType, name: str) -> Plugin:
        """Add an already imported plugin (tests, embedding)."""
        plugin = Plugin(name, getattr(module, "__file__", None) or name, module=module.__name__)
        self._remember(plugin)
        if plugin.status == "ok":
            self._admit(plugin, module)
        return plugin

    def find(self, kind: str, name: str) -> tuple[Plugin, Component]:
        """The one component of that name. Raises PluginError when it is missing, ambiguous or cannot run here."""
        rows = self._components.get((kind, name), [])
        if len(rows) > 1:
            sources = " and ".join(f"plugin {plugin.name} ({plugin.source})" for plugin, _ in rows)
            switch = f"-p no:{rows[-1][0].name}"
            raise PluginError(f"two plugins call a {kind} {name!r}: {sources}; disable one, e.g. {switch}")
        if not rows:
            raise PluginError(self._why_missing(kind, name))
        plugin, component = rows[0]
        missing = _missing(component)
        if missing:
            raise PluginError(f"{kind} {name!r} needs {missing}, which is not installed; {_install(plugin, component)}")
        return plugin, component

    def components(self, kind: str) -> dict[str, tuple[Plugin, Component]]:
        """Every component of a kind, by name."""
        return {name: rows[0] for (found, name), rows in self._components.items() if found == kind}

    def load(self, kind: str, name: str) -> type[Any]:
        """Import the component's class. Raises PluginError with file:line when that fails."""
        plugin, component = self.find(kind, name)
        try:
            loaded = getattr(_import_target(component.target), component.target.partition(":")[2])
        except Exception as error:
            raise PluginError(
                f"{kind} {name!r} does not load: {_explain(error)}; disable it with -p no:{plugin.name}"
            ) from error
        config = getattr(loaded, "Config", None)
        if not (isinstance(config, type) and issubclass(config, BaseModel)):
            raise PluginError(f"{kind} {name!r}: {component.target} has no nested Config (a pydantic BaseConfig)")
        return loaded  # type: ignore[no-any-return]

    def build(self, kind: str, section: Mapping[str, Any], setup: Any) -> Any:
        """Build a component from ``{"name": ..., **options}``; a wrong option is a ConfigError."""
        from agentctl.core.config import choose

        chosen = choose(self, kind, dict(section), (kind,))
        return chosen.component_class(chosen.config, setup)

    def _load(self, plugin: Plugin) -> None:
        unwanted = os.environ.get("AGENTCTL_NO_PLUGINS") == "1" and not plugin.builtin
        if unwanted or plugin.name in self.switches.disable:
            plugin.status, plugin.reason = "disabled", "switched off"
        self._remember(plugin)
        if plugin.status != "ok":
            return
        try:
            module = _import_plugin(plugin)
        except Exception as error:
            plugin.status, plugin.reason = "failed", _explain(error)
            return
        self._admit(plugin, module)

    def _admit(self, plugin: Plugin, module: ModuleType) -> None:
        wanted = getattr(module, "AGENTCTL_API", API_VERSION)
        if wanted != API_VERSION:
            plugin.status = "incompatible"
            plugin.reason = (
                f"wants plugin API {wanted}, this is {API_VERSION}; install a version of it for this agentctl"
            )
            return
        try:
            _check_hook_names(module)
            self.manager.register(module, name=plugin.name)
            plugin.components = list(_tables(module))
        except Exception as error:
            if self.manager.has_plugin(plugin.name):
                self.manager.unregister(name=plugin.name)
            plugin.status, plugin.reason = "failed", _explain(error)
            return
        plugin.hooks = [name for name in vars(module) if _is_impl(module, name)]
        self._announce(plugin)

    def _announce(self, plugin: Plugin) -> None:
        for kind, component in plugin.components:
            rows = self._components.setdefault((kind, component.name), [])
            rows.append((plugin, component))
            if len(rows) > 1:
                plugin.status = "failed"
                plugin.reason = (
                    f"{kind} {component.name!r} is already registered by {rows[0][0].name} ({rows[0][0].source})"
                )
            elif plugin.status == "ok" and _missing(component):
                plugin.status, plugin.reason = "missing extra", _install(plugin, component)

    def _remember(self, plugin: Plugin) -> None:
        known = self.plugins.get(plugin.name)
        if known is not None:
            plugin.name = f"{plugin.name}@{plugin.source}"
            plugin.status = "failed"
            plugin.reason = f"the plugin name is taken by {known.source}"
        self.plugins[plugin.name] = plugin

    def _why_missing(self, kind: str, name: str) -> str:
        out = [plugin for plugin in self.plugins.values() if plugin.status in {"failed", "disabled", "incompatible"}]
        hint = "".join(f"\n  plugin {p.name} is {p.status}: {p.reason}" for p in out)
        return f"no {kind} is called {name!r}{did_you_mean(name, self.components(kind))}{hint}"


def default_registry() -> Registry:
    """The installed plugins, with no switch set."""
    return Registry()


def _entry_points() -> list[metadata.EntryPoint]:
    """Built-ins first, then by name: the order in which duplicates are judged."""
    points = metadata.entry_points(group=GROUP)
    return sorted(points, key=lambda point: (point.dist is None or point.dist.name != DISTRIBUTION, point.name))


def _import_plugin(plugin: Plugin) -> ModuleType:
    if not plugin.module.endswith(".py"):
        return importlib.import_module(plugin.module)
    path = Path(plugin.module).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin file: {plugin.module}")
    name = f"agentctl_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_target(target: str) -> ModuleType:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise PluginError(f"the target {target!r} is not 'package.module:Class'")
    return importlib.import_module(module)


def _is_impl(module: ModuleType, name: str) -> bool:
    return name.startswith("agentctl_") and getattr(getattr(module, name, None), "agentctl_impl", None) is not None


def _check_hook_names(module: ModuleType) -> None:
    known = [name for name in vars(hooks) if name.startswith("agentctl_")]
    for name, value in vars(module).items():
        if not isinstance(value, FunctionType):
            continue
        where, marked = f"{module.__file__}:{value.__code__.co_firstlineno}", hasattr(value, "agentctl_impl")
        if marked and name not in known:
            raise PluginError(f"{where}: no hook is called {name!r}{did_you_mean(name, known)}")
        if name in known and not marked:
            raise PluginError(f"{where}: {name} is not marked; write @hookimpl above it")


def _tables(module: ModuleType) -> Iterable[tuple[str, Component]]:
    """The rows of the seven tables, called directly so that one plugin's error stays its own."""
    for kind, hook in KINDS.items():
        if not _is_impl(module, hook):
            continue
        for component in getattr(module, hook)():
            if not isinstance(component, Component):
                raise PluginError(f"{module.__file__}: {hook} must return a list of Component, got {component!r}")
            yield kind, component


def _missing(component: Component) -> str:
    return ", ".join(name for name in component.requires if importlib.util.find_spec(name) is None)


def _install(plugin: Plugin, component: Component) -> str:
    distribution = plugin.source.split()[0]
    if not component.extra:
        return f"install: {_missing(component)}"
    return f"install it with: pip install '{distribution}[{component.extra}]'"


def _explain(error: BaseException) -> str:
    """``file:line: what happened``: the deepest frame outside importlib, or the line of a syntax error."""
    if isinstance(error, (PluginError, ConfigError)):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename != __file__
    ]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"
