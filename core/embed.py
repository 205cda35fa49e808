"""The whole pipeline as one object for another program's loop: no files, no threads, no signal handlers, no logging.

bot = load("game.yaml")             # or a run's folder, or one of its checkpoints
action = bot.act(observation)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agentctl.core.assembly import Assembly, assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.config import compose
from agentctl.core.pipeline import Flow
from agentctl.core.runner import composition_of, restore
from agentctl.core.types import Array, Arrays


class Bot:
    """One character. Bots share nothing, so each thread may drive its own."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._flow: Flow | None = None
        self._action: Array | None = None
        self.observation_space = assembly.game.observation_space
        self.action_space = assembly.game.action_space

    def reset(self) -> None:
        """Forget the episode: the next observation is the first of a new one."""
        self._flow = self._action = None

    def act(self, observation: Any) -> Any:
        """The policy's best action for one observation (no leading B).

        ``observation``: a mapping by the names of ``observation_space``, or the bare array when there is only one name.
        Returns an int for Discrete, an array otherwise. Raises ValueError when the shape is not the game's.
        """
        rows = self._batched(observation)
        parts, pipeline = self._assembly, self._assembly.pipeline
        if self._flow is None or self._action is None:
            self._flow, state = pipeline.begin(rows, 1, parts.policy.initial(1))
        else:
            state = pipeline.see(self._flow, rows, self._action, np.zeros(1, bool))
        decision = parts.policy.act(self._flow.policy, state, self._flow.first)
        self._flow.policy, self._action = decision.carry, decision.action
        return decision.action[0].item() if decision.action.ndim == 1 else decision.action[0]

    def _batched(self, observation: Any) -> Arrays:
        named = observation if isinstance(observation, Mapping) else {next(iter(self.observation_space)): observation}
        rows = {}
        for name, space in self.observation_space.spaces.items():
            if name not in named:
                raise ValueError(f"the observation has no {name!r}; the game's has {sorted(self.observation_space)}")
            value = np.asarray(named[name], dtype=space.dtype)
            if value.shape != space.shape:
                raise ValueError(f"the observation's {name!r} is {value.shape}; the game's is {space.shape}")
            rows[name] = value[None]
        return rows


def load(source: str | Path) -> Bot:
    """A bot from a YAML (untrained), a run's folder (its latest checkpoint) or a checkpoint's folder."""
    path = Path(source)
    if not path.is_dir():
        return Bot(assemble(compose(path), batch=1))
    assembly = assemble(composition_of(path), batch=1)
    restore(assembly, latest_checkpoint(path))
    return Bot(assembly)
