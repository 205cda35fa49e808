"""Q-networks: what value-based agents make of a state, with dueling streams and noisy layers where asked for.

Shape key: N samples, A actions, Z outputs per action, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.agents.blocks import MASK, Numbers, is_image
from agentctl.agents.hybrid import Hybrid
from agentctl.agents.noisy import NoisyLinear
from agentctl.agents.token_network import TokenEye
from agentctl.agents.vision import Convolutions
from agentctl.core.nn.adam import Scaled


class QNetwork(nn.Module):
    """Convolutions for images and an MLP for numbers, then one stream of two layers, or two (dueling)."""

    has_eye = staticmethod(is_image)  # which fields are read by an eye of their own

    def __init__(
        self,
        space: spaces.Dict,
        sizes: tuple[int, int],
        hidden: Sequence[int],
        convolutions: Callable[[Sequence[int]], Convolutions | Hybrid | TokenEye],
        *,
        dueling: bool,
        noise: float,
    ) -> None:
        """``sizes``: A and Z. ``hidden``: of the MLP, the last one of each stream. ``noise``: 0 for none."""
        super().__init__()
        seen = {key: part for key, part in space.spaces.items() if key != MASK}
        images = {key: part for key, part in seen.items() if self.has_eye(part)}
        numbers = {key: part for key, part in seen.items() if key not in images}
        if not seen:
            raise ValueError("policy: the state is empty: switch a perception on, or give the policy something to see")
        self.sees_images = bool(images)
        self.images, self._sizes = list(images), sizes
        self.convolutions = nn.ModuleList([convolutions(part.shape or ()) for part in images.values()])
        self.numbers = Numbers(numbers, hidden[:-1], F.relu) if numbers else None
        inputs = sum(int(part.features) for part in (*self.convolutions, *([self.numbers] if self.numbers else [])))
        actions, outputs = sizes
        ends = [actions * outputs, *([outputs] if dueling else [])]
        self.hidden = nn.ModuleList([linear(inputs, hidden[-1], noise) for _ in ends])
        self.out = nn.ModuleList([linear(hidden[-1], end, noise) for end in ends])

    def forward(self, state: Mapping[str, Tensor]) -> Tensor:
        """float32 (N, A, Z)."""
        parts = [encoder(state[key]) for key, encoder in zip(self.images, self.convolutions, strict=True)]
        if self.numbers is not None:
            parts.append(self.numbers(state))
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        x = x.to(next(self.hidden.parameters()).dtype)
        streams = [out(F.relu(hidden(x)).float()) for hidden, out in zip(self.hidden, self.out, strict=True)]
        actions, outputs = self._sizes
        advantage: Tensor = streams[0].reshape(-1, actions, outputs)
        if len(streams) == 1:
            return advantage
        value: Tensor = streams[1].unsqueeze(1)
        return value + advantage - advantage.mean(1, keepdim=True)

    def noisy(self) -> Iterator[NoisyLinear]:
        return (module for module in self.modules() if isinstance(module, NoisyLinear))

    def draw_noise(self, generator: torch.Generator, rows: int = 1) -> None:
        """One for all samples, or one for each of ``rows``: games that are played side by side then differ."""
        for layer in self.noisy():
            layer.draw_noise(generator, rows)

    def mix(self) -> None:
        """Take the noise, one draw for all samples, into the weights."""
        for layer in self.noisy():
            layer.mix()

    def silence(self) -> None:
        """Use the means alone."""
        for layer in self.noisy():
            layer.silence()

    def leaves(self) -> Leaves:
        """What a loss is differentiated by once noise is mixed in."""
        places: dict[Tensor, int] = {weight: place for place, weight in enumerate(self.parameters())}
        mixed = [mixed for layer in self.noisy() for mixed in layer.mixed]
        scaled = {places[one.sigma]: Scaled(places[one.mean], one.left, one.right) for one in mixed}
        instead = {one.mean: one.leaf for one in mixed}
        return Leaves([instead.get(w, w) for w, place in places.items() if place not in scaled], scaled)


@dataclass(frozen=True, slots=True)
class Leaves:
    """Of the weights in their order those that a loss depends on, or what stands for them; and how the rest follow."""

    tensors: list[Tensor]
    scaled: dict[int, Scaled]  # by place among the weights


def lowered(net: QNetwork, dtype: torch.dtype) -> QNetwork:
    """A copy that computes in ``dtype`` up to its outputs; the network itself when that is what it does."""
    if dtype == torch.float32 or not net.sees_images:
        return net
    copied = copy.deepcopy(net)
    for module in (copied.convolutions, copied.hidden):
        module.to(dtype)
    return copied


def linear(inputs: int, outputs: int, noise: float) -> nn.Module:
    """With torch's own initial weights, as the published agents have them."""
    return NoisyLinear(inputs, outputs, noise) if noise else nn.Linear(inputs, outputs)
