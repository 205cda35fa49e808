"""Made-up experience: arrays that lie in a space, and scripts of steps that two builds can both be fed.

Shape key: B rows, T steps, K rows whose episode stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Final, Transition

MASK = "action_mask"


def sample(space: spaces.Space[Any], rows: int, rng: np.random.Generator) -> Array:
    """Values drawn from a space: (B, ...) in its dtype. Raises ValueError for a space that no array fills."""
    shape = (rows, *(space.shape or ()))
    drawn: Array
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and np.ptp(space.low) == np.ptp(space.high) == 0:
        drawn = rng.integers(space.low.flat[0], space.high.flat[0], shape, np.uint8, endpoint=True)  # pictures: fast
    elif isinstance(space, spaces.Box):
        drawn = rng.uniform(*moderate(space), shape)
        drawn = np.rint(drawn) if np.issubdtype(space.dtype, np.integer) else drawn
    elif isinstance(space, spaces.Discrete):
        drawn = space.start + rng.integers(0, int(space.n), shape)
    elif isinstance(space, spaces.MultiDiscrete):
        drawn = space.start + np.floor(rng.random(shape) * space.nvec)
    elif isinstance(space, spaces.MultiBinary):
        drawn = rng.integers(0, 2, shape)
    else:
        raise ValueError(f"named arrays are Box, Discrete, MultiDiscrete or MultiBinary, not {space}")
    array: Array = drawn.astype(space.dtype)
    return array


def moderate(space: spaces.Box) -> tuple[Array, Array]:
    """A box's bounds, those beyond a million replaced by nearer ones."""
    low = np.where(space.low < -1e6, np.minimum(space.high, 3.0) - 6.0, space.low)
    return low, np.where(space.high > 1e6, np.minimum(space.high, low + 6.0), space.high)


def choices(space: spaces.Space[Any]) -> list[int]:
    """How many options each part of a discrete action has; ``[]`` for actions that cannot be masked."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return [int(n) for n in space.nvec.ravel()] if isinstance(space, spaces.MultiDiscrete) else []


def sample_mask(parts: list[int], rows: int, rng: np.random.Generator) -> Array:
    """Masks that always leave something legal: bool (B, sum(parts))."""
    masks = [rng.random((rows, n)) < 0.5 for n in parts]
    for mask in masks:
        mask[np.arange(rows), rng.integers(0, mask.shape[1], rows)] = True
    return np.concatenate(masks, axis=1)


def allowed(action: Array, mask: Array, space: spaces.Space[Any]) -> Array:
    """Whether each row's action is legal under its mask (B, sum(nvec)): bool (B,)."""
    parts = choices(space)
    chosen = (action - getattr(space, "start", 0)).reshape(len(action), len(parts)).astype(np.int64)
    columns = np.cumsum([0, *parts[:-1]]) + chosen
    legal: Array = mask.astype(bool)[np.arange(len(action))[:, None], columns].all(axis=1)
    return legal


def sample_action(space: spaces.Space[Any], observation: Arrays, rows: int, rng: np.random.Generator) -> Array:
    """Legal actions, drawn at random: (B,) for Discrete, (B, n) otherwise."""
    action = sample(space, rows, rng)
    if MASK in observation and choices(space):
        while not (legal := allowed(action, observation[MASK], space)).all():
            action[~legal] = sample(space, int((~legal).sum()), rng)
    return action


def misfit(array: Any, space: spaces.Space[Any], rows: int) -> str:
    """Why ``array`` is not B rows of ``space``; empty when it is."""
    wanted = (rows, *(space.shape or ()))
    if not isinstance(array, np.ndarray):
        return f"is a {type(array).__name__}, not a numpy array"
    if array.shape != wanted:
        return f"has shape {array.shape}, not {wanted}"
    if array.dtype != space.dtype:
        return f"has dtype {array.dtype}, not {space.dtype}"
    low, high = bounds(space)
    if not ((array >= low) & (array <= high)).all():
        return f"holds values from {array.min()} to {array.max()}, outside {space}"
    return ""


def bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """The smallest and the largest value, broadcastable over a row."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return 0, 1


@dataclass(frozen=True)
class Script:
    """Made-up experience of B rows, a function of ``(seed, t)`` alone: two builds can be fed the same."""

    setup: Setup
    rows: int
    seed: int = 7

    def rng(self, t: int, salt: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, t, salt))

    def state(self, t: int, salt: int = 0) -> dict[str, Array]:
        """Each field of the setup's space, (B, ...)."""
        rng = self.rng(t, salt)
        state = {key: sample(space, self.rows, rng) for key, space in self.setup.space.spaces.items()}
        if MASK in state and choices(self.setup.action_space):
            state[MASK] = sample_mask(choices(self.setup.action_space), self.rows, rng).astype(state[MASK].dtype)
        return state

    def action(self, t: int) -> Array:
        return sample_action(self.setup.action_space, self.state(t), self.rows, self.rng(t, 1))

    def reward(self, t: int) -> Array:
        """float32 (B,), no two alike within a script."""
        return (t * self.rows + np.arange(self.rows) + self.rng(t, 2).random() / 2).astype(np.float32) / 64

    def ended(self, t: int) -> Array:
        return self.rng(t, 3).random(self.rows) < 0.1

    def cut(self, t: int) -> Array:
        return ~self.ended(t) & (self.rng(t, 4).random(self.rows) < 0.05)

    def first(self, t: int) -> Array:
        """bool (B,): the row begins an episode at t."""
        return np.ones(self.rows, bool) if t == 0 else self.ended(t - 1) | self.cut(t - 1)

    def time(self, t: int) -> Array:
        """int64 (B,): steps since the row's episode began."""
        time = np.zeros(self.rows, np.int64)
        for past in range(1, t + 1):
            time = np.where(self.first(past), 0, time + 1)
        return time

    def final(self, t: int) -> Final | None:
        rows = np.flatnonzero(self.ended(t) | self.cut(t))
        last = self.state(t, salt=5)
        return Final(rows, {key: value[rows] for key, value in last.items()}) if rows.size else None

    def transition(self, t: int, decision: Decision, carry: Carry) -> Transition:
        """The step that ``decision`` led to, as the loop would hand it on."""
        reward, ended, cut = self.reward(t), self.ended(t), self.cut(t)
        return Transition(
            self.state(t), self.first(t), carry, decision, reward, ended, cut, ended | cut, self.state(t + 1),
            self.final(t), {"game": reward}, reward,
        )  # fmt: skip


def gather(transitions: list[Transition]) -> Batch:
    """T consecutive transitions as one batch."""
    finals = [(t, step.final) for t, step in enumerate(transitions) if step.final is not None]
    index = [(t, int(row)) for t, final in finals for row in final.rows]
    last = transitions[-1].next_state
    return Batch(
        state=stack([step.state for step in transitions]),
        first=np.stack([step.first for step in transitions]),
        action=np.stack([step.decision.action for step in transitions]),
        reward=np.stack([step.total for step in transitions]),
        ended=np.stack([step.ended for step in transitions]),
        cut=np.stack([step.cut for step in transitions]),
        extras=stack([step.decision.extras for step in transitions]),
        carry=dict(transitions[0].carry),
        next_state=dict(last),
        final_index=np.array(index, np.int64).reshape(-1, 2),
        final_state={
            key: np.concatenate([value[:0], *(final.arrays[key] for _, final in finals)]) for key, value in last.items()
        },
    )


def stack(steps: list[Arrays]) -> dict[str, Array]:
    """Arrays of T steps by name, each (T, B, ...)."""
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}


def copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {key: np.array(value) for key, value in arrays.items()}


def same(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> str:
    """The first difference between two mappings of arrays, to the bit (NaN equals NaN); empty when there is none."""
    if set(ours) != set(theirs):
        return f"the names differ: {sorted(ours)} and {sorted(theirs)}"
    for key, value in ours.items():
        other = np.asarray(theirs[key])
        if value.shape != other.shape or value.dtype != other.dtype or value.tobytes() != other.tobytes():
            return key
    return ""
