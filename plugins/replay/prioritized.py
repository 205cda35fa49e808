"""Prioritized experience replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952), proportional variant.

A step is drawn with a chance in proportion to (|error| + eps)^alpha, where the error is what the policy last found when
it learnt from it; new steps have the highest priority that ever was. ``Batch.weight`` makes up for the unequal chances:
(N P)^-beta, divided by the largest of the batch, so that updates are only ever scaled down. Draws are stratified: one
from each of ``batch_size`` equal parts of the total.
"""

from __future__ import annotations

import numpy as np
from pydantic import ConfigDict, Field

from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Batch, Snapshot, Transition
from agentctl.plugins.replay.history import History
from agentctl.plugins.replay.schedule import Schedule
from agentctl.plugins.replay.sum_tree import SumTree
from agentctl.plugins.replay.uniform import Uniform


class Prioritized:
    class Config(Uniform.Config):
        model_config = ConfigDict(json_schema_extra={"examples": [{"capacity": 1000, "warmup": 100, "length": 3}]})

        alpha: float = Field(0.5, ge=0, description="how much the error counts; 0: all steps alike")
        beta: float = Field(0.4, ge=0, le=1, description="how far weights make up for the chances, at first ...")
        beta_steps: int = Field(1_000_000, gt=0, description="... and wholly after this many steps")
        eps: float = Field(1e-6, gt=0, description="added to every error, so that no step is lost for ever")

    def __init__(self, config: Config, setup: Setup, history: History | None = None) -> None:
        self._config = config
        self._history = history or History(config.capacity, setup, compress=config.compress)
        self._schedule = Schedule(max(config.warmup, config.length * setup.batch), config.every)
        self._unfinished = (config.length - 1) * setup.batch  # the last steps, which no sample begins with
        self._tree = SumTree(config.capacity)
        self._highest = 1.0
        self._rng = np.random.default_rng(setup.seed)
        self.nbytes = self._history.nbytes + self._tree.nbytes

    def add(self, transition: Transition) -> None:
        history, rows = self._history, len(transition.reward)
        oldest = history.oldest
        history.add(transition)
        self._set(np.arange(oldest, history.oldest), 0.0)
        end = history.added - self._unfinished
        self._set(np.arange(max(end - rows, history.oldest), end), self._highest)
        self._schedule.passed(rows, history.added)

    def ready(self) -> bool:
        return self._schedule.due and self._history.oldest < self._history.added - self._unfinished

    def sample(self) -> Batch:
        """``length`` steps of ``batch_size`` samples, with their ``number`` and ``weight``."""
        self._schedule.take()
        numbers = self._draw()
        batch = self._history.batch(numbers, self._config.length)
        batch.number, batch.weight = numbers, self._weights(numbers)
        return batch

    def reprioritise(self, batch: Batch) -> None:
        """Take note of ``batch.error``, float32 (B,), which the learner left there."""
        assert batch.number is not None and batch.error is not None
        priority = (np.abs(batch.error) + self._config.eps) ** self._config.alpha
        self._highest = max(self._highest, float(priority.max()))
        self._tree.set(batch.number % self._config.capacity, priority)

    def save(self) -> Snapshot:
        history = self._history.save()
        own = {"rng": self._rng.bit_generator.state, "owed": self._schedule.owed, "highest": self._highest}
        return Snapshot({**history.arrays, "priority": self._tree.values.copy()}, {"history": history.data, **own})

    def load(self, snapshot: Snapshot) -> None:
        arrays = dict(snapshot.arrays)
        self._tree.set(np.arange(self._config.capacity), arrays.pop("priority"))
        self._history.load(Snapshot(arrays, snapshot.data["history"]))
        self._set(np.arange(int(snapshot.data["history"]["oldest"]), self._history.oldest), 0.0)
        self._rng.bit_generator.state = snapshot.data["rng"]
        self._schedule.owed, self._highest = int(snapshot.data["owed"]), float(snapshot.data["highest"])

    def _set(self, numbers: Array, priority: float) -> None:
        if len(numbers):
            self._tree.set(numbers % self._config.capacity, np.full(len(numbers), priority))

    def _draw(self) -> Array:
        """Numbers of steps, int64 (B,)."""
        size, last = self._config.batch_size, self._history.added - 1
        return last - (last - self._tree.draw(self._rng.random(size))) % self._config.capacity

    def _weights(self, numbers: Array) -> Array:
        """float32 (B,), the largest 1."""
        held = self._history.added - self._unfinished - self._history.oldest
        chance = self._tree.values[numbers % self._config.capacity] / self._tree.total
        beta = min(1.0, self._config.beta + (1 - self._config.beta) * self._history.added / self._config.beta_steps)
        weights: Array = (held * chance) ** -beta
        return np.asarray(weights / weights.max(), np.float32)
