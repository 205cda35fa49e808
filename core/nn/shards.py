"""Data-parallel gradients in one process: each thread takes a part of the batch, and their gradients are summed.

Two threads with half a batch each beat one call spread over two cores: most of a small network's operations are too
short to split, and OpenMP's waiting threads take the cores from the game. So every worker computes with one thread of
its own. The sum runs in a fixed order: the same parts give the same gradient, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


class Shards:
    """A pool of ``threads`` workers. With one thread the caller works alone, with all of torch's threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, "shard", _compute_alone) if threads > 1 else None

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """``function`` of every part, in order. An exception in a worker is raised here."""
        if self._pool is None:
            return [function(part) for part in parts]
        return list(self._pool.map(function, parts))

    def gradients(
        self,
        loss: Callable[[Part], tuple[Tensor, Tensor]],
        parts: Sequence[Part],
        parameters: Sequence[Tensor],
    ) -> tuple[list[Tensor], Tensor]:
        """Sums over the parts of the gradients of ``loss(part)[0]``, float32, and of the figures ``loss(part)[1]``."""

        def differentiate(part: Part) -> tuple[tuple[Tensor, ...], Tensor]:
            total, figures = loss(part)
            return torch.autograd.grad(total, parameters), figures.detach()

        (gradients, figures), *others = self.map(differentiate, parts)
        total = [gradient.float() for gradient in gradients]
        for gradients, more in others:
            torch._foreach_add_(total, gradients)
            figures = figures + more
        return total, figures


def _compute_alone() -> None:
    torch.set_num_threads(1)
