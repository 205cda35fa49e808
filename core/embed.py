"""The whole pipeline as one object for another program's loop: no files, no threads, no signal handlers, no logging.

bot = load("game.yaml")             # or a run's folder, or one of its checkpoints
action = bot.act(observation)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.config import compose
from agentctl.core.pipeline import Flow
from agentctl.core.runner import composition_of, restore
from agentctl.core.types import Array, Arrays

ONLY_FOR_TRAINING = ("reward", "replay")

_loading = threading.Lock()
"""Loading imports plugins, which Python's module table allows one thread at a time."""


class Bot:
    """One character. Bots share nothing, so each thread may drive its own; one bot is for one thread at a time."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._flow: Flow | None = None
        self._action: Array | None = None
        self.policy = assembly.policy  # for what is its own, such as the heatmaps of one that attends
        self.state: Arrays = {}  # what it was shown last, by name, each (1, ...)
        self.observation_space = assembly.game.observation_space
        self.action_space = assembly.game.action_space

    def reset(self) -> None:
        """Forget the episode: the next observation is the first of a new one."""
        self._flow = self._action = None

    def act(self, observation: Any) -> Any:
        """The policy's best action for one observation (no leading B).

        ``observation``: a mapping by the names of ``observation_space``, or the bare array when there is only one name.
        Returns an int for Discrete, an array otherwise. Raises ValueError when it is not what the game would show.
        """
        rows = self._batched(observation)
        policy, pipeline = self._assembly.policy, self._assembly.pipeline
        if self._flow is None or self._action is None:
            self._flow, state = pipeline.begin(rows, 1, policy.initial(1))
        else:
            state = pipeline.see(self._flow, rows, self._action, np.zeros(1, bool))
        self.state = state
        decision = policy.act(self._flow.policy, state, self._flow.first)
        self._flow.policy, self._action = decision.carry, decision.action
        return decision.action[0].item() if decision.action.ndim == 1 else decision.action[0]

    def _batched(self, observation: Any) -> Arrays:
        names = list(self.observation_space.spaces)
        if not isinstance(observation, Mapping):
            if len(names) > 1:
                raise ValueError(f"the observation is one {type(observation).__name__}; name its parts: {names}")
            observation = {names[0]: observation}
        if missing := [name for name in names if name not in observation]:
            raise ValueError(f"the observation has no {missing[0]!r}; the game's has {names}")
        return {name: as_row(name, observation[name], self.observation_space[name]) for name in names}


def load(source: str | Path) -> Bot:
    """A bot from a YAML (untrained), a run's folder (its latest checkpoint) or a checkpoint's folder.

    Raises ConfigError or PluginError as a run would, and AgentctlError for a damaged checkpoint.
    """
    path = Path(source)
    with _loading:
        composition = composition_of(path) if path.is_dir() else compose(path)
        assembly = assemble(composition.without(*ONLY_FOR_TRAINING), batch=1)
        if path.is_dir():
            restore(assembly, latest_checkpoint(path))
        return Bot(assembly)


def as_row(name: str, value: Any, space: spaces.Space[Any]) -> Array:
    """``value`` as a batch of one in the space's dtype. Raises ValueError when it has another shape or would change."""
    given = np.asarray(value)
    if given.shape != space.shape:
        raise ValueError(f"the observation's {name!r} has the shape {given.shape}; the game's has {space.shape}")
    row: Array = given.astype(space.dtype)[None]
    if row.dtype != given.dtype and row.dtype.kind != "f" and not np.array_equal(row[0], given):
        raise ValueError(f"the observation's {name!r} is {given.dtype}; the game's is {space.dtype}: convert it first")
    return row
