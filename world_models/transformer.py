"""A pre-norm transformer (Vaswani et al. 2017; Radford et al. 2019) that goes on from what it has already read.

``read`` takes in a part of a sequence after what was read before it. While learning, what was read is the keys and
values that it returned (``Past``); while generating, a ``Cache`` with room for what is to come, so that a step
computes one token and copies nothing. Both give the same outputs: tests hold them against one pass over everything.

Shape key: N sequences, L new tokens, S tokens in all, D width, E heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.core.nn.attention import attention


@dataclass(slots=True)
class Past:
    """What one layer's attention sees of tokens: (N, E, S, D / E) each."""

    keys: Tensor
    values: Tensor

    def followed_by(self, new: Past) -> Past:
        return Past(torch.cat([self.keys, new.keys], 2), torch.cat([self.values, new.values], 2))


Sees = Tensor | Literal["all", "before"] | Callable[[Tensor, Past], Tensor]
"""What a new token sees: all the others, those up to itself, or what a mask says, bool (L, S) or (N, 1, L, S).

Or attention of its own (see sparse.py), of queries (N, E, L, D / E) to what is seen (N, E, S, D / E).
"""

Views = Sees | list[Sees]
"""What new tokens see, in all layers alike or layer by layer."""


@dataclass(slots=True)
class Reading:
    """What a part of a sequence came to."""

    features: Tensor  # (N, L, D), normalised; of the last tokens alone where no others are wanted
    past: list[Past]  # of the part alone, layer by layer


class Cache:
    """Room for S tokens of N sequences, filled from the left. Without gradients."""

    def __init__(self, net: Transformer, rows: int, room: int) -> None:
        weight = net.norm.weight
        dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype  # a CPU attends to it fastest so
        shape = (rows, net.heads, room, weight.shape[0] // net.heads)
        self._layers = [Past(*(weight.new_empty(shape, dtype=dtype) for _ in range(2))) for _ in net.blocks]
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
        self.heads, self.depth = heads, layers
        self.blocks: Iterable[Block] = nn.ModuleList([Block(dim, heads, layers) for _ in range(layers)])  # type: ignore[assignment]
        self.norm = nn.LayerNorm(dim)

    def read(self, x: Tensor, past: Sequence[Past] = (), *, sees: Views, wanted: int | None = None) -> Reading:
        """``x`` (N, L, D) after ``past``, which every token sees whole; ``sees``: of ``x`` (a mask: of both).

        ``wanted``: of how many of the last tokens the features are asked for, where these see all. The last layer's
        attention and all that follows is left out for the others.
        """
        kept: list[Past] = []
        views = self._views(sees, x, past[0].keys.shape[2] if past else 0)
        for layer, block in enumerate(self.blocks):
            queries, new = block.project(x)
            if wanted is not None and layer == self.depth - 1:
                x, queries = x[:, -wanted:], queries[:, :, -wanted:]
            seen = past[layer].followed_by(new) if past else new
            x = block.apply_to(x, queries, seen, views[layer])
            kept.append(new)
        return Reading(self.norm(x), kept)

    def continue_with(self, x: Tensor, cache: Cache, sees: Views = "before") -> Tensor:
        """``x`` (N, L, D) after what is in the cache, each token after the one before; features (N, L, D)."""
        views = self._views(sees, x, cache.length)
        for layer, block in enumerate(self.blocks):
            queries, new = block.project(x)
            x = block.apply_to(x, queries, cache.put(layer, new), views[layer])
        cache.advance(x.shape[1])
        features: Tensor = self.norm(x)
        return features

    def _views(self, sees: Views, x: Tensor, before: int) -> list[Sees]:
        """What the tokens of each layer see when ``x`` comes after so many."""
        if isinstance(sees, list):
            return sees
        return [within(sees, x.shape[1], before, x.device)] * self.depth


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
        attended = sees(queries, seen) if callable(sees) else attention(queries, seen.keys, seen.values, sees)
        x = x + self.out(rearrange(attended, "n e l d -> n l (e d)"))
        added: Tensor = self.down(F.gelu(self.up(self.norm_mlp(x))))
        return x + added


def within(sees: Sees, new: int, before: int, device: torch.device) -> Sees:
    """The same for ``new`` tokens after ``before`` others, all of which are seen."""
    if not isinstance(sees, str) or sees == "all" or (before == 0 and new > 1):
        return sees
    if new == 1:
        return "all"
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)
