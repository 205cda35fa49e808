"""Every hook a plugin may implement. Hooks create and announce; objects do the work.

A plugin is a module (or any object) with functions marked ``@hookimpl``. The seven ``agentctl_<kind>s`` hooks return a
plain table of :class:`Component`; a component's class loads on first use, so listing imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from agentctl.core.run import Run

hookspec = pluggy.HookspecMarker("agentctl")
hookimpl = pluggy.HookimplMarker("agentctl")

API_VERSION = 1
"""A plugin module may declare ``AGENTCTL_API = 1``; another major number is reported as incompatible."""


@dataclass(frozen=True, slots=True)
class Component:
    """One row of a plugin's table: a name users write in YAML and where its class lives."""

    name: str  # as in the YAML: "ppo", "atari/pong"
    target: str  # "package.module:Class"
    summary: str  # one line for `agentctl plugins list`
    requires: tuple[str, ...] = ()  # import names that must be there: ("torch",)
    extra: str = ""  # what brings them: pip install 'game-agentctl[EXTRA]'
    defaults: Mapping[str, Any] = field(default_factory=dict)  # config values that the name implies: {"rom": "pong"}
    fallback: str = ""  # the component of the same kind that takes over when this one keeps failing
    expert: str = ""  # of a game: the policy that plays it by its rules


@hookspec
def agentctl_games() -> list[Component]:
    """Register environments, with their spaces and their clock (:class:`agentctl.core.protocols.Game`)."""


@hookspec
def agentctl_perceptions() -> list[Component]:
    """Register what turns an observation into a percept (:class:`agentctl.core.protocols.Perception`)."""


@hookspec
def agentctl_world_models() -> list[Component]:
    """Register models of what comes next (:class:`agentctl.core.protocols.WorldModel`)."""


@hookspec
def agentctl_memories() -> list[Component]:
    """Register what keeps what was seen, where and when (:class:`agentctl.core.protocols.Memory`)."""


@hookspec
def agentctl_rewards() -> list[Component]:
    """Register reward terms (:class:`agentctl.core.protocols.Reward`)."""


@hookspec
def agentctl_policies() -> list[Component]:
    """Register agents that act and learn (:class:`agentctl.core.protocols.Policy`)."""


@hookspec
def agentctl_replays() -> list[Component]:
    """Register where experience waits to be learnt from (:class:`agentctl.core.protocols.Replay`)."""


@hookspec
def agentctl_run_started(run: Run) -> None:
    """A run is assembled and about to begin: append observers to ``run.observers``."""


@hookspec
def agentctl_run_ended(run: Run, error: BaseException | None) -> None:
    """A run is over, after its last checkpoint; ``error`` is what stopped it early, or None. Always called."""
