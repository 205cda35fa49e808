"""The smallest policy: any legal action, uniformly. Every figure in this project stands beside it."""

from __future__ import annotations

import copy

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot


class RandomPolicy:
    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        self._space = copy.deepcopy(setup.action_space)
        self._space.seed(setup.seed)

    def initial(self, batch: int) -> Carry:
        return {}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        masks = state.get("action_mask", [None] * len(first))
        return Decision(np.stack([self._space.sample(mask=self._as_gymnasium(mask)) for mask in masks]))

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot(data={"generator": self._space.np_random.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._space.np_random.bit_generator.state = snapshot.data["generator"]

    def _as_gymnasium(self, mask: Array | None) -> Array | tuple[Array, ...] | None:
        """Our flat mask as Gymnasium takes it: one int8 array for Discrete, one per part for MultiDiscrete."""
        if mask is None:
            return None
        flat = np.asarray(mask, np.int8)
        if isinstance(self._space, spaces.MultiDiscrete):
            return tuple(np.split(flat, np.cumsum(self._space.nvec)[:-1]))
        return flat
