"""The game's reward without its size: the same learning rate then suits games that score in ones and in thousands.

The sign is what Mnih et al. (2015) used on Atari; a bound keeps small rewards apart.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Arrays, Snapshot, Transition


class Clip:
    class Config(BaseConfig):
        bound: float | None = Field(
            None, gt=0, description="clip to [-bound, bound]; null keeps only the sign: -1, 0 or 1"
        )

    def __init__(self, config: Config, setup: Setup) -> None:
        self._bound = config.bound

    def score(self, transition: Transition) -> Arrays:
        reward = transition.reward
        return {"clip": np.sign(reward) if self._bound is None else np.clip(reward, -self._bound, self._bound)}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        pass
