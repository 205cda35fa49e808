"""Layers that agents share: encoders chosen by the space, an LSTM that forgets at episode starts, action heads.

Shape key: N samples, T steps of N sequences, F features, A logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Discriminator, Tag
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.agents.hybrid import Hybrid, HybridVision
from agentctl.agents.vision import Convolutions, Pixels, orthogonal
from agentctl.core.types import Array

MASK = "action_mask"  # the one state that is not seen but obeyed: nonzero where a choice is legal
State = Mapping[str, Tensor]

Vision = Annotated[
    Annotated[Literal["nature", "impala", "iris", "hybrid"], Tag("name")] | Annotated[HybridVision, Tag("options")],
    Discriminator(lambda given: "options" if isinstance(given, dict | HybridVision) else "name"),
]
"""What reads images, as it stands in a YAML: a name, or a block with a hybrid's options."""


def legal(values: Tensor, state: State) -> Tensor:
    """``values`` (N, A), as low as can be where the state's mask forbids an action."""
    return values.masked_fill(state[MASK] == 0, -torch.inf) if MASK in state else values


def is_image(space: spaces.Space[object]) -> bool:
    """uint8 with at least two axes that a filter can slide over."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3, 4)


def eye_for(
    shape: Sequence[int], vision: Vision, width: float, plain: type[Convolutions] = Pixels
) -> Convolutions | Hybrid:
    """What reads an image of this shape; ``plain``: what does by one of the names that are not hybrid."""
    if vision == "nature" or vision == "impala" or vision == "iris":
        return plain(shape, vision, width)
    if width != 1:
        raise ValueError(f"policy: width {width:g} is for nature, impala and iris; a hybrid has `backbone` and `dim`")
    return Hybrid(shape, HybridVision.model_validate({}) if vision == "hybrid" else vision)


class Numbers(nn.Module):
    """An MLP over everything that is not an image: boxes flattened, choices one-hot. Gives (N, features)."""

    def __init__(
        self,
        space: Mapping[str, spaces.Space[object]],
        hidden: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__()
        self._space, self._activation = dict(space), activation
        widths = [sum(_flat_size(key, part) for key, part in space.items()), *hidden]
        self.layers = nn.ModuleList(orthogonal(nn.Linear(a, b)) for a, b in pairwise(widths))
        self.features = widths[-1]

    def forward(self, state: State) -> Tensor:
        x = torch.cat([_flat(state[key], part) for key, part in self._space.items()], dim=1)
        for layer in self.layers:
            x = self._activation(layer(x))
        return x


def _flat_size(key: str, space: spaces.Space[object]) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(f"policy: state {key!r} is a {space}; it must be a Box, Discrete, MultiDiscrete or MultiBinary")


def _flat(values: Tensor, space: spaces.Space[object]) -> Tensor:
    """float32 (N, _flat_size)."""
    if isinstance(space, spaces.Discrete):
        return F.one_hot(values.long() - int(space.start), int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.flatten().tolist()
        parts = (values.long() - torch.from_numpy(space.start).to(values.device)).flatten(1).unbind(1)
        return torch.cat([F.one_hot(part, n) for part, n in zip(parts, sizes, strict=True)], dim=1).float()
    flat = values.flatten(1).float()
    return flat / 255 if space.dtype == np.uint8 else flat


class Encoder(nn.Module):
    """State -> features: one network per image, one for all the numbers, joined. ``action_mask`` is left out."""

    def __init__(self, space: spaces.Dict, hidden: Sequence[int], vision: Vision, width: float) -> None:
        super().__init__()
        seen = {key: part for key, part in space.spaces.items() if key != MASK}
        if not seen:
            raise ValueError("policy: the state is empty: switch a perception on, or give the policy something to see")
        numbers = {key: part for key, part in seen.items() if not is_image(part)}
        self.images = [key for key in seen if key not in numbers]
        pixels = [eye_for(seen[key].shape or (), vision, width) for key in self.images]
        self.pixels = nn.ModuleList(pixels)
        self.numbers = Numbers(numbers, hidden) if numbers else None
        self.features = sum(encoder.features for encoder in pixels) + (self.numbers.features if self.numbers else 0)

    def forward(self, state: State) -> Tensor:
        """float32 (N, features)."""
        parts = [encoder(state[key]) for key, encoder in zip(self.images, self.pixels, strict=True)]
        if self.numbers is not None:
            parts.append(self.numbers(state))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class LSTM(nn.Module):
    """A recurrent layer whose state restarts from zero wherever an episode does."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(inputs, size)
        for name, parameter in self.cell.named_parameters():
            nn.init.orthogonal_(parameter) if "weight" in name else nn.init.zeros_(parameter)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` (T, N, F), ``h`` and ``c`` (N, size) before the first step, ``first`` bool (T, N).

        Returns the outputs (T, N, size) and the state after the last step.
        """
        keep = (~first).unsqueeze(-1).to(x.dtype)
        outputs = []
        for step, kept in zip(x, keep, strict=True):
            h, c = self.cell(step, (h * kept, c * kept))
            outputs.append(h)
        return torch.stack(outputs), h, c


class Categoricals:
    """Independent choices, one per entry of ``sizes``; ``logits`` (N, sum(sizes)), choices int64 (N, len(sizes))."""

    def __init__(self, logits: Tensor, sizes: Sequence[int], mask: Tensor | None) -> None:
        if mask is not None:
            logits = logits.masked_fill(mask == 0, -1e8)  # finite, so that 0 * log 0 = 0 in the entropy
        self._log_probs = [part.log_softmax(1) for part in torch.split(logits, list(sizes), dim=1)]

    def sample(self, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """By probabilities to the power of 1 / ``temperature``: the lower it is, the likelier the likeliest."""
        return torch.stack([_race(log_probs / temperature, generator) for log_probs in self._log_probs], dim=1)

    def probabilities(self) -> list[Tensor]:
        """Of each choice's alternatives, (N, size) each."""
        return [log_probs.exp() for log_probs in self._log_probs]

    def mode(self) -> Tensor:
        return torch.stack([log_probs.argmax(1) for log_probs in self._log_probs], dim=1)

    def log_prob(self, choice: Tensor) -> Tensor:
        """(N,)"""
        columns = choice.unsqueeze(-1).unbind(1)
        return sum_of([p.gather(1, column) for p, column in zip(self._log_probs, columns, strict=True)]).squeeze(1)

    def entropy(self) -> Tensor:
        """(N,)"""
        return sum_of([-(p.exp() * p).sum(1) for p in self._log_probs])


def _race(log_probs: Tensor, generator: torch.Generator) -> Tensor:
    """One choice per row: the first to arrive when each arrives at its probability's rate (exponential clocks)."""
    clocks = torch.empty(log_probs.shape).exponential_(generator=generator).to(log_probs.device)
    return (log_probs - clocks.log()).argmax(1)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in order."""
    total, *others = parts
    for part in others:
        total = total + part
    return total


class Gaussian:
    """Independent normals; ``mean`` and ``log_std`` (N, A), choices float32 (N, A)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self._log_std = mean, log_std

    def sample(self, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """By the density to the power of 1 / ``temperature``."""
        noise = torch.empty(self._mean.shape).normal_(generator=generator).to(self._mean.device)
        return self._mean + math.sqrt(temperature) * self._log_std.exp() * noise

    def mode(self) -> Tensor:
        return self._mean

    def log_prob(self, choice: Tensor) -> Tensor:
        """(N,)"""
        distance = (choice - self._mean) * torch.exp(-self._log_std)
        return (-0.5 * distance**2 - self._log_std - 0.5 * math.log(2 * math.pi)).sum(1)

    def entropy(self) -> Tensor:
        """(N,)"""
        return (self._log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(1)


Distribution = Categoricals | Gaussian


class Choices(nn.Module):
    """The head of discrete actions: Discrete, MultiDiscrete or MultiBinary."""

    def __init__(self, features: int, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> None:
        super().__init__()
        self._space = space
        self.sizes, self.start = _choices(space)
        self.single = isinstance(space, spaces.Discrete)
        self.logits = orthogonal(nn.Linear(features, sum(self.sizes)), 0.01)

    def forward(self, features: Tensor, mask: Tensor | None) -> Categoricals:
        return Categoricals(self.logits(features), self.sizes, mask)

    def action(self, choice: Array) -> Array:
        """What the game takes: (N,) for Discrete, else (N, n), in the space's dtype."""
        action = (choice + self.start).astype(self._space.dtype)
        return action[:, 0] if self.single else action

    def choice(self, action: Array) -> Array:
        """What became this action, int64 (N, n)."""
        choice: Array = action.reshape(len(action), -1).astype(np.int64) - self.start
        return choice


def _choices(space: spaces.Space[object]) -> tuple[list[int], Array]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)], np.array([space.start])
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.flatten().tolist(), space.start.flatten()
    bits = int(np.prod(space.shape or ()))
    return [2] * bits, np.zeros(bits, np.int64)


class Continuous(nn.Module):
    """The head of real actions: a normal around a learnt mean, its spread learnt but the same in every state.

    [-1, 1] maps onto a bounded action's range and is clipped there; the unclipped choice is what is learnt from.
    """

    def __init__(self, features: int, space: spaces.Box) -> None:
        super().__init__()
        assert len(space.shape) == 1, space
        bounded = space.is_bounded("both")
        self.middle = (space.high + space.low) / 2 if bounded else np.zeros(space.shape, np.float32)
        self.reach = (space.high - space.low) / 2 if bounded else np.ones(space.shape, np.float32)
        self.space = space
        self.mean = orthogonal(nn.Linear(features, space.shape[0]), 0.01)
        self.log_std = nn.Parameter(torch.zeros(space.shape[0]))

    def forward(self, features: Tensor, mask: Tensor | None) -> Gaussian:
        mean = self.mean(features)
        return Gaussian(mean, self.log_std.expand_as(mean))

    def action(self, choice: Array) -> Array:
        """(N, n) in the space's dtype and within its bounds."""
        space = self.space
        return np.clip(self.middle + self.reach * choice, space.low, space.high).astype(space.dtype)

    def choice(self, action: Array) -> Array:
        """What became this action, float32 (N, n)."""
        choice: Array = ((action - self.middle) / self.reach).astype(np.float32)
        return choice


Head = Choices | Continuous


def head_for(space: spaces.Space[object], features: int) -> Head:
    """The action head of a space. Raises ValueError for one that has none."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return Choices(features, space)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return Continuous(features, space)
    raise ValueError(f"policy: cannot choose from {space}; it must be Discrete, MultiDiscrete, MultiBinary or Box (n,)")
