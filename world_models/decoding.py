"""How the tokens of a frame come out of a model's chances: all at once, in rounds, or one after the other.

- ``parallel``: every token is drawn by itself. One pass, but tokens that depend on each other do not agree.
- ``maskgit`` (Chang et al. 2022, https://arxiv.org/abs/2202.04200): every round keeps the surest of the tokens that are
  still open, by the cosine schedule, and draws the others anew in their light.
- ``autoregressive``: each token in the light of all before it, exact; the more steps, the less a guess is worth.

Shape key: N frames, P tokens (places) of a frame, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
"""Tokens int64 (N, P), ``mask`` where they are open, to logits float32 (N, P, K)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: ``temperature`` 0 takes the likeliest. ``generator``: whose chance it is (of the CPU)."""

    temperature: float
    generator: torch.Generator

    def draw(self, logits: Tensor, noise: Tensor | None = None) -> Tensor:
        """int64 (...) from logits (..., K): the Gumbel-max trick, so that one draw is one pass.

        ``noise``: Gumbel's, if it was drawn already.
        """
        if self.temperature == 0:
            return logits.argmax(-1)
        return (logits / self.temperature + (self.gumbel(logits) if noise is None else noise)).argmax(-1)

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


class Reader(Protocol):
    """A frame as a model reads it, token after token."""

    first: Tensor  # float32 (N, K): logits of the token at place 0

    def after(self, place: int, tokens: Tensor) -> Tensor:
        """Logits float32 (N, w, K) of what follows each of ``tokens`` int64 (N, w), which stand from ``place`` on.

        What was read there before is forgotten.
        """


def autoregressive(reader: Reader, guess: Tensor, sampling: Sampling) -> Tensor:
    """Returns int64 (N, P), each token drawn in the light of all before it.

    Not one by one, where ``guess`` (N, P) foretells some (Jacobi decoding: Santilli et al. 2023,
    https://arxiv.org/abs/2305.10427). The noise that decides a draw is the same whenever a place is drawn. So several
    tokens can be drawn as if those before them were as guessed; the first that comes out otherwise is right, and what
    comes after it is drawn again. What comes out is what drawing one by one gives, and as seldom as a guess is wrong.
    """
    rows, places = guess.shape
    noise = guess.new_zeros(rows, places, 1)
    if sampling.temperature:
        noise = sampling.gumbel(reader.first[:, None].expand(-1, places, -1))
    tokens = guess.clone()
    tokens[:, 0] = sampling.draw(reader.first, noise[:, 0])
    known, width = 1, places
    while known < places:
        end = min(known + width, places)
        drawn = sampling.draw(reader.after(known - 1, tokens[:, known - 1 : end - 1]), noise[:, known:end])
        right = int((drawn == tokens[:, known:end]).cumprod(1).sum(1).min())
        tokens[:, known:end] = drawn
        found = min(right + 1, end - known)
        known, width = known + found, 2 * found
    return tokens


def still_open(progress: float, places: int) -> int:
    """How many of ``places`` tokens are open after this share of the rounds: MaskGIT's cosine, 0 at the end."""
    return math.floor(places * math.cos(math.pi / 2 * progress) + 1e-6) if progress < 1 else 0


def masks(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Which of ``tokens`` (N, P) to hide while learning, bool: a share as the schedule has it, at least one of each."""
    share = torch.cos(math.pi / 2 * torch.rand(len(tokens), 1, generator=generator))
    order = torch.rand(tokens.shape, generator=generator).argsort(1)
    return (order < (share * tokens.shape[1]).ceil().clamp(min=1)).to(tokens.device)
