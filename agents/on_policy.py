"""What on-policy agents share: a network at work, and what it leaves for its own learning.

Shape key: T steps of B rows; N sequences to learn from: B of T steps with an LSTM, else T * B of one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from agentctl.agents.actor_critic import ActorCritic, Opinion, lowered
from agentctl.agents.blocks import Vision
from agentctl.agents.hybrid import heatmaps
from agentctl.agents.onnx import ROWS, GreedyActor, example, write_onnx
from agentctl.core.nn.arrays import to_array, to_arrays, to_tensor, to_tensors
from agentctl.core.nn.precision import Device, Precision, device_of, dtype_of, usable_cores
from agentctl.core.nn.shards import Shards, one_core
from agentctl.core.nn.snapshot import generator_array, load_generator, load_module, module_arrays
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision


class ActorConfig(BaseConfig):
    """How an on-policy agent sees, computes and plays."""

    hidden: tuple[PositiveInt, ...] = Field((64, 64), min_length=1, description="layers that read numbers")
    vision: Vision = Field("nature", description="what reads images: nature (DQN's), impala, iris, or with attention")
    width: float = Field(1.0, gt=0, description="multiplies the filters and features of the image network")
    lstm: int = Field(0, ge=0, description="size of the recurrent layer; 0: none")
    precision: Precision = Field("auto", description="of convolutions; auto: bf16 where the hardware has it")
    device: Device = Field("auto", description="auto: the GPU if there is one")
    threads: int | None = Field(None, gt=0, description="CPU cores to use; null: all for images, else one")
    evaluate: Literal["sample", "greedy"] = Field("sample", description="`act`: as trained, or the likeliest")


class Actor:
    """A network that acts and explores. ``fast`` is what computes: ``net`` itself, or its copy in another format."""

    def __init__(self, config: ActorConfig, setup: Setup) -> None:
        self._config, self._space = config, setup.space
        self.device = device_of(config.device)
        with one_core(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            self.net = ActorCritic(setup, config.hidden, config.vision, config.width, config.lstm).to(self.device)
        self.fast = lowered(self.net, dtype_of(config.precision, self.device))
        self.shards = Shards(self._threads())
        self.generator = torch.Generator().manual_seed(setup.seed)
        self._act_generator = torch.Generator().manual_seed(setup.seed + 1)  # evaluating does not disturb training

    @property
    def twins(self) -> list[Tensor]:
        """The parameters of the copy, if there is one: to be kept up to date."""
        return [] if self.fast is self.net else list(self.fast.parameters())

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copy up to date."""
        for twin, weight in zip(self.twins, self.net.parameters(), strict=False):
            twin.copy_(weight)

    def initial(self, batch: int) -> Carry:
        size = self._config.lstm
        return {key: np.zeros((batch, size), np.float32) for key in ("h", "c")} if size else {}

    @one_core()
    @torch.inference_mode()
    def act(self, carry: Carry, state: Arrays, first: Array, temperature: float = 1.0) -> Decision:
        """``temperature``: of samples."""
        opinion = self.opinion(carry, state, first)
        greedy = self._config.evaluate == "greedy"
        choice = opinion.policy.mode() if greedy else opinion.policy.sample(self._act_generator, temperature)
        return Decision(self.net.policy.action(to_array(choice)), to_arrays(opinion.carry))

    @one_core()
    @torch.inference_mode()
    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        """Extras: ``choice`` (B, n), before it became ``action``, ``log_prob`` and ``value`` (B,), the new carry."""
        opinion = self.opinion(carry, state, first)
        choice = opinion.policy.sample(self.generator)
        after = to_arrays(opinion.carry)
        judged = {"choice": choice, "log_prob": opinion.policy.log_prob(choice), "value": opinion.value}
        extras = {**to_arrays(judged), **after}
        return Decision(self.net.policy.action(extras["choice"]), after, extras)

    def opinion(self, carry: Carry, state: Arrays, first: Array) -> Opinion:
        """What the network makes of B states."""
        sequence = {key: to_tensor(array, self.device).unsqueeze(0) for key, array in state.items()}
        begins = to_tensor(first, self.device).unsqueeze(0)
        opinion: Opinion = self.fast(sequence, to_tensors(carry, self.device), begins)
        return opinion

    def samples(self, batch: Batch, gamma: float, lam: float) -> Samples:
        """The batch as sequences, with its advantages."""
        steps, rows = batch.reward.shape
        sequences = (steps, rows) if self._config.lstm else (1, steps * rows)

        def lay(array: Array) -> Tensor:
            return to_tensor(array, self.device).reshape(*sequences, *array.shape[2:])

        advantage = gae(batch, self._following_values(batch), gamma, lam)
        return Samples(
            state={key: lay(array) for key, array in batch.state.items()},
            carry=to_tensors(batch.carry, self.device),
            first=lay(batch.first),
            choice=lay(batch.extras["choice"]),
            log_prob=lay(batch.extras["log_prob"]),
            value=lay(batch.extras["value"]),
            advantage=lay(advantage),
            target=lay(advantage + batch.extras["value"]),
        )

    def arrays(self) -> dict[str, Array]:
        """All of it, for a snapshot."""
        generators = {"generator": self.generator, "act_generator": self._act_generator}
        saved = {name: generator_array(generator) for name, generator in generators.items()}
        return {**module_arrays(self.net, "net"), **saved}

    def load(self, arrays: Arrays) -> None:
        load_module(self.net, arrays, "net")
        load_generator(self.generator, arrays["generator"])
        load_generator(self._act_generator, arrays["act_generator"])

    def export_onnx(self, path: Path, about: Mapping[str, str]) -> None:
        """Inputs: state; with an LSTM ``h``, ``c``, ``first``. Outputs: ``action``, ``value`` (B,), the next carry."""
        inputs = example(self._space)
        if self._config.lstm:
            inputs |= {key: torch.zeros(ROWS, self._config.lstm) for key in ("h", "c")}
            inputs |= {"first": torch.ones(ROWS, dtype=torch.bool)}
        write_onnx(path, GreedyActor(self.net, list(inputs)), inputs, about)

    @one_core()
    def heatmaps(self, state: Arrays) -> dict[str, Array]:
        """Where a hybrid looks in each image of ``state``, float32 (B, H, W), 1 where it is most."""
        encoder = self.net.encoder
        return heatmaps(dict(zip(encoder.images, encoder.pixels, strict=True)), state)

    def _threads(self) -> int:
        if self.device.type != "cpu":
            return 1
        return self._config.threads or (usable_cores() if self.net.sees_images else 1)

    @torch.inference_mode()
    def _following_values(self, batch: Batch) -> Array:
        """The value of the state after each step, float32 (T, B); where an episode was cut, the one it stopped in."""
        rows = batch.reward.shape[1]
        after = {key: batch.extras[key] for key in batch.carry}  # the policy's carry after each step
        last = self.opinion({key: array[-1] for key, array in after.items()}, batch.next_state, np.zeros(rows, bool))
        following = np.concatenate([batch.extras["value"][1:], to_array(last.value)[None]])
        cut = batch.cut[tuple(batch.final_index.T)]
        t, b = batch.final_index[cut].T
        if len(t):
            final_state = {key: array[cut] for key, array in batch.final_state.items()}
            final = self.opinion(
                {key: array[t, b] for key, array in after.items()}, final_state, np.zeros(len(t), bool)
            )
            following[t, b] = to_array(final.value)
        return following


@dataclass(slots=True)
class Samples:
    """What was seen and done, as T steps of N sequences, each (T, N, ...)."""

    state: dict[str, Tensor]
    carry: dict[str, Tensor]  # before the first step, each (N, size)
    first: Tensor
    choice: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor

    @property
    def count(self) -> int:
        return self.first.shape[1]

    def take(self, index: Tensor) -> Samples:
        """Some of the sequences."""

        def some(tensor: Tensor) -> Tensor:
            return tensor.index_select(1, index)

        return Samples(
            state={key: some(tensor) for key, tensor in self.state.items()},
            carry={key: tensor.index_select(0, index) for key, tensor in self.carry.items()},
            first=some(self.first),
            choice=some(self.choice),
            log_prob=some(self.log_prob),
            value=some(self.value),
            advantage=some(self.advantage),
            target=some(self.target),
        )


def gae(batch: Batch, following: Array, gamma: float, lam: float) -> Array:
    """Generalised advantage estimates, float32 (T, B). ``following`` (T, B): the value of the state after each step.

    What ``ended`` has no future; what was ``cut`` has the one that ``following`` says, but no further steps.
    """
    delta = batch.reward + gamma * following * ~batch.ended - batch.extras["value"]
    carried = (gamma * lam * ~(batch.ended | batch.cut)).astype(np.float32)
    advantage = np.empty_like(delta)
    running = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = advantage[t] = delta[t] + carried[t] * running
    return advantage


def annealed(lr: float, steps: int, anneal_steps: int | None) -> float:
    """The learning rate after ``steps``: it falls linearly to 0 over ``anneal_steps``, or not at all."""
    return lr * (max(0.0, 1 - steps / anneal_steps) if anneal_steps else 1.0)


def explained_variance(value: Array, target: Array) -> float:
    """1: the critic foresaw the returns, 0: no better than their mean, below: worse. 0 when they do not vary."""
    spread = target.var()
    return float(1 - (target - value).var() / spread) if spread > 0 else 0.0
