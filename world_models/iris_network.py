"""What `iris` learns: one causal sequence of frames and actions, and how it is read while imagining.

Shape key: N samples, T steps, P tokens of a frame, K codes, D width; a step is P tokens and the action after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.core.nn.shards import Shards, slices
from agentctl.world_models.decoding import Sampling, autoregressive
from agentctl.world_models.token_network import SIGNS, Sizes
from agentctl.world_models.transformer import Cache, Sees, Transformer


class SequenceNetwork(nn.Module):
    """Tokens and actions have embeddings of their own; positions count through the whole sequence."""

    def __init__(self, sizes: Sizes, layers: int, dim: int, heads: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.length = sizes.history * (sizes.places + 1)
        self.token, self.action = nn.Embedding(sizes.codes, dim), nn.Embedding(sizes.actions, dim)
        self.position = nn.Parameter(torch.empty(self.length, dim))
        self.body = Transformer(layers, dim, heads)
        self.head, self.outcome = (
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, size)) for size in (sizes.codes, SIGNS + 1)
        )
        for weight in (self.token.weight, self.action.weight, self.position):
            nn.init.normal_(weight, std=0.02)

    def embed(self, frames: Tensor, actions: Tensor) -> Tensor:
        """``frames`` int64 (N, T, P) and ``actions`` int64 (N, T) as a sequence (N, T * (P + 1), D), from its start."""
        steps = torch.cat([self.token(frames), self.action(actions).unsqueeze(2)], dim=2)
        return rearrange(steps, "n t l d -> n (t l) d") + self.position[: frames.shape[1] * (self.sizes.places + 1)]


@dataclass(slots=True)
class Passage:
    """N windows of T steps to learn from."""

    frames: Tensor  # int64 (N, T, P)
    actions: Tensor  # int64 (N, T)
    sign: Tensor  # int64 (N, T): of the reward, from 0
    ended: Tensor  # float32 (N, T)
    episode: Tensor  # int64 (N, T): steps of one number belong together

    def take(self, rows: slice) -> Passage:
        parts = (self.frames, self.actions, self.sign, self.ended, self.episode)
        return Passage(*(part[rows] for part in parts))

    @property
    def foreseeable(self) -> Tensor:
        """Which tokens have something of their episode before them, bool (N, T, P): all but a first frame's first."""
        known = torch.ones_like(self.frames, dtype=torch.bool)
        known[:, 0, 0] = False
        known[:, 1:, 0] = self.episode[:, 1:] == self.episode[:, :-1]
        return known


def losses(net: SequenceNetwork, passage: Passage) -> Tensor:
    """Summed cross-entropies (3,): of foreseeable tokens, of rewards, of ends."""
    x = net.embed(passage.frames, passage.actions)
    features = net.body.read(x, sees=seen_by(passage.episode, net.sizes.places + 1)).features
    steps = rearrange(features, "n (t l) d -> n t l d", t=passage.frames.shape[1])
    before = torch.cat([steps[:, :1, :1], steps[:, :-1, -1:]], 1)  # what comes before each frame's first token
    before = torch.cat([before, steps[:, :, :-2]], 2)
    known = passage.foreseeable
    tokens = F.cross_entropy(net.head(before[known]).float(), passage.frames[known], reduction="sum")
    outcome = net.outcome(steps[:, :, -1]).float()
    reward = F.cross_entropy(outcome[..., :SIGNS].flatten(0, 1), passage.sign.flatten(), reduction="sum")
    ended = F.binary_cross_entropy_with_logits(outcome[..., SIGNS], passage.ended, reduction="sum")
    return torch.stack([tokens, reward, ended])


def seen_by(episode: Tensor, step: int) -> Sees:
    """What each of L = T * ``step`` positions sees: what comes before it in its own episode, ``episode`` (N, T)."""
    if (episode == episode[:, :1]).all():
        return "before"
    of = repeat(episode, "n t -> n (t step)", step=step)
    return (of[:, None, :, None] == of[:, None, None, :]).tril()


@dataclass(slots=True)
class Ahead:
    """What follows an action."""

    tokens: Tensor  # int64 (N, P)
    outcome: Tensor  # float32 (N, 4): logits of the reward's sign, and of an end


class Story:
    """A sequence as it is told on. Nothing that was read is read again. The newest token waits for what follows it."""

    def __init__(self, net: SequenceNetwork, frames: Tensor, actions: Tensor) -> None:
        """``frames`` int64 (N, T, P), oldest first, at least one; ``actions`` int64 (N, T - 1) between them."""
        self._net, self.steps = net, frames.shape[1]
        self._cache = Cache(net.body, len(frames), net.length)
        padded = torch.cat([actions, actions.new_zeros(len(actions), 1)], 1)
        net.body.continue_with(net.embed(frames, padded)[:, :-2], self._cache)
        self._newest = frames[:, -1]

    def go_on(self, action: Tensor, sampling: Sampling) -> Ahead:
        """The frame after ``action`` int64 (N,), drawn token by token; it is part of the story then."""
        reader = self.read(action)
        self._newest = autoregressive(reader, self._newest, sampling)
        self.steps += 1
        return Ahead(self._newest, reader.outcome)

    def read(self, action: Tensor) -> NextFrame:
        """The newest token and the ``action`` after it."""
        net, begin = self._net, self._cache.length
        x = torch.stack([net.token(self._newest[:, -1]), net.action(action)], 1)
        features = net.body.continue_with(x + net.position[begin : begin + 2], self._cache)[:, -1]
        return NextFrame(net, self._cache, begin + 2, net.head(features).float(), net.outcome(features).float())


@dataclass(slots=True)
class NextFrame:
    """What follows an action, as it is read."""

    net: SequenceNetwork
    cache: Cache
    begin: int  # its place in the sequence
    first: Tensor  # float32 (N, K): logits of its first token
    outcome: Tensor  # float32 (N, 4)

    def after(self, place: int, tokens: Tensor) -> Tensor:
        """See `decoding.Reader`."""
        at = self.begin + place
        self.cache.keep(at)
        x = self.net.token(tokens) + self.net.position[at : at + tokens.shape[1]]
        logits: Tensor = self.net.head(self.net.body.continue_with(x, self.cache)).float()
        return logits


WORTHWHILE = 8
"""Rows that a thread of its own is worth: fewer take it nearly as long, for it reads all the weights for each token."""


class Stories:
    """A story of N rows, which threads tell side by side where these are many."""

    def __init__(self, net: SequenceNetwork, shards: Shards, frames: Tensor, actions: Tensor) -> None:
        """As for `Story`."""
        rows = len(frames)
        self._shards, self._parts = shards, slices(rows, min(shards.threads, max(1, rows // WORTHWHILE)))
        self._stories = shards.infer(lambda part: Story(net, frames[part], actions[part]), self._parts)

    @property
    def steps(self) -> int:
        """Frames that were told."""
        return self._stories[0].steps

    def go_on(self, action: Tensor, sampling: Sampling) -> Ahead:
        """As a `Story` does."""
        told = list(zip(self._stories, self._parts, sampling.split(len(self._parts)), strict=True))
        found = self._shards.infer(lambda own: own[0].go_on(action[own[1]], own[2]), told)
        return Ahead(torch.cat([ahead.tokens for ahead in found]), torch.cat([ahead.outcome for ahead in found]))
