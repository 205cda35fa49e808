"""What a Q-network says of each action's return: its mean, a histogram (C51), or quantiles.

Each has ``mean``, which turns outputs (..., Z) into values (...), and ``loss``, which says per sample, float32 (N,),
how far outputs (N, Z) are from ``reward + discount * after``, where ``after`` (N, Z) are outputs too.

Shape key: N samples, A actions, Z outputs per action.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Mean(nn.Module):
    """Mnih et al. (2015): the mean alone. Half its squared error; beyond ``clip`` only as fast as the error itself.

    A clip far below the returns lets a few states that end be outvoted by the many that do not: values may diverge.
    """

    outputs = 1

    def __init__(self, clip: float | None) -> None:
        super().__init__()
        self._clip = math.inf if clip is None else clip

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def loss(self, outputs: Tensor, reward: Tensor, discount: Tensor, after: Tensor) -> Tensor:
        target = reward + discount * after.squeeze(-1)
        error = (outputs.squeeze(-1) - target).abs()
        within = error.clamp(max=self._clip)
        return within * (error - 0.5 * within)


class Histogram(nn.Module):
    """C51 (Bellemare et al. 2017, https://arxiv.org/abs/1707.06887): chances of ``atoms`` returns from low to high."""

    def __init__(self, atoms: int, low: float, high: float) -> None:
        super().__init__()
        self.outputs = atoms
        self.support: Tensor
        self.register_buffer("support", torch.linspace(low, high, atoms), persistent=False)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1) @ self.support

    def loss(self, outputs: Tensor, reward: Tensor, discount: Tensor, after: Tensor) -> Tensor:
        target = project(after.softmax(-1), reward, discount, self.support)
        return -(target * outputs.log_softmax(-1)).sum(-1)


def project(chances: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """The histogram (N, Z) of ``reward + discount * return``, where returns at ``support`` (Z,) have these ``chances``.

    What falls between two atoms goes to both, more to the nearer; what falls outside goes to the outermost. An atom's
    share is a triangle around it, so that one that is hit exactly gets all: the published two-index form loses that.
    """
    low, high, width = support[0], support[-1], support[1] - support[0]
    moved = (reward[:, None] + discount[:, None] * support).clamp(low, high)
    share = (1 - (moved[:, None, :] - support[:, None]).abs() / width).clamp(min=0)  # (N, atom, from)
    return torch.einsum("nzf,nf->nz", share, chances)


class Quantiles(nn.Module):
    """QR-DQN (Dabney et al. 2018, https://arxiv.org/abs/1710.10044): the return's quantiles at (i + 1/2) / Z."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.outputs = count
        self.levels: Tensor
        self.register_buffer("levels", (torch.arange(count) + 0.5) / count, persistent=False)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.mean(-1)

    def loss(self, outputs: Tensor, reward: Tensor, discount: Tensor, after: Tensor) -> Tensor:
        return quantile_huber(outputs, reward[:, None] + discount[:, None] * after, self.levels)


def quantile_huber(quantiles: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Equation 10 of the paper with kappa = 1, (N,): mean over targets (N, Z'), sum over quantiles (N, Z)."""
    error = target[:, None, :] - quantiles[:, :, None]
    huber = torch.where(error.abs() <= 1, 0.5 * error**2, error.abs() - 0.5)
    return ((levels[:, None] - (error < 0).float()).abs() * huber).mean(2).sum(1)
