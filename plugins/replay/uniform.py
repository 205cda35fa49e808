"""Keep the last steps and learn from any of them, all equally likely: experience replay (Lin 1992; Mnih et al. 2015).

Pictures are kept once, however they are stacked: 100 000 steps of Atari are 0.7 GB, and in a run's folder they lie in
files that memory is mapped to: a checkpoint does not copy them, and there may be more of them than memory.
"""

from __future__ import annotations

import numpy as np
from pydantic import ConfigDict, Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Batch, Snapshot, Transition
from agentctl.plugins.replay.history import History
from agentctl.plugins.replay.schedule import Schedule


class Uniform:
    class Config(BaseConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"capacity": 1000, "warmup": 100, "length": 3}]})

        capacity: int = Field(100_000, gt=0, description="steps that are kept, over all rows")
        warmup: int = Field(1_000, ge=0, description="steps before the first batch")
        every: int = Field(4, gt=0, description="steps between two batches")
        batch_size: int = Field(32, gt=0, description="samples in a batch (B)")
        length: int = Field(1, gt=0, description="steps in a row of each sample (T): n for n-step returns")
        compress: bool = Field(False, description="keep pictures compressed (LZ4), in memory: smaller, slower")

    def __init__(self, config: Config, setup: Setup, history: History | None = None) -> None:
        self._config = config
        self._history = history or History(config.capacity, setup, compress=config.compress)
        self._schedule = Schedule(max(config.warmup, config.length * setup.batch), config.every)
        self._unfinished = (config.length - 1) * setup.batch  # the last steps, which no sample begins with
        self._rng = np.random.default_rng(setup.seed)
        self.nbytes = self._history.nbytes

    def add(self, transition: Transition) -> None:
        self._history.add(transition)
        self._schedule.passed(len(transition.reward), self._history.added)

    def ready(self) -> bool:
        return self._schedule.due and self._history.oldest < self._history.added - self._unfinished

    def sample(self) -> Batch:
        """``length`` steps of ``batch_size`` samples, drawn anew each time, some perhaps twice."""
        self._schedule.take()
        history = self._history
        starts = self._rng.integers(history.oldest, history.added - self._unfinished, self._config.batch_size)
        return history.batch(starts, self._config.length)

    def save(self) -> Snapshot:
        history = self._history.save()
        own = {"rng": self._rng.bit_generator.state, "owed": self._schedule.owed}
        return Snapshot(history.arrays, {"history": history.data, **own})

    def load(self, snapshot: Snapshot) -> None:
        self._history.load(Snapshot(snapshot.arrays, snapshot.data["history"]))
        self._rng.bit_generator.state = snapshot.data["rng"]
        self._schedule.owed = int(snapshot.data["owed"])
