"""The records that cross every seam: arrays with names, never tuples.

Shape key, used in every docstring: B rows of the batch (parallel games or characters), T steps, K selected rows.
Everything here is numpy; a component that thinks in torch converts at its own door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
"""Named arrays that share their leading axes, e.g. ``{"pixels": uint8 (B, 4, 84, 84), "health": float32 (B, 1)}``."""

Carry = Mapping[str, Array]
"""What a component carries from one step to the next, each array (B, ...); ``{}`` when it carries nothing."""

Metrics = dict[str, float]
"""Figures to log, by name: ``{"policy_loss": -0.01, "entropy": 1.7}``."""


@dataclass(slots=True)
class Final:
    """What the rows whose episode just finished saw last; ``Step.observation`` holds the next episode's first."""

    rows: Array  # int64 (K,), ascending
    arrays: Arrays  # each (K, ...)


@dataclass(slots=True)
class Step:
    """What a game shows after an action. A finished row restarts at once (same-step autoreset)."""

    observation: Arrays  # each (B, ...)
    reward: Array  # float32 (B,): the game's own, never shaped
    ended: Array  # bool (B,): over by the rules, no future reward
    cut: Array  # bool (B,): stopped by a limit, the future still has value
    final: Final | None = None  # present when any row ended or was cut and restarted
    over: Array | None = (
        None  # bool (B,): where a return is complete; default ended | cut (a lost life ends, is not over)
    )

    @property
    def finished(self) -> Array:
        """bool (B,): rows whose return is complete."""
        return self.ended | self.cut if self.over is None else self.over


@dataclass(slots=True)
class Decision:
    """What a policy decided."""

    action: Array  # (B,) for Discrete, (B, n) otherwise
    carry: Carry = field(default_factory=dict)
    extras: Arrays = field(default_factory=dict)  # what learning will want back: log_prob, value ...


@dataclass(slots=True)
class Belief:
    """What a world model makes of a percept."""

    carry: Carry
    latent: Arrays


@dataclass(slots=True)
class Imagined:
    """What a world model expects after an action."""

    carry: Carry
    state: Arrays
    reward: Array  # float32 (B,)
    ended: Array  # bool (B,)


@dataclass(slots=True)
class Loss:
    """What a model minimises, with the figures that explain it."""

    total: Any  # a scalar: float, or a torch tensor to differentiate
    metrics: Metrics = field(default_factory=dict)


@dataclass(slots=True)
class Transition:
    """One step of the batch as the loop saw it. ``reward`` is the game's own; ``total`` is what is learnt from."""

    state: Arrays  # before the action, each (B, ...)
    first: Array  # bool (B,): state starts an episode
    carry: Carry  # the policy's, before the action
    decision: Decision
    reward: Array  # float32 (B,)
    ended: Array  # bool (B,)
    cut: Array  # bool (B,)
    over: Array  # bool (B,): the return is complete
    next_state: Arrays  # after the action; finished rows hold the next episode's first state
    final: Final | None  # the states in which finished rows stopped
    terms: dict[str, Array] = field(default_factory=dict)  # each float32 (B,), unweighted
    total: Array = field(default_factory=lambda: np.zeros(0, np.float32))  # float32 (B,): sum of weight * term


@dataclass(slots=True)
class Batch:
    """Experience to learn from: T consecutive steps of B rows."""

    state: Arrays  # each (T, B, ...)
    first: Array  # bool (T, B)
    action: Array  # (T, B) or (T, B, n)
    reward: Array  # float32 (T, B): the weighted total
    ended: Array  # bool (T, B)
    cut: Array  # bool (T, B)
    extras: Arrays  # the policy's own, each (T, B, ...)
    carry: Carry  # the policy's before the first step, each (B, ...)
    next_state: Arrays  # after the last step, each (B, ...)
    final_index: Array  # int64 (K, 2): the (t, b) whose episode stopped there
    final_state: Arrays  # the states they stopped in, each (K, ...)
    number: Array | None = None  # int64 (B,): what a replay that prioritises calls the samples
    weight: Array | None = None  # float32 (B,): of each sample in the loss; None: all alike
    error: Array | None = None  # float32 (B,): how wrong the policy found itself, which `learn` fills in for the replay
    held_out: bool = False  # from episodes that are never learnt from: to be judged by

    def successors(self) -> dict[str, Array]:
        """The state after each step, each (T, B, ...): the next row's, or the final one where the episode stopped."""
        after = {key: np.concatenate([self.state[key][1:], last[None]]) for key, last in self.next_state.items()}
        t, b = self.final_index.T
        for key, final in self.final_state.items():
            after[key][t, b] = final
        return after


@dataclass(slots=True)
class Table:
    """Figures in rows and columns, for people."""

    columns: list[str]
    rows: dict[str, list[float]]  # by what stands before each
    shares: bool = False  # the rows' values are shares of 1: a picture may shade them


@dataclass(slots=True)
class Snapshot:
    """A component's whole state: arrays (safetensors on disk) and plain data (JSON on disk)."""

    arrays: dict[str, Array] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
