"""`imagined`: a game that the world model of an earlier run plays, from real situations on, some steps at a time.

So SimPLe (Kaiser et al. 2019, arXiv:1903.00374) and its followers train policies: inside the model, in episodes so
short that its errors do not pile up. What is measured is measured in the real game, see `awake`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pydantic import Field, field_validator

from agentctl.core.checkpoint import latest_checkpoint
from agentctl.core.dream import Awake, Screen, glimpse, opened, twin
from agentctl.core.errors import AgentctlError
from agentctl.core.protocols import BaseConfig, Clock, Setup
from agentctl.core.standing import named, prefixed
from agentctl.core.types import Array, Arrays, Final, Snapshot, Step
from agentctl.games.imagined.starts import Starts


class ImaginedGame:
    """B imagined games. What the model imagines is observed, not what it passes on; its reward is what it learnt."""

    class Config(BaseConfig):
        run: Path = Field(
            description="The run whose world model is played in: its folder, of which the latest checkpoint counts, "
            "or a checkpoint."
        )
        horizon: int = Field(20, gt=0, description="Steps after which an imagined episode is cut.")
        start_steps: int = Field(
            50, ge=0, description="An episode begins where the real game stands after at most so many random steps."
        )

        @field_validator("run")
        @classmethod
        def _checkpoint(cls, value: Path) -> Path:
            try:
                return latest_checkpoint(value.absolute())  # what goes on later must go on in the same model
            except AgentctlError as error:
                raise ValueError(str(error)) from error

    clock: ClassVar[Clock] = Clock("pausable")

    def __init__(self, config: Config, setup: Setup) -> None:
        """Raises ConfigError when the run has no world model, ValueError when that imagines nothing."""
        self.config, self.batch = config, setup.batch
        self._opened = opened(config.run, setup.batch)
        self._real = Awake(self._opened)
        self._model = self._real.world_model
        self._learnt = self._model.save()
        self._screen = Screen(self._real.space, self._model)
        imagined = glimpse(self._real)
        shown = {name: part for name, part in self._real.space.items() if name in imagined}
        if not shown:
            names = ", ".join(sorted(self._real.space.spaces))
            raise ValueError(f"the world model of {config.run} imagines nothing: it leaves all as it is ({names})")
        self.observation_space = spaces.Dict(shown)
        self.action_space: spaces.Space[Any] = self._real.action_space
        self._starts = Starts(self._real, config.start_steps)

    @property
    def keys(self) -> Mapping[tuple[str, ...], Any]:
        """The real game's."""
        return self._real.keys

    @property
    def fps(self) -> float:
        return self._real.fps

    def awake(self, batch: int) -> Awake:
        """The run's real game in ``batch`` rows, with stages of its own as they are at the checkpoint."""
        return Awake(twin(self._opened, batch, self._learnt), self.observation_space.spaces)

    def reset(self, seed: int) -> Arrays:
        """Start B episodes. Returns the arrays of ``observation_space``, each (B, ...)."""
        self._model.load(self._learnt)  # its generators too, so that the same seed gives the same game
        self._starts.reset(seed)
        begun = self._starts.take(self.batch)
        self._carry, self._state = begun.carry, begun.state
        self._age = np.zeros(self.batch, np.int64)
        return self._shown()

    def step(self, action: Array) -> Step:
        """Imagine one step of every row; no row of the real game moves."""
        imagined = self._model.imagine(self._carry, self._state, action)
        self._carry, self._state, self._age = imagined.carry, imagined.state, self._age + 1
        cut = ~imagined.ended & (self._age >= self.config.horizon)
        final = self._restart(imagined.ended | cut)
        return Step(self._shown(), imagined.reward, imagined.ended, cut, final)

    def frame(self) -> Array:
        """Row 0's imagined picture, uint8 (H, W, 3). Raises NotReadyError when the model imagines none."""
        return self._screen.show(self._shown())

    def save(self) -> Snapshot:
        """All that is imagined, the situations still to start from, and what playing changed in the model.

        The real game's state is not needed: each time it is played it begins anew.
        """
        model, starts = self._model.save(), self._starts.save()
        changed = {name: value for name, value in model.arrays.items() if self._moved(name, value)}
        arrays = prefixed("state", self._state) | prefixed("carry", self._carry) | {"age": self._age}
        arrays |= prefixed("model", changed) | prefixed("starts", starts.arrays)
        return Snapshot(arrays, {"model": model.data, "starts": starts.data})

    def load(self, snapshot: Snapshot) -> None:
        arrays, data = snapshot.arrays, snapshot.data
        self._model.load(Snapshot({**self._learnt.arrays, **named(arrays, "model")}, data["model"]))
        self._starts.load(Snapshot(named(arrays, "starts"), data["starts"]))
        self._state, self._carry = named(arrays, "state"), named(arrays, "carry")
        self._age = arrays["age"]

    def close(self) -> None:
        self._real.close()

    def _shown(self) -> dict[str, Array]:
        names = self.observation_space.spaces.keys()
        if missing := names - self._state.keys():
            raise ValueError(f"the world model of {self.config.run} imagined no {sorted(missing)}, as it did before")
        return {name: self._state[name] for name in names}

    def _restart(self, stopped: Array) -> Final | None:
        """Put rows that stopped into fresh real situations and return what they saw last."""
        rows = np.flatnonzero(stopped)
        if not rows.size:
            return None
        final = Final(rows, {name: value[rows] for name, value in self._shown().items()})
        begun = self._starts.take(rows.size)
        if rows.size == self.batch:
            self._carry, self._state = begun.carry, begun.state
        else:
            self._carry, self._state = mixed(self._carry, begun.carry, rows), mixed(self._state, begun.state, rows)
        self._age = np.where(stopped, 0, self._age)
        return final

    def _moved(self, name: str, value: Array) -> bool:
        """Whether one of the model's arrays is not as it was learnt: a generator's state, in most."""
        before = self._learnt.arrays.get(name)
        return before is None or not np.array_equal(before, value)


def mixed(arrays: Arrays, others: Arrays, rows: Array) -> dict[str, Array]:
    """``arrays``, each (B, ...), where ``rows`` (K,) are taken from ``others``, each (K, ...)."""
    if missing := arrays.keys() - others.keys():
        raise ValueError(f"the world model imagines {sorted(missing)}, which it does not know of a real situation")
    copies = {name: value.copy() for name, value in arrays.items()}
    for name, value in copies.items():
        value[rows] = others[name]
    return copies
