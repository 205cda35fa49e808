"""Dataset aggregation (Ross, Gordon and Bagnell 2011, https://arxiv.org/abs/1011.0686).

The clone plays, the expert says what it should have done, and the clone learns from every state that it came to.

At first the expert acts, then less and less (``beta_steps``), row by row and step by step. Use it with the replay
`uniform`, large enough for all states, which it learns from again and again. Deviation: it learns while it plays,
a batch every few steps, where the paper trains anew after each round.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from agentctl.agents.cloning import LABEL, Cloner, CloningConfig
from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot

EXPERT = "expert."
CLOSE = 0.1
"""How near continuous actions are that count as the same."""


class DAgger:
    class Config(CloningConfig):
        beta_steps: int = Field(10_000, ge=0, description="steps over which the expert's share of acting falls to 0")

    experience: ClassVar[str] = "own"
    needs_expert: ClassVar[bool] = True

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self._expert = config, setup.expert
        self._cloner = Cloner(config, setup)
        self.nbytes = self._cloner.nbytes
        self._rng = np.random.default_rng(setup.seed)
        self._steps = 0
        self._agreed = float("nan")  # share of the last steps at which the clone would have done as the expert did

    def initial(self, batch: int) -> Carry:
        experts = {} if self._expert is None else self._expert.initial(batch)
        return {**self._cloner.actor.initial(batch), **_experts(experts)}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """The clone alone."""
        decision = self._cloner.actor.act(_own(carry), state, first)
        return Decision(decision.action, {**carry, **decision.carry})

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """The clone, or by chance the expert. Extras: ``label``, what the expert does."""
        assert self._expert is not None, "training builds the expert"
        told = self._expert.act(_experts_own(carry), state, first)
        tried = self._cloner.actor.explore(_own(carry), state, first)
        self._steps += len(first)
        by_expert = self._rng.random(len(first)) < self._beta()
        shape = (-1, *[1] * (told.action.ndim - 1))
        action = np.where(by_expert.reshape(shape), told.action, tried.action).astype(told.action.dtype)
        same = np.isclose(told.action, tried.action, atol=CLOSE).reshape(len(first), -1).all(axis=1).mean()
        self._agreed = float(same) if np.isnan(self._agreed) else 0.99 * self._agreed + 0.01 * float(same)
        return Decision(action, {**tried.carry, **_experts(told.carry)}, {LABEL: told.action})

    def learn(self, batch: Batch) -> Metrics:
        return {**self._cloner.learn(batch), "beta": self._beta(), "agreement": self._agreed}

    def export_onnx(self, path: Path, about: Mapping[str, str]) -> None:
        """The clone; its ``value`` means nothing."""
        self._cloner.actor.export_onnx(path, about)

    def heatmaps(self, state: Arrays) -> dict[str, Array]:
        """Where the clone looks, with ``vision: hybrid``."""
        return self._cloner.actor.heatmaps(state)

    def save(self) -> Snapshot:
        experts = Snapshot() if self._expert is None else self._expert.save()
        own = {"steps": self._steps, "agreed": self._agreed, "rng": self._rng.bit_generator.state}
        return Snapshot({**self._cloner.arrays(), **_experts(experts.arrays)}, {**own, "expert": experts.data})

    def load(self, snapshot: Snapshot) -> None:
        self._cloner.load(_own(snapshot.arrays))
        if self._expert is not None:
            self._expert.load(Snapshot(_experts_own(snapshot.arrays), snapshot.data["expert"]))
        self._steps, self._agreed = int(snapshot.data["steps"]), float(snapshot.data["agreed"])
        self._rng.bit_generator.state = snapshot.data["rng"]

    def _beta(self) -> float:
        """The chance that the expert acts."""
        return max(0.0, 1 - self._steps / self._config.beta_steps) if self._config.beta_steps else 0.0


def _experts(arrays: Arrays) -> dict[str, Array]:
    return {f"{EXPERT}{key}": array for key, array in arrays.items()}


def _experts_own(arrays: Arrays) -> dict[str, Array]:
    return {key.removeprefix(EXPERT): array for key, array in arrays.items() if key.startswith(EXPERT)}


def _own(arrays: Arrays) -> dict[str, Array]:
    return {key: array for key, array in arrays.items() if not key.startswith(EXPERT)}
