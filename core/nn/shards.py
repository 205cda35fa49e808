"""Data-parallel gradients in one process: each thread takes a part of the batch, and their gradients are added up.

Two threads with half a batch each beat one call spread over two cores: most operations of a small network are too short
to be split, and while OpenMP's idle threads wait they spin, taking the cores from the game. So every thread here, the
caller's too, computes alone. Parts keep their order: the same parts give the same sum, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


class Shards:
    """The caller and ``threads - 1`` others."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "shard", torch.set_num_threads, (1,)) if threads > 1 else None

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """``function`` of every part, in order; the caller takes the first. What one raises is raised here."""
        with one_core():  # around all of it, so that what the others set for new threads is set back
            if self._others is None:
                return [function(part) for part in parts]
            first, *rest = parts
            waiting = [self._others.submit(function, part) for part in rest]
            return [function(first), *(future.result() for future in waiting)]

    def infer(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """The same without gradients, in every thread."""
        return self.map(torch.inference_mode()(function), parts)

    def gradients(
        self,
        loss: Callable[[Part], tuple[Tensor, Tensor]],
        parts: Sequence[Part],
        parameters: Sequence[Tensor],
    ) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """The gradients of ``loss(part)[0]`` of every part, and the sum of their figures ``loss(part)[1]``.

        A parameter that a loss does not depend on has a gradient of zeros.
        """

        def differentiate(part: Part) -> tuple[tuple[Tensor, ...], Tensor]:
            total, figures = loss(part)
            return torch.autograd.grad(total, parameters, materialize_grads=True), figures.detach()

        done = self.map(differentiate, parts)
        return [gradients for gradients, _ in done], torch.stack([figures for _, figures in done]).sum(0)


@contextmanager
def one_core() -> Iterator[None]:
    """Torch's operations in this thread stay in this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def slices(count: int, parts: int) -> list[slice]:
    """``count`` samples in at most ``parts`` nearly equal parts."""
    bounds = np.linspace(0, count, min(parts, count) + 1).round().astype(int).tolist()
    return [slice(begin, end) for begin, end in pairwise(bounds)]
