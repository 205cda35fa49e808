"""A plugin with one game of tokens: a cue is shown once, at the start, and what it said decides at the end.

The frame is a grid of GRID tokens. At first one of them, anywhere, is 1 or 2: the cue. Then WAIT frames show only the
time. The last action wins 1 where it is the cue (action 0 for 1, 1 for 2), and the episode ends. The best return is 1,
that of chance, and of all who see only the last frame, 1/2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gymnasium import spaces

from agentctl.core import BaseConfig, Component, Setup, hookimpl
from agentctl.core.protocols import Clock
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step

FILE, GRID, WAIT = Path(__file__).resolve(), (2, 3), 2


@hookimpl
def agentctl_games() -> list[Component]:
    return [Component("recall", f"{__name__}:Recall", "a cue at the start decides at the end")]


class Recall:
    class Config(BaseConfig):
        pass

    clock = Clock()

    def __init__(self, config: Config, setup: Setup) -> None:
        self.batch = setup.batch
        tokens = spaces.MultiDiscrete(np.full(GRID, 4 + WAIT), dtype=np.uint16)
        self.observation_space = spaces.Dict({"tokens": tokens})
        self.action_space = spaces.Discrete(2)

    def reset(self, seed: int) -> Arrays:
        self._rng = np.random.default_rng(seed)
        self._cue, self._place, self._time = np.zeros((3, self.batch), np.int64)
        self._begin(np.ones(self.batch, bool))
        return self._shown()

    def step(self, action: Array) -> Step:
        ended = self._time == WAIT
        reward = (ended & (action == self._cue)).astype(np.float32)
        self._time = self._time + 1
        rows, shown = np.flatnonzero(ended), self._shown()
        final = Final(rows, {"tokens": shown["tokens"][rows]}) if len(rows) else None
        self._begin(ended)
        return Step(self._shown(), reward, ended, np.zeros(self.batch, bool), final)

    def frame(self) -> Array:
        return np.zeros((16, 16, 3), np.uint8)

    def save(self) -> Snapshot:
        arrays = {"cue": self._cue, "place": self._place, "time": self._time}
        return Snapshot(arrays, {"rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._cue, self._place, self._time = (snapshot.arrays[name] for name in ("cue", "place", "time"))
        self._rng.bit_generator.state = snapshot.data["rng"]

    def close(self) -> None:
        pass

    def _begin(self, rows: Array) -> None:
        self._cue = np.where(rows, self._rng.integers(2, size=self.batch), self._cue)
        self._place = np.where(rows, self._rng.integers(np.prod(GRID), size=self.batch), self._place)
        self._time = np.where(rows, 0, self._time)

    def _shown(self) -> dict[str, Array]:
        tokens = np.zeros((self.batch, int(np.prod(GRID))), np.uint16)
        tokens[:] = np.where(self._time > 0, 2 + self._time, 0)[:, None]
        start = np.flatnonzero(self._time == 0)
        tokens[start, self._place[start]] = 1 + self._cue[start]
        return {"tokens": tokens.reshape(-1, *GRID)}
