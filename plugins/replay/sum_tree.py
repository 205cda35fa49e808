"""A tree of sums: draw one of N slots with a chance in proportion to its value, in O(log N).

Every node is the sum of four children; ten levels hold a million slots. A level is done for all draws (or changes)
before the next, so that the processor waits for many cache misses at once. Parents are summed anew from their children
at each change: errors do not pile up.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from agentctl.core.types import Array

WIDTH = 4


class SumTree:
    def __init__(self, slots: int) -> None:
        sizes = [_whole_blocks(slots)]
        while sizes[-1] > WIDTH:
            sizes.append(_whole_blocks(sizes[-1] // WIDTH))
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._nodes = np.zeros(sum(sizes), np.float32)  # level by level, slots first
        self.values = self._nodes[:slots]
        self.nbytes = self._nodes.nbytes

    @property
    def total(self) -> float:
        return float(self._nodes[self._offsets[-1] :].sum(dtype=np.float64))

    def set(self, slots: Array, values: Array) -> None:
        """Give ``slots`` (int64 (K,)) new values (not negative, (K,)); of a slot given twice the last counts."""
        _set(self._nodes, self._offsets, slots, values.astype(np.float32))

    def draw(self, chances: Array) -> Array:
        """One slot from each of K equal parts of the total, by ``chances``, float64 (K,) in [0, 1): int64 (K,)."""
        return _draw(self._nodes, self._offsets, chances)


def _whole_blocks(count: int) -> int:
    return -(-count // WIDTH) * WIDTH


@njit(cache=True)
def _set(nodes: Array, offsets: Array, slots: Array, values: Array) -> None:
    for i in range(len(slots)):
        nodes[slots[i]] = values[i]
    span = 1
    for level in range(1, len(offsets)):
        span *= WIDTH
        for i in range(len(slots)):
            parent = slots[i] // span
            first = offsets[level - 1] + parent * WIDTH
            total = 0.0
            for child in range(first, first + WIDTH):
                total += nodes[child]
            nodes[offsets[level] + parent] = total


@njit(cache=True)
def _draw(nodes: Array, offsets: Array, chances: Array) -> Array:
    total = 0.0
    for node in range(offsets[-1], len(nodes)):
        total += nodes[node]
    points = np.empty(len(chances))
    for i in range(len(chances)):
        points[i] = (i + chances[i]) * (total / len(chances))
    return _find(nodes, offsets, points)


@njit(cache=True)
def _find(nodes: Array, offsets: Array, left: Array) -> Array:
    found = np.zeros(len(left), np.int64)
    for level in range(len(offsets) - 1, -1, -1):
        for i in range(len(left)):
            first = found[i] * WIDTH
            sum_so_far, passed, passed_sum = 0.0, 0, 0.0
            for child in range(WIDTH):  # without a branch: which child it will be cannot be predicted
                sum_so_far += nodes[offsets[level] + first + child]
                beyond = sum_so_far <= left[i]
                passed += beyond
                passed_sum = sum_so_far if beyond else passed_sum
            found[i] = first + min(passed, WIDTH - 1)
            left[i] -= passed_sum
    for i in range(len(left)):
        while nodes[found[i]] == 0 and found[i] > 0:  # rounding may lead past the last one that can be drawn
            found[i] -= 1
    return found
