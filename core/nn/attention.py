"""Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), as each processor is fastest.

torch's own keeps no scores, which saves memory, and on a GPU time. On a CPU it is slow in bfloat16: learning takes
longer than by plain products and a softmax, a single query longer than in float32 (`agentctl bench attention`).

Shape key: N sequences, E heads, L queries, S keys, d numbers a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_SCORES = 2**25
"""Scores that are kept for the backward pass: 64 MB. With more of them torch's own attention, which keeps none."""


def attention(queries: Tensor, keys: Tensor, values: Tensor, sees: Tensor | Literal["all", "before"] = "all") -> Tensor:
    """(N, E, L, d) of queries (N, E, L, d), keys and values (N, E, S, d), in the queries' format.

    ``sees``: of the keys each query sees all, those up to its own (L = S), or where a mask, bool (..., L, S), says so.
    Keys of another format than the queries are computed with in theirs.
    """
    if keys.dtype == queries.dtype and slow(queries, keys):
        return weighed(queries, keys, values, sees)
    mask, causal = (sees, False) if isinstance(sees, Tensor) else (None, sees == "before")
    wide = queries.to(keys.dtype)
    return F.scaled_dot_product_attention(wide, keys, values, attn_mask=mask, is_causal=causal).to(queries.dtype)


def slow(queries: Tensor, keys: Tensor) -> bool:
    """Whether torch's own is, here."""
    scores = queries[..., 0].numel() * keys.shape[2]
    return queries.device.type == "cpu" and queries.dtype != torch.float32 and scores <= MOST_SCORES


def weighed(queries: Tensor, keys: Tensor, values: Tensor, sees: Tensor | Literal["all", "before"]) -> Tensor:
    """The same, step by step."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if isinstance(sees, Tensor) or sees == "before":
        shown = sees if isinstance(sees, Tensor) else torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores + torch.zeros_like(shown, dtype=scores.dtype).masked_fill_(~shown, -torch.inf)
    found: Tensor = scores.softmax(-1) @ values
    return found
