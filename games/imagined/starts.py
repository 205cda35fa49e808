"""Real situations in which imagined episodes begin, from random play."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentctl.core.dream import Awake
from agentctl.core.evaluate import MASK, random_actions
from agentctl.core.standing import named, prefixed
from agentctl.core.types import Array, Arrays, Carry, Snapshot

PER_ROW = 4
"""Situations that a row of the real game gives each time it is played: more cost less play, and differ less."""


@dataclass(slots=True)
class Situations:
    """Where K games stand: what the world model carries and sees of them, each (K, ...)."""

    carry: Carry
    state: Arrays


class Starts:
    """A stock of situations. When it runs out, B real games are played anew, each a little way from its start."""

    def __init__(self, real: Awake, steps: int) -> None:
        """``steps``: the most that a game is played before it is left for the model."""
        self._real, self._steps = real, steps
        self._each = min(PER_ROW, steps + 1)

    def reset(self, seed: int) -> None:
        self._seed, self._round = seed, 0
        self._play()

    def take(self, count: int) -> Situations:
        """The next ``count``, at most B; they are not taken again."""
        if self._taken + count > self._each * self._real.batch:
            self._play()
        rows = slice(self._taken, self._taken + count)
        self._taken += count
        carry, state = ({n: v[rows] for n, v in arrays.items()} for arrays in (self._stock.carry, self._stock.state))
        return Situations(carry, state)

    def save(self) -> Snapshot:
        arrays = prefixed("carry", self._stock.carry) | prefixed("state", self._stock.state)
        return Snapshot(arrays, {"seed": self._seed, "round": self._round, "taken": self._taken})

    def load(self, snapshot: Snapshot) -> None:
        self._stock = Situations(named(snapshot.arrays, "carry"), named(snapshot.arrays, "state"))
        self._seed, self._round, self._taken = (snapshot.data[name] for name in ("seed", "round", "taken"))

    def _play(self) -> None:
        """Fill the stock: place p holds a situation of the real row p modulo B, at a moment of its own."""
        real, rng = self._real, np.random.default_rng((self._seed, self._round))
        moments = rng.permuted(np.tile(np.arange(self._steps + 1), (real.batch, 1)), axis=1)[:, : self._each].T.ravel()
        self._round, self._taken = self._round + 1, 0
        real.reset(int(rng.integers(2**31)))
        self._stock = Situations(room(real.flow.world, len(moments)), room(real.state, len(moments)))
        for moment in range(moments.max() + 1):
            if moment:
                real.step(random_actions(real.action_space, real.batch, rng, real.state.get(MASK)))
            places = np.flatnonzero(moments == moment)
            for stock, arrays in ((self._stock.carry, real.flow.world), (self._stock.state, real.state)):
                for name, value in arrays.items():
                    stock[name][places] = value[places % real.batch]


def room(arrays: Arrays, count: int) -> dict[str, Array]:
    """Empty arrays like these, for ``count`` rows."""
    return {name: np.empty((count, *value.shape[1:]), value.dtype) for name, value in arrays.items()}
