"""The policy of an earlier run, as it plays: an expert to learn from, a rival, a yardstick. It learns no more."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from agentctl.core.assembly import assemble
from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.folder import composition_of
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.runner import restore
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot


class SavedPolicy:
    class Config(BaseConfig):
        run: Path = Field(description="the run's folder, or one of its checkpoints")

        @field_validator("run")
        @classmethod
        def _absolute(cls, value: Path) -> Path:
            return value.absolute()  # what learns from it may be resumed from another folder

    def __init__(self, config: Config, setup: Setup) -> None:
        """Raises ValueError when the run saw other states or had other actions than there are here."""
        assembly = assemble(composition_of(config.run).without("replay", "reward"), batch=setup.batch)
        for what, there, here in (
            ("sees", assembly.setup.space, setup.space),
            ("acts in", assembly.setup.action_space, setup.action_space),
        ):
            if there != here:
                raise ValueError(f"the policy of {config.run} {what} {there}, here it is {here}: use the same stages")
        restore(assembly, latest_checkpoint(config.run))
        self._policy = assembly.policy
        self.initial, self.save = self._policy.initial, self._policy.save

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        return self._policy.act(carry, state, first)

    explore = act

    def learn(self, batch: Batch) -> Metrics:
        return {}

    def load(self, snapshot: Snapshot) -> None:
        self._policy.load(snapshot)
