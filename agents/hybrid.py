"""Images read by convolutions and attention: a backbone from timm gives feature maps of several scales, a small vision
transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, its hybrid form) reads all of them at once.

A class token gathers what the policy is told; where it looked is a heatmap by attention rollout. Deviations:

- Several feature maps stand side by side in one sequence, the paper has the last one alone.
- Places are sines and cosines of a token's middle in the picture, alike at every scale, and are learnt from there on.
- Queries, keys and values begin orthogonal, with the gain of this folder's other layers: with the usual smaller ones
  attention begins as a plain mean, in which what is small in a picture is lost.
- The backbone has no BatchNorm: see backbones.py.

Shape key: N samples, C channels, h x w tokens of a scale, T tokens of all scales and the class token before them,
D = dim, K heads, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.agents.backbones import fresh, pretrained
from agentctl.agents.vision import channels_first, planes
from agentctl.core.nn.arrays import to_array, to_tensor
from agentctl.core.nn.attention import attention
from agentctl.core.protocols import BaseConfig
from agentctl.core.types import Array, Arrays


class HybridVision(BaseConfig):
    """The options of ``vision: hybrid``."""

    name: Literal["hybrid"] = "hybrid"
    backbone: str = Field("tf_efficientnetv2_b0", description="a network of timm, e.g. tf_efficientnetv2_s or resnet50")
    pretrained: bool = Field(
        False, description="begin with the weights that timm fetches for it, else with random ones"
    )
    strides: tuple[PositiveInt, ...] = Field(
        (8, 16), min_length=1, max_length=3, description="scales to attend to: pixels from one token to the next"
    )
    dim: PositiveInt = Field(128, multiple_of=4, description="size of a token, and how many features come out")
    layers: PositiveInt = Field(2, description="of attention")
    heads: PositiveInt = Field(4, description="of each layer; they share `dim`")

    @model_validator(mode="after")
    def _divides(self) -> HybridVision:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides {list(self.strides)} must rise, as in [8, 16]")
        return self


class Hybrid(nn.Module):
    """Takes uint8 frames in any layout that ``Convolutions`` takes; gives float32 (N, D)."""

    def __init__(self, shape: Sequence[int], options: HybridVision) -> None:
        super().__init__()
        self._order = channels_first(shape)
        picture = planes(torch.zeros(1, *shape, dtype=torch.uint8), self._order)
        self._sides = picture.shape[2], picture.shape[3]
        made = pretrained if options.pretrained else fresh
        self.backbone = made(options.backbone, options.strides, picture.shape[1])
        with torch.no_grad():
            maps = self.backbone(picture.float())
        self.grids = [(seen.shape[2], seen.shape[3]) for seen in maps]
        self.project = nn.ModuleList(nn.Conv2d(seen.shape[1], options.dim, 1) for seen in maps)
        self.place = nn.ParameterList(nn.Parameter(places(*grid, options.dim)) for grid in self.grids)
        self.scale = nn.Parameter(0.02 * torch.randn(len(maps), options.dim))
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, options.dim))  # the class token
        self.layers = nn.ModuleList(Layer(options.dim, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.dim)
        self.features = options.dim

    def forward(self, frames: Tensor) -> Tensor:
        x = self._tokens(frames)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = self.norm(x[:, 0]).float()
        return features

    def weights(self, frames: Tensor) -> Tensor:
        """How much each token (rows) takes from each other (columns), float32 (L, N, K, T, T); rows sum to 1."""
        x, found = self._tokens(frames), []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            found.append(layer.weights(x))
            x = layer(x)
        return torch.stack(found)

    def attention(self, frames: Tensor) -> list[list[Tensor]]:
        """Where the class token looks, layer by layer and scale by scale: each float32 (N, K, h, w)."""
        return [self._by_scale(weights[:, :, 0, 1:]) for weights in self.weights(frames)]

    def heatmap(self, frames: Tensor) -> Tensor:
        """Which pixels the features come from, by rollout: float32 (N, H, W), 1 where it is most."""
        flow = rollout(self.weights(frames).mean(2))[:, 0, 1:]
        return spread(self._by_scale(flow.unsqueeze(1)), self._sides)

    def _tokens(self, frames: Tensor) -> Tensor:
        """(N, T, D), the class token first."""
        x = planes(frames, self._order).to(self.summary.dtype, memory_format=torch.channels_last)
        maps = self.backbone(x)
        parts = [self.summary.expand(x.shape[0], -1, -1)]
        for seen, project, place, scale in zip(maps, self.project, self.place, self.scale, strict=True):
            parts.append(project(seen).flatten(2).transpose(1, 2) + place + scale)
        return torch.cat(parts, dim=1)

    def _by_scale(self, tokens: Tensor) -> list[Tensor]:
        """(N, K, T - 1) as one (N, K, h, w) per scale."""
        parts = torch.split(tokens, [h * w for h, w in self.grids], dim=2)
        return [part.reshape(*part.shape[:2], *grid) for part, grid in zip(parts, self.grids, strict=True)]


class Layer(nn.Module):
    """A pre-norm transformer layer: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        after: Tensor = x + self.mlp(x)
        return after

    def weights(self, x: Tensor) -> Tensor:
        """What its attention does with ``x``, float32 (N, K, T, T)."""
        weights: Tensor = self.attention.weights(self.norm(x))
        return weights


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        for weight in self.qkv.weight.chunk(3):
            nn.init.orthogonal_(weight, math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        taken = attention(*self._qkv(x))
        mixed: Tensor = self.out(taken.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, x: Tensor) -> Tensor:
        """What ``forward`` mixes values by, float32 (N, K, T, T)."""
        query, key, _ = (part.float() for part in self._qkv(x))
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(3)

    def _qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (N, K, T, D / K)."""
        parts = self.qkv(x).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        return query, key, value


def places(h: int, w: int, dim: int) -> Tensor:
    """(h * w, dim): a quarter each are sine and cosine of the row's and of the column's middle, 0 to 1 in the picture.

    Waves are from two pictures long to a thirty-second of one, so that tokens of any scale tell neighbours apart.
    """
    frequency = math.pi * torch.logspace(0, 6, dim // 4, base=2)
    rows, columns = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    angles = [axis.flatten().unsqueeze(1) * frequency for axis in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def rollout(weights: Tensor) -> Tensor:
    """How much of each input token reaches each output, (N, T, T), from attention (L, N, T, T), the mean of heads.

    Attention rollout (Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928): a layer passes on half of what it gets
    as it is, past its attention, and mixes the other half by it; layers multiply.
    """
    passed = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    flow = passed
    for layer in weights:
        flow = 0.5 * (layer + passed) @ flow
    return flow


def spread(grids: Sequence[Tensor], sides: tuple[int, int]) -> Tensor:
    """(N, H, W) from one (N, 1, h, w) per scale: each token's share over its pixels, added up, 1 at the highest."""
    dense = [F.interpolate(grid * grid.shape[2] * grid.shape[3], sides, mode="bilinear") for grid in grids]
    total = torch.stack(dense).sum(0).squeeze(1)
    return total / total.amax((1, 2), keepdim=True)


# --- what people look at ----------------------------------------------------------------------------------------------


@torch.no_grad()
def heatmaps(eyes: Mapping[str, nn.Module], state: Arrays) -> dict[str, Array]:
    """For each image of ``state`` that a hybrid reads, where it looks: float32 (B, H, W), 0 to 1."""
    hybrids = {key: eye for key, eye in eyes.items() if isinstance(eye, Hybrid)}
    if not hybrids:
        raise ValueError("policy: heatmaps show attention, and only `vision: hybrid` has it")
    return {key: to_array(eye.heatmap(to_tensor(state[key], eye.scale.device))) for key, eye in hybrids.items()}


def overlay(picture: Array, heat: Array) -> Array:
    """``picture``, uint8 (H, W) or (H, W, 3), darker where ``heat`` (any h, w) is low and red where it is high."""
    gray = picture[..., None] if picture.ndim == 2 else picture
    sides = gray.shape[0], gray.shape[1]
    glow = F.interpolate(torch.from_numpy(heat)[None, None], sides, mode="bilinear")[0, 0].numpy()[..., None]
    mixed = gray * (0.4 + 0.2 * glow) + np.array([255, 60, 0]) * 0.4 * glow
    return np.asarray(mixed, np.uint8)
