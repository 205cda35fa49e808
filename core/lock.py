"""``run.lock.json``: the versions of everything a run was made with, and what resuming with other ones means."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from agentctl.core.config import Composition

PACKAGES = ("game-agentctl", "numpy", "gymnasium", "torch", "ale-py", "safetensors", "pydantic", "pluggy")


def make_lock(composition: Composition) -> dict[str, Any]:
    """Versions, plugins, seeds and the configuration's hash."""
    used = {item.plugin for item in composition.chosen}
    plugins = {name: plugin for name, plugin in composition.registry.plugins.items() if plugin.status == "ok"}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "plugins": {n: _plugin_version(p.version, p.module) for n, p in sorted(plugins.items()) if n in used},
        "seeds": {"run": composition.settings.run.seed, "evaluation": composition.settings.evaluation.seed},
        "config": composition.resolved(),
        "config_hash": composition.digest,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two locks that can change the numbers, one line each."""
    lines = []
    for part in ("python", "packages", "plugins", "config"):
        lines += _diff(part, before.get(part), now.get(part))
    return lines


def _diff(path: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for key in keys for line in _diff(f"{path}.{key}", before.get(key), now.get(key))]
    return [] if before == now else [f"{path}: was {before!r}, is {now!r}"]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _plugin_version(version: str, module: str) -> str:
    """A distribution's version; for a one-file plugin its content's hash."""
    if version:
        return version
    import hashlib

    path = Path(module)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "unknown"
