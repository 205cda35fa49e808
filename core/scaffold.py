"""`agentctl plugins new`: a complete, installable plugin package that works before anything in it is changed."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.plugins import KINDS, Registry

SUMMARIES = {
    "game": "one button: press while the lamp is lit",
    "perception": "every picture in a smaller size",
    "world_model": "copy-last: expects no change and the mean reward",
    "memory": "the mean of what was seen since the episode began",
    "reward": "a bonus for every step that the agent survives",
    "policy": "an epsilon-greedy bandit that ignores the state",
    "replay": "the most recent steps, learnt from several times",
    "observer": "a diary of a run's evaluations",
}
"""What the package of each kind is, until its author makes something else of it."""

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def create(kind: str, name: str, out: Path) -> Path:
    """Write the package and return its folder, ``out/agentctl-NAME``. Raises ConfigError; overwrites nothing."""
    check_words(kind, name)
    folder = out / f"agentctl-{name}"
    if folder.exists():
        raise ConfigError(f"{folder} is there already and is left as it is; choose another name, or another --out")
    rendered = {path: render(template, kind, name) for path, template in layout(kind, name).items()}
    for path, text in rendered.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    return folder


def layout(kind: str, name: str) -> dict[str, str]:
    """Which template becomes which file of the package."""
    module = name.replace("-", "_")
    return {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        "example.yaml": f"{kind}/example.yaml",
        f"agentctl_{module}/__init__.py": "observer/table.py" if kind == "observer" else "common/table.py",
        f"agentctl_{module}/{module}.py": f"{kind}/component.py",
        f"agentctl_{module}/py.typed": "common/py.typed",
        f"tests/test_{module}.py": f"{kind}/test.py",
    }


def render(template: str, kind: str, name: str) -> str:
    """The text of a file."""
    text = (files("agentctl.core") / "templates" / f"{template}.txt").read_text(encoding="utf-8")
    words = {
        "kind": kind,
        "name": name,
        "module": name.replace("-", "_"),
        "component": class_name(kind, name),
        "hook": KINDS.get(kind, "agentctl_run_started"),
        "summary": SUMMARIES[kind],
    }
    return Template(text).substitute(words)


def class_name(kind: str, name: str) -> str:
    """``my-ocr``, a perception -> ``MyOcrPerception``: never the name of something that the module imports."""
    words, last = re.split("[-_]", name), kind.split("_")
    return "".join(word.capitalize() for word in (words if words[-len(last) :] == last else words + last))


def check_words(kind: str, name: str) -> None:
    """Raise ConfigError for a kind or a name that cannot be used."""
    if kind not in SUMMARIES:
        raise ConfigError(f"{kind!r} is not a kind of plugin{did_you_mean(kind, SUMMARIES)}")
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        better = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f", e.g. {better!r}" if NAME.fullmatch(better) and not keyword.iskeyword(better) else ""
        raise ConfigError(f"{name!r} cannot name a plugin: use small letters, digits and '-', a letter first{hint}")


def check_free(registry: Registry, kind: str, name: str) -> None:
    """Raise ConfigError when a plugin or a component of that kind is already called so."""
    if name in registry.plugins:
        raise ConfigError(f"a plugin is already called {name!r} ({registry.plugins[name].source}); choose another name")
    if name in registry.components(kind):
        owner = registry.components(kind)[name][0]
        raise ConfigError(f"plugin {owner.name} already has a {kind} called {name!r}; choose another name")
