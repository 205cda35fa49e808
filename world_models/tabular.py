"""`tabular`: a world model that counts what followed each (state, action): next state, reward, end.

The model of Dyna (Sutton 1990, "Integrated architectures for learning, planning, and reacting based on approximating
dynamic programming"). Where Sutton's remembers the last outcome, this one draws each as often as it was seen, so that
it also serves worlds with chance in them. A state is all its whole-number fields, percept and context alike: the model
learns what the memory will hold as it learns where a step leads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from gymnasium import spaces

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Belief, Carry, Imagined, Loss, Metrics, Snapshot

CODE_BITS = 62  # of the int64 that holds a state's fields and the action side by side


class Tabular:
    """Adds no latent: a percept of whole numbers is already a state that can be counted."""

    class Config(BaseConfig):
        """Nothing to choose."""

    def __init__(self, config: Config, setup: Setup) -> None:
        discrete = [space for space in setup.space.spaces.values() if isinstance(space, spaces.Discrete)]
        if not discrete:
            raise ValueError(
                f"tabular counts Discrete fields and finds none in the percept {sorted(setup.space.spaces)}: "
                "switch on a perception that names some (such as toy_cells) or choose another world model"
            )
        if not isinstance(setup.action_space, spaces.Discrete) or setup.action_space.start:
            raise ValueError(
                f"tabular needs Discrete actions from 0 on, not {setup.action_space}; choose another model"
            )
        self.space = spaces.Dict()
        self._percepts = float(np.prod([float(space.n) for space in discrete]))
        self._actions = int(setup.action_space.n)
        self._fields: tuple[str, ...] = ()  # known from the first batch on: the context is built after this model
        self._counted = Outcomes.none()
        self._rng = np.random.default_rng([setup.seed, *b"tabular"])  # a stream of its own: others share the seed

    def initial(self, batch: int) -> Carry:
        return {}

    def observe(self, carry: Carry, percept: Arrays, action: Array | None, first: Array) -> Belief:
        return Belief({}, {})

    def imagine(self, carry: Carry, state: Arrays, action: Array) -> Imagined:
        """Draw an outcome as often as it was counted; an action never tried is expected to change nothing.

        ``state`` and the imagined state hold the whole-number fields, each int (B,).
        """
        reward, ended = np.zeros(len(action), np.float32), np.zeros(len(action), bool)
        if not self._fields:
            return Imagined({}, state, reward, ended)
        code = self._code(state)
        times, before = self._times(code, action)
        known = times > 0
        draw = before[known] + self._rng.integers(0, times[known])
        outcome = self._counted.take(np.searchsorted(self._counted.count.cumsum(), draw, side="right"))
        code[known], reward[known], ended[known] = outcome.after, outcome.reward, outcome.ended
        return Imagined({}, {**state, **self._decoded(code, state)}, reward, ended)

    def decode(self, latent: Arrays) -> Arrays:
        """An empty latent stands for no percept: ``{}``."""
        return {}

    def loss(self, batch: Batch) -> Loss:
        """Negative log-likelihood of where the batch's steps led, in nats per step.

        An outcome counted n times out of N has probability (n + 1/V) / (N + 1), V the number of percepts: all that was
        never seen shares the weight of one visit. ``uniform_nll`` = log V is the loss of a model that knows nothing.
        """
        steps = self._outcomes(batch)
        _, group = distinct(both := self._counted.joined(steps))
        counted, asked = np.split(group, [len(self._counted.count)])
        seen = np.bincount(counted, self._counted.count, len(both.count))[asked]
        times, _ = self._times(steps.pair // self._actions, steps.pair % self._actions)
        nll = float(-np.log((seen + 1 / self._percepts) / (times + 1)).mean())
        known = float((times > 0).mean())
        return Loss(nll, {"nll": nll, "uniform_nll": float(np.log(self._percepts)), "known": known})

    def learn(self, batch: Batch) -> Metrics:
        """Count the batch. The metrics are its loss before it was counted: foresight, not recollection."""
        metrics = self.loss(batch).metrics
        first, group = distinct(both := self._counted.joined(self._outcomes(batch)))
        self._counted = both.take(first)
        self._counted.count = np.bincount(group, both.count).astype(np.int64)
        return metrics | {"outcomes": float(len(first))}

    def save(self) -> Snapshot:
        data = {"fields": list(self._fields), "rng": self._rng.bit_generator.state}
        return Snapshot({column.name: getattr(self._counted, column.name) for column in fields(Outcomes)}, data)

    def load(self, snapshot: Snapshot) -> None:
        self._fields = tuple(snapshot.data["fields"])
        self._counted = Outcomes(**snapshot.arrays)
        self._rng.bit_generator.state = snapshot.data["rng"]

    @property
    def _bits(self) -> int:
        """How many bits of a code each field gets."""
        return (CODE_BITS - self._actions.bit_length()) // max(len(self._fields), 1)

    def _code(self, state: Arrays) -> Array:
        """The counted fields of N states, of any leading shape, side by side in one number each: int64 (N,)."""
        code: Array = np.zeros(1, np.int64)
        largest = (1 << self._bits) - 1
        for field in self._fields:
            value = state[field].ravel()
            if value.size and not 0 <= value.min() <= value.max() <= largest:
                raise ValueError(f"tabular counts values from 0 to {largest}; {field} is {value.min()}..{value.max()}")
            code = code << self._bits | value.astype(np.int64)
        return code

    def _decoded(self, code: Array, like: Arrays) -> Arrays:
        """The fields that ``code`` (N,) holds, each (N,) in the dtype that it has in ``like``."""
        place = {field: self._bits * i for i, field in enumerate(reversed(self._fields))}
        return {f: (code >> place[f] & (1 << self._bits) - 1).astype(like[f].dtype) for f in self._fields}

    def _outcomes(self, batch: Batch) -> Outcomes:
        """The batch's T * B steps, uncounted."""
        if not self._fields:
            self._fields = tuple(sorted(name for name, value in batch.state.items() if is_scalar(value)))
        after = batch.successors()
        return Outcomes(
            pair=self._code(batch.state) * self._actions + batch.action.ravel(),
            after=self._code(after),
            reward=batch.reward.ravel().astype(np.float32),
            ended=batch.ended.ravel(),
            count=np.ones(batch.ended.size, np.int64),
        )

    def _times(self, code: Array, action: Array) -> tuple[Array, Array]:
        """How often each (state, action) was counted, and how often all pairs before it: int64 (B,) each."""
        total = np.concatenate([[0], self._counted.count.cumsum()])
        pair = code * self._actions + action
        before = total[np.searchsorted(self._counted.pair, pair, side="left")]
        return total[np.searchsorted(self._counted.pair, pair, side="right")] - before, before


@dataclass(slots=True)
class Outcomes:
    """What followed what, one row per distinct outcome, sorted by pair; every array (N,)."""

    pair: Array  # int64: the state's code * number of actions + action
    after: Array  # int64: the next state's code
    reward: Array  # float32
    ended: Array  # bool
    count: Array  # int64: how often

    @classmethod
    def none(cls) -> Outcomes:
        dtypes = (np.int64, np.int64, np.float32, np.bool_, np.int64)
        return cls(*(np.zeros(0, dtype) for dtype in dtypes))

    def take(self, index: Array) -> Outcomes:
        return Outcomes(*(getattr(self, column.name)[index] for column in fields(self)))

    def joined(self, other: Outcomes) -> Outcomes:
        """The rows of both, unsorted."""
        columns = [(getattr(self, column.name), getattr(other, column.name)) for column in fields(self)]
        return Outcomes(*(np.concatenate(pair) for pair in columns))


def distinct(outcomes: Outcomes) -> tuple[Array, Array]:
    """Where each of M distinct outcomes stands first, sorted by pair: int64 (M,); and which one each row is: (N,)."""
    columns = (outcomes.pair, outcomes.after, outcomes.reward, outcomes.ended)
    order = np.lexsort(columns[::-1])
    starts = np.ones(len(order), bool)
    starts[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = starts.cumsum() - 1
    return order[starts], group


def is_scalar(value: Array) -> bool:
    """Whether a batch's field, (T, B, ...), is one whole number per step."""
    return value.ndim == 2 and np.issubdtype(value.dtype, np.integer)
