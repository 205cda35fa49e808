"""Dyna-Q: learn from each real step by Q-learning, then from imagined ones in the same way (Sutton 1990).

Sutton, "Integrated architectures for learning, planning, and reacting based on approximating dynamic programming",
ICML 1990; Sutton and Barto, "Reinforcement Learning", 2nd edition, section 8.2. After each real step, ``planning``
pairs of state and action seen before are drawn, the world model imagines what follows, and that is learnt from too: a
reward found once travels back along the whole way. Without a world model it is plain Q-learning (Watkins 1989).

Deviations: B rows step at once, so their updates are made together, and those that meet in one entry are averaged;
learning waits for a batch; a pair is imagined from the next batch on, so that the world model has learnt it by then,
whichever of the two learns first.
"""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot

MASK = "action_mask"
MAX_ENTRIES = 20_000_000  # of a table
ENTRY_BYTES = 18  # of all four tables


class DynaQ:
    """A table of action values over all Discrete fields of the state, and nothing else."""

    class Config(BaseConfig):
        lr: float = Field(0.5, gt=0, le=1, description="Step size of an update (alpha).")
        discount: float = Field(0.99, ge=0, le=1, description="What a reward one step later is worth (gamma).")
        planning: int = Field(10, ge=0, description="Imagined updates after each real one; needs a world model.")
        epsilon_start: float = Field(1.0, ge=0, le=1, description="Share of random actions at the first step.")
        epsilon_end: float = Field(0.05, ge=0, le=1, description="Share of random actions after epsilon_steps.")
        epsilon_steps: int = Field(10_000, gt=0, description="Game steps, over all rows, in which epsilon falls.")

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self._world_model = setup.world_model
        self._fields = {name: space for name, space in setup.space.items() if isinstance(space, spaces.Discrete)}
        self._sizes = tuple(int(space.n) for space in self._fields.values())
        states, actions = check_table(self._sizes, setup)
        self.nbytes = states * actions * ENTRY_BYTES
        self._rng = np.random.default_rng([setup.seed, *b"dyna_q"])  # a stream of its own: others share the seed
        self._preference = self._rng.random((states, actions))  # breaks ties when acting, alike every time
        self._q = np.zeros((states, actions))
        self._legal = np.full((states, actions), MASK not in setup.space.spaces)  # under some mask seen so far
        self._seen = np.zeros((states, actions), bool)
        self._steps = 0

    def initial(self, batch: int) -> Carry:
        return {}

    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """The best known action of each row, int64 (B,)."""
        rows = self._rows(state)
        return Decision(best(self._q[rows], allowed(state, self._q.shape[1]), self._preference[rows]))

    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """Epsilon-greedy, ties broken at random: int64 (B,)."""
        rows = self._rows(state)
        noise = self._rng.random((len(rows), self._q.shape[1]))
        mask = allowed(state, self._q.shape[1])
        random = np.where(mask, noise, -1).argmax(axis=1)
        adventurous = self._rng.random(len(rows)) < self.epsilon
        self._steps += len(rows)
        return Decision(np.where(adventurous, random, best(self._q[rows], mask, noise)))

    def learn(self, batch: Batch) -> Metrics:
        """Q-learning on each step of the batch in order, and planning after each."""
        after = batch.successors()
        rows, next_rows = self._rows(batch.state), self._rows(after)
        if MASK in batch.state:
            for seen, masks in ((rows, batch.state[MASK]), (next_rows, after[MASK])):
                np.logical_or.at(self._legal, seen, masks.astype(bool))
        pairs = np.flatnonzero(self._seen)
        errors = []
        for t, action in enumerate(batch.action):
            errors.append(self._update(rows[t], action, batch.reward[t], next_rows[t], batch.ended[t]))
            self._plan(pairs, self.config.planning * len(action))
        self._seen[rows, batch.action] = True
        return {"td_error": float(np.mean(errors)), "epsilon": self.epsilon, "pairs_seen": float(self._seen.sum())}

    def save(self) -> Snapshot:
        tables = {"q": self._q, "legal": self._legal, "seen": self._seen, "preference": self._preference}
        arrays = {name: table.copy() for name, table in tables.items()}
        return Snapshot(arrays, {"steps": self._steps, "rng": self._rng.bit_generator.state})

    def load(self, snapshot: Snapshot) -> None:
        self._q = snapshot.arrays["q"].copy()
        self._legal = snapshot.arrays["legal"].copy()
        self._seen = snapshot.arrays["seen"].copy()
        self._preference = snapshot.arrays["preference"].copy()
        self._steps = snapshot.data["steps"]
        self._rng.bit_generator.state = snapshot.data["rng"]

    @property
    def epsilon(self) -> float:
        """The share of random actions now."""
        fallen = min(self._steps / self.config.epsilon_steps, 1)
        return self.config.epsilon_start + fallen * (self.config.epsilon_end - self.config.epsilon_start)

    def _rows(self, state: Arrays) -> Array:
        """The table's rows for states (...,): int64 (...,)."""
        values = tuple(state[name].astype(np.int64) - space.start for name, space in self._fields.items())
        rows: Array = np.ravel_multi_index(values, self._sizes)
        return rows

    def _states(self, rows: Array) -> Arrays:
        """The states of the table's ``rows`` (N,): each field int64 (N,)."""
        values = np.unravel_index(rows, self._sizes)
        return {name: value + space.start for (name, space), value in zip(self._fields.items(), values, strict=True)}

    def _update(self, rows: Array, action: Array, reward: Array, next_rows: Array, ended: Array) -> float:
        """Move Q(s, a) towards r + gamma max Q(s', .), all arrays (N,). Returns the mean absolute error before.

        A row that was cut, not ended, still counts on its future.
        """
        best_next = np.where(self._legal[next_rows], self._q[next_rows], -math.inf).max(axis=1)
        future = np.where(ended | np.isinf(best_next), 0, best_next)  # infinite: a state of which nothing is known yet
        error = reward + self.config.discount * future - self._q[rows, action]
        entries, place, meets = np.unique(rows * self._q.shape[1] + action, return_inverse=True, return_counts=True)
        self._q.ravel()[entries] += self.config.lr * np.bincount(place, error) / meets
        return float(np.abs(error).mean())

    def _plan(self, pairs: Array, count: int) -> None:
        """Learn from ``count`` imagined steps that start in ``pairs`` (entries of the table)."""
        if self._world_model is None or not pairs.size or not count:
            return
        rows, action = np.divmod(self._rng.choice(pairs, count), self._q.shape[1])
        imagined = self._world_model.imagine(self._world_model.initial(count), self._states(rows), action)
        if missing := self._fields.keys() - imagined.state.keys():
            raise ValueError(f"dyna_q cannot plan: the world model imagines no {sorted(missing)}; use tabular, or none")
        self._update(rows, action, imagined.reward, self._rows(imagined.state), imagined.ended)


def check_table(sizes: tuple[int, ...], setup: Setup) -> tuple[int, int]:
    """Number of states and of actions, or ValueError where no table can hold them."""
    if not sizes:
        raise ValueError(
            f"dyna_q needs Discrete fields in the state and finds none among {sorted(setup.space.spaces)}: "
            "switch on a perception that names some (such as toy_cells) or choose another policy"
        )
    if not isinstance(setup.action_space, spaces.Discrete) or setup.action_space.start:
        raise ValueError(f"dyna_q needs Discrete actions from 0 on, not {setup.action_space}; choose another policy")
    states, actions = math.prod(sizes), int(setup.action_space.n)
    if states * actions > MAX_ENTRIES:
        raise ValueError(f"dyna_q's table would hold {states:,} states x {actions} actions; name fewer Discrete fields")
    return states, actions


def allowed(state: Arrays, actions: int) -> Array:
    """Which actions each row may choose: bool (B, n) or, with no mask, (n,)."""
    return state[MASK].astype(bool) if MASK in state else np.ones(actions, bool)


def best(q: Array, mask: Array, preference: Array) -> Array:
    """The allowed action of highest value per row, the preferred one among equals: int64 (B,)."""
    value = np.where(mask, q, -math.inf)
    candidates = mask & (value == value.max(axis=1, keepdims=True))
    choice: Array = np.where(candidates, preference, -1).argmax(axis=1)
    return choice
