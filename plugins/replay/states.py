"""Where states wait: pictures once each, however often they are stacked; everything else as it is.

A state of K rows is added as what followed another. Where its stack of pictures is the earlier one moved on by one,
only the newest picture is new; that is looked up, not assumed, so that nothing can be lost.

Shape key: K rows, S stacked pictures, H x W (x 3) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from gymnasium import spaces

from agentctl.core.types import Array, Arrays, Snapshot
from agentctl.plugins.replay.frames import Frames
from agentctl.plugins.replay.ring import Ring

LONGEST_STACK = 16


class States:
    """States by number. ``ring`` holds their fields and, for each picture, where it lies among ``frames``."""

    def __init__(self, space: spaces.Dict, ring: Ring, frames: Callable[[str], Frames]) -> None:
        self._ring = ring
        self._depth = {key: depth for key, part in space.spaces.items() if (depth := stack_depth(part))}
        self._frames = {key: frames(key) for key in self._depth}
        self._shapes = {key: part.shape for key, part in space.spaces.items()}

    def add(self, states: Arrays, before: Arrays | None = None, numbers: Array | None = None) -> Array:
        """Numbers, int64 (K,), of states, each array (K, ...), which follow those ``before`` with these ``numbers``."""
        entries = {
            key: self._add_pictures(key, array, before, numbers) if key in self._depth else array
            for key, array in states.items()
        }
        return self._ring.extend(entries)

    def take(self, numbers: Array) -> dict[str, Array]:
        """Every field of these states, each (*numbers.shape, ...)."""
        return {key: self._take(key, numbers) for key in self._shapes}

    def alive(self, numbers: Array) -> bool:
        """Whether nothing of these states has been overwritten."""
        if numbers.min() < self._ring.oldest:
            return False
        return all(self._ring.take(key, numbers).min() >= frames.oldest for key, frames in self._frames.items())

    def save(self) -> dict[str, Snapshot]:
        return {"states": self._ring.save()} | {f"frames.{key}": frames.save() for key, frames in self._frames.items()}

    def load(self, snapshots: Mapping[str, Snapshot]) -> None:
        self._ring.load(snapshots["states"])
        for key, frames in self._frames.items():
            frames.load(snapshots[f"frames.{key}"])

    def _take(self, key: str, numbers: Array) -> Array:
        stored = self._ring.take(key, numbers)
        if key not in self._depth:
            return stored
        shape = self._shapes[key]
        assert shape is not None
        return self._frames[key].take(stored).reshape(*numbers.shape, *shape)

    def _add_pictures(self, key: str, states: Array, before: Arrays | None, numbers: Array | None) -> Array:
        """Where each row's pictures lie, int64 (K, S)."""
        depth, frames = self._depth[key], self._frames[key]
        stacks = states.reshape(len(states), depth, -1)
        places = np.empty((len(states), depth), np.int64)
        moved = np.zeros(len(states), bool)
        if before is not None and numbers is not None:
            earlier = before[key].reshape(len(states), depth, -1)
            moved[:] = [np.array_equal(new[:-1], old[1:]) for new, old in zip(stacks, earlier, strict=True)]
            places[moved, :-1] = self._ring.take(key, numbers[moved])[:, 1:]
        if moved.any():
            places[moved, -1] = frames.add(stacks[moved, -1])
        for row in np.flatnonzero(~moved):
            places[row] = add_anew(frames, stacks[row])
        return places


def add_anew(frames: Frames, stack: Array) -> Array:
    """Add a whole stack, (S, pixels); of equal neighbours one. Returns their numbers, int64 (S,)."""
    new = [index == 0 or not np.array_equal(stack[index], stack[index - 1]) for index in range(len(stack))]
    numbers: Array = frames.add(stack[np.array(new)])[np.cumsum(new) - 1]
    return numbers


def stack_depth(space: spaces.Space[object]) -> int:
    """How many pictures a value holds: 0 for what is not one, S for (S, H, W) and (S, H, W, 3), else 1."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3, 4):
        return 0
    single = len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[-1] in (1, 3))
    return 1 if single or space.shape[0] > LONGEST_STACK else space.shape[0]
