"""Keep the last T steps of every row, hand them over whole, start anew: what on-policy learners feed on.

Arrays are allocated at the first step, in the dtypes that arrive (pixels stay uint8), and filled in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces
from pydantic import Field

from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Snapshot, Transition

Tree = dict[str, dict[str, Array]]


@dataclass(slots=True)
class _Buffer:
    """What a rollout holds, by group and name."""

    steps: Tree  # (T, B, ...)
    carry: Arrays  # before the first step, (B, ...)
    next_state: Arrays  # after the last step, (B, ...)
    finals: list[tuple[int, Array, Arrays]] = field(default_factory=list)  # t, rows (K,), states (K, ...)


class Rollout:
    class Config(BaseConfig):
        steps: int = Field(128, gt=0, description="steps of every row between two learning steps (T)")

    def __init__(self, config: Config, setup: Setup) -> None:
        self._length = config.steps
        self._space = setup.space
        self.nbytes = config.steps * setup.batch * _step_nbytes(setup)
        self._filled = 0
        self._buffer: _Buffer | None = None

    def add(self, transition: Transition) -> None:
        """Copy one step of the batch in. Raises RuntimeError when full: ``sample`` first."""
        if self.ready():
            raise RuntimeError(f"rollout holds its {self._length} steps already: sample() before the next add()")
        if self._buffer is None:
            self._buffer = _Buffer(self._allocate(_groups(transition)), {}, {})
        t, buffer = self._filled, self._buffer
        if t == 0:
            buffer.carry = _copies(transition.carry)
            buffer.finals = []
        for group, arrays in _groups(transition).items():
            for key, array in arrays.items():
                buffer.steps[group][key][t] = array
        if transition.final is not None:
            buffer.finals.append((t, transition.final.rows.copy(), _copies(transition.final.arrays)))
        self._filled += 1
        if self.ready():
            buffer.next_state = _copies(transition.next_state)

    def ready(self) -> bool:
        return self._filled == self._length

    def sample(self) -> Batch:
        """All T steps in order. The arrays are the buffer's own: learn from them before the next ``add``."""
        if self._buffer is None or not self.ready():
            raise RuntimeError(f"rollout holds {self._filled} of {self._length} steps: sample() only when ready()")
        steps, buffer = self._buffer.steps, self._buffer
        step = steps["step"]
        self._filled = 0
        index, final_state = _join(buffer.finals, steps["state"])
        return Batch(
            state=steps["state"],
            first=step["first"],
            action=step["action"],
            reward=step["reward"],
            ended=step["ended"],
            cut=step["cut"],
            extras=steps["extras"],
            carry=buffer.carry,
            next_state=buffer.next_state,
            final_index=index,
            final_state=final_state,
        )

    def save(self) -> Snapshot:
        if self._buffer is None or self._filled == 0:
            return Snapshot(data={"filled": 0})
        buffer = self._buffer
        index, final_state = _join(buffer.finals, buffer.steps["state"])
        tree = {
            group: {key: array[: self._filled] for key, array in arrays.items()}
            for group, arrays in buffer.steps.items()
        }
        edges = {"carry": buffer.carry, "next_state": buffer.next_state, "final": final_state, "index": {"": index}}
        return Snapshot(_flatten({**tree, **edges}), {"filled": self._filled})

    def load(self, snapshot: Snapshot) -> None:
        self._filled = int(snapshot.data["filled"])
        self._buffer = None
        if self._filled == 0:
            return
        tree = _unflatten(snapshot.arrays)
        stored = {group: tree.get(group, {}) for group in ("state", "extras", "step")}
        steps = self._allocate({group: {k: a[0] for k, a in arrays.items()} for group, arrays in stored.items()})
        for group, arrays in stored.items():
            for key, array in arrays.items():
                steps[group][key][: self._filled] = array
        finals = list(_split(tree["index"][""], tree.get("final", {})))
        self._buffer = _Buffer(steps, _copies(tree.get("carry", {})), _copies(tree.get("next_state", {})), finals)

    def _allocate(self, groups: Mapping[str, Arrays]) -> Tree:
        """Room for T steps like this one."""
        return {
            group: {
                key: np.empty((self._length, *np.shape(array)), np.asarray(array).dtype)
                for key, array in arrays.items()
            }
            for group, arrays in groups.items()
        }


def _groups(transition: Transition) -> dict[str, Arrays]:
    step = {
        "first": transition.first,
        "action": transition.decision.action,
        "reward": transition.total,
        "ended": transition.ended,
        "cut": transition.cut,
    }
    return {"state": transition.state, "extras": transition.decision.extras, "step": step}


def _copies(arrays: Arrays) -> dict[str, Array]:
    return {key: np.array(array) for key, array in arrays.items()}


def _join(finals: list[tuple[int, Array, Arrays]], like: Arrays) -> tuple[Array, dict[str, Array]]:
    """(t, b) of every end, int64 (K, 2), and the states there, each (K, ...)."""
    if not finals:
        return np.zeros((0, 2), np.int64), {key: array[0, :0] for key, array in like.items()}
    index = np.concatenate([np.stack([np.full(len(rows), t), rows], axis=1) for t, rows, _ in finals]).astype(np.int64)
    return index, {key: np.concatenate([arrays[key] for *_, arrays in finals]) for key in finals[0][2]}


def _split(index: Array, states: Arrays) -> Iterator[tuple[int, Array, Arrays]]:
    for t in np.unique(index[:, 0]):
        chosen = index[:, 0] == t
        yield int(t), index[chosen, 1], {key: array[chosen] for key, array in states.items()}


def _flatten(tree: Mapping[str, Arrays]) -> dict[str, Array]:
    return {f"{group}/{key}": array for group, arrays in tree.items() for key, array in arrays.items()}


def _unflatten(arrays: Arrays) -> Tree:
    tree: Tree = {}
    for name, array in arrays.items():
        group, _, key = name.partition("/")
        tree.setdefault(group, {})[key] = array
    return tree


def _step_nbytes(setup: Setup) -> int:
    """Bytes that one row's step takes: its state and action, and about 16 for reward, flags and a policy's extras."""
    leaves = [*setup.space.spaces.values(), setup.action_space]
    return 16 + sum(_space_nbytes(space) for space in leaves)


def _space_nbytes(space: spaces.Space[object]) -> int:
    return int(np.prod(space.shape or ())) * (space.dtype or np.dtype(np.float32)).itemsize
