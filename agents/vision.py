"""How agents see: images into features, by the network of Mnih et al. (2015), IMPALA's residual one, or IRIS's.

With attention: hybrid.py. Shape key: N samples, S stacked frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VisionName = Literal["nature", "impala", "iris"]

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """``layer`` with orthogonal weights and no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Convolutions(nn.Module):
    """Takes uint8 (N, H, W), (N, S, H, W), (N, H, W, 3) or (N, S, H, W, 3); gives (N, features) in its own dtype."""

    def __init__(self, shape: Sequence[int], vision: VisionName = "nature", width: float = 1.0) -> None:
        super().__init__()
        self._order = channels_first(shape)
        frames = torch.zeros(1, *shape, dtype=torch.uint8)
        channels, *sides = planes(frames, self._order).shape[1:]
        first, *others = NETWORKS[vision](channels, min(sides), width)
        assert isinstance(first, nn.Conv2d)
        self.first = first
        self.others = nn.Sequential(*others, nn.ReLU(inplace=True), nn.Flatten())
        with torch.no_grad():
            self.features = Convolutions.forward(self, frames).shape[1]

    def forward(self, frames: Tensor) -> Tensor:
        first = self.first
        dtype = first.weight.dtype
        learning = torch.is_grad_enabled() and dtype == torch.float32  # float32 gradients are 12 % faster this way
        layout = torch.channels_last if learning else torch.contiguous_format
        x = planes(frames, self._order).to(dtype, memory_format=layout)
        x = F.conv2d(x, first.weight / 255, first.bias, first.stride, first.padding)  # as if of pixels / 255
        features: Tensor = self.others(x)
        return features


class Pixels(Convolutions):
    """Convolutions and the layer after them, if it has one (see FEATURES): gives float32 (N, features)."""

    def __init__(self, shape: Sequence[int], vision: VisionName = "nature", width: float = 1.0) -> None:
        super().__init__(shape, vision, width)
        self.linear: nn.Linear | None = None
        if vision in FEATURES:
            inputs, self.features = self.features, _scaled(FEATURES[vision], width)
            self.linear = orthogonal(nn.Linear(inputs, self.features))

    def forward(self, frames: Tensor) -> Tensor:
        x = super().forward(frames)
        return (x if self.linear is None else F.relu(self.linear(x))).float()


def nature(channels: int, side: int, width: float) -> list[nn.Module]:
    """Mnih et al. (2015); where the shorter ``side`` is below 36 pixels, two layers of 3 x 3 filters."""
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1)) if side >= 36 else ((16, 3, 1), (32, 3, 1))  # filters, kernel, stride
    widths = [channels, *(_scaled(layer[0], width) for layer in layers)]
    first, *others = [
        orthogonal(nn.Conv2d(inside, outside, kernel, stride, 0 if side >= 36 else kernel // 2))
        for (inside, outside), (_, kernel, stride) in zip(pairwise(widths), layers, strict=True)
    ]
    return [first, *(module for layer in others for module in (nn.ReLU(inplace=True), layer))]


def impala(channels: int, side: int, width: float) -> list[nn.Module]:
    """Espeholt et al. (2018), https://arxiv.org/abs/1802.01561, the deep one: three times a halving and two blocks."""
    widths = [channels, *(_scaled(filters, width) for filters in (16, 32, 32))]
    sections = [
        (_same_size(inside, outside), nn.MaxPool2d(3, 2, 1), Residual(outside), Residual(outside))
        for inside, outside in pairwise(widths)
    ]
    return [module for section in sections for module in section]


class Residual(nn.Module):
    """x + two convolutions of it, each after a ReLU."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), _same_size(filters, filters), nn.ReLU(inplace=True), _same_size(filters, filters)
        )

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layers(x)
        return x + added


def iris(channels: int, side: int, width: float) -> list[nn.Module]:
    """Micheli et al. (2023), https://arxiv.org/abs/2209.00588: four times 3 x 3 filters and a halving."""
    widths = [channels, *(_scaled(filters, width) for filters in (32, 32, 64, 64))]
    first, *others = [_same_size(inside, outside) for inside, outside in pairwise(widths)]
    halved = [_halving(), *(module for layer in others for module in (nn.ReLU(inplace=True), layer, _halving()))]
    return [first, *halved]


NETWORKS = {"nature": nature, "impala": impala, "iris": iris}
FEATURES = {"nature": 512, "impala": 256}
"""Of the layer after the convolutions, at width 1; IRIS has none."""


def _same_size(inside: int, outside: int) -> nn.Conv2d:
    return orthogonal(nn.Conv2d(inside, outside, 3, 1, 1))


def _halving() -> nn.MaxPool2d:
    """Of sides, rounded up, so that any image has something left."""
    return nn.MaxPool2d(2, ceil_mode=True)


def _scaled(count: int, width: float) -> int:
    return max(1, round(count * width))


def channels_first(shape: Sequence[int]) -> tuple[int, ...]:
    """How to permute (N, *shape) so that height and width come last."""
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] not in (1, 3)):
        return tuple(range(len(shape) + 1))
    axes = tuple(range(len(shape) + 1))
    return (*axes[:-3], axes[-1], axes[-3], axes[-2])


def planes(frames: Tensor, order: tuple[int, ...]) -> Tensor:
    """(N, C, H, W): colours and stacked frames as channels; ``order`` is from ``channels_first``."""
    frames = frames.permute(order)
    return frames.unsqueeze(1) if frames.ndim == 3 else frames.flatten(1, -3)
