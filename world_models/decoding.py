"""How the tokens of a frame come out of a model's chances: all at once, in rounds, or one after the other.

- ``parallel``: every token is drawn by itself. One pass, but tokens that depend on each other do not agree.
- ``maskgit`` (Chang et al. 2022, https://arxiv.org/abs/2202.04200): every round keeps the surest of the tokens that are
  still open, by the cosine schedule, and draws the others anew in their light.
- ``autoregressive``: each token in the light of all before it, exact, and as many steps as there are tokens.

Shape key: N frames, P tokens (places) of a frame, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
"""Tokens int64 (N, P), ``mask`` where they are open, to logits float32 (N, P, K)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: ``temperature`` 0 takes the likeliest. ``generator``: whose chance it is (of the CPU)."""

    temperature: float
    generator: torch.Generator

    def draw(self, logits: Tensor) -> Tensor:
        """int64 (...) from logits (..., K): the Gumbel-max trick, so that one draw is one pass."""
        if self.temperature == 0:
            return logits.argmax(-1)
        return (logits / self.temperature + self.gumbel(logits)).argmax(-1)

    def split(self, parts: int) -> list[Sampling]:
        """As many others, each with a chance of its own that comes of this one's: threads may draw side by side."""
        seeds = torch.randint(2**62, (parts,), generator=self.generator).tolist()
        return [Sampling(self.temperature, torch.Generator().manual_seed(seed)) for seed in seeds]

    def gumbel(self, like: Tensor) -> Tensor:
        """Standard Gumbel noise of this shape."""
        clocks = torch.empty(like.shape).exponential_(generator=self.generator).to(like.device)
        return -clocks.log()


def parallel(logits_of: Logits, open_tokens: Tensor, sampling: Sampling) -> Tensor:
    """``open_tokens``: int64 (N, P), all of them masked. Returns int64 (N, P)."""
    return sampling.draw(logits_of(open_tokens))


def maskgit(logits_of: Logits, open_tokens: Tensor, sampling: Sampling, rounds: int, spread: float = 4.5) -> Tensor:
    """In ``rounds`` passes. ``spread``: noise on how sure a token is, falling to 0; none when sampling is greedy."""
    mask, places = int(open_tokens[0, 0]), open_tokens.shape[1]
    tokens = open_tokens
    for done in range(1, rounds + 1):
        logits = logits_of(tokens)
        drawn = sampling.draw(logits)
        is_open = tokens == mask
        sure = logits.log_softmax(-1).gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
        if sampling.temperature:
            sure = sure + spread * (1 - done / rounds) * sampling.gumbel(sure)
        stay_open = still_open(done / rounds, places)
        rank = sure.masked_fill(~is_open, torch.inf).argsort(dim=1).argsort(dim=1)  # kept tokens are never reopened
        tokens = torch.where(is_open & (rank >= stay_open), drawn, tokens)
    return tokens


def autoregressive(next_logits: Callable[[Tensor | None], Tensor], places: int, sampling: Sampling) -> Tensor:
    """``next_logits``: the last token int64 (N,), or None at first, to logits (N, K). Returns int64 (N, P)."""
    tokens: list[Tensor] = []
    for _ in range(places):
        tokens.append(sampling.draw(next_logits(tokens[-1] if tokens else None)))
    return torch.stack(tokens, dim=1)


def still_open(progress: float, places: int) -> int:
    """How many of ``places`` tokens are open after this share of the rounds: MaskGIT's cosine, 0 at the end."""
    return math.floor(places * math.cos(math.pi / 2 * progress) + 1e-6) if progress < 1 else 0


def masks(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Which of ``tokens`` (N, P) to hide while learning, bool: a share as the schedule has it, at least one of each."""
    share = torch.cos(math.pi / 2 * torch.rand(len(tokens), 1, generator=generator))
    order = torch.rand(tokens.shape, generator=generator).argsort(1)
    return (order < (share * tokens.shape[1]).ceil().clamp(min=1)).to(tokens.device)
