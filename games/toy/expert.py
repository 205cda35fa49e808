"""`toy_expert`: walks the shortest way to the door that the lantern named; the teacher and the yardstick of the toy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot
from agentctl.games.toy.game import MAZE, neighbours


class Expert:
    class Config(BaseConfig):
        maze: tuple[str, ...] = Field(MAZE, description="the map that is played, as in toy/lantern")

    def __init__(self, config: Config, setup: Setup) -> None:
        wanted = {"cell", "lantern"} - setup.space.spaces.keys()
        if wanted or not isinstance(setup.action_space, spaces.Discrete):
            raise ValueError(f"toy_expert needs {sorted(wanted)} in the state; add perception: toy_cells")
        tiles = np.array([list(line) for line in config.maze])
        self._way = np.stack([way_to(tiles, door) for door in "ab"])  # int64 (2, cells): the next move

    def initial(self, batch: int) -> Carry:
        return {"door": np.zeros(batch, np.int64)}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """``carry["door"]``: int64 (B,), which door the lantern named when the episode began: 1 amber, 2 blue."""
        door = np.where(first, state["lantern"], carry["door"])
        move = self._way[np.maximum(door, 1) - 1, state["cell"]]
        if "action_mask" in state:
            legal = state["action_mask"] != 0
            move = np.where(legal[np.arange(len(move)), move], move, legal.argmax(axis=1))
        return Decision(move, {"door": door})

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        """There is nothing to load."""


def way_to(tiles: Array, door: str) -> Array:
    """The move that brings each cell nearer to ``door``, int64 (cells,); 0 where no way leads."""
    following: Any = neighbours(tiles)  # (cells, 4)
    distance = np.full(tiles.size, np.inf)
    distance[(tiles == door).ravel()] = 0
    for _ in range(tiles.size):
        distance = np.minimum(distance, 1 + distance[following].min(axis=1))
    move: Array = distance[following].argmin(axis=1)
    return move
