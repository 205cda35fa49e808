"""Vectors into whole numbers and back: a learnt codebook, or a grid that is given.

`Codebook`: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, each code a running mean of the vectors that it
stood for (their appendix A.1). `FSQ`: Mentzer et al. 2023, https://arxiv.org/abs/2309.15505: each number of a vector is
rounded by itself. Deviation: dead codes are revived as vectors of the batch, drawn by their squared distance to the
code that they have now. Drawn evenly, most would become the same piece of background over and over.

Shape key: N vectors of size d, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5
"""Laplace's: what a code counts that nothing was near to, in vectors."""

NEWBORN = 2.0
"""A revived code counts so many times what a dead one does: near nothing again, it is soon drawn anew (after 70 batches
where decay is 0.99), and near something it follows that quickly. Codes in use, however rare, keep their long memory."""


@dataclass(slots=True)
class Quantized:
    """What vectors became."""

    codes: Tensor  # float32 (N, d), with a gradient as if nothing had been rounded
    indices: Tensor  # int64 (N,)
    loss: Tensor  # scalar: mean squared distance of the vectors to their codes, which pulls the vectors; 0 with FSQ


class Codebook(nn.Module):
    """K codes of size d. They move in ``update`` alone, never in ``quantize``: encoding is the same in training or not.

    A code is dead when its count (a running mean of how many vectors of a batch it stands for) falls below
    ``revive_below`` of what all would have if they were used alike; 0 revives none.
    """

    vectors: Tensor  # float32 (K, d)
    counts: Tensor  # float32 (K,)
    sums: Tensor  # float32 (K, d): of the vectors they stood for, a running mean like the counts
    begun: Tensor  # bool (): whether the codes come from vectors yet

    def __init__(self, codes: int, dim: int, decay: float, revive_below: float, seed: int) -> None:
        super().__init__()
        self.codes, self.dim = codes, dim
        self._decay, self._revive_below = decay, revive_below
        self._generator = torch.Generator().manual_seed(seed)  # its own, on the CPU: others never shift its draws
        vectors = torch.randn(codes, dim, generator=self._generator)
        self.register_buffer("vectors", vectors)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", vectors.clone())
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def quantize(self, z: Tensor) -> Quantized:
        """``z`` (N, d)."""
        z = z.float()
        indices = nearest(z.detach(), self.vectors)
        chosen = self.vectors[indices]
        return Quantized(z + (chosen - z).detach(), indices, F.mse_loss(z, chosen))

    def lookup(self, indices: Tensor) -> Tensor:
        """float32 (N, d)."""
        return self.vectors[indices]

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor) -> int:
        """Move the codes towards ``z`` (N, d), which ``quantize`` gave ``indices`` (N,). Returns how many it revived.

        The first batch replaces the codes, which stood for nothing.
        """
        z = z.detach().float()
        if not self.begun:
            self._begin(z)
            return 0
        far = (z - self.vectors[indices]).square().sum(1)
        counts, sums = moved(self.counts, self.sums, z, indices, self._decay)
        self.counts.copy_(counts)
        self.sums.copy_(sums)
        revived = self._revive(z, far)
        self.vectors.copy_(self.sums / smoothed(self.counts, EPS)[:, None])
        return revived

    def dead(self, share: float = 0.01) -> int:
        """How many codes count less than ``share`` of what all would have if they were used alike."""
        return int((self.counts < share * self.counts.mean()).sum())

    def get_extra_state(self) -> Tensor:
        """The generator's, uint8 (5056,): part of the state dict, so that what is loaded draws on."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu().clone())

    def _begin(self, z: Tensor) -> None:
        count = len(z) / self.codes * (NEWBORN * self._revive_below or 1.0)
        picked = torch.randint(len(z), (self.codes,), generator=self._generator)
        self.vectors.copy_(z[picked.to(z.device)])
        self.counts.fill_(count)
        self.sums.copy_(count * self.vectors)
        self.begun.fill_(True)

    def _revive(self, z: Tensor, far: Tensor) -> int:
        """Give dead codes vectors of ``z`` (N, d), drawn by their squared distances ``far`` (N,) to their codes."""
        least = self._revive_below * self.counts.mean()
        dead = self.counts < least
        number = int(dead.sum())
        if number:
            chances = far.cpu().double() + 1e-12  # where all are met exactly, any will do
            picked = torch.multinomial(chances, number, replacement=True, generator=self._generator)
            self.counts[dead] = NEWBORN * least
            self.sums[dead] = NEWBORN * least * z[picked.to(z.device)]
        return number


class FSQ(nn.Module):
    """A grid of ``prod(levels)`` codes in [-1, 1]: of d = len(levels) numbers, the i-th has ``levels[i]`` values.

    A code's index counts in mixed radix, the first number's digit lowest.
    """

    _levels: Tensor  # int64 (d,), like the others
    _half: Tensor
    _basis: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.codes, self.dim = math.prod(levels), len(levels)
        counts = torch.tensor(list(levels))
        basis = torch.tensor([math.prod(levels[:place]) for place in range(len(levels))])
        for name, value in (("_levels", counts), ("_half", counts // 2), ("_basis", basis)):
            self.register_buffer(name, value, persistent=False)

    def quantize(self, z: Tensor) -> Quantized:
        """``z`` (N, d)."""
        bounded = self._bound(z.float())
        digits = bounded.detach().round()
        codes = (bounded + (digits - bounded).detach()) / self._half
        indices = ((digits.long() + self._half) * self._basis).sum(1)
        return Quantized(codes, indices, torch.zeros((), device=z.device))

    def lookup(self, indices: Tensor) -> Tensor:
        """float32 (N, d)."""
        digits = indices[:, None] // self._basis % self._levels
        return (digits - self._half) / self._half

    def update(self, z: Tensor, indices: Tensor) -> int:
        """Nothing moves, and none can be revived: 0."""
        return 0

    def dead(self) -> int:
        """The grid keeps no counts: 0."""
        return 0

    def _bound(self, z: Tensor) -> Tensor:
        """``z`` (N, d) into the range that rounds to the levels; of an even number, one more lies below 0 than above.

        0 rounds to 0 all the same: the shift undoes the half level that the range is lowered by.
        """
        reach = (self._levels - 1) * (1 + 1e-3) / 2  # a little beyond, so that the outermost levels are reached
        lowered = 0.5 * (self._levels % 2 == 0)
        return torch.tanh(z + torch.atanh(lowered / reach)) * reach - lowered


def nearest(z: Tensor, vectors: Tensor) -> Tensor:
    """Which of ``vectors`` (K, d) is nearest to each of ``z`` (N, d), by squared distance in float32: int64 (N,)."""
    z, vectors = z.float(), vectors.float()  # in half precision codes that are close to each other become one
    return torch.addmm(vectors.square().sum(1), z, vectors.T, alpha=-2).argmin(1)  # |z|^2 is the same for all


def moved(counts: Tensor, sums: Tensor, z: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The running means of counts (K,) and sums (K, d) after a batch ``z`` (N, d) with its codes' ``indices`` (N,)."""
    number = torch.bincount(indices, minlength=len(counts)).to(counts.dtype)
    total = torch.zeros_like(sums).index_add_(0, indices, z)
    return counts.lerp(number, 1 - decay), sums.lerp(total, 1 - decay)


def smoothed(counts: Tensor, eps: float) -> Tensor:
    """``counts`` (K,) with ``eps`` vectors given to each code, of the same sum (Laplace): never 0 to divide by."""
    total = counts.sum()
    return (counts + eps) / (total + len(counts) * eps) * total


def perplexity(counts: Tensor) -> Tensor:
    """How many codes, used alike, are as hard to guess as these with ``counts`` (K,): scalar, from 1 to K."""
    share = counts.double() / counts.sum()
    return torch.exp(-torch.special.xlogy(share, share).sum())
