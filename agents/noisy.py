"""Linear layers that explore by noise on their weights (Fortunato et al. 2018, https://arxiv.org/abs/1706.10295).

The noise is factorised: W = mu + sigma * (e_out e_in^T), with one number for each input and each output. While playing,
each row has noise of its own, and no matrix of it is made: W x = mu x + e_out * (sigma (e_in * x)). While learning, all
samples share one draw. It is then mixed into a single matrix, through which loss and gradient pass: half the products,
for the gradients of mu and sigma follow from that of W.

Shape key: N samples, I inputs, O outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Mixed:
    """``leaf`` = ``mean`` + ``sigma`` * ``left`` ``right``^T, a weight to differentiate by."""

    mean: Tensor
    sigma: Tensor
    left: Tensor  # float32 (O,)
    right: Tensor | None  # float32 (I,); None: of a bias
    leaf: Tensor


class NoisyLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.mean = nn.Linear(inputs, outputs)
        self.sigma = nn.Linear(inputs, outputs)
        for parameter in self.mean.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        nn.init.constant_(self.sigma.weight, std * bound)
        nn.init.constant_(self.sigma.bias, std / math.sqrt(outputs))
        self._weight: Tensor | None = None  # room for the mixed one
        self._noise: tuple[Tensor, Tensor] | None = None
        self.mixed: list[Mixed] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.mixed:
            weight, bias = (mixed.leaf for mixed in self.mixed)
            return F.linear(x, weight, bias)
        mean: Tensor = self.mean(x)
        if self._noise is None:
            return mean
        noise_in, noise_out = self._noise
        return mean + noise_out * (F.linear(x * noise_in, self.sigma.weight) + self.sigma.bias)

    def draw_noise(self, generator: torch.Generator, rows: int) -> None:
        """For each of ``rows`` samples, or with 1 for all alike."""
        weight = self.mean.weight
        outputs, inputs = weight.shape
        noise_in, noise_out = (
            _signed_root(torch.randn(rows, n, generator=generator)).to(weight) for n in (inputs, outputs)
        )
        self._noise, self.mixed = (noise_in, noise_out), []

    @torch.no_grad()
    def mix(self) -> None:
        """Compute by one matrix from now on, until noise is drawn anew. It must have been drawn for all alike."""
        assert self._noise is not None
        (right,), (left,) = self._noise
        mean, sigma = self.mean, self.sigma
        if self._weight is None:
            self._weight = torch.empty_like(mean.weight)
        weight = self._weight.detach()  # the same memory, of no earlier loss
        torch.outer(left, right, out=weight)
        torch.addcmul(mean.weight, sigma.weight, weight, out=weight)
        bias = torch.addcmul(mean.bias, sigma.bias, left)
        for leaf in (weight, bias):
            leaf.requires_grad_(mean.weight.requires_grad)
        left, right = left.float(), right.float()
        self.mixed = [
            Mixed(mean.weight, sigma.weight, left, right, weight), Mixed(mean.bias, sigma.bias, left, None, bias)
        ]  # fmt: skip

    def silence(self) -> None:
        """Use the means alone."""
        self._noise, self.mixed = None, []


def _signed_root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()
