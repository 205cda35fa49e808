"""A world model for policies that cannot be built without one: it expects that nothing changes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import BaseConfig
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot


class StandIn:
    """Adds no latent; imagines the same state again, no reward and no end."""

    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self) -> None:
        self.space = spaces.Dict()

    def initial(self, batch: int) -> Carry:
        return {}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        return Belief({}, {})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        rows = len(action)
        return Imagined({}, dict(state), np.zeros(rows, np.float32), np.zeros(rows, bool))

    def decode(self, latent: Arrays) -> Arrays:
        return {}

    def loss(self, batch: Batch) -> Loss:
        return Loss(0.0)

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        """Nothing to restore."""
