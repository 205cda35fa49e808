"""Backbones from timm (https://github.com/huggingface/pytorch-image-models): pictures into feature maps, for hybrid.py.

timm brings torchvision, so it is an extra of its own and is loaded only when a backbone is made.

None of them keeps its BatchNorm: what a picture gives must not depend on the others in its batch, or acting (a few
rows) and learning (hundreds, in parts, by several threads) would not mean the same, and PPO's first ratio would not be
1. A fresh backbone has GroupNorm in its place, 16 channels a group (Wu and He 2018, https://arxiv.org/abs/1803.08494).
In a pretrained one each BatchNorm becomes the scale and shift that it is when evaluated, which are then learnt further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agentctl.core.errors import NotReadyError


class Backbone(nn.Module):
    """Pictures (N, C, H, W), 0 to 255, -> feature maps (N, ?, h, w), the finest first.

    All channels, colours or stacked frames, are shifted and scaled alike: by the mean of what the network expects.
    """

    def __init__(self, maps: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.maps = maps
        self._mean, self._std = (255 * sum(colours) / len(colours) for colours in (mean, std))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.maps((pictures - self._mean) / self._std)
        return maps


def fresh(name: str, strides: Sequence[int], channels: int) -> Backbone:
    """With random weights and GroupNorm."""
    net = timm_network(name, strides, in_chans=channels)
    replace_batch_norm(net, grouped)
    return wrapped(net)


def pretrained(name: str, strides: Sequence[int], channels: int) -> Backbone:
    """With timm's weights, those of the first layer fitted to ``channels``. Raises NotReadyError where they are not."""
    timm_network(name, strides)  # whatever is wrong but the weights is said first
    try:
        net = timm_network(name, strides, in_chans=channels, pretrained=True)
    except Exception as error:  # a hub, a network, a file, a model without weights: each with errors of its own
        raise NotReadyError(
            f"the pretrained weights of {name} cannot be fetched: {error}; let this machine reach the hub once "
            "(they are kept), or begin with random weights: `pretrained: false`"
        ) from error
    replace_batch_norm(net, frozen)
    return wrapped(net)


def wrapped(net: Any) -> Backbone:
    return Backbone(net.eval(), net.pretrained_cfg["mean"], net.pretrained_cfg["std"])


def timm_network(name: str, strides: Sequence[int], **options: Any) -> Any:
    """timm's own, cut off after the last stride. Raises ValueError for a name or a stride that it does not have."""
    timm = load_timm()
    if not timm.is_model(name):
        raise ValueError(f"timm has no backbone {name!r}; `timm.list_models('*resnet*')` names some")
    with torch.device("meta"):  # its weights are not needed yet
        known = timm.create_model(name, features_only=True).feature_info.reduction()
    if missing := [stride for stride in strides if stride not in known]:
        raise ValueError(f"backbone {name} has no feature map of stride {missing[0]}; it has {known}")
    indices = tuple(known.index(stride) for stride in strides)
    return timm.create_model(name, features_only=True, feature_cls="getter", out_indices=indices, **options)


def load_timm() -> Any:
    """Raises NotReadyError with the remedy."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise NotReadyError(
            f"`vision: hybrid` needs {error.name}, which is not installed: pip install 'game-agentctl[timm]'"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise NotReadyError(
            f"`vision: hybrid` needs timm, which is installed but does not load: {error}; its torchvision must fit "
            "torch: a CPU build of the one needs a CPU build of the other"
        ) from error
    return timm


def replace_batch_norm(module: nn.Module, replacement: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    """Everywhere in ``module``; timm's own BatchNorm holds the activation that follows it, which stays."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Sequential(replacement(child), getattr(child, "act", nn.Identity())))
        else:
            replace_batch_norm(child, replacement)


def grouped(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """With the same initial scale and shift (some are 0, so that a block begins as nothing)."""
    channels = norm.num_features
    made = nn.GroupNorm(channels // math.gcd(channels, 16), channels, norm.eps)
    made.load_state_dict({"weight": norm.weight, "bias": norm.bias})
    return made


def frozen(norm: nn.BatchNorm2d) -> Scale:
    """weight * (x - mean) / std + bias as one product and one sum."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return Scale(weight, norm.bias.detach() - norm.running_mean * weight)


class Scale(nn.Module):
    """x * weight + bias, channel by channel."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]
