"""`last_seen`: the last non-zero value of each chosen field since the episode began.

Zero stands for "nothing to see" (an empty slot, a dark lantern, no enemy): it never overwrites what was seen. What is
recalled at a step is what was seen before it, so a field and its memory never say the same thing twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ConfigDict, Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Snapshot


class LastSeen:
    """Adds ``recalled_<field>`` for each chosen field: the same shape and dtype, zero until something was seen."""

    class Config(BaseConfig):
        model_config = ConfigDict(json_schema_extra={"examples": [{"fields": ["lantern"]}]})

        fields: tuple[str, ...] = Field(min_length=1, description="Fields of the percept or latent to remember.")

    def __init__(self, config: Config, setup: Setup) -> None:
        if missing := [field for field in config.fields if field not in setup.space.spaces]:
            raise ValueError(f"last_seen cannot find the fields {missing}; choose among {sorted(setup.space.spaces)}")
        self.config = config
        remembered = {field: with_zero(field, setup.space[field]) for field in config.fields}
        self.space = spaces.Dict({f"recalled_{field}": space for field, space in remembered.items()})
        self._held = {
            field: np.zeros((setup.batch, *(space.shape or ())), space.dtype) for field, space in remembered.items()
        }

    def recall(self, state: Arrays, time: Array) -> Arrays:
        """Return ``recalled_<field>``, each (B, ...): zero where ``time`` (int64 (B,)) is 0 or nothing was seen."""
        return {f"recalled_{field}": cleared(held, time == 0) for field, held in self._held.items()}

    def write(self, state: Arrays, time: Array) -> None:
        """Keep what ``state`` shows, each (B, ...); rows with ``time`` 0 forget the episode before."""
        for field, held in self._held.items():
            nothing = (state[field] == 0).reshape(len(held), -1).all(axis=1)
            kept = cleared(held, time == 0)
            kept[~nothing] = state[field][~nothing]
            self._held[field] = kept

    def save(self) -> Snapshot:
        return Snapshot({field: held.copy() for field, held in self._held.items()})

    def load(self, snapshot: Snapshot) -> None:
        self._held = {field: snapshot.arrays[field].copy() for field in self.config.fields}


def cleared(held: Array, rows: Array) -> Array:
    """A copy of ``held`` (B, ...) with the chosen ``rows`` (bool (B,)) set to zero."""
    copy = held.copy()
    copy[rows] = 0
    return copy


def with_zero(field: str, space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The smallest space that holds ``space`` and zero; ValueError where zero cannot mean "nothing to see"."""
    if isinstance(space, spaces.Box):
        return spaces.Box(np.minimum(space.low, 0), np.maximum(space.high, 0), dtype=space.dtype.type)
    countable = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    if countable and space.contains(np.zeros(space.shape or (), space.dtype)):
        return space
    raise ValueError(f"last_seen cannot remember {field}, {space}: it needs numbers among which 0 means nothing to see")
