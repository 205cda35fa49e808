"""What a plugin says about itself: its table, and its observers."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from agentctl.core.contracts.finding import Breach, NotApplicable
from agentctl.core.contracts.samples import Script
from agentctl.core.contracts.subject import CELLS, MOVES
from agentctl.core.hooks import Component
from agentctl.core.plugins import Plugin, Registry
from agentctl.core.protocols import Setup
from agentctl.core.run import Evaluation, Observer, Progress, Run
from agentctl.core.types import Decision

NAME = re.compile(r"[a-z0-9]+([-_./][a-z0-9]+)*", re.IGNORECASE)
SUMMARY_LIMIT = 120


def manifest(registry: Registry, plugin: Plugin, kind: str, component: Component) -> str:
    """Its row of the table is complete: a plain name, a summary of one line, a target, a fallback that exists."""
    row = f"Component({component.name!r}, ...)"
    if not NAME.fullmatch(component.name):
        raise Breach(f"{row}: not a plain name", "use letters, digits, '-', '_' and '/', as in atari/pong")
    if not component.summary or "\n" in component.summary or len(component.summary) > SUMMARY_LIMIT:
        raise Breach(
            f"{row}: the summary is {component.summary!r}", f"write one line of at most {SUMMARY_LIMIT} letters"
        )
    if component.fallback:
        registry.find(kind, component.fallback)
    if component.extra and not component.requires:
        raise Breach(f"{row}: an extra, but no requires", 'name what it brings: requires=("torch",)')
    version = f", version {plugin.version}" if plugin.version else ""
    return f"{kind} {component.name!r} of plugin {plugin.name}{version}"


def observing(registry: Registry, plugin: Plugin) -> str:
    """A run with it starts, tells its observers everything, and ends: in a folder, without one, and after an error."""
    if not {"agentctl_run_started", "agentctl_run_ended"} & set(plugin.hooks):
        raise NotApplicable("the plugin attaches no observer")
    attached: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, error in ((Path(folder), None), (None, None), (Path(folder), RuntimeError("an example"))):
            attached += observe(registry, plugin, Run(place, {}, {}, quiet=True), error)
    return f"attaches {', '.join(sorted(set(attached))) or 'nothing'}"


def observe(registry: Registry, plugin: Plugin, run: Run, error: Exception | None) -> list[str]:
    """Run the plugin's two hooks around one of everything that observers see. Returns the names of its observers."""
    others = [other for name, other in registry.manager.list_name_plugin() if name != plugin.name]
    hooks = registry.manager.subset_hook_caller
    hooks("agentctl_run_started", others)(run=run)
    strangers = [item for item in run.observers if not isinstance(item, Observer)]
    if strangers:
        raise Breach(f"run.observers holds {strangers[0]!r}", "derive it from agentctl.core.run.Observer")
    script = Script(Setup(CELLS, MOVES), 2)
    progress = Progress(2, 100, 0, 1.0, 2.0, 1, 0.5, {"loss": 0.25}, {"game": 0.5})
    evaluation = Evaluation(2, [1.0], [2], [0.5], {"game": 1.0})
    for observer in list(run.observers):
        observer.stepped(script.transition(0, Decision(script.action(0)), {}))
        observer.learned(progress)
        observer.event("check", "agentctl plugins check")
        observer.evaluated(evaluation)
        observer.frames([np.zeros((32, 32, 3), np.uint8)] * 2, evaluation)
        observer.saved(Path("step-000000000002"), progress)
    run.progress, run.evaluations = progress, [evaluation]
    hooks("agentctl_run_ended", others)(run=run, error=error)
    return [type(observer).__name__ for observer in run.observers]
