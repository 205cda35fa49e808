"""`toy_step_cost`: every step costs. Without discount it is the only thing that tells a short way from a long one."""

from __future__ import annotations

import numpy as np

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Arrays, Snapshot, Transition


class StepCost:
    """One term, ``step_cost``: -1 per step; the entry's ``weight`` says how much that matters."""

    class Config(BaseConfig):
        """Nothing to choose: the cost of a step is the entry's ``weight``."""

    def __init__(self, config: Config, setup: Setup) -> None:
        """Nothing to build."""

    def score(self, transition: Transition) -> Arrays:
        return {"step_cost": np.full(len(transition.reward), -1, np.float32)}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        """Nothing to restore."""
