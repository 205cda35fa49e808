"""Adam (Kingma and Ba 2015) with the work of an update split among threads, like the gradients before it.

Adding up the parts' gradients, measuring and shortening them, moving the weights: each passes over memory, and done by
one thread while the others wait it is an eighth of an update. Here each thread does it for some rows of every weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam

from agentctl.core.nn.shards import Shards
from agentctl.core.types import Array, Arrays


@dataclass(frozen=True, slots=True)
class Scaled:
    """A gradient that is another weight's, times ``left`` down its rows and ``right`` along its columns."""

    place: int  # of the other among the weights
    left: Tensor  # (rows,)
    right: Tensor | None  # (columns,); None: a weight of rows alone


NONE_SCALED: Mapping[int, Scaled] = MappingProxyType({})


@dataclass(slots=True)
class _Rows:
    """One thread's rows of every tensor; of tensors with fewer rows than threads, the last threads have none."""

    weights: list[Tensor]
    twins: list[Tensor]
    gradients: list[Tensor]  # contiguous, for fused Adam reads them in the order of memory whatever their strides
    means: list[Tensor]
    squares: list[Tensor]
    updates: list[Tensor]


class ShardedAdam:
    """Moves ``weights`` (float32) in place, and keeps ``twins`` up to date: their copies in another format, if any."""

    def __init__(self, weights: Sequence[Tensor], twins: Sequence[Tensor], shards: Shards, eps: float = 1e-5) -> None:
        self._shards, self._eps = shards, eps
        gradients, self._means, self._squares = ([torch.zeros_like(w) for w in weights] for _ in range(3))
        self._rows = [
            _Rows(
                weights=self._some(weights, k),
                twins=self._some(twins, k),
                gradients=self._some(gradients, k),
                means=self._some(self._means, k),
                squares=self._some(self._squares, k),
                updates=[torch.zeros((), device=weight.device) for weight in self._some(weights, k)],
            )
            for k in range(shards.threads)
        ]

    def step(
        self,
        gradients: Sequence[Sequence[Tensor]],
        lr: float,
        max_norm: float,
        scaled: Mapping[int, Scaled] = NONE_SCALED,
    ) -> None:
        """One update by the sum of ``gradients``, which is shortened to ``max_norm``.

        Each holds one for every weight, in order, but for those whose place is in ``scaled``: theirs follow.
        """
        threads = range(self._shards.threads)
        lengths = self._shards.map(lambda k: self._add_up(gradients, scaled, k), threads)
        excess = ((torch.stack(lengths).norm() + 1e-6) / max_norm).clamp(min=1.0)
        self._shards.map(lambda k: self._move(self._rows[k], excess, lr), threads)

    def refresh(self) -> None:
        """Bring the twins up to date."""
        for rows in self._rows:
            _copy(rows)

    def arrays(self, prefix: str) -> dict[str, Array]:
        """Its state by weight, with the names of torch's Adam and whole, however many threads there are."""
        saved = {f"{prefix}/{name}": tensor.cpu().numpy().copy() for name, tensor in self._moments().items()}
        return {**saved, f"{prefix}/0/step": self._rows[0].updates[0].cpu().numpy().copy()}

    def load(self, arrays: Arrays, prefix: str) -> None:
        for name, tensor in self._moments().items():
            tensor.copy_(torch.from_numpy(arrays[f"{prefix}/{name}"]))
        for rows in self._rows:
            for updates in rows.updates:
                updates.fill_(float(arrays[f"{prefix}/0/step"]))

    def _moments(self) -> dict[str, Tensor]:
        means = {f"{i}/exp_avg": mean for i, mean in enumerate(self._means)}
        return means | {f"{i}/exp_avg_sq": square for i, square in enumerate(self._squares)}

    def _some(self, tensors: Sequence[Tensor], k: int) -> list[Tensor]:
        """Thread ``k``'s rows of every tensor."""
        return [tensor.detach().tensor_split(self._shards.threads)[k] for tensor in tensors]

    def _add_up(self, gradients: Sequence[Sequence[Tensor]], scaled: Mapping[int, Scaled], k: int) -> Tensor:
        """Thread ``k``'s rows of the gradient; returns their length."""
        first, *others = [self._some(part, k) for part in gradients]
        totals = self._rows[k].gradients
        given = [total for place, total in enumerate(totals) if place not in scaled]
        torch._foreach_copy_(given, first)
        for other in others:
            for total, gradient in zip(given, other, strict=True):
                total.add_(gradient)
        for place, scale in scaled.items():
            (left,) = self._some([scale.left], k)
            factor = left if scale.right is None else torch.outer(left, scale.right)
            torch.mul(totals[scale.place], factor, out=totals[place])
        return get_total_norm(totals)

    def _move(self, rows: _Rows, excess: Tensor, lr: float) -> None:
        adam(
            rows.weights, rows.gradients, rows.means, rows.squares, [], rows.updates, fused=True, grad_scale=excess,
            amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=self._eps, maximize=False,
        )  # fmt: skip
        _copy(rows)


def _copy(rows: _Rows) -> None:
    if rows.twins:
        torch._foreach_copy_(rows.twins, rows.weights)
