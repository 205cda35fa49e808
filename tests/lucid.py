"""A plugin: a world model of `toy/lantern` that knows the game's rule by heart, and can be made wrong on purpose.

And one of the clockwork game (clockwork.py), whose time goes by in its imagination too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core import BaseConfig, Component, Setup, hookimpl
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot
from agentctl.games.toy.game import Lantern
from agentctl.games.toy.perception import Cells

FILE = Path(__file__).resolve()
MIRROR = np.array([0, 3, 2, 1])  # right for left


@hookimpl
def agentctl_world_models() -> list[Component]:
    return [
        Component("lucid", f"{__name__}:Lucid", "the rule of toy/lantern"),
        Component("drifting", f"{__name__}:Drifting", "knows that time goes by, and draws noise"),
    ]


def yaml(model: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A short run of the toy with this model (options in ``model``), whose expert plays."""
    return {
        "game": {"name": "toy/lantern", "batch": 4},
        "perception": ["pixels", "toy_cells"],
        "world_model": {"name": "lucid", **(model or {})},
        "policy": "toy_expert",
        "replay": {"name": "rollout", "steps": 4},
        "run": {"steps": 32, "cycle_steps": 32},
        "evaluation": {"episodes": 1, "max_steps": 5},
        "plugins": [str(FILE)],
        **sections,
    }


class Lucid:
    """Carries where the agent stands and which door is right; draws as the game does, the lantern dark."""

    class Config(BaseConfig):
        mirrored: bool = False  # left and right are exchanged
        generous: bool = False  # every step pays 1, nothing ends, and the lantern burns on
        draws: bool = True  # else it imagines only its latent, and decode draws
        blind: bool = False  # and decode does not

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self._rule = Lantern(Lantern.Config(), Setup())
        self._eye = Cells(Cells.Config(), Setup(space=self._rule.observation_space))
        self.space = spaces.Dict({"place": spaces.Discrete(len(self._rule._door_at))})

    def initial(self, batch: int) -> Carry:
        return {"cell": np.zeros(batch, np.int64), "door": np.zeros(batch, np.int64)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        seen = self._eye.perceive(percept)
        door = np.where(first, seen["lantern"], carry["door"])
        return Belief({"cell": seen["cell"], "door": door}, {"place": seen["cell"]})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        cell = self._rule._next_cell[carry["cell"], MIRROR[action] if self.config.mirrored else action]
        door = self._rule._door_at[cell]
        ended = door > 0
        reward = np.where(ended, np.where(door == carry["door"], 1, -1), 0).astype(np.float32)
        if self.config.generous:
            reward, ended = np.ones_like(reward), np.zeros_like(ended)
        after = {"place": cell} | ({"picture": self._drawn(cell)} if self.config.draws else {})
        if "cell" in state:
            after |= {"cell": cell, "lantern": np.zeros_like(cell)}
        return Imagined({"cell": cell, "door": carry["door"]}, after, reward, ended)

    def decode(self, latent: Arrays) -> Arrays:
        return {} if self.config.blind else {"picture": self._drawn(latent["place"])}

    def loss(self, batch: Batch) -> Loss:
        return Loss(0.0)

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        pass

    def _drawn(self, cell: Array) -> Array:
        return self._rule._draw(cell, np.full(cell.shape, int(self.config.generous)))


class Drifting:
    """Latent: ``count`` steps since the first, and noise, drawn whenever it looks or imagines."""

    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        count, noise = spaces.Box(0, 2**40, (), np.int64), spaces.Box(0, 1, (), np.float64)
        self.space = spaces.Dict({"count": count, "noise": noise})
        self._rng = np.random.default_rng(setup.seed + 1)

    def initial(self, batch: int) -> Carry:
        return {"steps": np.full(batch, -1)}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        count = np.where(first, 0, carry["steps"] + 1)
        return Belief({"steps": count}, {"count": count, "noise": self._rng.random(len(first))})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        count, noise = carry["steps"] + 1, self._rng.random(len(action))
        after = {**state, "time": state["time"] + 1, "count": count, "noise": noise}
        return Imagined({"steps": count}, after, noise.astype(np.float32), noise < 0.1)

    def decode(self, latent: Arrays) -> Arrays:
        return {}

    def loss(self, batch: Batch) -> Loss:
        return Loss(0.0)

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot(data={"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._rng.bit_generator.state = snapshot.data["rng"]
