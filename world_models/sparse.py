"""Attention of frames of tokens that leaves most of the others out: along rows and columns in turn, or to what is near.

- ``axial`` (Ho et al. 2019, https://arxiv.org/abs/1912.12180): in the first layer, the third and so on a token sees
  its row, in the others its column.
- ``local`` (Parmar et al. 2018, https://arxiv.org/abs/1802.05751): a token sees places at most ``reach`` rows and
  columns away.

Both see these places in all frames: Ho et al. attend along time apart. The action sees all, and is seen by all.

A mask says who sees whom. Tokens that see much the same are computed together, with what any of them sees: what comes
out is that of attention with the mask, and most of what the mask hides is never computed.

Shape key: N samples, H frames, P = h * w places, E heads, L queries, S keys, G groups of q queries and k keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from agentctl.core.nn.attention import attention
from agentctl.world_models.transformer import Past, Sees, Views

Attention = Literal["full", "axial", "local"]


class Scope(Protocol):
    """What the tokens of frames and slots see, in all layers alike or layer by layer."""

    context: Views  # what H * P tokens and the action after them see of each other
    filled: Views  # what P slots see of the context before them, and of each other
    ordered: Views  # the same where a slot sees only earlier ones

    def slots(self, begin: int, end: int) -> Views:
        """What these see of the context and of what was before them, each of all up to itself."""


def scope_of(attention: Attention, grid: tuple[int, int], history: int, layers: int, reach: int) -> Scope:
    if attention == "full":
        return Everything()
    near = by_rows_and_columns(grid) if attention == "axial" else by_distance(grid, reach)
    return Sparse(near, history, layers)


class Everything:
    def __init__(self) -> None:
        self.context: Views = "all"
        self.filled: Views = "all"
        self.ordered: Views = "before"

    def slots(self, begin: int, end: int) -> Views:
        return "before"


@dataclass(slots=True)
class Near:
    """Which places see each other, and how they are computed."""

    mask: Tensor  # bool (P, P)
    parts: list[Tensor]  # int64, of places: all of them, each in one part


def by_rows_and_columns(grid: tuple[int, int]) -> list[Near]:
    """For odd layers and for even ones."""
    return [Near(line[:, None] == line, [torch.where(line == k)[0] for k in line.unique()]) for line in places(grid)]


def by_distance(grid: tuple[int, int], reach: int) -> list[Near]:
    """In blocks of ``2 * reach`` rows and columns, which see at most twice as far to each side."""
    row, column = places(grid)
    away = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    block = (row // (2 * reach)) * grid[1] + column // (2 * reach)
    return [Near(away <= reach, [torch.where(block == k)[0] for k in block.unique()])]


def places(grid: tuple[int, int]) -> Tensor:
    """The row and the column of every place, int64 (2, P)."""
    return torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).T


class Sparse(nn.Module):
    """Holds no weights: nothing of it is in a checkpoint."""

    def __init__(self, near: Sequence[Near], history: int, layers: int) -> None:
        """``near``: of the layers, in turn."""
        super().__init__()
        found = [readings(each, history) for each in near]
        self._moved = nn.ModuleList([part for each in found for part in (each.context, each.filled, each.ordered)])
        by_layer = [found[layer % len(found)] for layer in range(layers)]
        of_frames: list[Sees] = [each.context for each in by_layer[:-1]]
        self.context: Views = [*of_frames, "all"]  # the last layer is asked for the action alone, which sees all
        self.filled: Views = [each.filled for each in by_layer]
        self._ordered = [each.ordered for each in by_layer]
        self.ordered: Views = list(self._ordered)

    def slots(self, begin: int, end: int) -> Views:
        if end == begin + 1:
            return [grouped.alone(begin) for grouped in self._ordered]
        return [grouped.between(begin, end) for grouped in self._ordered]


@dataclass(slots=True)
class Readings:
    """The attention of one layer, as in `Scope`."""

    context: Grouped
    filled: Grouped
    ordered: Grouped


def readings(near: Near, history: int) -> Readings:
    count, mask = len(near.mask), near.mask
    context = torch.ones(history * count + 1, history * count + 1, dtype=torch.bool)
    context[:-1, :-1] = mask.tile(history, history)
    times = count * torch.arange(history)[:, None]
    parts = [(times + part).flatten() for part in near.parts]
    behind = torch.cat([mask.tile(1, history), torch.ones(count, 1, dtype=torch.bool)], 1)
    return Readings(
        Grouped(context, [*parts, torch.tensor([history * count])]),
        Grouped(torch.cat([behind, mask], 1), near.parts),
        Grouped(torch.cat([behind, mask.tril()], 1), near.parts),
    )


class Grouped(nn.Module):
    """Attention of L queries, each to those of S keys that a mask shows it, computed part by part."""

    mask: Tensor
    back: Tensor

    def __init__(self, mask: Tensor, parts: Sequence[Tensor]) -> None:
        """``mask``: bool (L, S). ``parts``: of queries, each in one. Those that are as long go together."""
        super().__init__()
        alike = defaultdict(list)
        for part in parts:
            alike[len(part)].append(part)
        self.groups = nn.ModuleList([Groups(mask, torch.stack(same)) for same in alike.values()])
        order = torch.cat([torch.cat(same) for same in alike.values()])
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, queries: Tensor, seen: Past) -> Tensor:
        """``queries`` (N, E, L, d) -> what they found, of the same shape."""
        found = [groups(queries, seen) for groups in self.groups]
        return torch.cat(found, 2).index_select(2, self.back)

    def between(self, begin: int, end: int) -> Tensor:
        """The mask of these queries, where nothing is there yet that comes after them; bool (L', S')."""
        later = self.mask.shape[0] - end
        return self.mask[begin:end, : self.mask.shape[1] - later]

    def alone(self, query: int) -> Chosen:
        """The same of one query."""
        return Chosen(self.mask[query].nonzero().flatten())


class Groups(nn.Module):
    """G groups of q queries, each with the k keys that any of them sees; some keys stand there to fill up."""

    queries: Tensor
    keys: Tensor
    mask: Tensor | None

    def __init__(self, mask: Tensor, queries: Tensor) -> None:
        """``mask``: bool (L, S). ``queries``: int64 (G, q)."""
        super().__init__()
        seen = [mask[group].any(0).nonzero().flatten() for group in queries]
        keys = nn.utils.rnn.pad_sequence(seen, batch_first=True)
        there = torch.arange(keys.shape[1]) < torch.tensor([len(some) for some in seen])[:, None]
        shown = mask[queries[:, :, None], keys[:, None]] & there[:, None]
        self.register_buffer("queries", queries, persistent=False)
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("mask", None if shown.all() else shown, persistent=False)

    def forward(self, queries: Tensor, seen: Past) -> Tensor:
        """(N, E, L, d) -> (N, E, G * q, d). To torch every group of a head is a head."""
        heads = queries.shape[1]
        mask = None if self.mask is None else self.mask.repeat(1, heads, 1, 1)  # of fewer axes, torch is slow
        keys, values = taken(seen.keys, self.keys), taken(seen.values, self.keys)
        found = attention(taken(queries, self.queries), keys, values, "all" if mask is None else mask)
        return rearrange(found, "n (e g) q d -> n e (g q) d", e=heads)


@dataclass(slots=True)
class Chosen:
    """Attention of one query to some of the keys."""

    keys: Tensor  # int64 (k,)

    def __call__(self, queries: Tensor, seen: Past) -> Tensor:
        keys, values = (part.index_select(2, self.keys) for part in (seen.keys, seen.values))
        return attention(queries, keys, values)


def taken(x: Tensor, index: Tensor) -> Tensor:
    """The entries ``index`` (G, k) of S: (N, E, S, d) -> (N, E * G, k, d)."""
    return rearrange(x.index_select(2, index.flatten()), "n e (g k) d -> n (e g) k d", g=len(index))
