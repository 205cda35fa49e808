"""A pre-norm transformer (Vaswani et al. 2017; Radford et al. 2019) that goes on from what it has already read.

``read`` takes in a part of a sequence after what was read before it. While learning, what was read is the keys and
values that it returned (``Past``); while generating, a ``Cache`` with room for what is to come, so that a step
computes one token and copies nothing. Both give the same outputs: tests hold them against one pass over everything.

Shape key: N sequences, L new tokens, S tokens in all, D width, E heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Sees = Tensor | Literal["all", "before"]
"""What a new token sees: all the others, those up to itself, or what a mask says, bool (L, S) or (N, 1, L, S)."""


@dataclass(slots=True)
class Past:
    """What one layer's attention sees of tokens: (N, E, S, D / E) each."""

    keys: Tensor
    values: Tensor

    def followed_by(self, new: Past) -> Past:
        return Past(torch.cat([self.keys, new.keys], 2), torch.cat([self.values, new.values], 2))


@dataclass(slots=True)
class Reading:
    """What a part of a sequence came to."""

    features: Tensor  # (N, L, D), normalised
    past: list[Past]  # of the part alone, layer by layer


class Cache:
    """Room for S tokens of N sequences, filled from the left. Without gradients."""

    def __init__(self, net: Transformer, rows: int, room: int) -> None:
        weight = net.norm.weight
        shape = (rows, net.heads, room, weight.shape[0] // net.heads)
        self._layers = [Past(weight.new_empty(shape), weight.new_empty(shape)) for _ in net.blocks]
        self.length = 0

    def put(self, layer: int, new: Past) -> Past:
        """Keep a layer's next tokens; returns all of them, as views. ``advance`` once every layer has its own."""
        held, end = self._layers[layer], self.length + new.keys.shape[2]
        held.keys[:, :, self.length : end] = new.keys
        held.values[:, :, self.length : end] = new.values
        return Past(held.keys[:, :, :end], held.values[:, :, :end])

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def keep(self, tokens: int) -> None:
        """Forget all but the first so many."""
        assert tokens <= self.length, (tokens, self.length)
        self.length = tokens


class Transformer(nn.Module):
    def __init__(self, layers: int, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} cannot be split among {heads} heads: make it a multiple of heads")
        self.heads = heads
        self.blocks: Iterable[Block] = nn.ModuleList([Block(dim, heads, layers) for _ in range(layers)])  # type: ignore[assignment]
        self.norm = nn.LayerNorm(dim)

    def read(self, x: Tensor, past: Sequence[Past] = (), *, sees: Sees) -> Reading:
        """``x`` (N, L, D) after ``past``, which every token sees whole; ``sees``: of ``x`` (a mask: of both)."""
        kept = []
        sees = within(sees, x.shape[1], past[0].keys.shape[2] if past else 0, x.device)
        for layer, block in enumerate(self.blocks):
            queries, new = block.project(x)
            seen = past[layer].followed_by(new) if past else new
            x = block.apply_to(x, queries, seen, sees)
            kept.append(new)
        return Reading(self.norm(x), kept)

    def continue_with(self, x: Tensor, cache: Cache) -> Tensor:
        """``x`` (N, L, D) after what is in the cache, each token after the one before; features (N, L, D)."""
        sees = within("before", x.shape[1], cache.length, x.device)
        for layer, block in enumerate(self.blocks):
            queries, new = block.project(x)
            x = block.apply_to(x, queries, cache.put(layer, new), sees)
        cache.advance(x.shape[1])
        features: Tensor = self.norm(x)
        return features


class Block(nn.Module):
    """Attention, then two layers on each token, each added to its input."""

    def __init__(self, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        for linear in (self.qkv, self.up, self.out, self.down):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        for last in (self.out, self.down):  # as in GPT-2: the sum of all layers keeps its size
            last.weight.data /= (2 * layers) ** 0.5

    def project(self, x: Tensor) -> tuple[Tensor, Past]:
        """Queries (N, E, L, D / E), and the keys and values beside them."""
        q, k, v = rearrange(self.qkv(self.norm_attention(x)), "n l (three e d) -> three n e l d", three=3, e=self.heads)
        return q, Past(k, v)

    def apply_to(self, x: Tensor, queries: Tensor, seen: Past, sees: Sees) -> Tensor:
        mask, causal = (sees, False) if isinstance(sees, Tensor) else (None, sees == "before")
        attended = F.scaled_dot_product_attention(queries, seen.keys, seen.values, attn_mask=mask, is_causal=causal)
        x = x + self.out(rearrange(attended, "n e l d -> n l (e d)"))
        added: Tensor = self.down(F.gelu(self.up(self.norm_mlp(x)), approximate="tanh"))
        return x + added


def within(sees: Sees, new: int, before: int, device: torch.device) -> Sees:
    """The same for ``new`` tokens after ``before`` others, all of which are seen."""
    if isinstance(sees, Tensor) or sees == "all" or (before == 0 and new > 1):
        return sees
    if new == 1:
        return "all"
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)
