"""Policies as ONNX files: what ``act`` does at its best (greedy, without noise), for programs without torch.

Inputs are the state's arrays by name, each (B, ...) with any B, and with an LSTM ``first`` (bool (B,)) and the carry
``h`` and ``c``. Outputs are ``action`` as the game takes it, ``value``, and the carry as ``h_after``, ``c_after``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from agentctl.agents.actor_critic import ActorCritic
from agentctl.agents.blocks import Choices, Continuous, Head, legal
from agentctl.agents.q_network import QNetwork
from agentctl.agents.value_distributions import Histogram, Mean, Quantiles

ROWS = 2  # of the example; 0 and 1 would be taken for the only sizes there are


class GreedyValues(nn.Module):
    """A Q-network that names the best legal action."""

    outputs = ("action", "value")

    def __init__(
        self, net: QNetwork, distribution: Mean | Histogram | Quantiles, space: spaces.Discrete, names: Sequence[str]
    ) -> None:
        super().__init__()
        self.net, self._distribution, self._start, self._names = net, distribution, int(space.start), names

    def forward(self, *state: Tensor) -> tuple[Tensor, Tensor]:
        seen = dict(zip(self._names, state, strict=True))
        values = legal(self._distribution.mean(self.net(seen)), seen)
        return values.argmax(1) + self._start, values


class GreedyActor(nn.Module):
    """An actor-critic that names its likeliest action."""

    def __init__(self, net: ActorCritic, names: Sequence[str]) -> None:
        super().__init__()
        self.net, self._names = net, names
        self.outputs = ("action", "value", *(("h_after", "c_after") if net.lstm else ()))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self._names, inputs, strict=True))
        carry = {key: named.pop(key) for key in ("h", "c") if self.net.lstm}
        first = named.pop("first").unsqueeze(0) if self.net.lstm else torch.empty(0)  # only an LSTM looks at it
        opinion = self.net({key: tensor.unsqueeze(0) for key, tensor in named.items()}, carry, first)
        return action_of(self.net.policy, opinion.policy.mode()), opinion.value, *opinion.carry.values()


def action_of(head: Head, choice: Tensor) -> Tensor:
    """``head.action`` in torch."""
    if isinstance(head, Continuous):
        bounds = (head.middle, head.reach, head.space.low, head.space.high)
        middle, reach, low, high = (torch.as_tensor(np.asarray(part, np.float32)) for part in bounds)
        return (middle + reach * choice).clamp(low, high)
    assert isinstance(head, Choices)
    action = choice + torch.as_tensor(head.start)
    return action[:, 0] if head.single else action


def write_onnx(
    path: Path, module: GreedyValues | GreedyActor, inputs: Mapping[str, Tensor], about: Mapping[str, str]
) -> None:
    """Write ``module``, whose inputs these are by name and in order, each (B, ...)."""
    sizes = tuple({0: torch.export.Dim("B")} for _ in inputs)
    with quiet():
        program = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, verbose=False, dynamic_shapes=(sizes,),
            input_names=list(inputs), output_names=list(module.outputs),
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says about itself and about torchvision, which no policy needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def example(space: spaces.Dict) -> dict[str, Tensor]:
    """Zeros of each array's shape and dtype, (ROWS, ...)."""
    return {
        key: torch.zeros((ROWS, *(part.shape or ())), dtype=torch.as_tensor(np.zeros((), part.dtype)).dtype)
        for key, part in space.spaces.items()
    }
