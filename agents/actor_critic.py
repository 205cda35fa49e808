"""The network of on-policy agents: what it sees, perhaps remembers, and makes of it: a policy and a value."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agentctl.agents.blocks import LSTM, MASK, Distribution, Encoder, Vision, head_for
from agentctl.agents.vision import orthogonal
from agentctl.core.protocols import Setup

Tensors = Mapping[str, Tensor]


@dataclass(slots=True)
class Opinion:
    """What a network makes of T steps of N sequences."""

    policy: Distribution  # over T * N choices
    value: Tensor  # (T * N,)
    carry: dict[str, Tensor]  # after the last step, each (N, size)


class ActorCritic(nn.Module):
    """Images are read by one network for both; numbers by one each, unless an LSTM follows."""

    def __init__(self, setup: Setup, hidden: tuple[int, ...], vision: Vision, width: float, lstm: int) -> None:
        super().__init__()
        self.encoder = Encoder(setup.space, hidden, vision, width)
        self.sees_images = len(self.encoder.pixels) > 0
        shared = self.sees_images or lstm > 0
        self.critic_encoder = None if shared else Encoder(setup.space, hidden, vision, width)
        self.lstm = LSTM(self.encoder.features, lstm) if lstm else None
        features = lstm or self.encoder.features
        self.policy = head_for(setup.action_space, features)
        self.value = orthogonal(nn.Linear(features, 1), 1.0)

    def forward(self, state: Tensors, carry: Tensors, first: Tensor) -> Opinion:
        """``state`` (T, N, ...), ``carry`` (N, size) before the first step, ``first`` bool (T, N)."""
        seen = {key: tensor.flatten(0, 1) for key, tensor in state.items()}
        features = self.encoder(seen)
        after = {}
        if self.lstm is not None:
            outputs, h, c = self.lstm(features.reshape(*first.shape, -1), carry["h"], carry["c"], first)
            features, after = outputs.flatten(0, 1), {"h": h, "c": c}
        judged = features if self.critic_encoder is None else self.critic_encoder(seen)
        return Opinion(self.policy(features, seen.get(MASK)), self.value(judged).squeeze(1), after)


def lowered(net: ActorCritic, dtype: torch.dtype) -> ActorCritic:
    """A copy whose image networks compute in ``dtype``; the network itself when that is what it does."""
    if dtype == torch.float32 or not net.sees_images:
        return net
    copied = copy.deepcopy(net)
    for pixels in copied.encoder.pixels:
        pixels.to(dtype)
    return copied
