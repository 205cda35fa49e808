"""``run.lock.json``: the versions of everything a run was made with, and what resuming with other ones means."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from agentctl.core.config import Chosen, Composition

PACKAGES = ("game-agentctl", "numpy", "gymnasium", "torch", "ale-py", "safetensors", "pydantic", "pluggy")
"""Those whose change can change the numbers; ``installed`` names all."""

COMPARED = ("python", "packages", "plugins", "sources", "config")


def make_lock(composition: Composition) -> dict[str, Any]:
    """Versions, plugins, sources, seeds and the configuration with its hash."""
    used = list(_with_others(composition))
    registered = composition.registry.plugins
    plugins = {item.plugin: registered[item.plugin] for item in used if item.plugin in registered}
    installed = {item.name: item.version for item in metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: installed[name] for name in PACKAGES if name in installed},
        "plugins": {name: plugin.version or _hash(plugin.module) for name, plugin in sorted(plugins.items())},
        "sources": {_target(item): _hash(_source(item)) for item in sorted(used, key=_target)},
        "seeds": {"run": composition.settings.run.seed, "evaluation": composition.settings.evaluation.seed},
        "config": composition.resolved(),
        "config_hash": composition.digest,
        "installed": dict(sorted(installed.items())),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two locks that can change the numbers, one line each."""
    lines = [line for part in COMPARED for line in _diff(part, before.get(part), now.get(part))]
    return [line for line in lines if not line.startswith("config.plugins.")]  # `plugins` and `sources` say more


def _diff(path: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for key in keys for line in _diff(f"{path}.{key}", before.get(key), now.get(key))]
    return [] if before == now else [f"{path}: was {before!r}, is {now!r}"]


def _with_others(composition: Composition) -> Iterator[Chosen]:
    """Every component, with its fallback and its expert."""
    for item in composition.chosen:
        yield from (part for part in (item, item.fallback, item.expert) if part is not None)


def _target(item: Chosen) -> str:
    return f"{item.component_class.__module__}:{item.component_class.__qualname__}"


def _source(item: Chosen) -> str:
    """The file a component's class stands in; empty where Python knows none."""
    try:
        return inspect.getsourcefile(item.component_class) or ""
    except TypeError:
        return ""


def _hash(file: str) -> str:
    """Of a file's content, so that an edit without a new version is seen too."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "unknown"
