"""Deep Q-networks (Mnih et al. 2015, https://doi.org/10.1038/nature14236), up to Rainbow (Hessel et al. 2018,
https://arxiv.org/abs/1710.02298): each of its six parts is an option, and off by default but double Q-learning.

Act by the highest value, now and then at random; learn from a replay's samples towards reward + gamma * value of what
followed, by a slower copy of the network. Multi-step returns come with a replay whose ``length`` is n, priorities with
``prioritized``. Deviations:

- A sample that was cut within its n steps is bootstrapped from the state it was cut in, as one that ended is not.
- A priority is the sample's loss: with ``mean`` Huber's, with ``c51`` the cross-entropy, with ``quantile`` theirs.
- Images may be read in bfloat16 (``precision``), as in PPO; values, losses and the target's weights stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from agentctl.agents.blocks import MASK, Vision, eye_for, legal
from agentctl.agents.hybrid import heatmaps
from agentctl.agents.onnx import GreedyValues, example, write_onnx
from agentctl.agents.q_network import QNetwork, lowered
from agentctl.agents.value_distributions import Histogram, Mean, Quantiles
from agentctl.agents.vision import Convolutions
from agentctl.core.nn.adam import ShardedAdam
from agentctl.core.nn.arrays import to_array, to_tensor
from agentctl.core.nn.memory import keep_freed_memory
from agentctl.core.nn.precision import Device, Precision, device_of, dtype_of, usable_cores
from agentctl.core.nn.shards import Shards, one_core, slices
from agentctl.core.nn.snapshot import generator_array, load_generator, load_module, module_arrays
from agentctl.core.protocols import BaseConfig, Setup
from agentctl.core.types import Array, Arrays, Batch, Carry, Decision, Metrics, Snapshot


class LearningConfig(BaseConfig):
    """How values are learnt, whatever a state looks like."""

    lr: float = Field(1e-4, gt=0, description="Adam's learning rate")
    adam_eps: float = Field(1.5e-4, gt=0, description="Adam's epsilon")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of future reward")
    double: bool = Field(True, description="the network picks the next action, its slower copy values it")
    dueling: bool = Field(False, description="separate streams for the state's value and the actions' advantages")
    noisy: float = Field(0.0, ge=0, description="initial spread of noisy layers (Rainbow: 0.5); 0: none")
    distribution: Literal["mean", "c51", "quantile"] = Field("mean", description="what is learnt of the return")
    error_clip: float | None = Field(1.0, gt=0, description="mean: larger errors pull no harder; null: no limit")
    atoms: int = Field(51, ge=2, description="of c51's histogram, or quantiles")
    v_min: float = Field(-10.0, description="c51: the lowest return")
    v_max: float = Field(10.0, description="c51: the highest return")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="chance of a random action at first ...")
    epsilon_end: float = Field(0.01, ge=0, le=1, description="... and in the end")
    epsilon_steps: int = Field(250_000, gt=0, description="steps from the first to the last chance")
    epsilon_act: float = Field(0.001, ge=0, le=1, description="chance of a random action in evaluation and play")
    target_every: int = Field(8_000, ge=0, description="steps between two updates of the slower copy; 0: at each")
    tau: float = Field(1.0, gt=0, le=1, description="how far the slower copy then moves; below 1: soft updates")
    max_grad_norm: float = Field(10.0, gt=0, description="longer gradients are shortened to this")
    precision: Precision = Field("auto", description="of images' layers; auto: bf16 where the hardware has it")
    device: Device = Field("auto", description="auto: the GPU if there is one")
    threads: int | None = Field(None, gt=0, description="CPU cores to use; null: all for images, else one")

    @model_validator(mode="after")
    def _ordered(self) -> LearningConfig:
        if self.v_min >= self.v_max:
            raise ValueError(f"v_min {self.v_min:g} must be below v_max {self.v_max:g}")
        return self


class DQN:
    class Config(LearningConfig):
        hidden: tuple[PositiveInt, ...] = Field(
            (512,), min_length=1, description="layers; the last one is each stream's"
        )
        vision: Vision = Field(
            "nature", description="what reads images: nature (DQN's), impala, iris, or with attention"
        )
        width: float = Field(1.0, gt=0, description="multiplies the filters of the convolutions")

    def __init__(
        self, config: Config, setup: Setup, network: Callable[[tuple[int, int]], QNetwork] | None = None
    ) -> None:
        """``network`` makes another one than the config says, for so many actions and outputs of each."""
        if not isinstance(setup.action_space, spaces.Discrete):
            raise ValueError(f"dqn chooses one of n actions, not from {setup.action_space}; `ppo` can")
        self._config, self._seen, self._space = config, setup.space, setup.action_space
        self._device = device_of(config.device)
        self.distribution = returns_of(config).to(self._device)
        self._actions = int(setup.action_space.n)
        with one_core(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            sizes = self._actions, self.distribution.outputs
            self.net, self.target = ((network or self._network)(sizes).to(self._device) for _ in range(2))
        self.target.load_state_dict(self.net.state_dict())
        self.target.requires_grad_(False)
        dtype = dtype_of(config.precision, self._device)
        self._fast, self._fast_target = lowered(self.net, dtype), lowered(self.target, dtype)
        self._shards = Shards(self._threads())
        twins = [] if self._fast is self.net else list(self._fast.parameters())
        self._adam = ShardedAdam(list(self.net.parameters()), twins, self._shards, config.adam_eps)
        self._generator = torch.Generator().manual_seed(setup.seed)
        self._rng, self._act_rng = (np.random.default_rng((setup.seed, k)) for k in range(2))
        self.nbytes = 20 * sum(p.numel() for p in self.net.parameters())  # weights, target, gradients, two moments
        self._steps = self._followed = 0  # explored; those when the target last moved

    def initial(self, batch: int) -> Carry:
        return {}

    @one_core()
    @torch.inference_mode()
    def act(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        self._fast.silence()
        return self._choose(state, self._config.epsilon_act, self._act_rng)

    @one_core()
    @torch.inference_mode()
    def explore(self, carry: Carry, state: Arrays, first: Array) -> Decision:
        chance = self._epsilon()
        self._steps += len(first)
        self._fast.draw_noise(self._generator, len(first))
        return self._choose(state, chance, self._rng)

    @one_core()
    def learn(self, batch: Batch) -> Metrics:
        """Fills in ``batch.error``, float32 (B,): each sample's loss before it is weighted."""
        if self.net.sees_images:
            keep_freed_memory()
        samples = self._samples(batch)
        self._draw_noise()
        error = torch.empty(samples.count, device=self._device)

        def loss(part: slice) -> tuple[Tensor, Tensor]:
            taken = samples.take(part)
            outputs = self._fast(taken.state)
            chosen = outputs[torch.arange(taken.count, device=self._device), taken.action]
            losses = self.distribution.loss(chosen, taken.reward, taken.discount, self._after(taken))
            error[part] = losses.detach()
            figures = torch.stack([losses.sum(), self.distribution.mean(chosen).sum()]) / samples.count
            return (taken.weight * losses).sum() / samples.count, figures

        parts = slices(samples.count, self._shards.threads)
        leaves = self._fast.leaves()
        gradients, figures = self._shards.gradients(loss, parts, leaves.tensors)
        self._adam.step(gradients, self._config.lr, self._config.max_grad_norm, leaves.scaled)
        self._follow()
        batch.error = to_array(error)
        return {"loss": float(figures[0]), "value": float(figures[1]), "epsilon": self._epsilon()}

    def save(self) -> Snapshot:
        arrays = {
            **module_arrays(self.net, "net"),
            **module_arrays(self.target, "target"),
            **self._adam.arrays("adam"),
            "generator": generator_array(self._generator),
        }
        rngs = {"rng": self._rng.bit_generator.state, "act_rng": self._act_rng.bit_generator.state}
        return Snapshot(arrays, {"steps": self._steps, "followed": self._followed, **rngs})

    def load(self, snapshot: Snapshot) -> None:
        load_module(self.net, snapshot.arrays, "net")
        load_module(self.target, snapshot.arrays, "target")
        self._adam.load(snapshot.arrays, "adam")
        load_generator(self._generator, snapshot.arrays["generator"])
        self._rng.bit_generator.state = snapshot.data["rng"]
        self._act_rng.bit_generator.state = snapshot.data["act_rng"]
        self._steps, self._followed = int(snapshot.data["steps"]), int(snapshot.data["followed"])
        self._adam.refresh()
        copy_weights(self.target, self._fast_target)

    def export_onnx(self, path: Path, about: Mapping[str, str]) -> None:
        """Inputs: the state. Outputs: ``action`` (B,) without chance or noise, ``value`` (B, A)."""
        inputs = example(self._seen)
        self.net.silence()
        write_onnx(path, GreedyValues(self.net, self.distribution, self._space, list(inputs)), inputs, about)

    @one_core()
    def heatmaps(self, state: Arrays) -> dict[str, Array]:
        """As in PPO."""
        return heatmaps(dict(zip(self.net.images, self.net.convolutions, strict=True)), state)

    def _network(self, sizes: tuple[int, int]) -> QNetwork:
        config = self._config
        convolutions = partial(eye_for, vision=config.vision, width=config.width, plain=Convolutions)
        return QNetwork(self._seen, sizes, config.hidden, convolutions, dueling=config.dueling, noise=config.noisy)

    def _threads(self) -> int:
        if self._device.type != "cpu":
            return 1
        return self._config.threads or (usable_cores() if self.net.sees_images else 1)

    def _epsilon(self) -> float:
        """The chance of a random action while exploring; noise explores by itself."""
        config = self._config
        if config.noisy:
            return 0.0
        progress = min(1.0, self._steps / config.epsilon_steps)
        return config.epsilon_start + progress * (config.epsilon_end - config.epsilon_start)

    def _choose(self, state: Arrays, chance: float, rng: np.random.Generator) -> Decision:
        """The best legal action, or with this chance any legal one."""
        seen = {key: to_tensor(array, self._device) for key, array in state.items()}
        best = to_array(legal(self.distribution.mean(self._fast(seen)), seen).argmax(1))
        scores = rng.random((len(best), self._actions))
        scores = np.where(state[MASK] != 0, scores, -1.0) if MASK in state else scores
        choice = np.where(rng.random(len(best)) < chance, scores.argmax(1), best)
        return Decision((choice + self._space.start).astype(self._space.dtype))

    def _draw_noise(self) -> None:
        """One for all samples of an update, another one for the slower copy."""
        nets = (self._fast, self._fast_target)
        for net in nets:
            net.draw_noise(self._generator)
        self._shards.map(QNetwork.mix, nets)

    def _samples(self, batch: Batch) -> Samples:
        seen = n_step(batch, self._config.gamma)
        weight = np.ones_like(seen.reward) if batch.weight is None else batch.weight

        def tensors(arrays: Arrays) -> dict[str, Tensor]:
            return {key: to_tensor(array, self._device) for key, array in arrays.items()}

        return Samples(
            tensors({key: array[0] for key, array in batch.state.items()}),
            to_tensor(batch.action[0].astype(np.int64) - int(self._space.start), self._device),
            tensors(seen.state),
            to_tensor(seen.reward, self._device),
            to_tensor(seen.discount, self._device),
            to_tensor(weight, self._device),
        )

    @torch.no_grad()
    def _after(self, samples: Samples) -> Tensor:
        """What the slower copy says of the best next action, (N, Z)."""
        outputs = self._fast_target(samples.next_state)
        picks = self._fast(samples.next_state) if self._config.double else outputs
        best = legal(self.distribution.mean(picks), samples.next_state).argmax(1)
        chosen: Tensor = outputs[torch.arange(samples.count, device=self._device), best]
        return chosen

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the slower copy towards the network, when it is due."""
        if self._steps - self._followed < self._config.target_every:
            return
        self._followed = self._steps
        for slow, weight in zip(self.target.parameters(), self.net.parameters(), strict=True):
            slow.lerp_(weight, self._config.tau)
        copy_weights(self.target, self._fast_target)


@dataclass(slots=True)
class Samples:
    """N samples, as tensors."""

    state: dict[str, Tensor]
    action: Tensor  # int64 (N,), from 0
    next_state: dict[str, Tensor]
    reward: Tensor  # (N,): of all n steps, discounted
    discount: Tensor  # (N,): of the value of ``next_state``; 0 where the episode ended
    weight: Tensor  # (N,)

    @property
    def count(self) -> int:
        return len(self.action)

    def take(self, part: slice) -> Samples:
        def some(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
            return {key: tensor[part] for key, tensor in arrays.items()}

        rest = (self.reward[part], self.discount[part], self.weight[part])
        return Samples(some(self.state), self.action[part], some(self.next_state), *rest)


@dataclass(slots=True)
class Returns:
    """What n steps gave, and from where the rest is to be estimated."""

    reward: Array  # float32 (N,)
    discount: Array  # float32 (N,)
    state: dict[str, Array]


def n_step(batch: Batch, gamma: float) -> Returns:
    """Reward over the batch's T steps, or up to where an episode stopped; and the state after that."""
    stopped = batch.ended | batch.cut
    going = np.concatenate([np.ones_like(stopped[:1]), ~np.logical_or.accumulate(stopped)])  # before each step, after
    powers = (gamma ** np.arange(len(going))).astype(np.float32)
    reward = (batch.reward * going[:-1] * powers[:-1, None]).sum(0, dtype=np.float32)
    last = going[:-1].sum(0) - 1  # the last step that counts
    rows = np.arange(len(last))
    discount = powers[last + 1] * ~batch.ended[last, rows]
    state = {key: array.copy() for key, array in batch.next_state.items()}
    final = last[batch.final_index[:, 1]] == batch.final_index[:, 0]
    for key, array in batch.final_state.items():
        state[key][batch.final_index[final, 1]] = array[final]
    return Returns(reward, discount, state)


def copy_weights(source: QNetwork, target: QNetwork) -> None:
    """Into a network that computes in another format."""
    if source is not target:
        with torch.no_grad():
            for parameter, twin in zip(source.parameters(), target.parameters(), strict=True):
                twin.copy_(parameter)


def returns_of(config: LearningConfig) -> Mean | Histogram | Quantiles:
    if config.distribution == "c51":
        return Histogram(config.atoms, config.v_min, config.v_max)
    return Quantiles(config.atoms) if config.distribution == "quantile" else Mean(config.error_clip)
