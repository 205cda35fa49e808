"""How a Q-network reads tokens: a transformer over the last frames, each a grid of a tokenizer's codes.

Blocks of neighbouring tokens, in time and space, become one vector each before attention, as the tubelets of Arnab et
al. (2021, https://arxiv.org/abs/2103.15691) are: attention's cost grows with the square of how many there are. Where a
block stands in the frame and in time is learnt and added. Pre-norm layers let all of them see all others; then one
learnt question is put to them, which costs far less than a layer with a class token, of which nothing else is read.

Shape key: N samples, S frames, h x w tokens, K codes, L blocks, D = dim, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.agents.hybrid import Layer, places
from agentctl.core.nn.attention import attention
from agentctl.core.protocols import BaseConfig


class TokenVision(BaseConfig):
    """The options of what reads tokens."""

    block: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 2, 2), description="frames x rows x columns of tokens that attention takes as one; 1, 1, 1: each by itself"
    )
    embedding: PositiveInt = Field(32, description="size of a token before it is joined with those of its block")
    dim: PositiveInt = Field(64, multiple_of=4, description="size of a block's vector, and how many features come out")
    layers: PositiveInt = Field(2, description="of attention among blocks")
    heads: PositiveInt = Field(4, description="of each layer; they share `dim`")

    @model_validator(mode="after")
    def _divides(self) -> TokenVision:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")
        return self


class TokenEye(nn.Module):
    """Takes whole numbers (N, S, h, w), 0 to K - 1; gives (N, features) in its own dtype."""

    def __init__(self, shape: Sequence[int], codes: int, options: TokenVision) -> None:
        """``shape``: S, h and w. Raises ValueError when the frames are no whole number of blocks."""
        super().__init__()
        frames, rows, columns = shape
        deep, high, wide = self._block = options.block
        if frames % deep:
            raise ValueError(f"policy: history {frames} must be a multiple of vision.block's {deep} frames")
        self._edge = codes  # what stands beyond the frame where blocks jut out
        self._margin = (0, -columns % wide, 0, -rows % high)
        grid = math.ceil(rows / high), math.ceil(columns / wide)
        self.embedding = nn.Embedding(codes + 1, options.embedding)
        self.project = nn.Linear(options.embedding * deep * high * wide, options.dim)
        self.place = nn.Parameter(places(*grid, options.dim))
        self.time = nn.Parameter(0.5 * torch.randn(frames // deep, 1, options.dim))  # about as large as the places
        self.layers = nn.ModuleList(Layer(options.dim, options.heads) for _ in range(options.layers))
        self.question = Question(options.dim, options.heads)
        self.norm = nn.LayerNorm(options.dim)
        self.features = options.dim

    def forward(self, tokens: Tensor) -> Tensor:
        x = (self.project(self._blocks(tokens)) + self.place + self.time).flatten(1, 2)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = self.norm(self.question(x))
        return features

    def _blocks(self, tokens: Tensor) -> Tensor:
        """The embeddings of each block's tokens in a row: (N, frames, places, features)."""
        deep, high, wide = self._block
        x = self.embedding(F.pad(tokens, self._margin, value=self._edge))
        x = x.unflatten(3, (-1, wide)).unflatten(2, (-1, high)).unflatten(1, (-1, deep))
        blocks: Tensor = x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(2, 3)
        return blocks


class Question(nn.Module):
    """One learnt question to all blocks, a head each for its parts: (N, L, D) -> (N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, heads, 1, dim // heads))
        self.norm = nn.LayerNorm(dim)
        self.key_value, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        for weight in self.key_value.weight.chunk(2):
            nn.init.orthogonal_(weight, math.sqrt(2))  # else it begins as a plain mean, as in hybrid.py
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.query.shape[1]
        key, value = self.key_value(self.norm(x)).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        taken = attention(self.query.expand(x.shape[0], -1, -1, -1), key, value)
        answer = self.out(taken.flatten(1))
        summary: Tensor = answer + self.mlp(answer)
        return summary
