"""A game so small that one can say what must happen: a corridor with a goal at its right end."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step


class ToyGame:
    """B corridors. Reaching the goal pays 1 and ends the episode; a time limit cuts it. Starts are drawn at random."""

    LEFT, RIGHT = 0, 1

    class Config(BaseConfig):
        length: int = Field(default=5, gt=0, description="Cells from the left end to the goal.")
        limit: int = Field(default=20, gt=0, description="Steps after which an episode is cut.")

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config, self.batch = config, setup.batch
        self.observation_space = spaces.Dict({"position": spaces.Discrete(config.length + 1)})
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)
        self.clock = Clock()

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Returns ``position``, int64 (B,): 0 is the left end."""
        self._rng = np.random.default_rng(seed)
        self._position = self._rng.integers(0, self.config.length, self.batch)
        self._time = np.zeros(self.batch, np.int64)
        return {"position": self._position.copy()}

    def step(self, action: Array) -> Step:
        """``action``, int64 (B,): LEFT or RIGHT; at the left end LEFT stays."""
        self._position = np.maximum(self._position + np.where(action == self.RIGHT, 1, -1), 0)
        self._time = self._time + 1
        ended = self._position == self.config.length
        cut = ~ended & (self._time >= self.config.limit)
        rows = np.flatnonzero(ended | cut)
        final = Final(rows, {"position": self._position[rows]}) if rows.size else None
        self._position[rows] = self._rng.integers(0, self.config.length, rows.size)
        self._time[rows] = 0
        return Step({"position": self._position.copy()}, ended.astype(np.float32), ended, cut, final)

    def frame(self) -> Array:
        """Row 0 as a strip, uint8 (16, 16 * cells, 3): the agent white, the goal green."""
        cells = np.zeros((1, self.config.length + 1, 3), np.uint8)
        cells[0, -1] = (60, 180, 90)
        cells[0, self._position[0]] = 255
        return cells.repeat(16, axis=0).repeat(16, axis=1)

    def save(self) -> Snapshot:
        return Snapshot({"position": self._position, "time": self._time}, {"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._position, self._time = snapshot.arrays["position"].copy(), snapshot.arrays["time"].copy()
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = snapshot.data["rng"]

    def close(self) -> None:
        """Nothing to close."""
