"""The game's reward divided by a constant, or by the running standard deviation of its discounted return.

The mean is left alone: subtracting it would pay for living long or dying early. As in Engstrom et al. (2020),
"Implementation Matters in Deep RL"; the variance is merged batch by batch after Chan et al. (1979).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Arrays, Snapshot, Transition


class Scale:
    class Config(BaseConfig):
        constant: float | None = Field(
            None, gt=0, description="divide by this; null measures the spread of the returns"
        )
        gamma: float = Field(
            0.99, ge=0, lt=1, description="discount of the return whose spread is measured: the policy's"
        )
        bound: float = Field(10.0, gt=0, description="the scaled reward is clipped to [-bound, bound]")

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config = config
        self._returns = np.zeros(setup.batch)  # discounted, of the episodes so far
        self._count, self._mean, self._variance = 1e-4, 0.0, 1.0

    def score(self, transition: Transition) -> Arrays:
        """Takes every transition into account as it comes, so call it once per step."""
        divisor = self._config.constant or self._spread(transition)
        bound = self._config.bound
        return {"scale": np.clip(transition.reward / divisor, -bound, bound).astype(np.float32)}

    def _spread(self, transition: Transition) -> float:
        self._returns = self._returns * self._config.gamma + transition.reward
        self._merge(self._returns)
        self._returns[transition.ended | transition.cut] = 0.0
        return float(np.sqrt(self._variance + 1e-8))

    def _merge(self, values: np.ndarray) -> None:
        count = self._count + len(values)
        gap = values.mean() - self._mean
        squares = self._variance * self._count + values.var() * len(values) + gap**2 * self._count * len(values) / count
        self._mean += gap * len(values) / count
        self._count, self._variance = count, squares / count

    def save(self) -> Snapshot:
        data = {"count": float(self._count), "mean": float(self._mean), "variance": float(self._variance)}
        return Snapshot({"returns": self._returns.copy()}, data)

    def load(self, snapshot: Snapshot) -> None:
        self._returns = snapshot.arrays["returns"].copy()
        self._count, self._mean, self._variance = (snapshot.data[key] for key in ("count", "mean", "variance"))
