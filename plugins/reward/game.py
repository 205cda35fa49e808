"""The game's own reward, as it is."""

from __future__ import annotations

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Arrays, Snapshot, Transition


class Game:
    class Config(BaseConfig):
        pass

    def __init__(self, config: Config, setup: Setup) -> None:
        pass

    def score(self, transition: Transition) -> Arrays:
        return {"game": transition.reward}

    def save(self) -> Snapshot:
        return Snapshot()

    def load(self, snapshot: Snapshot) -> None:
        pass
